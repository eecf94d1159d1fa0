"""The encode stage: the encoder, fitted once on the training split, and what it makes of train and validation.

The test split stays raw: every model, the champion too, brings its own encoder.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts.config import Config
from components.contracts.errors import DataError
from components.contracts.files import read_manifest, write_manifest
from components.contracts.spec import FeatureSpec
from components.scoring.encoder import Encoder, embedded, numeric
from components.scoring.raw import columns_from_table

CARRIED = ("ranges", "rows", "info", "as_of")


class EncodeConfig(Config):
    """`spec` is the run's own, not the union with the champion's."""

    spec: FeatureSpec
    code: str = ""


def run(config: EncodeConfig, dataset: Path, encoded: Path) -> dict[str, Any]:
    """Writes and seals the artifact `encoded`.

    encoder.json and encoder.npz; train|valid/: ids.npy int32 [rows, F + sum of K], dense.npy float32 [rows, 2 * D],
    weights.npy float32 [rows, sum of K], click.npy and conversion.npy float32 [rows]; all can be memory-mapped. F are
    the single-valued features, K the columns of each bag. The encoder sees features of the training split only, no
    label and no other split.

    Returns:
        Facts: rows, table sizes of the embedded features, the share of validation values that are not in the
        vocabulary.

    Raises:
        DataError: if the dataset has no training rows or lacks a feature of the spec.
    """
    manifest = read_manifest(dataset)
    spec = config.spec
    names = list(spec.raw)
    shutil.rmtree(encoded, ignore_errors=True)  # what an interrupted attempt left
    encoded.mkdir(parents=True)
    encoder = Encoder.fit(spec, columns_from_table(_read(dataset, c.TRAIN, names), names))
    encoder.save(encoded)
    rows = {split: _write(encoder, dataset, split, names, encoded / split) for split in (c.TRAIN, c.VALID)}
    write_manifest(encoded, spec=spec.model_dump(mode="json"), **{key: manifest[key] for key in CARRIED})
    valid = columns_from_table(_read(dataset, c.VALID, names), names)
    unknown = {name: round(float(rows_B.mean()), 4) for name, rows_B in encoder.unknown(valid).items()}
    sizes = dict(zip((feature.name for feature in embedded(spec)), encoder.sizes, strict=True))
    return {"rows": rows, "sizes": sizes, "unknown_in_valid": unknown}


def _shards(dataset: Path, split: str) -> list[Path]:
    files = sorted((dataset / split).glob("*.parquet"))
    if not files:
        raise DataError(f"{dataset / split} holds no impressions: choose a later --as-of or other split sizes")
    return files


def _read(dataset: Path, split: str, names: list[str]) -> pa.Table:
    return pa.concat_tables([pq.read_table(file, columns=names) for file in _shards(dataset, split)])


def _write(encoder: Encoder, dataset: Path, split: str, names: list[str], out: Path) -> int:
    """Encodes a split shard by shard into arrays that are filled in place; returns its rows."""
    files = _shards(dataset, split)
    total: int = sum(pq.read_metadata(file).num_rows for file in files)
    out.mkdir()
    arrays = {
        "ids": _open(out / "ids.npy", np.int32, (total, encoder.ids_columns)),
        "dense": _open(out / "dense.npy", np.float32, (total, 2 * len(numeric(encoder.spec)))),
        "weights": _open(out / "weights.npy", np.float32, (total, encoder.weights_columns)),
        **{label: _open(out / f"{label}.npy", np.float32, (total,)) for label in c.LABELS},
    }
    start = 0
    for file in files:
        table = pq.read_table(file)
        part = encoder.transform(columns_from_table(table, names))
        end = start + len(table)
        for name, made in (("ids", part.ids), ("dense", part.dense), ("weights", part.weights)):
            arrays[name][start:end] = made
        for label in c.LABELS:
            arrays[label][start:end] = table[label].to_numpy()
        start = end
    for array in arrays.values():
        if isinstance(array, np.memmap):
            array.flush()
    return total


def _open(path: Path, dtype: Any, shape: tuple[int, ...]) -> Any:
    """A new .npy, memory-mapped; an array without elements cannot be, so it is written at once."""
    if 0 in shape:
        array = np.zeros(shape, dtype)
        np.save(path, array, allow_pickle=False)
        return array
    return np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=shape)
