"""The stage end to end: reasons, conservation of rows, what is left behind."""

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
from validation.made import SECOND_DAY, Row, bad_on_second_day, minutes, no_user, wide

from components.contracts.errors import CorruptArtifact, DataGateClosed
from components.contracts.files import MANIFEST, read_manifest
from components.validation.suite import REASONS
from components.validation.validate import ValidateConfig, run

CLICKED, NOT_CLICKED, BOUGHT = 10, 1, 20
"""Rows of a clean day with a click and no purchase, without a click, and with a purchase."""


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
    path = stage.folder / "impressions" / f"dt={SECOND_DAY}" / "part-0.parquet"

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
    (stage.impressions / f"dt={SECOND_DAY}" / "part-0.parquet").write_bytes(b"PAR1")
    with pytest.raises(CorruptArtifact, match="sha256 differs"):
        run(config, stage.impressions, stage.folder / "features", stage.folder / "c", stage.folder / "q", stage.docs)


def test_manifest_is_last(stage: Any, rows: list[Row]) -> None:
    stage.run(rows)
    assert MANIFEST in {path.name for path in stage.clean.iterdir()}
    assert not [path for path in stage.folder.iterdir() if path.name.startswith(".")], "no folder aside is left"
