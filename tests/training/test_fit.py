"""The loop: what it keeps, when it stops, what it refuses."""

from pathlib import Path
from typing import Any

import pytest
import torch

from components.contracts.errors import TrainingDiverged
from components.scoring.encoder import Encoder
from components.training import fit as module
from components.training.config import CANDIDATES, TrainingConfig
from components.training.data import Rates, Rows, load
from components.training.fit import evaluate, fit
from components.training.model import FunnelNetwork
from components.training.step import Step
from components.training.train import build

CPU = torch.device("cpu")


@pytest.fixture
def splits(encoded: Path) -> tuple[Encoder, Rows, Rows]:
    encoder = Encoder.load(encoded)
    return encoder, load(encoded, "train", encoder, CPU), load(encoded, "valid", encoder, CPU)


def train(splits: tuple[Encoder, Rows, Rows], **options: Any) -> tuple[FunnelNetwork, module.Fitted]:
    encoder, rows, valid = splits
    config = TrainingConfig(**{"batch_size": 128, "min_steps": 1, "hidden": (8,), **options})
    network = build(encoder, config, CANDIDATES["esmm"], Rates.of(rows))
    return network, fit(network, rows, valid, config, CANDIDATES["esmm"], "esmm")


def test_one_pass_is_evaluated_inside_and_learns(splits: Any) -> None:
    network, fitted = train(splits)
    assert fitted.steps == 32
    assert fitted.rows == 4000
    assert [point["step"] for point in fitted.history][-1] == 32
    assert len(fitted.history) == 10
    losses = [point["valid_ctcvr_log_loss"] for point in fitted.history]
    assert min(losses) < losses[0] - 0.01
    step = Step(network, CANDIDATES["esmm"], TrainingConfig())
    assert evaluate(step, splits[2])["valid_ctcvr_log_loss"] == min(losses)


def test_early_stopping_keeps_the_best_weights(splits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validation gets worse from the fourth evaluation on: two more, and the weights of the third are kept."""
    seen: list[torch.Tensor] = []
    real = module.evaluate

    def worsening(step: Step, valid: Rows, *processes: Any) -> dict[str, float]:
        seen.append(step.network.ctr_tower.last.weight.detach().clone())
        n = len(seen)
        return real(step, valid) | {"valid_ctcvr_log_loss": 1.0 - 0.1 * n if n <= 3 else 1.0 + n}

    monkeypatch.setattr(module, "evaluate", worsening)
    network, fitted = train(splits, patience=2)
    assert fitted.stopped_early
    assert len(seen) == 5
    assert fitted.best_step == fitted.history[2]["step"]
    assert torch.equal(network.ctr_tower.last.weight, seen[2])
    assert not torch.equal(seen[2], seen[4])


def test_more_passes_and_fewer_steps(splits: Any) -> None:
    assert train(splits, epochs=2, patience=99)[1].steps == 64
    _, fitted = train(splits, epochs=2, max_steps=33)
    assert fitted.steps == 33
    assert fitted.history[-1]["step"] == 33
    assert train(splits, max_steps=1)[1].steps == 1


def test_divergence_says_where_and_what_to_do(splits: Any) -> None:
    with pytest.raises(TrainingDiverged, match=r"esmm diverged: at step \d+ its loss was .* lower the learning rates"):
        train(splits, lr=1e30)


def test_the_callers_random_state_is_left_alone(splits: Any) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(1)
    torch.manual_seed(1)
    train(splits, max_steps=2)
    assert torch.equal(torch.rand(1), wanted)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_gpu_learns_as_a_cpu_does(encoded: Path, precision: str) -> None:
    encoder = Encoder.load(encoded)
    rows, valid = (load(encoded, split, encoder, torch.device("cuda")) for split in ("train", "valid"))
    config = TrainingConfig(batch_size=128, hidden=(8,), precision=precision)
    network = build(encoder, config, CANDIDATES["esmm"], Rates.of(rows)).cuda()
    on_gpu = fit(network, rows, valid, config, CANDIDATES["esmm"], "esmm")
    on_cpu = train((encoder, load(encoded, "train", encoder, CPU), load(encoded, "valid", encoder, CPU)))[1]
    found, wanted = (f.history[-1]["valid_ctcvr_log_loss"] for f in (on_gpu, on_cpu))
    assert found == pytest.approx(wanted, rel=0.02 if precision == "bf16" else 1e-3)


@pytest.mark.parametrize(("rows", "batch"), [(331_000, 1024), (153_600, 1024), (153_599, 512), (28_000, 128), (10, 32)])
def test_a_small_set_is_cut_into_smaller_batches(rows: int, batch: int) -> None:
    assert TrainingConfig().batch_for(rows) == batch
    assert TrainingConfig(batch_size=16).batch_for(rows) == 16
