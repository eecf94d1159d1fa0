"""The encoder: raw feature values to the arrays a model reads. Fitted once, on the training split, for all candidates.

Every feature of encoding `id` or `bucket` is one column of `ids`, and every `bag` as many adjacent ones as it is wide,
all in the spec's order; a model looks their embeddings up. A bag has as many columns of `weights` too, the coefficients
its embeddings are summed with, bags in the spec's order. Every `numeric` feature is two columns of `dense`.

Shapes: B rows; F embedded features, of which single-valued ones have width 1 and bags width K; D numeric features.
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
from components.contracts.spec import Feature, FeatureSpec, raw
from components.scoring.bags import Bag, listed
from components.scoring.raw import Columns
from components.scoring.values import KNOWN, MISSING, UNKNOWN, indices, local, numbers, single, texts

FORMAT = 2
READABLE = (1, FORMAT)
"""Format 1 knew no bags and is otherwise the same, so that a champion of that time can still be scored."""
DENSE_LIMIT = 10.0
"""Standardised numbers are cut at this many standard deviations: a wild value must not saturate a whole row."""


@dataclass(frozen=True)
class Encoded:
    """`ids` int64 [B, sum of widths]: local indices, 0 missing, 1 unknown, 2.. known (bucket: 0 missing, 1.. buckets).

    `dense` float32 [B, 2 * D]: of each numeric feature its standardised value (0 where missing) and a missing flag.
    `weights` float32 [B, sum of K]: for each column of a bag, what its embedding is multiplied with before the sum over
    the bag; 0 on padding.
    """

    ids: NDArray[np.int64]
    dense: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass(frozen=True)
class Encoder:
    """Vocabularies, bucket edges and moments of the training split. Make one with `fit` or `load`.

    `vocabularies`: values of each id feature and bag as text, most frequent first. `edges`: float64, ascending, of each
    bucket feature; a value on an edge belongs to the bucket above it. `moments`: mean and standard deviation of each
    numeric feature. `bag_widths`: columns K of each bag, in the spec's order.
    """

    spec: FeatureSpec
    vocabularies: Mapping[str, tuple[str, ...]] = field(repr=False)
    edges: Mapping[str, NDArray[np.float64]] = field(repr=False)
    moments: Mapping[str, tuple[float, float]]
    bag_widths: Mapping[str, int]

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Rows the embedding table of each embedded feature needs [F]."""
        return tuple(
            len(self.edges[f.name]) + 2 if f.encoding == "bucket" else len(self.vocabularies[f.name]) + KNOWN
            for f in embedded(self.spec)
        )

    @cached_property
    def widths(self) -> tuple[int, ...]:
        """Columns of `ids` that each embedded feature takes [F]: K of a bag, 1 of the others."""
        return tuple(self.bag_widths.get(f.name, 1) for f in embedded(self.spec))

    @property
    def ids_columns(self) -> int:
        return sum(self.widths)

    @property
    def weights_columns(self) -> int:
        return sum(self.bag_widths.values())

    @cached_property
    def _indices(self) -> dict[str, dict[str | None, int]]:
        return {name: indices(values) for name, values in self.vocabularies.items()}

    @classmethod
    def fit(cls, spec: FeatureSpec, columns: Columns) -> Encoder:
        """Learns from raw columns of the training split, [rows] each; labels play no part.

        Vocabularies keep values seen `min_count` times or more, at most `max_vocabulary` of them, the most frequent
        first and ties in order of their text; in a bag every occurrence counts, whatever its weight. A bag is as wide
        as its longest row, at least 1 and at most `max_values`. Bucket edges are quantiles, with a bucket of its own
        for a value that fills one. Means and deviations are over finite values; a constant has deviation 1.

        Raises:
            DataError: if a column is missing, or holds values its feature cannot have.
        """
        rows_of(spec, columns)
        vocabularies, edges, moments, bag_widths = {}, {}, {}, {}
        for feature in spec.features:
            if feature.encoding == "bag":
                vocabulary = _vocabulary(feature, listed(feature, columns).values)
                longest = Bag.of(feature, columns, indices(vocabulary)).longest
                vocabularies[feature.name] = vocabulary
                bag_widths[feature.name] = max(min(longest, feature.max_values), 1)
                continue
            column = single(feature, columns[feature.name])
            if feature.encoding == "id":
                vocabularies[feature.name] = _vocabulary(feature, column)
            elif feature.encoding == "bucket":
                edges[feature.name] = _edges(feature, column)
            else:
                moments[feature.name] = _moments(feature, column)
        return cls(spec, vocabularies, edges, moments, bag_widths)

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
        ids = np.empty((rows, self.ids_columns), np.int64)
        weights = np.empty((rows, self.weights_columns), np.float32)
        at = at_weights = 0
        for feature, width in zip(embedded(self.spec), self.widths, strict=True):
            if feature.encoding == "bag":
                part = slice(at_weights, at_weights + width)
                ids[:, at : at + width], weights[:, part] = self._bag(feature, columns)
                at_weights += width
            else:
                ids[:, at] = self._ids(feature, columns)
            at += width
        dense = [part for feature in numeric(self.spec) for part in self._dense(feature, columns)]
        return Encoded(ids, np.stack(dense, axis=1) if dense else np.zeros((rows, 0), np.float32), weights)

    def unknown(self, columns: Columns) -> dict[str, NDArray[np.bool_]]:
        """For each id feature, bool [B]: the value is present but not in the vocabulary.

        A bag's row counts if it has values and none of those kept is in the vocabulary. Position is left out where it
        is not among the columns.

        Raises:
            DataError: as `transform`.
        """
        rows_of(self.spec, columns, without_position=True)
        unknown = {}
        for feature in embedded(self.spec):
            if feature.encoding == "bag":
                ids = self._bag(feature, columns)[0]
                unknown[feature.name] = ids.max(axis=1) == UNKNOWN
            elif feature.encoding == "id" and feature.name in columns:
                unknown[feature.name] = self._ids(feature, columns) == UNKNOWN
        return unknown

    def _bag(self, feature: Feature, columns: Columns) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        bag = Bag.of(feature, columns, self._indices[feature.name])
        return bag.padded(self.bag_widths[feature.name], feature.combiner)

    def _ids(self, feature: Feature, columns: Columns) -> NDArray[np.int64]:
        column = single(feature, columns[feature.name])
        if feature.encoding == "id":
            return local(feature, column, self._indices[feature.name])
        values = numbers(feature, column)
        buckets = np.searchsorted(self.edges[feature.name], values, side="right") + 1
        return np.where(np.isnan(values), MISSING, buckets).astype(np.int64)

    def _dense(self, feature: Feature, columns: Columns) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        values = numbers(feature, single(feature, columns[feature.name]))
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
                "bag_widths": dict(self.bag_widths),
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
        if head.get("format") not in READABLE:
            raise DataError(
                f"{folder / ENCODER_JSON} has format {head.get('format')!r} and this version reads "
                f"{' and '.join(map(str, READABLE))}: train the model again"
            )
        spec = FeatureSpec.parse(head["spec"], where=str(folder / ENCODER_JSON))
        if not (folder / ENCODER_ARRAYS).is_file():
            raise DataError(f"{folder / ENCODER_ARRAYS} does not exist: run the stage that made {folder} again")
        try:
            with np.load(folder / ENCODER_ARRAYS, allow_pickle=False) as arrays:
                vocabularies = {
                    f.name: _strings(arrays[f"text.{f.name}"], arrays[f"lengths.{f.name}"])
                    for f in spec.features
                    if f.encoding in ("id", "bag")
                }
                edges = {f.name: arrays[f"edges.{f.name}"] for f in spec.features if f.encoding == "bucket"}
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise CorruptArtifact(
                f"{folder / ENCODER_ARRAYS} does not fit {ENCODER_JSON} ({error}): run the stage that made it again"
            ) from None
        moments = {name: (pair[0], pair[1]) for name, pair in head["moments"].items()}
        encoder = cls(spec, vocabularies, edges, moments, head.get("bag_widths", {}))
        if list(encoder.sizes) != head["sizes"] or list(encoder.bag_widths) != [f.name for f in bags(spec)]:
            raise CorruptArtifact(
                f"{folder / ENCODER_ARRAYS} does not have the sizes {ENCODER_JSON} promises: "
                "run the stage that made it again"
            )
        return encoder


def embedded(spec: FeatureSpec) -> tuple[Feature, ...]:
    """The features that have columns of `ids`, in order."""
    return tuple(feature for feature in spec.features if feature.encoding != "numeric")


def bags(spec: FeatureSpec) -> tuple[Feature, ...]:
    """The features that have columns of `weights`, in order."""
    return tuple(feature for feature in spec.features if feature.encoding == "bag")


def numeric(spec: FeatureSpec) -> tuple[Feature, ...]:
    """The features that are column pairs of `dense`, in order."""
    return tuple(feature for feature in spec.features if feature.encoding == "numeric")


def rows_of(spec: FeatureSpec, columns: Columns, without_position: bool = False) -> int:
    """Number of rows of the spec's columns.

    Raises:
        DataError: if columns are missing (naming them) or differ in length.
    """
    needed = list(raw(f for f in spec.features if not (without_position and f.name == c.POSITION)))
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
    starts = [0, *ends][:-1]
    return tuple(data[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=True))


def _write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An .npz whose bytes depend on the arrays alone: names sorted, no compression, every time stamp 1980."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(arrays):
            buffer = io.BytesIO()
            np.lib.format.write_array(buffer, np.ascontiguousarray(arrays[name]), version=(1, 0), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0)), buffer.getvalue())
