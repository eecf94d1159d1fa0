"""A training that goes wrong: which step, which rows, and that nothing good is lost by looking for it."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from components.contracts.errors import TrainingDiverged
from components.contracts.files import read_json, read_manifest
from components.scoring.encoder import Encoder
from components.training import divergence
from components.training.checkpoint import Checkpoints
from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rates, Rows, load
from components.training.divergence import EXPLODED, Watch
from components.training.fit import fit
from components.training.sampler import Order
from components.training.train import build, run

CPU = torch.device("cpu")
BAD_STEP = 13


def watched(*losses: float) -> Watch:
    watch = Watch(CPU)
    for step, loss in enumerate(losses, 1):
        watch.see(step, torch.tensor(loss))
    return watch


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ((0.5, 0.4, math.nan, 0.3, math.inf), 3),
        ((0.5, math.inf), 2),
        ((0.5, -math.inf, math.nan), 3),
        ((math.nan, 0.5), 1),
        ((math.inf, 0.5), 1),
        ((0.5, 99.9, 100.1), 3),
        ((3.0, 299.0, 301.0, 302.0), 3),
    ],
)
def test_the_first_bad_step_is_remembered(losses: tuple[float, ...], step: int) -> None:
    bad = watched(*losses).bad()
    assert bad is not None
    assert bad.step == step
    assert bad.loss == pytest.approx(losses[step - 1], nan_ok=True)


def test_large_losses_of_a_training_that_goes_well_are_let_through() -> None:
    """ESCM2-IPS weighs a click by up to 1 / 0.02, so a batch may cost fifty times the usual."""
    assert 1 / CANDIDATES["escm2-ips"].propensity_floor < EXPLODED
    assert watched(0.5, 25.0, 0.4, 50.0).bad() is None


def test_what_was_seen_survives_a_checkpoint() -> None:
    watch, other = watched(0.5, math.nan), Watch(CPU)
    other.load_state_dict(watch.state_dict())
    other.see(3, torch.tensor(math.inf))
    bad = other.bad()
    assert bad is not None
    assert (bad.step, bad.limit) == (2, 100.0)


@pytest.fixture
def poisoned(encoded: Path) -> tuple[Encoder, Rows, Rows, Order, TrainingConfig]:
    """One row of the batch of step 13 has an infinite number in it."""
    encoder = Encoder.load(encoded)
    rows, valid = (load(encoded, split, encoder, CPU) for split in ("train", "valid"))
    config = TrainingConfig(batch_size=128, min_steps=1, hidden=(8,), shuffle_block=64, shuffle_window=512)
    order = Order(len(rows), 128, config.seed, 64, 512)
    dense = rows.dense.clone()
    dense[order.indices(0, BAD_STEP - 1)[5], 0] = math.inf
    return encoder, replace(rows, dense=dense), valid, order, config


def test_the_step_is_named_and_its_rows_are_kept(
    poisoned: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch is found again by the order, steps later: evaluations are at 12 and 16."""
    encoder, rows, valid, order, config = poisoned
    config = config.model_copy(update={"evaluations": 8})
    network = build(encoder, config, CANDIDATES["esmm"], Rates.of(rows))
    with pytest.raises(TrainingDiverged, match=r"esmm diverged: at step 13 its loss was nan nats .* in diverged\.npz"):
        fit(network, rows, valid, config, CANDIDATES["esmm"], "esmm", study=tmp_path / "study")
    said = capsys.readouterr().err
    assert f"esmm: the batch of step 13 is kept in {tmp_path / 'study' / 'diverged.npz'}" in said
    assert "step 12 of 32, validation" in said
    with np.load(tmp_path / "study" / "diverged.npz") as kept:
        assert sorted(kept) == ["click", "conversion", "dense", "ids", "rows", "step", "weights"]
        assert kept["step"] == BAD_STEP
        assert kept["rows"].tolist() == order.indices(0, BAD_STEP - 1).tolist()
        assert np.isinf(kept["dense"][5, 0])
        assert (kept["ids"] == rows.ids.numpy()[kept["rows"]]).all()
        assert (kept["click"] == rows.click.numpy()[kept["rows"]]).all()


def test_no_checkpoint_is_written_of_a_training_that_has_diverged(poisoned: Any, tmp_path: Path) -> None:
    encoder, rows, valid, _, config = poisoned
    network = build(encoder, config, CANDIDATES["esmm"], Rates.of(rows))
    kept = Checkpoints(tmp_path, "esmm", 7, 1e9)
    with pytest.raises(TrainingDiverged, match="at step 13"):
        fit(network, rows, valid, config.model_copy(update={"evaluations": 1}), CANDIDATES["esmm"], "esmm", kept)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000007"]


def test_an_evaluation_that_is_not_finite_ends_it_too(poisoned: Any, tmp_path: Path) -> None:
    encoder, rows, valid, _, config = poisoned
    broken = replace(valid, dense=torch.full_like(valid.dense, math.nan))
    network = build(encoder, config, CANDIDATES["esmm"], Rates.of(rows))
    says = r"valid_ctr_log_loss, valid_ctcvr_log_loss not finite after step 3 .*lower the learning rates"
    with pytest.raises(TrainingDiverged, match=says):
        fit(network, rows, broken, config, CANDIDATES["esmm"], "esmm", study=tmp_path)
    assert (tmp_path / "diverged.npz").is_file()


def test_a_candidate_that_explodes_is_ineligible_and_its_batch_is_in_the_artifact(
    encoded: Path, tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Streamed, with a home: the batch is read again, and no checkpoint is left behind."""
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(divergence, "EXPLODED", 1.01)
    config = make_config(lr=1.0, data="streamed", checkpoint_steps=1)
    facts = run("esmm", config, encoded, tmp_path / "model")
    assert not facts["eligible"]
    assert "nats (limit: 1." in facts["reason"]
    assert str(tmp_path) not in facts["reason"]
    assert read_json(tmp_path / "model" / "metrics.json")["reason"] == facts["reason"]
    assert "diverged.npz" in read_manifest(tmp_path / "model")["files"]
    with np.load(tmp_path / "model" / "diverged.npz") as kept:
        assert len(kept["rows"]) == len(kept["ids"]) == 128
        assert (kept["ids"] == np.load(encoded / "train" / "ids.npy")[kept["rows"]]).all()
    assert list((tmp_path / "home" / "checkpoints").iterdir()) == []
