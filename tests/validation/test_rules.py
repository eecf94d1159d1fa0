"""The row rules: which there are, and that DuckDB finds exactly what a plain loop over Python values finds."""

from __future__ import annotations

import math
import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from validation.made import (
    AS_OF,
    CLICK_WINDOW,
    CONVERSION_WINDOW,
    INFO,
    SPEC,
    START,
    WIDE_CONFIG,
    Row,
    wide,
)

from components.contracts import columns as c
from components.contracts.dataset import DatasetInfo
from components.contracts.spec import Feature, FeatureSpec
from components.validation.gate import ValidationLimits
from components.validation.rules import RowRule, row_rules
from components.validation.suite import REASONS, ROW

LIMITS = ValidationLimits()


def rules(info: DatasetInfo = INFO, spec: FeatureSpec = SPEC) -> tuple[RowRule, ...]:
    return row_rules(info, spec, LIMITS, AS_OF)


def test_there_are_at_least_20_even_without_context_or_views() -> None:
    spec = FeatureSpec(features=(Feature(name="item_id", source="id", dtype="string", encoding="id"),))
    assert len(rules(DatasetInfo(name="bare", source="parquet"), spec)) >= 20


def test_every_code_is_used_in_the_order_of_the_reasons() -> None:
    codes = [rule.code for rule in row_rules(WIDE_CONFIG.info, WIDE_CONFIG.spec, LIMITS, AS_OF)]
    assert list(dict.fromkeys(codes)) == [code for code, (scope, _) in REASONS.items() if scope == ROW]


def test_every_rule_says_what_it_is_and_none_is_stated_twice() -> None:
    made = row_rules(WIDE_CONFIG.info, WIDE_CONFIG.spec, LIMITS, AS_OF)
    assert all(len(rule.says) > 10 for rule in made)
    assert len({rule.says for rule in made}) == len(made)
    assert len({rule.bad for rule in made}) == len(made)


def test_a_set_wide_code_is_no_reason_for_a_row() -> None:
    with pytest.raises(ValueError, match="CLICK_RATE"):
        RowRule("CLICK_RATE", "click rate", (), "true")


def test_context_rules_follow_names_and_types() -> None:
    def codes(context: dict[str, Any]) -> list[tuple[str, str]]:
        info = INFO.model_copy(update={"context": context})
        made = rules(info, FeatureSpec(features=SPEC.features[:2]))
        return [(r.code, r.needs[0]) for r in made if r.code in ("POSITION", "HOUR", "CONTEXT_INFINITE", "BAG")]

    assert codes({"position": "int", "hour": "int", "price": "float", "device": "string"}) == [
        ("POSITION", "position"), ("HOUR", "hour"), ("CONTEXT_INFINITE", "price"),
    ]  # fmt: skip
    assert codes({"hour": "string", "fresh": "bool"}) == []
    assert codes({"tags": "strings", "tags_weights": "floats", "words": "strings", "lone": "floats"}) == [
        ("BAG", "tags"), ("BAG", "words"), ("BAG", "lone"),
    ]  # fmt: skip


def test_label_times_are_checked_only_where_the_log_has_them() -> None:
    needed = {name for rule in rules(INFO.model_copy(update={"has_label_times": False})) for name in rule.needs}
    assert not needed & set(c.LABEL_TIMESTAMPS)


# The same rules as a plain loop.


def missing(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def seconds(later: Any, earlier: Any) -> float | None:
    return None if later is None or earlier is None else (later - earlier).total_seconds()


def bad_weights(weights: list[Any] | None) -> bool:
    return any(w is None or not math.isfinite(w) or w < 0 for w in weights or ())


def reasons_of(r: Row, copies: Counter[str]) -> list[str]:
    """What is wrong with a row of the wide log, by the sentences of the documentation."""
    click, conversion = r["click"], r["conversion"]
    event, clicked, bought = r["event_timestamp"], r["click_timestamp"], r["conversion_timestamp"]
    ids = [r[name] for name in ("impression_id", "user_id", "item_id", "group_id")]
    present = [value for value in ids if value is not None]
    found = set()
    if any(value is None for value in ids[:3]):
        found.add("NULL_ID")
    if r["group_id"] is None:
        found.add("NULL_GROUP")
    if event is None:
        found.add("NULL_TIME")
    if missing(click) or missing(conversion):
        found.add("NULL_LABEL")
    if r["split"] is None:
        found.add("NULL_SPLIT")
    elif r["split"] not in ("train", "valid", "test", "gap"):
        found.add("SPLIT")
    if r["impression_id"] is not None and copies[r["impression_id"]] > 1:
        found.add("DUPLICATE_ID")
    if any(not 1 <= len(value) <= 256 for value in present):
        found.add("ID_LENGTH")
    if any(ord(letter) < 32 or ord(letter) == 127 for value in present for letter in value):
        found.add("ID_CHARACTERS")
    if any(not missing(label) and label not in (0, 1) for label in (click, conversion)):
        found.add("LABEL")
    if not missing(click) and not missing(conversion) and conversion > click:
        found.add("FUNNEL")
    to_click, to_conversion = seconds(clicked, event), seconds(bought, clicked)
    if to_click is not None and to_click < 0:
        found.add("CLICK_BEFORE_EVENT")
    if to_conversion is not None and to_conversion < 0:
        found.add("CONVERSION_BEFORE_CLICK")
    if click == 1 and (clicked is None or (to_click is not None and to_click > CLICK_WINDOW)):
        found.add("CLICK_TIME")
    if click == 0 and to_click is not None and to_click < CLICK_WINDOW:
        found.add("CLICK_TIME")
    if click == 1 and conversion == 1 and (bought is None or (to_conversion or 0) > CONVERSION_WINDOW):
        found.add("CONVERSION_TIME")
    if click == 1 and conversion == 0 and to_conversion is not None and to_conversion < CONVERSION_WINDOW:
        found.add("CONVERSION_TIME")
    if event is not None and event.date().isoformat() != r["dt"]:
        found.add("TIME_PARTITION")
    if event is not None and not datetime(1990, 1, 1, tzinfo=UTC) <= event < datetime.fromisoformat(AS_OF):
        found.add("TIME_RANGE")
    if not missing(r["position"]) and not 1 <= r["position"] <= 1000:
        found.add("POSITION")
    if not missing(r["hour"]) and not 0 <= r["hour"] <= 23:
        found.add("HOUR")
    if not missing(r["price"]):
        if math.isinf(r["price"]):
            found.add("CONTEXT_INFINITE")
        elif not 0 <= r["price"] <= 1e4:
            found.add("RANGE")
    tags, weights = r["tags"], r["tags_weights"]
    if (
        len(tags or ()) != len(weights or ())
        or None in (tags or ())
        or bad_weights(weights)
        or None in (r["words"] or ())
    ):
        found.add("BAG")
    return [code for code in REASONS if code in found]


NAN, INF = float("nan"), float("inf")
DIRT: dict[str, list[Any]] = {
    "impression_id": [None, "", "\x00", "i0-1", "i1-2", "x" * 257, "é" * 200, "\U0001f600", "4294967297"],
    "user_id": [None, "", "u\n", "ü" * 257, "\x7f", " ", "0"],
    "item_id": [None, "a\x00", "a\x00b", "it\tem"],
    "group_id": [None, "", "\x1f", "g"],
    "click": [None, NAN, 0.0, 1.0, 2.0, 0.5, INF, -INF, -1.0],
    "conversion": [None, NAN, 0.0, 1.0, 2.0, 0.5, INF, -INF],
    "split": [None, "", "holdout", "gap", "test", "Train"],
    "position": [None, 0, 1, 1000, 1001, -(2**40)],
    "hour": [None, -1, 0, 23, 24],
    "price": [None, NAN, INF, -INF, -0.0, -1e-9, 1e4, 1e4 + 1e-8, 1e308],
    "tags": [None, [], ["a"], ["a", None], ["a", "b", "c"]],
    "tags_weights": [None, [], [1.0], [0.0, 0.0], [NAN, 1.0], [1.0, None], [-1.0, 1.0], [INF, 1.0], [1.0, -INF],
        [-0.0, 1.0]],
    "words": [None, [], [None], ["x", "y"]],
}  # fmt: skip
SHIFTS = [
    timedelta(0), timedelta(microseconds=1), timedelta(seconds=CLICK_WINDOW),
    timedelta(seconds=CLICK_WINDOW, microseconds=1), timedelta(seconds=CONVERSION_WINDOW),
    timedelta(seconds=CONVERSION_WINDOW, microseconds=1), timedelta(days=-1),
    timedelta(days=400), timedelta(days=-13_400), timedelta(days=-700_000), timedelta(days=2_000_000),
]  # fmt: skip


def dirtied(r: Row, chance: random.Random) -> Row:
    """Between none and three columns changed to something from the drawers."""
    r = dict(r)
    for _ in range(chance.choice([0, 1, 1, 2, 3])):
        name = chance.choice([*DIRT, "event_timestamp", "click_timestamp", "conversion_timestamp"])
        if name in DIRT:
            r[name] = chance.choice(DIRT[name])
        else:
            base = r["event_timestamp"] or START
            r[name] = chance.choice([None, base + chance.choice(SHIFTS), base - timedelta(microseconds=1)])
    return r


@pytest.mark.parametrize("seed", range(4))
def test_finds_what_a_plain_loop_finds(stage: Any, rows: list[Row], loose: Any, seed: int) -> None:
    chance = random.Random(seed)
    soiled = [{**dirtied(r, chance), "number": n} for n, r in enumerate(wide(rows))]
    copies = Counter(r["impression_id"] for r in soiled)
    expected = {r["number"]: reasons_of(r, copies) for r in soiled}
    kinds = {"hour": pa.int16()} if seed % 2 else {"position": pa.float64(), "click": pa.float32()}
    facts = stage.run_wide(soiled, limits=loose.limits, types={"number": pa.int64(), **kinds})
    assert len(facts["reasons"]) >= 18, "the drawers hold dirt of nearly every kind"
    found = {r["number"]: r["reasons"] for r in stage.quarantined()}
    assert found == {number: reasons for number, reasons in expected.items() if reasons}
    assert {r["number"] for r in stage.kept()} == {number for number, reasons in expected.items() if not reasons}
    assert facts["reasons"] == Counter(code for reasons in expected.values() for code in reasons)
    assert all(r["reason"] == r["reasons"][0] for r in stage.quarantined())
