"""What a checkpoint holds, when one is written, which one is used, and what happens where none can be."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from training.kills import ended, start

from components.contracts.errors import Busy
from components.contracts.files import listing, write_json
from components.scoring.encoder import Encoder
from components.training import checkpoint as module
from components.training.checkpoint import Checkpoints, checkpoints, key_of
from components.training.config import CANDIDATES, INDIFFERENT, TrainConfig, TrainingConfig
from components.training.data import Rates, load
from components.training.fit import Fitted, fit
from components.training.model import FunnelNetwork
from components.training.step import Step
from components.training.train import build, run

CPU = torch.device("cpu")
WEIGHTS = "weights.safetensors"


class Interrupted(Exception):
    pass


def trained(
    encoded: Path, candidate: str, kept: Checkpoints | None = None, **options: Any
) -> tuple[FunnelNetwork, Fitted]:
    encoder = Encoder.load(encoded)
    rows, valid = (load(encoded, split, encoder, CPU) for split in ("train", "valid"))
    config = TrainingConfig(**{"batch_size": 128, "min_steps": 1, "hidden": (8,), "max_steps": 24, **options})
    network = build(encoder, config, CANDIDATES[candidate], Rates.of(rows))
    return network, fit(network, rows, valid, config, CANDIDATES[candidate], candidate, kept)


@pytest.mark.parametrize("candidate", CANDIDATES)
def test_every_candidate_goes_on_as_if_it_had_never_stopped(
    candidate: str, encoded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Between two evaluations, so that sums, counts and draws are in the middle of something."""
    network, fitted = trained(encoded, candidate)
    kept = Checkpoints(tmp_path, candidate, 11, 1e9)
    real = Step.__call__

    def stopping(step: Step, batch: Any) -> torch.Tensor:
        if step.count == 14:
            raise Interrupted
        return real(step, batch)

    with monkeypatch.context() as patch:
        patch.setattr(Step, "__call__", stopping)
        with pytest.raises(Interrupted):
            trained(encoded, candidate, kept)
    resumed, again = trained(encoded, candidate, kept)
    assert "resumed after step 11 of 24" in capsys.readouterr().err
    assert again.resumed_at == 11
    assert (again.history, again.best_step, again.steps, again.rows) == (
        fitted.history, fitted.best_step, fitted.steps, fitted.rows,
    )  # fmt: skip
    for (name, wanted), found in zip(network.named_parameters(), resumed.parameters(), strict=True):
        assert torch.equal(wanted, found), name


def test_a_training_that_stopped_early_is_resumed_to_the_same_end(encoded: Path, tmp_path: Path) -> None:
    """The checkpoint lies between the best evaluation and the one that ends it: best weights and patience are in it."""
    options = {"epochs": 9, "patience": 3, "lr": 0.05, "embedding_lr": 0.5, "max_steps": None}
    network, fitted = trained(encoded, "esmm", **options)
    assert fitted.stopped_early
    assert fitted.best_step < fitted.steps - 1
    kept = Checkpoints(tmp_path, "esmm", fitted.steps - 1, 1e9)
    trained(encoded, "esmm", kept, **options)
    resumed, again = trained(encoded, "esmm", kept, **options)
    assert again.resumed_at == fitted.steps - 1
    assert (again.history, again.best_step, again.stopped_early) == (fitted.history, fitted.best_step, True)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), resumed.parameters(), strict=True))


def save(kept: Checkpoints, step: int) -> None:
    kept.save(step, {"network.x": torch.full((3,), float(step)), "step.count": torch.tensor(step)}, {"best_loss": 0.1})


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_two_are_kept_and_come_back_as_they_were(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "below", "esmm", None, 60)
    assert kept.latest() is None
    for step in (7, 30, 1000):
        save(kept, step)
    assert names(tmp_path / "below") == ["step-0000000030", "step-0000001000"]
    saved = kept.latest()
    assert saved is not None
    assert saved.progress == {"best_loss": 0.1}
    assert saved.tensors["network.x"].tolist() == [1000.0] * 3
    assert saved.tensors["step.count"].item() == 1000
    assert saved.tensors["step.count"].shape == ()
    assert listing(saved.folder) == ["progress.json", "state.safetensors"]
    kept.clear()
    assert not (tmp_path / "below").exists()


def test_they_are_due_by_steps_or_by_the_clock_and_take_little_of_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    kept = Checkpoints(tmp_path, "esmm", 5, 60)
    assert [step for step in range(1, 16) if kept.due(step)] == [5, 10, 15]
    kept = Checkpoints(tmp_path, "esmm", None, 60)
    now[0] += 59.9
    assert not kept.due(5)
    now[0] += 0.1
    assert kept.due(5)
    real = module.write_manifest
    # Writing takes 10 s, so that the next one is due 200 s later.
    monkeypatch.setattr(module, "write_manifest", lambda *a, **o: now.__setitem__(0, now[0] + 10) or real(*a, **o))
    save(kept, 5)
    now[0] += 199.9
    assert not kept.due(6)
    now[0] += 0.2
    assert kept.due(6)


def spoil_tensor(folder: Path) -> None:
    data = bytearray((folder / "state.safetensors").read_bytes())
    data[-1] ^= 1
    (folder / "state.safetensors").write_bytes(data)


@pytest.mark.parametrize(
    "spoil",
    [
        spoil_tensor,
        lambda folder: (folder / "state.safetensors").write_bytes(b""),
        lambda folder: (folder / "progress.json").unlink(),
        lambda folder: write_json(folder / "progress.json", {"best_loss": 0.2}),
        lambda folder: (folder / "manifest.json").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
    ],
)
def test_a_damaged_one_is_said_and_the_one_before_is_used(
    spoil: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = Checkpoints(tmp_path, "esmm", None, 60)
    for step in (1, 2):
        save(kept, step)
    spoil(tmp_path / "step-0000000002")
    saved = kept.latest()
    assert saved is not None
    assert saved.folder.name == "step-0000000001"
    said = capsys.readouterr().err
    assert said.startswith("esmm: checkpoint step-0000000002 is damaged (")
    assert said.count("\n") == 1
    assert names(tmp_path) == ["step-0000000001"]
    save(kept, 2)
    spoil(tmp_path / "step-0000000001")
    spoil(tmp_path / "step-0000000002")
    assert kept.latest() is None


def test_a_training_whose_newest_checkpoint_is_damaged_ends_with_the_same_weights(
    encoded: Path, tmp_path: Path, make_config: Any
) -> None:
    config = make_config(checkpoint_steps=5)
    run("esmm", config, encoded, tmp_path / "undisturbed")
    home, died = tmp_path / "home", ("training.step:Step.__call__", 12)
    assert ended(start("esmm", config.to_json(), encoded, tmp_path / "killed", home, died)) == -9
    (folder,) = (home / "checkpoints").iterdir()
    assert names(folder) == ["lock", "step-0000000005", "step-0000000010"]
    spoil_tensor(folder / "step-0000000010")
    (folder / ".step-0000000015.x").mkdir()
    assert ended(start("esmm", config.to_json(), encoded, tmp_path / "again", home)) == 0
    said = (tmp_path / "again.txt").read_text()
    assert "checkpoint step-0000000010 is damaged" in said
    assert "resumed after step 5 of 32" in said
    assert (tmp_path / "again" / WEIGHTS).read_bytes() == (tmp_path / "undisturbed" / WEIGHTS).read_bytes()


def test_every_setting_is_in_the_key_but_those_that_cannot_change_the_result(make_config: Any) -> None:
    config = make_config()
    assert set(config.training.determines_result()) == set(TrainingConfig.model_fields) - set(INDIFFERENT)
    key = key_of("esmm", config, "e", "cpu")
    for same in ({"data": "streamed"}, {"data_bytes": 1}, {"device": "cpu"}, {"checkpoint_seconds": 1.0},
                 {"checkpoint_steps": 2}):  # fmt: skip
        assert key_of("esmm", make_config(**same), "e", "cpu") == key
    for other in ({"lr": 1e-4}, {"seed": 1}, {"max_steps": 9}, {"threads": 2}, {"shuffle_window": 64}):
        assert key_of("esmm", make_config(**other), "e", "cpu") != key


def test_data_code_device_and_candidate_are_in_the_key_and_other_candidates_are_not(make_config: Any) -> None:
    config = make_config()
    shapes = {**CANDIDATES, "esmm": CANDIDATES["dcmt"]}
    keys = [
        key_of("esmm", config, "e", "cpu"),
        key_of("esmm", config, "f", "cpu"),
        key_of("esmm", config, "e", "cuda"),
        key_of("esmm-ns", config, "e", "cpu"),
        key_of("esmm", TrainConfig(**{**dict(config), "code": "d"}), "e", "cpu"),
        key_of("esmm", make_config(candidates=shapes), "e", "cpu"),
    ]
    assert len(set(keys)) == len(keys)
    fewer = make_config(candidates={"esmm": CANDIDATES["esmm"]})
    assert key_of("esmm", fewer, "e", "cpu") == keys[0]


def test_without_a_home_nothing_is_kept_and_with_one_a_key_is_held_once(
    tmp_path: Path, make_config: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config()
    with checkpoints("esmm", config, "e", "cpu") as none:
        assert none is None
    monkeypatch.setenv("ESMM_HOME", str(tmp_path))
    with checkpoints("esmm", config, "e", "cpu") as kept:
        assert kept is not None
        with pytest.raises(Busy, match="training of esmm"), checkpoints("esmm", config, "e", "cpu"):
            pass
        with checkpoints("esmm", config, "f", "cpu"):
            pass
        save(kept, 3)
    with checkpoints("esmm", config, "e", "cpu") as kept:
        assert kept is not None
        assert kept.latest() is not None
        kept.clear()
        # The folder is gone while it is held: another may begin, and is not in the way.
        with checkpoints("esmm", config, "e", "cpu") as other:
            assert other is not None
            assert other.latest() is None


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 192 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=192k", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True).returncode != 0:
        pytest.skip("mounting a file system takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_is_said_and_the_last_good_one_kept(
    small_disk: Path, encoded: Path, tmp_path: Path, make_config: Any
) -> None:
    """The training goes on; killed afterwards, it is resumed from the checkpoint that was written before."""
    config = make_config(checkpoint_steps=5)
    run("esmm", config, encoded, tmp_path / "undisturbed")
    died = ("training.step:Step.__call__", 7)
    assert ended(start("esmm", config.to_json(), encoded, tmp_path / "killed", small_disk, died)) == -9
    (folder,) = (small_disk / "checkpoints").iterdir()
    assert names(folder) == ["lock", "step-0000000005"]
    free = os.statvfs(small_disk)
    (small_disk / "filler").write_bytes(bytes(free.f_bavail * free.f_bsize - 12_288))
    died = ("training.step:Step.__call__", 22)
    assert ended(start("esmm", config.to_json(), encoded, tmp_path / "full", small_disk, died)) == -9
    said = (tmp_path / "full.txt").read_text()
    for step in (10, 15, 20, 25):
        assert f"esmm: no checkpoint at step {step}: " in said
    assert said.count("No space left on device") == 4
    assert said.count("Kept: step-0000000005. Training goes on; make room in ") == 4
    assert names(folder) == ["lock", "step-0000000005"]
    assert ended(start("esmm", config.to_json(), encoded, tmp_path / "last", small_disk)) == 0
    assert "resumed after step 5" in (tmp_path / "last.txt").read_text()
    assert (tmp_path / "last" / WEIGHTS).read_bytes() == (tmp_path / "undisturbed" / WEIGHTS).read_bytes()


def test_of_two_the_older_one_makes_room(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three do not fit the disk, so one try fails, and the next one has room."""
    kept = Checkpoints(small_disk / "below", "esmm", None, 60)
    for step in (1, 2, 3, 4):
        kept.save(step, {"x": torch.zeros(17_000)}, {})
        if step == 3:
            assert names(small_disk / "below") == ["step-0000000002"]
            assert "esmm: no checkpoint at step 3: " in capsys.readouterr().err
    assert names(small_disk / "below") == ["step-0000000002", "step-0000000004"]
    assert capsys.readouterr().err == ""
