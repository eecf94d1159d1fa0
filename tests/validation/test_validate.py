"""The stage end to end: reasons, the gate on real tables, conservation of rows, what is left behind."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from validation.made import wide

from components.contracts.errors import CorruptArtifact, DataGateClosed
from components.contracts.files import MANIFEST, read_manifest
from components.contracts.spec import FeatureSpec
from components.validation.suite import REASONS
from components.validation.validate import ValidateConfig, run

Row = dict[str, Any]

CLICKED, NOT_CLICKED, BOUGHT = 10, 1, 20
"""Rows of a clean day with a click and no purchase, without a click, and with a purchase."""


def minutes(count: float) -> timedelta:
    return timedelta(minutes=count)


def later(r: Row, days: int) -> Row:
    """The event and its partition some days later."""
    at = r["event_timestamp"] + timedelta(days=days)
    return {"event_timestamp": at, "dt": at.date().isoformat()}


# What makes a clean row bad for exactly one reason: the row to change, and the change.
SOILED: dict[str, tuple[int, Callable[[Row], Row]]] = {
    "NULL_ID": (NOT_CLICKED, lambda r: {"user_id": None}),
    "NULL_TIME": (NOT_CLICKED, lambda r: {"event_timestamp": None}),
    "NULL_LABEL": (NOT_CLICKED, lambda r: {"conversion": None}),
    "NULL_SPLIT": (NOT_CLICKED, lambda r: {"split": None}),
    "DUPLICATE_ID": (NOT_CLICKED, lambda r: {"impression_id": "i0-7"}),
    "ID_LENGTH": (NOT_CLICKED, lambda r: {"item_id": ""}),
    "ID_CHARACTERS": (NOT_CLICKED, lambda r: {"user_id": "u\x001"}),
    "LABEL": (CLICKED, lambda r: {"click": 2.0}),
    "FUNNEL": (NOT_CLICKED, lambda r: {"conversion": 1.0, "conversion_timestamp": r["event_timestamp"] + minutes(2)}),
    "CLICK_BEFORE_EVENT": (CLICKED, lambda r: {"click_timestamp": r["event_timestamp"] - minutes(1)}),
    "CONVERSION_BEFORE_CLICK": (BOUGHT, lambda r: {"conversion_timestamp": r["click_timestamp"] - minutes(0.1)}),
    "CLICK_TIME": (CLICKED, lambda r: {"click_timestamp": None}),
    "CONVERSION_TIME": (BOUGHT, lambda r: {"conversion_timestamp": None}),
    "TIME_PARTITION": (NOT_CLICKED, lambda r: {"event_timestamp": r["event_timestamp"] - timedelta(days=1)}),
    "TIME_RANGE": (NOT_CLICKED, lambda r: later(r, -20454)),
    "SPLIT": (NOT_CLICKED, lambda r: {"split": "holdout"}),
    "POSITION": (NOT_CLICKED, lambda r: {"position": 0}),
    "HOUR": (NOT_CLICKED, lambda r: {"hour": 24}),
    "CONTEXT_INFINITE": (NOT_CLICKED, lambda r: {"price": float("inf")}),
    "NULL_GROUP": (NOT_CLICKED, lambda r: {"group_id": None}),
    "RANGE": (NOT_CLICKED, lambda r: {"price": -0.5}),
    "BAG": (NOT_CLICKED, lambda r: {"tags_weights": [1.0]}),
}  # fmt: skip

MORE_SOILED: list[tuple[str, int, Callable[[Row], Row]]] = [
    ("NULL_ID", NOT_CLICKED, lambda r: {"impression_id": None}),
    ("NULL_LABEL", NOT_CLICKED, lambda r: {"click": float("nan")}),
    ("ID_LENGTH", NOT_CLICKED, lambda r: {"user_id": "x" * 257}),
    ("ID_CHARACTERS", NOT_CLICKED, lambda r: {"item_id": "a\nb"}),
    ("ID_CHARACTERS", NOT_CLICKED, lambda r: {"item_id": "a\x00"}),
    ("ID_CHARACTERS", NOT_CLICKED, lambda r: {"impression_id": "\x00"}),
    ("LABEL", CLICKED, lambda r: {"conversion": 0.5}),
    ("CLICK_TIME", CLICKED, lambda r: {"click_timestamp": r["event_timestamp"] + minutes(61)}),
    ("CLICK_TIME", NOT_CLICKED, lambda r: {"click_timestamp": r["event_timestamp"] + minutes(59)}),
    ("CONVERSION_TIME", BOUGHT, lambda r: {"conversion_timestamp": r["click_timestamp"] + timedelta(days=1.01)}),
    ("CONVERSION_TIME", CLICKED, lambda r: {"conversion_timestamp": r["click_timestamp"] + timedelta(days=0.99)}),
    ("POSITION", NOT_CLICKED, lambda r: {"position": 1001}),
    ("HOUR", NOT_CLICKED, lambda r: {"hour": -1}),
    ("CONTEXT_INFINITE", NOT_CLICKED, lambda r: {"price": float("-inf")}),
    ("TIME_RANGE", NOT_CLICKED, lambda r: later(r, 19)),
    ("RANGE", NOT_CLICKED, lambda r: {"price": 10_000.01}),
    ("ID_LENGTH", NOT_CLICKED, lambda r: {"group_id": ""}),
    ("ID_CHARACTERS", NOT_CLICKED, lambda r: {"group_id": "g\x7f"}),
    ("BAG", NOT_CLICKED, lambda r: {"tags": None}),
    ("BAG", NOT_CLICKED, lambda r: {"tags_weights": None}),
    ("BAG", NOT_CLICKED, lambda r: {"tags": ["a", None]}),
    ("BAG", NOT_CLICKED, lambda r: {"tags_weights": [1.0, None]}),
    ("BAG", NOT_CLICKED, lambda r: {"tags_weights": [1.0, -1e-9]}),
    ("BAG", NOT_CLICKED, lambda r: {"tags_weights": [float("nan"), 1.0]}),
    ("BAG", NOT_CLICKED, lambda r: {"tags_weights": [float("inf"), 1.0]}),
    ("BAG", NOT_CLICKED, lambda r: {"tags_weights": [1.0, float("-inf")]}),
    ("BAG", NOT_CLICKED, lambda r: {"words": [None]}),
]  # fmt: skip

FINE: list[tuple[int, Callable[[Row], Row]]] = [
    (NOT_CLICKED, lambda r: {"click_timestamp": r["event_timestamp"] + minutes(61)}),  # a late click is a negative
    (CLICKED, lambda r: {"conversion_timestamp": r["click_timestamp"] + timedelta(days=1.01)}),  # a late conversion
    (CLICKED, lambda r: {"click_timestamp": r["event_timestamp"] + minutes(60)}),
    (CLICKED, lambda r: {"click_timestamp": r["event_timestamp"]}),
    (NOT_CLICKED, lambda r: {"device": None, "position": None, "hour": None, "price": None}),
    (NOT_CLICKED, lambda r: {"user_id": "x" * 256, "item_id": "ключ <b>&"}),
    (NOT_CLICKED, lambda r: {"split": "gap"}),
    (NOT_CLICKED, lambda r: {"price": float("nan")}),  # no value, as null
    (NOT_CLICKED, lambda r: {"price": 0.0, "tags": None, "tags_weights": None, "words": []}),
    (NOT_CLICKED, lambda r: {"price": 1e4, "tags": [], "tags_weights": None}),
    (NOT_CLICKED, lambda r: {"tags_weights": [0.0, 0.0], "user_id": "4294967296123"}),
    (NOT_CLICKED, lambda r: {"user_id": "\U0001f600", "item_id": "a b"}),
]


def soil(rows: list[Row], number: int, change: Callable[[Row], Row]) -> list[Row]:
    return [{**r, **change(r)} if position == number else r for position, r in enumerate(rows)]


def test_every_row_reason_has_a_row_that_trips_it() -> None:
    assert set(SOILED) == {code for code, (scope, _) in REASONS.items() if scope == "row"}


@pytest.mark.parametrize("code", SOILED)
def test_a_soiled_row_is_quarantined_for_its_reason_alone(code: str, stage: Any, rows: list[Row], loose: Any) -> None:
    number, change = SOILED[code]
    facts = stage.run_wide(soil(wide(rows), number, change), limits=loose.limits)
    bad = stage.quarantined()
    expected = 2 if code == "DUPLICATE_ID" else 1
    assert facts["reasons"] == {code: expected}
    assert [(r["reason"], r["reasons"]) for r in bad] == [(code, [code])] * expected


def test_other_ways_of_being_bad(new_stage: Any, make_rows: Any, loose: Any) -> None:
    soiled = wide(make_rows(days=4, a_day=160))
    expected: dict[str, str] = {}
    for step, (code, number, change) in enumerate(MORE_SOILED):
        position = number + 20 * step  # the same kind of row: clean_rows repeats itself every 20 rows
        soiled[position] = {**soiled[position], **change(soiled[position])}
        expected[soiled[position]["item_id"] + str(soiled[position]["event_timestamp"])] = code
    stage = new_stage()
    stage.run_wide(soiled, limits=loose.limits)
    found = {r["item_id"] + str(r["event_timestamp"]): r["reasons"] for r in stage.quarantined()}
    assert found == {key: [code] for key, code in expected.items()}


def test_unusual_but_good_rows_stay(stage: Any, rows: list[Row]) -> None:
    soiled = wide(rows)
    for step, (number, change) in enumerate(FINE):
        soiled = soil(soiled, number + 20 * step, change)
    assert stage.run_wide(soiled)["quarantined"] == 0
    assert stage.quarantined() == []


def test_a_row_lists_all_its_reasons_in_order(stage: Any, rows: list[Row], loose: Any) -> None:
    stage.run(soil(rows, NOT_CLICKED, lambda r: {"hour": 77, "user_id": None, "click": 5.0}), config=loose)
    (bad,) = stage.quarantined()
    assert bad["reason"] == "NULL_ID"
    assert bad["reasons"] == ["NULL_ID", "LABEL", "HOUR"]
    assert bad["dt"] == "2026-01-01"


# The gate, on tables.

DAY = "2026-01-02"


def bad_on_second_day(rows: list[Row], count: int, change: Callable[[Row], Row]) -> list[Row]:
    """Changes `count` clickless rows of the second day."""
    numbers = [n for n, r in enumerate(rows) if r["dt"] == DAY and r["click"] == 0][:count]
    assert len(numbers) == count
    return [{**r, **change(r)} if n in set(numbers) else r for n, r in enumerate(rows)]


def no_user(_: Row) -> Row:
    return {"user_id": None}


def unclicked_purchase(r: Row) -> Row:
    return {"conversion": 1.0, "conversion_timestamp": r["event_timestamp"] + minutes(1)}


def refused(stage: Any, rows: list[Row], **options: Any) -> str:
    """Runs into the closed gate; checks what must then (not) be there, and returns the sentence."""
    with pytest.raises(DataGateClosed) as closed:
        stage.run(rows, **options)
    message = str(closed.value)
    assert not stage.clean.exists(), "nothing half written"
    assert stage.docs.is_file()
    assert "The data gate is closed" in stage.docs.read_text()
    assert read_manifest(stage.quarantine)["verdict"]["open"] is False
    assert str(stage.docs) in message
    assert str(stage.quarantine) in message
    return message


def test_closes_for_a_day_with_30_percent_bad_rows(stage: Any, rows: list[Row], limited: Any) -> None:
    message = refused(stage, bad_on_second_day(rows, 30, no_user), config=limited(max_total_bad_share=1.0))
    assert f"30.0 % of 100 rows on {DAY} (mostly NULL_ID) are bad (limit 10.0 % a day)" in message
    assert Counter(r["reason"] for r in stage.quarantined()) == {"NULL_ID": 30}


def test_closes_for_a_day_with_5_percent_funnel_violations(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, bad_on_second_day(rows, 5, unclicked_purchase))
    assert f"5.0 % of 100 rows on {DAY} are conversions without a click (limit 1.0 % a day)" in message


def test_closes_for_the_whole_log(stage: Any, rows: list[Row]) -> None:
    by_day = Counter[str]()
    soiled = []
    for r in rows:
        by_day[r["dt"]] += 1
        soiled.append({**r, "user_id": None} if by_day[r["dt"]] % 16 == 0 else r)  # 6 of 100 rows each day
    assert "6.0 % of all 400 rows are bad (limit 5.0 %)" in refused(stage, soiled)


@pytest.mark.parametrize(
    ("count", "change", "opens"),
    [(10, no_user, True), (11, no_user, False), (1, unclicked_purchase, True), (2, unclicked_purchase, False)],
)
def test_opens_at_each_limit_of_a_day_and_not_above(
    stage: Any, make_rows: Any, count: int, change: Callable[[Row], Row], opens: bool
) -> None:
    rows = bad_on_second_day(make_rows(days=4, a_day=100), count, change)
    if opens:
        assert stage.run(rows)["quarantined"] == count
        read_manifest(stage.clean)
    else:
        refused(stage, rows)


@pytest.mark.parametrize("column", ["user_id", "click", "event_timestamp", "click_timestamp", "device", "split"])
def test_closes_for_a_missing_column_by_name(stage: Any, rows: list[Row], column: str) -> None:
    message = refused(stage, rows, drop=(column,))
    assert f"the log has no column '{column}'" in message
    assert f"not run: it needs {column}" in stage.docs.read_text() or column == "device"  # no rule for rows reads it


def test_a_column_missing_on_one_day_is_a_wrong_type_there(stage: Any, rows: list[Row]) -> None:
    impressions = stage.folder / "impressions"
    with pytest.raises(
        DataGateClosed, match=r"'device' of the log is absent in dt=2026-01-02/part-0.parquet, not string"
    ):
        stage.run(
            rows, types_on={DAY: {}}, after=lambda: drop_column(impressions / f"dt={DAY}" / "part-0.parquet", "device")
        )


def drop_column(path: Path, name: str) -> None:
    table = pq.ParquetFile(path).read().drop_columns([name])
    pq.write_table(table, path)


@pytest.mark.parametrize(
    ("column", "kind", "found"),
    [
        ("click", pa.string(), "string"),
        ("position", pa.string(), "string"),
        ("event_timestamp", pa.timestamp("us"), "timestamp[us]"),
        ("event_timestamp", pa.timestamp("ns", "UTC"), "timestamp[ns, tz=UTC]"),
        ("event_timestamp", pa.timestamp("us", "Europe/Amsterdam"), "timestamp[us, tz=Europe/Amsterdam]"),
        ("click_timestamp", pa.int64(), "int64"),
    ],
)
def test_closes_for_a_wrong_type(stage: Any, rows: list[Row], column: str, kind: Any, found: str) -> None:
    message = refused(stage, rows, types={column: kind})
    assert f"column '{column}' of the log is {found} in dt=2026-01-01/part-0.parquet" in message


def test_a_wrong_type_on_one_day_only(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, rows, types_on={DAY: {"click": pa.string()}})
    assert f"column 'click' of the log is string in dt={DAY}/part-0.parquet" in message


def test_float_ids_are_refused(stage: Any, rows: list[Row]) -> None:
    numbered = [{**r, "user_id": "17"} for r in rows]
    assert "column 'user_id' of the log is double" in refused(stage, numbered, types={"user_id": pa.float64()})


@pytest.mark.parametrize("column", ["device", "price", "position"])
def test_closes_for_an_empty_context_column(stage: Any, rows: list[Row], column: str) -> None:
    message = refused(stage, [{**r, column: None} for r in rows])
    assert f"context column '{column}' is null in every usable row" in message


@pytest.mark.parametrize("column", ["user_id", "event_timestamp", "click"])
def test_closes_for_a_required_column_without_values(stage: Any, rows: list[Row], column: str) -> None:
    message = refused(stage, [{**r, column: None} for r in rows])
    assert "100.0 % of all 400 rows are bad" in message
    assert "the log, bad rows left out, has no rows" in message


def test_closes_for_no_rows(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, [])
    assert "the log, bad rows left out, has no rows" in message
    assert "no column" not in message
    assert "nan" not in message.lower()


def test_closes_for_files_without_rows(stage: Any, rows: list[Row]) -> None:
    path = stage.folder / "impressions" / f"dt={DAY}" / "part-0.parquet"
    only = [r for r in rows if r["dt"] == DAY]

    def empty() -> None:
        pq.write_table(pq.ParquetFile(path).read().slice(0, 0), path)

    assert "has no rows" in refused(stage, only, after=empty)


@pytest.mark.parametrize("click", [0.0, 1.0])
def test_closes_for_a_click_rate_of_nothing_or_all(stage: Any, rows: list[Row], click: float) -> None:
    def relabel(r: Row) -> Row:
        at = r["event_timestamp"] + minutes(1) if click else None
        return {**r, "click": click, "click_timestamp": at, "conversion": 0.0, "conversion_timestamp": None}

    assert f"the click rate of the usable rows is {click:.0f}, not strictly" in refused(
        stage, [relabel(r) for r in rows]
    )


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_closes_for_an_empty_split(stage: Any, rows: list[Row], split: str) -> None:
    other = "test" if split != "test" else "train"
    moved = [{**r, "split": other if r["split"] == split else r["split"]} for r in rows]
    assert f"the {split} split has no usable rows" in refused(stage, moved)


@pytest.mark.parametrize("split", ["train", "test"])
def test_closes_without_conversions(stage: Any, rows: list[Row], split: str) -> None:
    never = {"conversion": 0.0, "conversion_timestamp": None}
    message = refused(stage, [{**r, **never} if r["split"] == split else r for r in rows])
    assert f"the {split} split has 0 conversions where 1 are needed" in message


def test_names_every_reason_at_once(stage: Any, rows: list[Row]) -> None:
    message = refused(stage, bad_on_second_day([{**r, "device": None} for r in rows], 30, no_user), drop=("hour",))
    for part in ("no column 'hour'", "'device' is null in every", f"30.0 % of 100 rows on {DAY}", "7.5 % of all 400"):
        assert part in message


# Feature tables.


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"user_id": None}, "user_id of feature table profile is null in 1 of 51 rows"),
        ({"created": None}, "created of feature table profile is null in 1 of 51 rows"),
        ({"user_ctr_7d": float("inf")}, "user_ctr_7d of feature table profile is infinite in 1 of 51 rows"),
        ({"user_id": "u1", "twin": True}, "feature table profile has two rows for one user_id"),
        ({"early": True}, "feature table profile has rows created before the time they describe: 1 of 51 rows"),
        ({"late": True}, "created of feature table profile is not before as-of 2026-01-20T00:00:00Z in 1 of 51 rows"),
    ],
)
def test_closes_for_a_bad_feature_row(
    stage: Any, rows: list[Row], features: list[Row], change: Row, sentence: str
) -> None:
    row = features[0]
    if change.pop("early", False):
        change = {"created": row["event_timestamp"] - minutes(1)}
    if change.pop("late", False):
        change = {"created": row["event_timestamp"] + timedelta(days=19)}
    if change.pop("twin", False):
        change = {**features[1]}
    assert sentence in refused(stage, rows, features=[{**row, **change}, *features[1:]])


def test_closes_for_an_empty_or_missing_feature_table(new_stage: Any, rows: list[Row], features: list[Row]) -> None:
    assert "feature table profile has no rows" in refused(new_stage(), rows, features=[])
    nothing = [{**r, "country": None} for r in features]
    assert "country of feature table profile is null in every row" in refused(new_stage(), rows, features=nothing)
    message = refused(new_stage(), rows, feature_options={"drop": ("user_ctr_7d",)})
    assert "feature table profile has no column 'user_ctr_7d'" in message
    message = refused(new_stage(), rows, feature_options={"types": {"user_ctr_7d": pa.string()}})
    assert "column 'user_ctr_7d' of feature table profile is string in profile/part-0.parquet, not a number" in message


def test_context_alone_needs_no_feature_tables(stage: Any, rows: list[Row], config: ValidateConfig) -> None:
    spec = FeatureSpec(features=tuple(f for f in config.spec.features if f.source != "profile"))
    assert stage.run(rows, config=config.model_copy(update={"spec": spec}))["gate"] == "open"


def test_a_final_log_needs_no_label_times(stage: Any, rows: list[Row], config: ValidateConfig) -> None:
    info = config.info.model_copy(
        update={"has_label_times": False, "click_window_seconds": 0.0, "conversion_window_seconds": 0.0}
    )
    facts = stage.run(
        rows, config=config.model_copy(update={"info": info}), drop=("click_timestamp", "conversion_timestamp")
    )
    assert facts["gate"] == "open"


# What is left behind.


def test_quarantine_and_clean_are_the_input(new_stage: Any, rows: list[Row], loose: Any) -> None:
    """Row conservation over random soil, by impression id, with every other column as it came."""
    changes = [change for name, (_, change) in SOILED.items() if name != "CONVERSION_BEFORE_CLICK"]  # needs a click
    for seed in range(5):
        chance = random.Random(seed)
        soiled = [{**r, **chance.choice(changes)(r)} if chance.random() < 0.25 else r for r in wide(rows)]
        stage = new_stage()
        facts = stage.run_wide(soiled, limits=loose.limits)
        kept, bad = stage.kept(), stage.quarantined()
        assert len(kept) == facts["rows"] - facts["quarantined"]
        assert len(bad) == facts["quarantined"] > 0

        def counted(some: list[Row]) -> Counter[str]:
            return Counter(str({k: str(r[k]) for k in sorted(r) if k not in ("reason", "reasons")}) for r in some)

        assert counted(kept) + counted(bad) == counted(soiled)


def test_the_clean_log_keeps_layout_types_and_facts(stage: Any, rows: list[Row]) -> None:
    stage.run(
        bad_on_second_day(rows, 3, no_user),
        types={"click": pa.int8(), "device": pa.dictionary(pa.int32(), pa.string())},
    )
    before, after = read_manifest(stage.impressions), read_manifest(stage.clean)
    for name in before["files"]:
        assert pq.read_schema(stage.clean / name) == pq.read_schema(stage.impressions / name)
    untouched = "dt=2026-01-01/part-0.parquet"
    assert before["files"][untouched] == after["files"][untouched]
    added = ("rows", "files", "fingerprint", "quality")
    assert {k: v for k, v in after.items() if k not in added} == {k: v for k, v in before.items() if k not in added}
    counts = after["rows"]
    assert counts["quarantined"] == 3
    assert counts["train"] == before["rows"]["train"] - 3
    assert counts["total"] == sum(count for name, count in counts.items() if name != "total")


def test_quarantine_of_a_spotless_log_is_readable(stage: Any, rows: list[Row]) -> None:
    stage.run(rows)
    (path,) = stage.quarantine.glob("*.parquet")
    table = pq.ParquetFile(path).read()
    assert table.num_rows == 0
    assert {"reason", "reasons", "dt", "impression_id"} <= set(table.column_names)
    assert (stage.quarantine / "results.json").is_file()
    pages = sorted((stage.quarantine / "great_expectations").glob("*.html"))
    assert pages
    assert "Expectations" in pages[0].read_text()


def test_a_column_of_the_logs_own_named_reason_is_kept(stage: Any, rows: list[Row]) -> None:
    path = stage.folder / "impressions" / f"dt={DAY}" / "part-0.parquet"

    def add() -> None:
        table = pq.ParquetFile(path).read()
        pq.write_table(table.append_column("reason", pa.array(["mine"] * table.num_rows)), path)

    stage.run(bad_on_second_day(rows, 1, no_user), after=add)
    (bad,) = stage.quarantined()
    assert (bad["reason"], bad["log.reason"]) == ("NULL_ID", "mine")


def test_the_page_is_put_into_the_runs_folder(
    stage: Any, rows: list[Row], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "run"))
    with pytest.raises(DataGateClosed, match=r"run/validation\.html"):
        stage.run([{**r, "device": None} for r in rows])
    assert (tmp_path / "run" / "validation.html").read_bytes() == stage.docs.read_bytes()


def test_folders_made_beforehand_are_used(stage: Any, rows: list[Row]) -> None:
    stage.clean.mkdir(parents=True)
    stage.quarantine.mkdir()
    stage.run(rows)
    read_manifest(stage.clean)
    read_manifest(stage.quarantine)


def test_a_changed_input_is_noticed(stage: Any, rows: list[Row], config: ValidateConfig) -> None:
    stage.run(rows)
    (stage.impressions / f"dt={DAY}" / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptArtifact, match="sha256 differs"):
        run(config, stage.impressions, stage.folder / "features", stage.folder / "c", stage.folder / "q", stage.docs)


def test_manifest_is_last(stage: Any, rows: list[Row]) -> None:
    stage.run(rows)
    assert MANIFEST in {path.name for path in stage.clean.iterdir()}
    assert not [path for path in stage.folder.iterdir() if path.name.startswith(".")], "no folder aside is left"
