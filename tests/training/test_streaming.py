"""Rows read from files as they are trained on: those of a resident set, refused where they must be, flat in memory."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

from components.contracts.errors import DataError
from components.contracts.files import read_json, write_manifest
from components.scoring.encoder import Encoder
from components.training import streaming
from components.training.arrays import Arrays, Column
from components.training.config import TrainingConfig
from components.training.data import Rates, Rows, Split, batches, labels_only, load
from components.training.sampler import Order, Span
from components.training.streaming import Streamed, ahead, budget, free_memory, open_splits
from components.training.train import run

ROOT = Path(__file__).parents[2]
CPU = torch.device("cpu")


@pytest.fixture(params=["train", "valid"])
def both(encoded: Path, request: pytest.FixtureRequest) -> tuple[Rows, Streamed]:
    encoder = Encoder.load(encoded)
    split = request.param
    return load(encoded, split, encoder, CPU), Streamed(Arrays.of(encoded / split, encoder), CPU)


def same(a: Rows, b: Rows) -> bool:
    return all(
        torch.equal(x, y) and x.dtype == y.dtype for x, y in zip(vars(a).values(), vars(b).values(), strict=True)
    )


def test_streamed_batches_are_the_resident_ones(both: tuple[Rows, Streamed]) -> None:
    order = Order(len(both[0]), 300, 3, 64, 512)
    a, b = (list(batches(split, order, 5, 30)) for split in both)
    assert len(a) == len(b) == 25
    assert all(same(x, y) for x, y in zip(a, b, strict=True))


def test_streamed_splits_answer_as_resident_ones(both: tuple[Rows, Streamed], monkeypatch: pytest.MonkeyPatch) -> None:
    resident, streamed = both
    assert len(streamed) == len(resident) == 4000
    assert Rates.of(streamed) == Rates.of(resident)
    assert same(labels_only(streamed), labels_only(resident))
    some = torch.tensor([3999, 0, 17, 17])
    assert same(streamed.take(some), resident.take(some))
    for rows in (slice(10, 30), slice(5, 100, 7), slice(3990, 5000)):
        assert same(streamed.take(rows), resident.take(rows))
    monkeypatch.setattr("components.training.data.CHUNK", 700)
    a, b = (list(split.chunks()) for split in (resident, streamed))
    assert [len(part) for part in b] == [700] * 5 + [500]
    assert all(same(x, y) for x, y in zip(a, b, strict=True))


def test_streamed_training_makes_the_same_model_byte_for_byte(encoded: Path, tmp_path: Path, make_config: Any) -> None:
    """Where the windows are many, over two passes, with a loss that draws."""
    settings = {"epochs": 2, "patience": 99, "shuffle_block": 64, "shuffle_window": 512}
    for data in ("resident", "streamed"):
        facts = run("unbias", make_config(data=data, **settings), encoded, tmp_path / data)
        assert facts["data"] == data
        assert facts["steps"] == 64
    for name in ("weights.safetensors", "metrics.json", "model.onnx", "manifest.json"):
        assert (tmp_path / "resident" / name).read_bytes() == (tmp_path / "streamed" / name).read_bytes(), name


def test_auto_streams_what_does_not_fit(encoded: Path) -> None:
    encoder = Encoder.load(encoded)
    needs = sum(Arrays.of(encoded / split, encoder).bytes_in_memory for split in ("train", "valid"))
    # Four int64 ids, a number and its flag, two labels.
    assert needs == 8000 * (4 * 8 + 2 * 4 + 2 * 4)

    def kinds(**options: Any) -> set[type]:
        return {type(split) for split in open_splits(encoded, encoder, CPU, TrainingConfig(**options))}

    assert kinds(data_bytes=needs) == kinds() == kinds(data="resident", data_bytes=0) == {Rows}
    assert kinds(data_bytes=needs - 1) == kinds(data="streamed") == {Streamed}


def test_the_budget_is_a_share_of_what_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    available = psutil.virtual_memory().available
    assert budget(TrainingConfig(), CPU) == pytest.approx(available / 4, rel=0.3)
    monkeypatch.setattr(streaming, "free_memory", lambda: 1000)
    assert budget(TrainingConfig(), CPU) == 250
    assert budget(TrainingConfig(data_bytes=7), CPU) == 7
    for limit, free in (("max", available), ("5000000", 5_000_000 - 3_000_000 + 1_000_000)):
        (tmp_path / "memory.max").write_text(f"{limit}\n")
        (tmp_path / "memory.current").write_text("3000000\n")
        (tmp_path / "memory.stat").write_text("anon 17\ninactive_file 1000000\nactive_file 3\n")
        assert free_memory(tmp_path) == pytest.approx(free, rel=0.3 if limit == "max" else 0)
    assert free_memory(tmp_path / "none") == pytest.approx(available, rel=0.3)


@pytest.fixture
def own(make_encoded: Any, tmp_path: Path) -> Path:
    """An encoded artifact to spoil."""
    folder: Path = make_encoded(tmp_path / "encoded", rows=600)
    return folder


def opened(encoded: Path, data: str) -> tuple[Split, Split]:
    return open_splits(encoded, Encoder.load(encoded), CPU, TrainingConfig(data=data))


@pytest.mark.parametrize("data", ["resident", "streamed"])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            r"ids\.npy holds 19,199 bytes .* promises 19,200: it was",
        ),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), r"ids\.npy holds 72 bytes"),
        (lambda path: path.write_bytes(b"\x93NUM"), r"ids\.npy is no \.npy file"),
        (lambda path: path.unlink(), r"ids\.npy does not exist"),
        (lambda path: np.save(path, np.load(path)[:, :3]), r"ids\.npy does not fit the encoder"),
        (lambda path: np.save(path, np.asfortranarray(np.load(path))), r"ids\.npy does not hold rows"),
        (lambda path: np.save(path, np.load(path)[:599]), r"ids\.npy does not fit"),
    ],
)
def test_files_that_are_not_what_they_should_be_are_named(own: Path, data: str, spoil: Any, says: str) -> None:
    spoil(own / "valid" / "ids.npy")
    with pytest.raises(DataError, match=says) as error:
        opened(own, data)
    assert "run the encode stage again" in str(error.value)
    assert str(own / "valid") in str(error.value)


@pytest.mark.parametrize("data", ["resident", "streamed"])
def test_an_empty_split_is_refused(own: Path, data: str) -> None:
    for path in (own / "train").iterdir():
        np.save(path, np.load(path)[:0])
    with pytest.raises(DataError, match=r"train has no rows"):
        opened(own, data)


def test_ids_outside_the_vocabulary_are_refused_when_they_are_read(own: Path, make_config: Any, tmp_path: Path) -> None:
    path = own / "train" / "ids.npy"
    ids = np.load(path)
    ids[450, 1] = 10_000
    np.save(path, ids)
    write_manifest(own, ranges=read_json(own / "manifest.json")["ranges"])
    train, _ = opened(own, "streamed")
    assert len(train.take(slice(0, 450))) == 450
    with pytest.raises(DataError, match=r"train: ids\.npy does not fit the encoder"):
        train.take(slice(400, 500))
    config = make_config(data="streamed", batch_size=32, shuffle_block=16, shuffle_window=64)
    with pytest.raises(DataError, match=r"train: ids\.npy does not fit the encoder"):
        run("esmm", config, own, tmp_path / "model")


def test_a_file_that_is_cut_off_while_it_is_read_is_named(own: Path) -> None:
    train, _ = opened(own, "streamed")
    with (own / "train" / "click.npy").open("rb+") as file:
        file.truncate(300)
    with pytest.raises(DataError, match=r"click\.npy ends before row 600"):
        train.take(slice(0, 600))


def test_spans_are_read_at_their_places(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.int32).reshape(20, 3)
    np.save(tmp_path / "x.npy", array)
    column = Column.of(tmp_path / "x.npy")
    out = np.empty((6, 3), np.int32)
    column.read([Span(2, 4), Span(19, 20), Span(0, 3)], out)
    assert out.tolist() == array[[2, 3, 19, 0, 1, 2]].tolist()


def test_the_next_is_made_while_the_current_one_is_looked_at() -> None:
    made: list[int] = []

    def work(n: int) -> int:
        made.append(n)
        if n == 4:
            raise DataError("four")
        return n

    parts = ahead(range(9), work)
    assert next(parts) == 0
    assert next(parts) == 1
    parts.close()
    assert made[:2] == [0, 1]
    assert len(made) <= 3
    found: list[int] = []

    def collect() -> Iterator[int]:
        for n in ahead(range(9), work):
            found.append(n)
            yield n

    with pytest.raises(DataError, match="four"):
        list(collect())
    assert found == [0, 1, 2, 3]
    assert list(ahead([], work)) == []


PEAK = """
import sys
from pathlib import Path
import torch
from components.scoring.encoder import Encoder
from components.training.config import TrainingConfig
from components.training.data import Rates, batches
from components.training.sampler import Order
from components.training.streaming import open_splits
encoded, data = Path(sys.argv[1]), sys.argv[2]
torch.set_num_threads(1)
train, valid = open_splits(encoded, Encoder.load(encoded), torch.device("cpu"), TrainingConfig(data=data))
Rates.of(train)
order = Order(len(train), 4096, 0, 1024, 65_536)
assert sum(len(batch) for batch in batches(train, order, 0, order.batches)) == len(train)
assert sum(len(part) for part in valid.chunks()) == len(valid)
line = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
print(line.split()[1])
"""


def widened(encoded: Path, folder: Path, times: int) -> Path:
    """The artifact with its rows repeated: more rows, the same vocabularies."""
    folder.mkdir()
    for name in ("encoder.json", "encoder.npz"):
        (folder / name).write_bytes((encoded / name).read_bytes())
    for split in ("train", "valid"):
        (folder / split).mkdir()
        for path in (encoded / split).iterdir():
            array = np.load(path)
            np.save(folder / split / path.name, np.tile(array, (times, *[1] * (array.ndim - 1))))
    write_manifest(folder, ranges=read_json(encoded / "manifest.json")["ranges"])
    return folder


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from Linux's /proc")
def test_peak_memory_does_not_grow_with_the_rows(encoded: Path, tmp_path: Path) -> None:
    """Two splits of 400,000 rows of 48 bytes, then of 1,600,000: 115 MB more. A window is 3 MB; the allocator keeps
    some freed ones, up to about 20 MB from 800,000 rows on."""
    peaks = {}
    for times, data in ((100, "streamed"), (400, "streamed"), (400, "resident")):
        folder = tmp_path / f"encoded-{times}"
        if not folder.exists():
            widened(encoded, folder, times)
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(folder), data],
            env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        peaks[times, data] = int(done.stdout) * 1024 / 1e6
    assert peaks[400, "streamed"] - peaks[100, "streamed"] < 30
    assert peaks[400, "resident"] - peaks[400, "streamed"] > 100


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_come_to_a_gpu_through_pinned_memory(encoded: Path) -> None:
    device = torch.device("cuda")
    encoder = Encoder.load(encoded)
    resident = load(encoded, "train", encoder, device)
    streamed = Streamed(Arrays.of(encoded / "train", encoder), device)
    order = Order(len(resident), 300, 3, 64, 512)
    assert streamed._read([Span(0, 10)]).ids.is_pinned()
    for a, b in zip(batches(resident, order, 0, 30), batches(streamed, order, 0, 30), strict=True):
        assert b.device.type == "cuda"
        assert same(a, b)
    assert all(same(a, b) for a, b in zip(resident.chunks(), streamed.chunks(), strict=True))
