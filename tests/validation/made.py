"""A small clean log and one feature table, as ingestion seals them, to be soiled by each test in its own way."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts.artifacts import Ranges, Rows
from components.contracts.dataset import DatasetInfo
from components.contracts.files import facts_of, read_manifest, write_manifest
from components.contracts.spec import Feature, FeatureSpec, View
from components.validation.validate import ValidateConfig, ValidationLimits, run

UTC_TIME = pa.timestamp("us", "UTC")
START = datetime(2026, 1, 1, tzinfo=UTC)
SECOND_DAY = "2026-01-02"
AS_OF = "2026-01-20T00:00:00Z"
CLICK_WINDOW, CONVERSION_WINDOW = 3600.0, 86400.0
TYPES: dict[str, Any] = {
    "impression_id": pa.string(), "user_id": pa.string(), "item_id": pa.string(), "event_timestamp": UTC_TIME,
    "position": pa.int64(), "hour": pa.int64(), "device": pa.string(), "price": pa.float64(), "click": pa.float64(),
    "click_timestamp": UTC_TIME, "conversion": pa.float64(), "conversion_timestamp": UTC_TIME, "split": pa.string(),
}  # fmt: skip
FEATURE_TYPES: dict[str, Any] = {
    "user_id": pa.string(), "event_timestamp": UTC_TIME, "created": UTC_TIME, "country": pa.string(),
    "user_ctr_7d": pa.float64(),
}  # fmt: skip

INFO = DatasetInfo(
    name="shop", source="simulator", context={"position": "int", "hour": "int", "device": "string", "price": "float"},
    click_window_seconds=CLICK_WINDOW, conversion_window_seconds=CONVERSION_WINDOW, has_label_times=True,
)  # fmt: skip
SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id"),
        Feature(name="item_id", source="id", dtype="string", encoding="id"),
        Feature(name="position", source="context", dtype="int", encoding="bucket", tower="ctr"),
        Feature(name="device", source="context", dtype="string", encoding="id"),
        Feature(name="country", source="profile", dtype="string", encoding="id"),
        Feature(name="user_ctr_7d", source="profile", dtype="float", encoding="bucket"),
    ),
    views=(View(name="profile", entity="user_id", ttl_seconds=30 * 86400.0, fields=("country", "user_ctr_7d")),),
)
CONFIG = ValidateConfig(spec=SPEC, info=INFO)

BAGS = {"tags": pa.list_(pa.string()), "tags_weights": pa.list_(pa.float64()), "words": pa.list_(pa.string())}
WIDE_TYPES: dict[str, Any] = {"group_id": pa.string(), **BAGS}
WIDE_FEATURE_TYPES: dict[str, Any] = {
    "group_id": pa.string(), "likes": pa.list_(pa.string()), "likes_weights": pa.list_(pa.float64()),
}  # fmt: skip
WIDE_CONFIG = ValidateConfig(
    info=INFO.model_copy(update={"context": {**INFO.context, "words": "strings"}}),
    spec=FeatureSpec(
        features=(
            *(f for f in SPEC.features if f.source != "profile"),
            Feature(name="price", source="item_context", dtype="float", encoding="numeric", minimum=0.0, maximum=1e4),
            Feature(name="tags", source="context", dtype="strings", encoding="bag", weighted=True),
            Feature(name="country", source="profile", dtype="string", encoding="id"),
            Feature(name="user_ctr_7d", source="profile", dtype="float", encoding="bucket", minimum=0.0, maximum=1.0),
            Feature(name="likes", source="profile", dtype="strings", encoding="bag", weighted=True),
        ),
        views=(
            View(
                name="profile", entity="group_id", ttl_seconds=30 * 86400.0,
                fields=("country", "user_ctr_7d", "likes", "likes_weights"),
            ),
        ),
    ),
)  # fmt: skip
"""A log with bags, a declared range and a view keyed by groups."""

Row = dict[str, Any]


def row(day: int, number: int, days: int) -> Row:
    """One clean impression; every tenth is clicked, every second click converts."""
    at = START + timedelta(days=day, hours=number % 20, seconds=number)
    clicked, bought = number % 10 == 0, number % 20 == 0
    split = "train" if day < days - 2 else "valid" if day == days - 2 else "test"
    return {
        "dt": at.date().isoformat(), "impression_id": f"i{day}-{number}", "user_id": f"u{number % 17}",
        "item_id": f"item{number % 5}", "event_timestamp": at, "position": 1 + number % 10, "hour": at.hour,
        "device": "phone", "price": 9.5, "click": float(clicked),
        "click_timestamp": at + timedelta(seconds=40) if clicked else None, "conversion": float(bought),
        "conversion_timestamp": at + timedelta(seconds=90) if bought else None, "split": split,
    }  # fmt: skip


def clean_rows(days: int = 4, a_day: int = 100) -> list[Row]:
    return [row(day, number, days) for day in range(days) for number in range(a_day)]


def feature_rows() -> list[Row]:
    return [
        {"user_id": f"u{user}", "event_timestamp": START + timedelta(days=day),
         "created": START + timedelta(days=day, hours=1), "country": "NL", "user_ctr_7d": 0.1}
        for day in range(3) for user in range(17)
    ]  # fmt: skip


def write_log(
    folder: Path, rows: list[Row], drop: tuple[str, ...] = (), types: dict[str, Any] | None = None,
    types_on: dict[str, dict[str, Any]] | None = None, facts: dict[str, Any] | None = None,
) -> Path:  # fmt: skip
    """`types` replaces or adds the Arrow type of a column everywhere, `types_on` on one day (values are cast to it);
    `facts` go into the manifest."""
    folder.mkdir(parents=True)
    for day in sorted({r["dt"] for r in rows}):
        wanted = {**TYPES, **(types or {}), **(types_on or {}).get(day, {})}
        mine = [r for r in rows if r["dt"] == day]
        table = pa.table(
            {
                name: pa.array([r.get(name) for r in mine], TYPES.get(name, kind)).cast(kind)
                for name, kind in wanted.items()
                if name not in drop
            }
        )
        target = folder / f"dt={day}" / "part-0.parquet"
        target.parent.mkdir()
        pq.write_table(table, target)
    count = {split: sum(r["split"] == split for r in rows) for split in ("train", "valid", "test")}
    ranges = Ranges(kind="time", train=("a", "b"), valid=("b", "c"), test=("c", "d"))
    write_manifest(
        folder, rows=Rows(total=len(rows) + 12, immature=5, gap=7, **count).model_dump(), ranges=ranges.model_dump(),
        info=INFO.model_dump(mode="json"), views=["profile"], as_of=AS_OF,
        **(facts or {}),
    )  # fmt: skip
    return folder


def write_features(
    folder: Path, rows: list[Row], drop: tuple[str, ...] = (), types: dict[str, Any] | None = None
) -> Path:
    target = folder / "profile" / "part-0.parquet"
    target.parent.mkdir(parents=True)
    wanted = {**FEATURE_TYPES, **(types or {})}
    table = {
        n: pa.array([r.get(n) for r in rows], FEATURE_TYPES.get(n, k)).cast(k)
        for n, k in wanted.items()
        if n not in drop
    }
    pq.write_table(pa.table(table), target)
    write_manifest(folder, as_of=AS_OF)
    return folder


def wide(rows: list[Row]) -> list[Row]:
    """Impressions with a group, weighted and plain bags."""
    return [
        {
            **r,
            "group_id": f"g{n % 9}",
            "tags": ["a", "b"],
            "tags_weights": [0.5, 2.0],
            "words": ["x"] if n % 2 else None,
        }
        for n, r in enumerate(rows)
    ]


def wide_features(rows: list[Row]) -> list[Row]:
    return [{**r, "group_id": r["user_id"], "likes": ["p", "q"], "likes_weights": [1.0, 0.0]} for r in rows]


class Stage:
    """Runs the stage over given rows in a temporary folder; its outputs stay readable, the gate closed or not."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clean, self.quarantine = folder / "clean", folder / "quarantine"
        self.docs = folder / "docs" / "validation.html"

    def run(
        self, rows: list[Row], features: list[Row] | None = None, config: ValidateConfig = CONFIG,
        feature_options: dict[str, Any] | None = None, after: Callable[[], None] | None = None, **log_options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """`after` changes the log's files once they are written; they are then sealed again."""
        self.impressions = write_log(self.folder / "impressions", rows, **log_options)
        if after is not None:
            after()
            write_manifest(self.impressions, **facts_of(read_manifest(self.impressions, verify=False)))
        tables = write_features(
            self.folder / "features", feature_rows() if features is None else features, **(feature_options or {})
        )
        return run(config, self.impressions, tables, self.clean, self.quarantine, self.docs)

    def run_wide(
        self, rows: list[Row], features: list[Row] | None = None, limits: ValidationLimits | None = None,
        **options: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """As `run`, with WIDE_CONFIG; rows and features are those of `wide` and `wide_features`."""
        config = WIDE_CONFIG.model_copy(update={"limits": limits or ValidationLimits()})
        return self.run(
            rows, wide_features(feature_rows()) if features is None else features, config,
            {"types": WIDE_FEATURE_TYPES}, types={**WIDE_TYPES, **options.pop("types", {})}, **options,
        )  # fmt: skip

    def quarantined(self) -> list[Row]:
        return [
            r for path in sorted(self.quarantine.glob("*.parquet")) for r in pq.ParquetFile(path).read().to_pylist()
        ]

    def kept(self) -> list[Row]:
        return [
            {"dt": path.parent.name[3:], **r}
            for path in sorted(self.clean.glob("dt=*/*.parquet"))
            for r in pq.ParquetFile(path).read().to_pylist()
        ]


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def bad_on_second_day(rows: list[Row], count: int, change: Callable[[Row], Row]) -> list[Row]:
    """Changes `count` clickless rows of the second day."""
    numbers = [n for n, r in enumerate(rows) if r["dt"] == SECOND_DAY and r["click"] == 0][:count]
    assert len(numbers) == count
    return [{**r, **change(r)} if n in set(numbers) else r for n, r in enumerate(rows)]


def no_user(_: Row) -> Row:
    return {"user_id": None}
