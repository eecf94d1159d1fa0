"""A dataset folder: what an importer or the simulator writes and a pipeline run reads.

DIR/dataset.json                         this file's `DatasetInfo`
DIR/log/dt=YYYY-MM-DD/*.parquet          impression log (columns.py), UTC microseconds
DIR/features/<view>/*.parquet            entity column, event_timestamp, created, fields (optional)
DIR/import.json                          this file's `Imported`: what became of the source's lines (optional)
DIR/refused/*.parquet                    lines that could not be read: file, line, reason, text (optional)
DIR/truth/dt=YYYY-MM-DD/*.parquet        probabilities (simulated data only; evaluation alone reads it)
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Literal

from components.contracts import pushed
from components.contracts.config import Config
from components.contracts.errors import DataError
from components.contracts.files import folder_fingerprint, write_text
from components.contracts.spec import Dtype

INFO = "dataset.json"
LOG = "log"
FEATURES = "features"
TRUTH = "truth"
IMPORTED = "import.json"
REFUSED = "refused"


class SplitConfig(Config):
    """How mature impressions are divided.

    `time`: the last `test_days` of mature time are test, the `valid_days` before them validation, one full
    label window before that is a gap, the rest is training. `hash`: by a seeded hash of user_id, for data
    whose times are synthetic; `valid_share` and `test_share` are shares of users. `published`: events from `test_from`
    (ISO-8601) on are the test split, as the data's publisher cut it, and `valid_share` of the users before it validate.
    """

    kind: Literal["time", "hash", "published"] = "time"
    test_from: str = ""
    valid_days: float = 2.0
    test_days: float = 3.0
    valid_share: float = 0.15
    test_share: float = 0.25
    seed: int = 20260101


class DatasetInfo(Config):
    """`dataset.json`. Windows in seconds; both zero for a log without click and conversion times."""

    name: str
    source: str
    context: dict[str, Dtype] = {}
    click_window_seconds: float = 0.0
    conversion_window_seconds: float = 0.0
    has_label_times: bool = False
    split: SplitConfig = SplitConfig()
    id_features: tuple[str, ...] = ("user_id", "item_id")
    item_context: tuple[str, ...] = ()
    """Context columns whose value belongs to the item shown, not to the whole request."""
    recipe: str = "nightly"
    reference_position: int = 1
    clock: Literal["wall", "frozen"] = "wall"
    """`frozen`: the log is a recording; the service measures a feature's age from the last materialization."""

    @property
    def label_window_seconds(self) -> float:
        return self.click_window_seconds + self.conversion_window_seconds


class Imported(Config):
    """`import.json`. `refused` counts lines by reason; a `truncated` file ended before its end: nobody knows what is
    lost."""

    lines: int
    refused: dict[str, int] = {}
    truncated: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_imported(folder: Path) -> Imported | None:
    """What the importer said of its source; None where it keeps no account of lines."""
    path = folder / IMPORTED
    return Imported.parse(path.read_bytes(), where=str(path)) if path.is_file() else None


def write_imported(folder: Path, imported: Imported) -> None:
    write_text(folder / IMPORTED, imported.model_dump_json(indent=1) + "\n")


def read_info(folder: Path) -> DatasetInfo:
    """Raises DataError when the folder is missing or no dataset."""
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder: make one with `esmm simulate --out` or `esmm import ... --out`")
    path = folder / INFO
    if not path.is_file():
        raise DataError(f"{folder} has no {INFO}, so it is no dataset: make one with `esmm import ... --out`")
    if not any((folder / LOG).glob("dt=*/*.parquet")):
        raise DataError(f"{folder / LOG} holds no dt=YYYY-MM-DD/*.parquet: the dataset has no impressions")
    return DatasetInfo.parse(path.read_bytes(), where=str(path))


def write_info(folder: Path, info: DatasetInfo) -> None:
    write_text(folder / INFO, info.model_dump_json(indent=1) + "\n")


def data_fingerprint(folder: Path, as_of: datetime | None = None) -> str:
    """Content hash of everything a stage before evaluation may read (truth has its own).

    `as_of`: files of rows that were pushed at that time or later are left out. A run sees none of them, and rows may be
    pushed while it goes on.
    """
    below = (INFO, LOG, FEATURES, *(name for name in (IMPORTED, REFUSED) if (folder / name).exists()))

    def counts(name: str) -> bool:
        created = pushed.first_created(Path(name).name) if name.startswith(f"{FEATURES}/") else None
        return created is None or as_of is None or created < as_of

    return folder_fingerprint(folder, below, counts)


def truth_fingerprint(folder: Path) -> str:
    return folder_fingerprint(folder, (TRUTH,)) if (folder / TRUTH).is_dir() else ""


def view_names(folder: Path) -> tuple[str, ...]:
    """Names of the feature views the dataset brings, sorted."""
    root = folder / FEATURES
    return tuple(sorted(p.name for p in root.iterdir() if any(p.glob("*.parquet")))) if root.is_dir() else ()
