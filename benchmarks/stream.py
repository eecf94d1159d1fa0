"""Training that streams its rows from disk: does ten times the rows take ten times the time, and no more memory?

The whole stage, with its evaluations, on ids with a popularity tail; validation is a tenth of the training rows. Beside
it, on the smaller set, the same with all rows resident. Each turn is a process of its own, so that peak memory is its
own; seconds are those of the stage, imports left out, by the clock and of the processor: where others are at work
too, the clock says little.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.figures import Figures, Ratios, figure, peak_mb, show
from components.contracts.files import write_manifest
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoder
from components.training.train import TrainConfig, TrainingConfig, run

FIELDS, DIMENSION, VALUES = 16, 16, 5000
"""Features, and how many values each has."""
ROWS = {"1m": 1_000_000, "10m": 10_000_000}
BATCH, EVALUATIONS, ROUNDS = 4096, 5, 3
PIECE = 500_000
"""Rows that are made at a time."""


def write_artifact(folder: Path, rows: int) -> None:
    """An encoded artifact as the encode stage leaves it: `rows` for training, a tenth as many for validation."""
    options = {"source": "context", "dtype": "int", "encoding": "id", "dimension": DIMENSION, "min_count": 1}
    spec = FeatureSpec(features=tuple(Feature.parse({"name": f"f{n}", **options}) for n in range(FIELDS)))
    encoder = Encoder.fit(spec, {f"f{n}": np.arange(VALUES) for n in range(FIELDS)})
    folder.mkdir()
    encoder.save(folder)
    rng = np.random.default_rng(rows)
    for split, count in (("train", rows), ("valid", rows // 10)):
        (folder / split).mkdir()
        shapes = {"ids": (count, FIELDS), "dense": (count, 0), "weights": (count, 0), "click": (count,),
                  "conversion": (count,)}  # fmt: skip
        for name in ("dense", "weights"):
            np.save(folder / split / f"{name}.npy", np.zeros(shapes[name], np.float32))
        files = {
            name: np.lib.format.open_memmap(
                folder / split / f"{name}.npy", "w+", np.int32 if name == "ids" else np.float32, shapes[name]
            )
            for name in ("ids", "click", "conversion")
        }
        for start in range(0, count, PIECE):
            part = slice(start, min(start + PIECE, count))
            for name, made in _rows(rng, part.stop - part.start, encoder.sizes[0]).items():
                files[name][part] = made
        for file in files.values():
            file.flush()
    write_manifest(
        folder, ranges={"kind": "hash", "train": ["0", "0.8"], "valid": ["0.8", "0.9"], "test": ["0.9", "1"]}
    )


def _rows(rng: np.random.Generator, count: int, size: int) -> dict[str, NDArray[np.generic]]:
    """Labels at the simulated shop's rates, clicks more likely for frequent values of the first field."""
    ids = (rng.random((count, FIELDS), dtype=np.float32) ** 2 * size).astype(np.int32)
    click = rng.random(count) < 0.18 - 0.12 * ids[:, 0] / size
    conversion = click & (rng.random(count) < 0.1)
    return {"ids": ids, "click": click.astype(np.float32), "conversion": conversion.astype(np.float32)}


def stream_figures(rows: dict[str, int], rounds: int) -> tuple[Figures, Ratios]:
    """Seconds and peak MB of a streamed training for each of `rows`, and of a resident one on the first."""
    turns = [(label, "streamed") for label in rows] + [(next(iter(rows)), "resident")]
    found: dict[tuple[str, str], list[dict[str, float]]] = {turn: [] for turn in turns}
    with tempfile.TemporaryDirectory() as scratch:
        for label, count in rows.items():
            write_artifact(Path(scratch) / label, count)
        for n in range(rounds):
            for label, data in turns:
                out = Path(scratch) / f"{label}-{data}-{n}"
                found[label, data].append(_in_a_process(data, Path(scratch) / label, out))
    figures: Figures = {}
    for (label, data), results in found.items():
        figures[f"{data}_{label}_s"] = figure([result["seconds"] for result in results])
        figures[f"{data}_{label}_cpu_s"] = figure([result["cpu_s"] for result in results])
        figures[f"{data}_{label}_rows_per_s"] = figure([result["rows_per_s"] for result in results])
        figures[f"{data}_{label}_peak_mb"] = figure([result["peak_mb"] for result in results])
    small, large = rows
    ratios = {
        f"stream_{large}_vs_{small}_time": _ratio(figures, f"streamed_{large}_s", f"streamed_{small}_s"),
        f"stream_{large}_vs_{small}_cpu": _ratio(figures, f"streamed_{large}_cpu_s", f"streamed_{small}_cpu_s"),
        f"stream_{large}_vs_{small}_memory": _ratio(figures, f"streamed_{large}_peak_mb", f"streamed_{small}_peak_mb"),
        f"stream_vs_resident_{small}": _ratio(
            figures, f"streamed_{small}_rows_per_s", f"resident_{small}_rows_per_s"
        ),
    }  # fmt: skip
    return figures, ratios


def _ratio(figures: Figures, above: str, below: str) -> float:
    return figures[above]["median"] / figures[below]["median"]


def main(as_json: bool) -> None:
    figures, ratios = stream_figures(ROWS, ROUNDS)
    title = (
        f"the train stage, streamed: {FIELDS} fields x {DIMENSION}, batch {BATCH}, {EVALUATIONS} evaluations on a "
        f"tenth of the rows, 1 thread, {ROUNDS} rounds"
    )
    show(title, figures, ratios, as_json)


def _in_a_process(data: str, encoded: Path, model: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.stream", data, str(encoded), str(model)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def _train(data: str, encoded: str, model: str) -> None:
    training = TrainingConfig.parse(
        {"data": data, "batch_size": BATCH, "evaluations": EVALUATIONS, "patience": EVALUATIONS, "min_steps": 1}
    )
    config = TrainConfig(training=training, dataset="bench", as_of="2026-01-01T00:00:00Z", data_fingerprint="")
    began = time.process_time()
    facts = run("esmm", config, Path(encoded), Path(model))
    cpu = time.process_time() - began
    if facts["data"] != data or not facts["eligible"]:
        raise SystemExit(f"not what was to be measured: {facts}")
    found = {"seconds": facts["seconds"], "cpu_s": cpu, "rows_per_s": facts["rows_per_second"], "peak_mb": peak_mb()}
    print(json.dumps(found))


if __name__ == "__main__":
    _train(*sys.argv[1:])
