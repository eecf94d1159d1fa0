"""Statistics of feature tables against the same in plain Python, on random tables; the command shows them."""

from __future__ import annotations

import math
import random
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import at, view_table

from components.contracts.times import format_utc
from components.features import stats

UNTIL = 12.0


def rows(seed: int) -> list[dict]:
    """Versions of some items, with nulls, NaN, infinities, late ones, and several of one moment."""
    random_ = random.Random(seed)
    found = []
    for _ in range(random_.randrange(1, 400)):
        event = random_.choice([0.0, 3.0, 4.999, 5.0, 5.001, 11.5, 12.0, 13.0])
        found.append(
            {
                "item_id": f"i{random_.randrange(30)}",
                "event": event,
                "created": event + random_.choice([0, 0, 1, 9]),
                "item_clicks_7d": random_.choice([None, *range(9)]),
                "item_ctr_7d": random_.choice([None, math.nan, math.inf, 0.0, 0.25, random_.random()]),
            }
        )
    return found


def quantile(values: list, share: float) -> float:
    """The smallest value that so large a share of the values does not exceed."""
    return sorted(values)[math.ceil(round(share * len(values), 9)) - 1]


@pytest.mark.parametrize("seed", range(12))
def test_against_plain_python(tmp_path, seed):
    made = rows(seed)
    (tmp_path / "item_activity").mkdir()
    half = len(made) // 2
    for number, part in enumerate((made[:half], made[half:])):
        pq.write_table(view_table("item_activity", part), tmp_path / "item_activity" / f"part-{number}.parquet")
    (view,) = stats.measure(tmp_path, ("item_activity",), at(UNTIL))
    known = [row for row in made if max(row["event"], row["created"]) < UNTIL]
    versions = Counter(row["item_id"] for row in known)
    newest = {item: max(row["event"] for row in known if row["item_id"] == item) for item in versions}
    assert (view.rows, view.entities) == (len(known), len(versions))
    assert view.versions == (pytest.approx(len(known) / max(len(versions), 1)), max(versions.values(), default=0))
    assert view.expired == pytest.approx(sum(UNTIL - day > 7 for day in newest.values()) / max(len(versions), 1))
    assert view.newest_event == (format_utc(at(max(newest.values()))) if newest else None)
    for feature in view.features:
        there = [row for row in known if _is_there(row.get(feature.name))]
        values = [row[feature.name] for row in there]
        assert feature.missing == pytest.approx(1 - len(there) / len(known) if known else 0)
        assert feature.distinct == len(set(values))
        assert feature.newest_event == (format_utc(at(max(row["event"] for row in there))) if there else None)
        if values:
            assert (feature.numbers.minimum, feature.numbers.maximum) == (min(values), max(values))
            assert feature.numbers.mean == pytest.approx(math.fsum(values) / len(values))
            assert feature.numbers.quantiles == tuple(quantile(values, share) for share in stats.QUANTILES)
        else:
            assert feature.numbers is None


def _is_there(value) -> bool:
    return value is not None and math.isfinite(value)


def test_the_most_frequent_values_ties_by_value(tmp_path):
    countries = ["c", "a", "b", "a", "d", "e", "f", "g", None, "b"]
    made = [{"user_id": f"u{n}", "event": 1, "country": value} for n, value in enumerate(countries)]
    (tmp_path / "user_profile").mkdir()
    pq.write_table(view_table("user_profile", made), tmp_path / "user_profile" / "part-0.parquet")
    (view,) = stats.measure(tmp_path, ("user_profile",), at(UNTIL), only="country")
    (country,) = view.features
    assert [value.value for value in country.top] == ["a", "b", "c", "d", "e"]
    assert [value.share for value in country.top] == pytest.approx([2 / 9, 2 / 9, 1 / 9, 1 / 9, 1 / 9])
    assert (country.distinct, country.numbers) == (7, None)


def test_a_column_of_another_width_is_measured_too(tmp_path):
    table = view_table("item_activity", [{"item_id": "i1", "event": 1, "item_clicks_7d": 3, "item_ctr_7d": 0.5}])
    narrow = table.schema.set(2, pa.field("item_clicks_7d", pa.int8())).set(4, pa.field("item_ctr_7d", pa.float32()))
    (tmp_path / "item_activity").mkdir()
    pq.write_table(table.cast(narrow), tmp_path / "item_activity" / "part-0.parquet")
    (view,) = stats.measure(tmp_path, ("item_activity",), at(UNTIL))
    found = {feature.name: feature for feature in view.features}
    assert (found["item_clicks_7d"].numbers.mean, found["item_ctr_7d"].numbers.mean) == (3, 0.5)
