"""The profile of a run's usable data: exact figures of hand-made data, and the same text for the same data."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts import duck
from components.contracts.dataset import DatasetInfo
from components.contracts.errors import UsageError
from components.contracts.spec import Feature, FeatureSpec, View
from components.validation import profile as profiles
from components.validation.profile import GRID, ColumnProfile, DayProfile, Profile, load, measure

AS_OF = "2026-01-05T00:00:00Z"
START = datetime(2026, 1, 1, tzinfo=UTC)
TIME = pa.timestamp("us", "UTC")
INFO = DatasetInfo(
    name="shop", source="tables",
    context={"device": "string", "hour": "int", "price": "float", "app": "bool", "words": "strings"},
)  # fmt: skip
SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id"),
        Feature(name="item_id", source="id", dtype="string", encoding="id"),
        Feature(name="device", source="context", dtype="string", encoding="id"),
        Feature(name="tags", source="context", dtype="strings", encoding="bag", weighted=True),
        Feature(name="country", source="people", dtype="string", encoding="id"),
        Feature(name="age", source="people", dtype="int", encoding="bucket"),
    ),
    views=(View(name="people", entity="user_id", ttl_seconds=86400.0, fields=("country", "age")),),
)
LOG = pa.schema(
    [
        ("impression_id", pa.string()), ("user_id", pa.string()), ("item_id", pa.string()), ("dt", pa.string()),
        ("split", pa.string()), ("click", pa.int64()), ("conversion", pa.int64()), ("device", pa.string()),
        ("hour", pa.float64()), ("price", pa.float64()), ("app", pa.bool_()), ("words", pa.list_(pa.string())),
        ("tags", pa.list_(pa.string())), ("tags_weights", pa.list_(pa.float64())),
    ]
)  # fmt: skip
PEOPLE = pa.schema(
    [
        ("user_id", pa.string()),
        ("event_timestamp", TIME),
        ("created", TIME),
        ("country", pa.string()),
        ("age", pa.int64()),
    ]
)

Row = dict[str, Any]


def row(number: int, day: int, **changes: Any) -> Row:
    values = {
        "impression_id": f"i{number}", "user_id": f"u{number}", "item_id": "a", "dt": f"2026-01-0{day}",
        "split": "train", "click": 0, "conversion": 0, "device": "phone", "hour": 8.0,
        "price": 1.0, "app": True, "words": ["x"], "tags": ["t"], "tags_weights": [1.0],
    }  # fmt: skip
    return {**values, **changes}


def person(user: str, day: int, country: str | None, age: int | None = 30) -> Row:
    time = START + timedelta(days=day - 1)
    return {
        "user_id": user,
        "event_timestamp": time,
        "created": time + timedelta(minutes=5),
        "country": country,
        "age": age,
    }


def measured(rows: list[Row], people: Sequence[Row] = (), volume: dict[str, int] | None = None) -> Profile:
    with duck.connect() as db:
        db.register("good", pa.Table.from_pylist(rows, schema=LOG))
        db.register("people", pa.Table.from_pylist(list(people), schema=PEOPLE))
        return measure(db, "good", INFO, SPEC, {"people": "people"}, AS_OF, "print", volume)


def test_days_count_rows_clicks_and_conversions() -> None:
    rows = [row(1, 1, click=1, conversion=1), row(2, 1, click=1), row(3, 2), row(4, 3)]
    days = measured(rows).days
    assert days == {
        "2026-01-01": DayProfile(rows=2, clicks=2, conversions=1, volume=2, partial=True),
        "2026-01-02": DayProfile(rows=1, clicks=0, conversions=0, volume=1),
        "2026-01-03": DayProfile(rows=1, clicks=0, conversions=0, volume=1, partial=True),
    }


def test_a_day_at_the_end_of_a_split_may_be_cut_by_the_gap() -> None:
    splits = {1: "train", 2: "train", 3: "train", 5: "valid", 6: "valid", 7: "valid"}
    days = measured([row(day, day, split=split) for day, split in splits.items()]).days
    assert {day for day, found in days.items() if not found.partial} == {"2026-01-02", "2026-01-06"}


def test_volume_is_what_ingestion_counted_and_a_day_without_an_impression_is_a_day() -> None:
    volume = {"2026-01-01": 10, "2026-01-02": 20, "2026-01-04": 5}
    days = measured([row(1, 1), row(2, 2, click=1)], volume=volume).days
    assert {day: (found.rows, found.volume, found.partial) for day, found in days.items()} == {
        "2026-01-01": (1, 10, True),
        "2026-01-02": (1, 20, False),
        "2026-01-03": (0, 0, False),
        "2026-01-04": (0, 5, True),
    }


def test_categories_have_shares_of_the_rows_that_have_a_value() -> None:
    devices = ["phone"] * 5 + ["web"] * 3 + [None] * 2
    column = measured([row(n, 1, device=device) for n, device in enumerate(devices)]).log.columns["device"]
    assert column == ColumnProfile(nulls=0.2, values=8, categories={"phone": 0.625, "web": 0.375})


def test_only_the_most_frequent_categories_are_named() -> None:
    devices = [f"d{n:02}" for n in range(60)] + ["d59"] * 40
    column = measured([row(n, 1, device=device) for n, device in enumerate(devices)]).log.columns["device"]
    assert len(column.categories) == profiles.CATEGORIES
    assert column.categories["d59"] == 0.41
    assert {"d00", "d48"} < set(column.categories)
    assert "d49" not in column.categories
    assert column.others == pytest.approx(0.1)


def test_a_value_below_the_smallest_share_is_not_named() -> None:
    rows = [row(n, 1, device="rare" if n == 0 else "phone") for n in range(2000)]
    column = measured(rows).log.columns["device"]
    assert (set(column.categories), column.others) == ({"phone"}, 0.0005)


def test_a_long_value_is_cut() -> None:
    column = measured([row(1, 1, device="x" * 500)]).log.columns["device"]
    assert column.categories == {"x" * profiles.LONGEST_VALUE: 1.0}


def test_an_int_of_few_values_has_categories_and_quantiles_whatever_type_the_file_has() -> None:
    hours = [0, 1, 2, 3, None]
    column = measured([row(n, 1, hour=hour) for n, hour in enumerate(hours)]).log.columns["hour"]
    assert column.categories == {"0": 0.25, "1": 0.25, "2": 0.25, "3": 0.25}
    assert column.quantiles[0] == 0
    assert column.quantiles[-1] == 3
    assert column.nulls == 0.2


def test_an_int_of_many_values_has_quantiles_alone() -> None:
    column = measured([row(n, 1, hour=float(n)) for n in range(51)]).log.columns["hour"]
    assert column.categories == {}
    assert not column.has_categories
    assert column.quantiles[10] == 25


def test_quantiles_are_values_of_the_column_at_every_twentieth() -> None:
    rows = [row(n, 1, price=float(n)) for n in range(1, 101)]
    random.Random(1).shuffle(rows)
    column = measured(rows).log.columns["price"]
    assert len(column.quantiles) == len(GRID) == 21
    assert column.quantiles[0] == 1
    assert column.quantiles[10] == 50
    assert column.quantiles[-1] == 100


def test_a_number_that_is_none_is_null() -> None:
    prices = [1.0, float("nan"), float("inf"), None]
    column = measured([row(n, 1, price=price) for n, price in enumerate(prices)]).log.columns["price"]
    assert (column.nulls, column.values, set(column.quantiles)) == (0.75, 1, {1.0})


def test_a_bool_is_a_category() -> None:
    column = measured([row(n, 1, app=n < 3) for n in range(4)]).log.columns["app"]
    assert column.categories == {"true": 0.75, "false": 0.25}


def test_a_bag_is_measured_by_its_single_values_and_an_empty_one_is_null() -> None:
    bags = [["a", "b"], ["a"], [], None, ["a", None]]
    columns = measured([row(n, 1, tags=bag, tags_weights=None) for n, bag in enumerate(bags)]).log.columns
    assert columns["tags"] == ColumnProfile(nulls=0.4, values=4, categories={"a": 0.75, "b": 0.25})
    assert columns["tags_weights"] == ColumnProfile(nulls=1.0, values=0)


def test_weights_of_a_bag_have_quantiles() -> None:
    column = measured([row(1, 1, tags=["a", "b"], tags_weights=[1.0, 3.0])]).log.columns["tags_weights"]
    assert (column.quantiles[0], column.quantiles[-1], column.values) == (1.0, 3.0, 2)


def test_ids_have_no_profile() -> None:
    assert set(measured([row(1, 1)]).log.columns) == {
        "device", "hour", "price", "app", "words", "tags", "tags_weights",
    }  # fmt: skip


def test_a_view_is_measured_at_the_latest_row_of_each_key_of_the_last_days() -> None:
    rows = [row(1, 1, user_id="gone"), row(2, 5, user_id="u1"), row(3, 6, user_id="u2"), row(4, 7, user_id="new")]
    people = [
        person("gone", 1, "fr"), person("u1", 1, "fr"), person("u1", 4, "de"), person("u2", 1, None, None),
        person("never", 1, "fr"),
    ]  # fmt: skip
    view = measured(rows, people).views["people"]
    assert view.rows == 2
    assert view.columns["country"] == ColumnProfile(nulls=0.5, values=1, categories={"de": 1.0})
    assert view.columns["age"].nulls == 0.5


def test_of_two_rows_of_one_time_the_one_created_later_counts() -> None:
    later = {**person("u1", 1, "de"), "created": START + timedelta(hours=1)}
    view = measured([row(1, 1)], [later, person("u1", 1, "fr")]).views["people"]
    assert view.columns["country"].categories == {"de": 1.0}


def test_a_column_the_log_lacks_is_left_out() -> None:
    with duck.connect() as db:
        db.register("good", pa.Table.from_pylist([row(1, 1)], schema=LOG).drop_columns(["device"]))
        columns = measure(db, "good", INFO, SPEC, {}, AS_OF, "print").log.columns
    assert "device" not in columns
    assert "price" in columns


def test_a_list_where_a_value_is_declared_is_left_out() -> None:
    table = pa.Table.from_pylist([row(1, 1)], schema=LOG).drop_columns(["device"])
    with duck.connect() as db:
        db.register("good", table.append_column("device", pa.array([["phone"]])))
        assert "device" not in measure(db, "good", INFO, SPEC, {}, AS_OF, "print").log.columns


def many(count: int) -> list[Row]:
    draw = random.Random(7)
    return [
        row(n, 1 + n % 4, device=draw.choice("abcd"), price=draw.gauss(0, 1), hour=float(draw.randrange(24)))
        for n in range(count)
    ]


def test_a_large_log_is_sampled_and_the_order_of_rows_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiles, "SAMPLED", 500)
    rows = many(4000)
    text = measured(rows).to_text()
    random.Random(3).shuffle(rows)
    assert measured(rows).to_text() == text
    found = Profile.parse(text)
    assert found.log.rows == 4000
    assert sum(day.rows for day in found.days.values()) == 4000
    assert 300 < found.log.columns["price"].values < 700
    assert found.log.columns["device"].categories["a"] == pytest.approx(0.25, abs=0.06)


def test_threads_do_not_change_the_text(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pq.write_table(pa.Table.from_pylist(many(30_000), schema=LOG), path, row_group_size=2048)
    texts = set()
    for threads in (1, 4):
        with duck.connect() as db:
            db.execute(f"SET threads = {threads}")
            good = f"(SELECT * FROM read_parquet({duck.text(path)}))"
            texts.add(measure(db, good, INFO, SPEC, {}, AS_OF, "print").to_text())
    assert len(texts) == 1


def test_figures_have_six_significant_digits() -> None:
    column = measured([row(n, 1, device="a" if n else "b", price=1 / 3) for n in range(3)]).log.columns
    assert column["device"].categories == {"a": 0.666667, "b": 0.333333}
    assert set(column["price"].quantiles) == {0.333333}


def test_the_file_is_one_a_person_can_review_and_reads_back(tmp_path: Path) -> None:
    profile = measured([row(1, 1, device="Ünï\x00 \U0001f600")])
    text = profile.to_text()
    path = tmp_path / "reference.json"
    path.write_text(text, encoding="utf-8")
    assert load(path) == profile
    assert list(json.loads(text)) == sorted(json.loads(text))
    assert "😀" in text, "readable as it is"
    assert max(len(line) for line in text.splitlines()) < 400
    assert text.count("quantiles") == sum('"quantiles": [' in line for line in text.splitlines())


def test_a_profile_can_name_fewer_categories() -> None:
    column = ColumnProfile(nulls=0.0, values=9, categories={"a": 0.5, "b": 0.3, "c": 0.1}, others=0.1)
    assert column.largest(2) == ColumnProfile(nulls=0.0, values=9, categories={"a": 0.5, "b": 0.3}, others=0.2)
    assert column.largest(3) == column


@pytest.mark.parametrize(
    ("content", "said"), [(b"{}", "missing key 'dataset'"), (b"\xff", "cannot be read"), (b"[]", "(whole)")]
)
def test_a_file_that_is_no_profile_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "reference.json"
    path.write_bytes(content)
    with pytest.raises(UsageError) as error:
        load(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)


def test_a_file_that_does_not_exist_is_refused_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="esmm profile accept"):
        load(tmp_path / "none.json")
