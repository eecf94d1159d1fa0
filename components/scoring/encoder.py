"""The encoder: raw feature values to the arrays a model reads. Fitted once, on the training split, for all candidates.

Every feature of encoding `id` or `bucket` is one column of `ids`, in the spec's order; a model looks its embedding up.
Every `numeric` feature is two columns of `dense`. Shapes: B rows, F ids columns, D numeric features.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts.artifacts import ENCODER_ARRAYS, ENCODER_JSON
from components.contracts.errors import CorruptArtifact, DataError
from components.contracts.files import read_json, write_json
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.raw import Columns
from components.scoring.values import KNOWN, MISSING, UNKNOWN, look_up, numbers, texts

FORMAT = 1
DENSE_LIMIT = 10.0
"""Standardised numbers are cut at this many standard deviations: a wild value must not saturate a whole row."""


@dataclass(frozen=True)
class Encoded:
    """`ids` int64 [B, F]: each feature's local index, 0 missing, 1 unknown, 2.. known (bucket: 0 missing, 1.. buckets).

    `dense` float32 [B, 2 * D]: of each numeric feature its standardised value (0 where missing) and a missing flag.
    """

    ids: NDArray[np.int64]
    dense: NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """Vocabularies, bucket edges and moments of the training split. Make one with `fit` or `load`.

    `vocabularies`: values of each id feature as text, most frequent first. `edges`: float64, ascending, of each bucket
    feature; a value on an edge belongs to the bucket above it. `moments`: mean and standard deviation of each numeric
    feature.
    """

    spec: FeatureSpec
    vocabularies: Mapping[str, tuple[str, ...]] = field(repr=False)
    edges: Mapping[str, NDArray[np.float64]] = field(repr=False)
    moments: Mapping[str, tuple[float, float]]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Rows the embedding table of each ids column needs [F]."""
        return tuple(
            len(self.vocabularies[f.name]) + KNOWN if f.encoding == "id" else len(self.edges[f.name]) + 2
            for f in embedded(self.spec)
        )

    @cached_property
    def _indices(self) -> dict[str, dict[str, int]]:
        return {
            name: {value: index for index, value in enumerate(values, start=KNOWN)}
            for name, values in self.vocabularies.items()
        }

    @classmethod
    def fit(cls, spec: FeatureSpec, columns: Columns) -> Encoder:
        """Learns from raw columns of the training split, [rows] each; labels play no part.

        Vocabularies keep values seen `min_count` times or more, at most `max_vocabulary` of them, the most frequent
        first and ties in order of their text. Bucket edges are quantiles, with a bucket of its own for a value that
        fills one. Means and deviations are over finite values; a constant has deviation 1.

        Raises:
            DataError: if a column is missing, or holds values its feature cannot have.
        """
        rows_of(spec, columns)
        vocabularies, edges, moments = {}, {}, {}
        for feature in spec.features:
            column = columns[feature.name]
            if feature.encoding == "id":
                vocabularies[feature.name] = _vocabulary(feature, column)
            elif feature.encoding == "bucket":
                edges[feature.name] = _edges(feature, column)
            else:
                moments[feature.name] = _moments(feature, column)
        return cls(spec, vocabularies, edges, moments)

    def transform(self, columns: Columns, position: int | None = None) -> Encoded:
        """Encodes raw columns, [B] each.

        Args:
            position: None to use the logged column, or the position to assume for all rows (then the column is not
                needed).

        Raises:
            DataError: naming the columns that are missing, or the one that holds what its feature cannot have.
        """
        rows = rows_of(self.spec, columns, without_position=position is not None)
        if position is not None and self.spec.named(c.POSITION) is not None:
            columns = {**columns, c.POSITION: np.full(rows, position, np.int64)}
        ids = [self._ids(feature, columns[feature.name]) for feature in embedded(self.spec)]
        dense = [part for f in numeric(self.spec) for part in self._dense(f, columns[f.name])]
        return Encoded(
            ids=np.stack(ids, axis=1) if ids else np.zeros((rows, 0), np.int64),
            dense=np.stack(dense, axis=1) if dense else np.zeros((rows, 0), np.float32),
        )

    def unknown(self, columns: Columns) -> dict[str, NDArray[np.bool_]]:
        """For each id feature, bool [B]: the value is present but not in the vocabulary.

        Position is left out where it is not among the columns.

        Raises:
            DataError: as `transform`.
        """
        rows_of(self.spec, columns, without_position=True)
        return {
            f.name: self._ids(f, columns[f.name]) == UNKNOWN
            for f in embedded(self.spec)
            if f.encoding == "id" and f.name in columns
        }

    def _ids(self, feature: Feature, column: NDArray[Any]) -> NDArray[np.int64]:
        if feature.encoding == "id":
            distinct, inverse = texts(feature, column)
            return look_up(self._indices[feature.name], distinct)[inverse]
        values = numbers(feature, column)
        indices = np.searchsorted(self.edges[feature.name], values, side="right") + 1
        return np.where(np.isnan(values), MISSING, indices).astype(np.int64)

    def _dense(self, feature: Feature, column: NDArray[Any]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        values = numbers(feature, column)
        missing = np.isnan(values)
        mean, deviation = self.moments[feature.name]
        standard = np.clip((values - mean) / deviation, -DENSE_LIMIT, DENSE_LIMIT)
        return np.where(missing, 0.0, standard).astype(np.float32), missing.astype(np.float32)

    def save(self, folder: Path) -> None:
        """Writes encoder.json and encoder.npz; equal encoders give equal bytes."""
        write_json(
            folder / ENCODER_JSON,
            {
                "format": FORMAT,
                "spec": self.spec.model_dump(mode="json"),
                "sizes": list(self.sizes),
                "moments": {name: list(pair) for name, pair in self.moments.items()},
            },
        )
        arrays: dict[str, NDArray[Any]] = {f"edges.{name}": edges for name, edges in self.edges.items()}
        for name, values in self.vocabularies.items():
            encoded = [value.encode("utf-8", "surrogatepass") for value in values]
            arrays[f"text.{name}"] = np.frombuffer(b"".join(encoded), np.uint8)
            arrays[f"lengths.{name}"] = np.array([len(value) for value in encoded], np.int64)
        _write_arrays(folder / ENCODER_ARRAYS, arrays)

    @classmethod
    def load(cls, folder: Path) -> Encoder:
        """Reads what `save` wrote.

        Raises:
            DataError: if a file is missing, or was written by another version of this format.
            CorruptArtifact: if the two files do not belong together.
        """
        head = read_json(folder / ENCODER_JSON)
        if head.get("format") != FORMAT:
            raise DataError(
                f"{folder / ENCODER_JSON} has format {head.get('format')!r} and this version reads {FORMAT}: "
                "train the model again"
            )
        spec = FeatureSpec.parse(head["spec"], where=str(folder / ENCODER_JSON))
        if not (folder / ENCODER_ARRAYS).is_file():
            raise DataError(f"{folder / ENCODER_ARRAYS} does not exist: run the stage that made {folder} again")
        try:
            with np.load(folder / ENCODER_ARRAYS, allow_pickle=False) as arrays:
                vocabularies = {
                    f.name: _strings(arrays[f"text.{f.name}"], arrays[f"lengths.{f.name}"])
                    for f in spec.features
                    if f.encoding == "id"
                }
                edges = {f.name: arrays[f"edges.{f.name}"] for f in spec.features if f.encoding == "bucket"}
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptArtifact(
                f"{folder / ENCODER_ARRAYS} does not fit {ENCODER_JSON} ({error}): run the stage that made it again"
            ) from None
        encoder = cls(spec, vocabularies, edges, {name: (pair[0], pair[1]) for name, pair in head["moments"].items()})
        if list(encoder.sizes) != head["sizes"]:
            raise CorruptArtifact(
                f"{folder / ENCODER_ARRAYS} does not have the sizes {ENCODER_JSON} promises: "
                "run the stage that made it again"
            )
        return encoder


def embedded(spec: FeatureSpec) -> tuple[Feature, ...]:
    """The features that are columns of `ids`, in order."""
    return tuple(feature for feature in spec.features if feature.encoding != "numeric")


def numeric(spec: FeatureSpec) -> tuple[Feature, ...]:
    """The features that are column pairs of `dense`, in order."""
    return tuple(feature for feature in spec.features if feature.encoding == "numeric")


def rows_of(spec: FeatureSpec, columns: Columns, without_position: bool = False) -> int:
    """Number of rows of the spec's columns.

    Raises:
        DataError: if columns are missing (naming them) or differ in length.
    """
    needed = [f.name for f in spec.features if not (without_position and f.name == c.POSITION)]
    absent = [name for name in needed if name not in columns]
    if absent:
        raise DataError(f"the rows to encode have no column {', '.join(absent)}: the model was declared to read them")
    lengths = {len(columns[name]) for name in needed} or {len(column) for column in columns.values()}
    if len(lengths) != 1:
        raise DataError(f"the columns to encode differ in length ({sorted(lengths)}): give every row every feature")
    return lengths.pop()


def _vocabulary(feature: Feature, column: NDArray[Any]) -> tuple[str, ...]:
    distinct, inverse = texts(feature, column)
    counts: dict[str, int] = {}
    for value, count in zip(distinct, np.bincount(inverse, minlength=len(distinct)).tolist(), strict=True):
        if value is not None:
            counts[value] = counts.get(value, 0) + count
    frequent = [(-count, value) for value, count in counts.items() if count >= feature.min_count]
    return tuple(value for _, value in sorted(frequent)[: feature.max_vocabulary])


def _edges(feature: Feature, column: NDArray[Any]) -> NDArray[np.float64]:
    """Ascending inner edges [at most buckets - 1], half way between neighbouring training values.

    Cut one bucket at a time at an equal share of the rows *left*: a count that is zero for most rows then uses one
    bucket, not most of them. Half way, so that float32 and float64 copies of one value fall into the same bucket.
    """
    values = numbers(feature, column)
    distinct, counts = np.unique(values[~np.isnan(values)], return_counts=True)
    cumulated = np.cumsum(counts)
    edges: list[float] = []
    start, used = 0, 0
    for left in range(feature.buckets, 1, -1):
        if start >= len(distinct) - 1:
            break
        share = used + (cumulated[-1] - used) / left
        last = max(int(np.searchsorted(cumulated, share)), start)
        if last >= len(distinct) - 1:
            break
        edges.append((distinct[last] + distinct[last + 1]) / 2)
        start, used = last + 1, int(cumulated[last])
    return np.array(edges, np.float64)


def _moments(feature: Feature, column: NDArray[Any]) -> tuple[float, float]:
    values = numbers(feature, column)
    values = values[~np.isnan(values)]
    if values.size == 0:
        return 0.0, 1.0
    deviation = float(values.std())
    # A constant's deviation is rounding noise, not exactly zero.
    return float(values.mean()), deviation if deviation > 1e-9 * max(1.0, float(np.abs(values).max())) else 1.0


def _strings(text: NDArray[np.uint8], lengths: NDArray[np.int64]) -> tuple[str, ...]:
    if int(lengths.sum()) != text.size:
        raise ValueError("lengths do not add up to the text")
    data, ends = text.tobytes(), np.cumsum(lengths).tolist()
    starts = [0, *ends[:-1]]
    return tuple(data[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True))


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz whose bytes depend on the arrays alone: names sorted, no compression, every time stamp 1980."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), buffer.getvalue())
