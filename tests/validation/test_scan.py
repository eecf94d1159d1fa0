"""The pass over the log: batches, many rules, examples, mixed files, and what is written apart."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from validation.made import CONFIG, Row, clean_rows

from components.contracts import duck
from components.contracts.errors import DataError
from components.contracts.spec import Feature
from components.validation import duplicates, scan
from components.validation.check import check
from components.validation.runner import EXAMPLES
from components.validation.validate import Ingested


def outcomes(stage: Any, code: str) -> list[Any]:
    """What the page is made from is not kept: the checks are run again on what the stage was given."""
    kept, aside = stage.folder / f"kept-{code}", stage.folder / f"aside-{code}"
    kept.mkdir()
    aside.mkdir()
    with duck.connect(threads=None, trust_statistics=False) as db:
        ingested = Ingested.read(stage.impressions, CONFIG.info)
        found = check(db, CONFIG, ingested, stage.impressions, stage.folder / "features", kept, aside)
    return [outcome for outcome in found.log.outcomes if outcome.code == code]


@pytest.mark.parametrize("rows_a_batch", [1, 150, 10**6])
def test_batches_change_nothing(
    new_stage: Any, rows: list[Row], loose: Any, monkeypatch: pytest.MonkeyPatch, rows_a_batch: int
) -> None:
    soiled = [{**r, "hour": 99} if n % 50 == 7 else r for n, r in enumerate(rows)]
    soiled[3] = {**soiled[3], "impression_id": soiled[350]["impression_id"]}
    monkeypatch.setattr(scan, "ROWS_A_BATCH", rows_a_batch)
    monkeypatch.setattr(duplicates, "KEYS_A_PASS", max(7, rows_a_batch))
    stage = new_stage()
    assert stage.run(soiled, config=loose)["reasons"] == {"DUPLICATE_ID": 2, "HOUR": 8}
    assert [r["impression_id"] for r in stage.quarantined()] == [
        r["impression_id"] for n, r in enumerate(soiled) if r["hour"] == 99 or n in (3, 350)
    ]


def test_more_rules_than_bits_in_an_integer(stage: Any, rows: list[Row], loose: Any) -> None:
    many = {f"x{n}": "float" for n in range(90)}
    config = loose.model_copy(
        update={"info": CONFIG.info.model_copy(update={"context": {**CONFIG.info.context, **many}})}
    )
    filled = [{**r, **dict.fromkeys(many, 1.0)} for r in rows]
    filled[5] = {**filled[5], "x89": float("inf"), "user_id": None}
    filled[6] = {**filled[6], "x0": float("-inf"), "x45": float("inf")}
    stage.run(filled, config=config, types=dict.fromkeys(many, pa.float64()))
    assert [r["reasons"] for r in stage.quarantined()] == [["NULL_ID", "CONTEXT_INFINITE"], ["CONTEXT_INFINITE"]]


def test_examples_are_the_first_few_different_values(stage: Any, rows: list[Row], loose: Any) -> None:
    hours = [24, 24, 30, 25, 24, 26, 27, 28, 29]
    numbers = [n for n, r in enumerate(rows) if r["click"] == 0][:: len(rows) // 10]
    soiled = list(rows)
    for number, hour in zip(numbers, hours, strict=False):
        soiled[number] = {**soiled[number], "hour": hour}
    stage.run(soiled, config=loose)
    (hour,) = outcomes(stage, "HOUR")
    assert hour.examples == ("24", "30", "25", "26", "27")
    assert len(hour.examples) == EXAMPLES
    assert (hour.unexpected, hour.rows, hour.observed) == (9, 400, "9 of 400 rows")
    assert hour.kind == "DuckDB"


def test_examples_of_text_times_and_pairs_can_be_read(stage: Any, rows: list[Row], loose: Any) -> None:
    soiled = [*rows]
    soiled[1] = {**soiled[1], "item_id": "a\x00"}
    soiled[2] = {**soiled[2], "conversion": 1.0, "conversion_timestamp": None}
    soiled[3] = {**soiled[3], "event_timestamp": soiled[3]["event_timestamp"].replace(year=9999)}
    stage.run(soiled, config=loose)
    assert [o.examples for o in outcomes(stage, "ID_CHARACTERS") if o.unexpected] == [("'a\\x00'",)]
    assert outcomes(stage, "FUNNEL")[0].examples == ("0 / 1",)


def test_several_files_a_day_of_several_types(stage: Any, rows: list[Row], loose: Any) -> None:
    """Two files in one partition, one with labels as bool, and row groups smaller than a file."""
    day = stage.folder / "impressions" / "dt=2026-01-02"

    def split() -> None:
        table = pq.ParquetFile(day / "part-0.parquet").read()
        second = table.slice(40).set_column(
            table.schema.get_field_index("click"), "click", table.slice(40).column("click").cast(pa.bool_())
        )
        pq.write_table(table.slice(0, 40), day / "part-0.parquet", row_group_size=7)
        pq.write_table(second, day / "part-1.parquet", row_group_size=16, compression="zstd")

    soiled = [{**r, "user_id": None} if r["dt"] == "2026-01-02" and n % 9 == 0 else r for n, r in enumerate(rows)]
    stage.run(soiled, config=loose, after=split)
    bad = [r["impression_id"] for r in stage.quarantined()]
    assert bad == [r["impression_id"] for r in soiled if r["user_id"] is None]
    assert sorted(path.name for path in stage.quarantine.glob("*.parquet")) == [
        "2026-01-02-part-0.parquet", "2026-01-02-part-1.parquet",
    ]  # fmt: skip
    assert [r["impression_id"] for r in stage.kept()] == [
        r["impression_id"] for r in soiled if r["user_id"] is not None
    ]
    written = pq.ParquetFile(stage.clean / "dt=2026-01-02" / "part-1.parquet")
    assert written.schema_arrow.field("click").type == pa.bool_()
    assert written.metadata.row_group(0).column(0).compression == "ZSTD"
    assert written.num_row_groups == 4


def test_a_file_without_a_good_row_is_not_written(stage: Any, rows: list[Row], loose: Any) -> None:
    stage.run([{**r, "split": None} if r["dt"] == "2026-01-02" else r for r in rows], config=loose)
    assert not (stage.clean / "dt=2026-01-02" / "part-0.parquet").exists()
    assert len(stage.kept()) == 300


def test_a_day_twice_is_all_duplicates(new_stage: Any, rows: list[Row], loose: Any) -> None:
    """The same file delivered again under another name."""
    stage = new_stage()
    day = stage.folder / "impressions" / "dt=2026-01-02"

    def again() -> None:
        (day / "part-1.parquet").write_bytes((day / "part-0.parquet").read_bytes())

    assert stage.run(rows, config=loose, after=again)["reasons"] == {"DUPLICATE_ID": 200}


def test_text_that_is_not_utf8_is_refused_by_name(stage: Any, rows: list[Row]) -> None:
    path = stage.folder / "impressions" / "dt=2026-01-02" / "part-0.parquet"

    def spoil() -> None:
        table = pq.ParquetFile(path).read()
        raw = pa.array([b"\xff\xfe"] * table.num_rows, pa.binary()).view(pa.string())
        pq.write_table(table.set_column(table.schema.get_field_index("user_id"), "user_id", raw), path)

    with pytest.raises(DataError, match=r"dt=2026-01-02/part-0\.parquet.*UTF8"):
        stage.run(rows, after=spoil)
    assert not stage.clean.exists()
    assert not stage.quarantine.exists()


def test_a_parquet_file_cut_short_is_refused_by_name(stage: Any, rows: list[Row]) -> None:
    path = stage.folder / "impressions" / "dt=2026-01-02" / "part-0.parquet"

    def cut() -> None:
        path.write_bytes(path.read_bytes()[:-100])

    with pytest.raises(DataError, match=r"dt=2026-01-02/part-0\.parquet is no readable Parquet file"):
        stage.run(rows, after=cut)


def test_infinite_times_are_bad_and_stop_nothing(stage: Any, loose: Any) -> None:
    """The largest 64-bit integer is what DuckDB takes for infinity."""
    rows = clean_rows()
    path = stage.folder / "impressions" / "dt=2026-01-01" / "part-0.parquet"

    def spoil() -> None:
        table = pq.ParquetFile(path).read()
        for name, rows_at in (("event_timestamp", 1), ("click_timestamp", 10), ("conversion_timestamp", 20)):
            values = table.column(name).cast(pa.int64()).to_pylist()
            values[rows_at] = 2**63 - 1
            column = pa.array(values, pa.int64()).cast(pa.timestamp("us", "UTC"))
            table = table.set_column(table.schema.get_field_index(name), name, column)
        pq.write_table(table, path)

    facts = stage.run(rows, config=loose, after=spoil)
    assert facts["reasons"] == {"CLICK_TIME": 1, "CONVERSION_TIME": 1, "TIME_PARTITION": 1, "TIME_RANGE": 1}


def test_a_declared_name_with_quotes_is_read(stage: Any, rows: list[Row], loose: Any) -> None:
    name = "odd \"name'"
    spec = CONFIG.spec.model_copy(
        update={
            "features": (
                *CONFIG.spec.features,
                Feature(name=name, source="context", dtype="float", encoding="numeric", minimum=0.0),
            )
        }
    )
    soiled = [{**r, name: -1.0 if n == 7 else 1.0} for n, r in enumerate(rows)]
    facts = stage.run(soiled, config=loose.model_copy(update={"spec": spec}), types={name: pa.float64()})
    assert facts["reasons"] == {"RANGE": 1}
