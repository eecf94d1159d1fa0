"""Rows of a split, their outcomes, and the scoring of them by a model, a chunk at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts.artifacts import ModelInfo
from components.contracts.errors import DataError
from components.evaluation.metrics import Array, Outcome, Predicted
from components.scoring.raw import columns_from_table

Position = Literal["reference", "logged"]
CHUNK_ROWS = 100_000


class NotProbabilities(ValueError):
    """A model's answer is not one probability a row: the model is at fault, not the data."""


class Scores(Protocol):
    @property
    def pctr(self) -> Array: ...
    @property
    def pcvr(self) -> Array: ...
    @property
    def pctcvr(self) -> Array: ...


class Model(Protocol):
    """A model that scores raw rows: `components.scoring.score.Scorer`, or a hand-written fake in tests."""

    @property
    def info(self) -> ModelInfo: ...
    def score(self, columns: Mapping[str, Any], position: Position = "reference") -> Scores: ...


@dataclass(frozen=True)
class Split:
    """One split of the dataset artifact: files in order, and what happened to each row.

    `users`: [B] a number a user, in order of appearance; all that the bootstrap needs of an id.
    """

    name: str
    files: tuple[Path, ...]
    impression_ids: pa.ChunkedArray
    users: NDArray[np.int64]
    outcome: Outcome

    def __len__(self) -> int:
        return len(self.outcome.click)


def load_split(dataset: Path, name: str) -> Split:
    """Reads ids and labels of `dataset`/`name`/*.parquet.

    Raises:
        DataError: if the split has no rows or lacks a column.
    """
    files = tuple(sorted((dataset / name).glob("*.parquet")))
    wanted = [c.IMPRESSION_ID, c.USER_ID, c.CLICK, c.CONVERSION]
    missing = [column for column in wanted if files and column not in pq.read_schema(files[0]).names]
    if missing:
        raise DataError(f"{files[0]} lacks {', '.join(missing)}: run the retrieve stage again")
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    if not rows:
        raise DataError(
            f"the {name} split in {dataset / name} has no rows: give it more time (split.{name}_days) or more data"
        )
    table = pa.concat_tables([pq.read_table(file, columns=wanted, partitioning=None) for file in files])
    click = np.asarray(table[c.CLICK].to_numpy()).astype(bool)
    conversion = np.asarray(table[c.CONVERSION].to_numpy()).astype(bool)
    users = table[c.USER_ID].cast(pa.string()).combine_chunks().dictionary_encode()
    codes = np.asarray(users.indices.to_numpy()).astype(np.int64)
    return Split(name, files, table[c.IMPRESSION_ID], codes, Outcome(click, conversion))


def score_split(
    scorer: Model, split: Split, positions: Sequence[Position], chunk_rows: int = CHUNK_ROWS
) -> dict[Position, Predicted]:
    """Scores every row of a split, in the split's order, at each of `positions`.

    Raises:
        DataError: if the split lacks a feature of the model.
        NotProbabilities: if the model answers with something other than one probability a row.
    """
    spec = scorer.info.spec
    names = list(spec.raw)
    missing = [name for name in names if name not in pq.read_schema(split.files[0]).names]
    if missing:
        raise DataError(f"the {split.name} split has no column {', '.join(missing)}, which the model was trained on")
    if spec.named(c.POSITION) is None and len(positions) > 1:
        # A model without position has one answer, whatever the position.
        same = score_split(scorer, split, positions[:1], chunk_rows)[positions[0]]
        return dict.fromkeys(positions, same)
    parts: dict[Position, list[Scores]] = {position: [] for position in positions}
    for file in split.files:
        with pq.ParquetFile(file) as parquet:
            for batch in parquet.iter_batches(batch_size=chunk_rows, columns=names):
                columns = columns_from_table(pa.Table.from_batches([batch]), names)
                for position in positions:
                    parts[position].append(scorer.score(columns, position=position))
    return {position: _joined(chunks, split) for position, chunks in parts.items()}


def _joined(chunks: list[Scores], split: Split) -> Predicted:
    def column(name: str) -> Array:
        values = np.concatenate([np.asarray(getattr(chunk, name), dtype=np.float64) for chunk in chunks])
        if values.shape != (len(split),) or not bool(np.all((values >= 0) & (values <= 1))):
            raise NotProbabilities(f"its {name} of the {split.name} split is not one probability a row")
        return values

    return Predicted(column("pctr"), column("pcvr"), column("pctcvr"))
