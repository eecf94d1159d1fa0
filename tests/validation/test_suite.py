"""The set-wide suites: that every code is used and every rule says what it is, and the types a column may have."""

from __future__ import annotations

from typing import Any

import pytest
from validation.made import AS_OF, WIDE_CONFIG

from components.contracts import columns as c
from components.contracts.spec import FeatureSpec
from components.validation import suite
from components.validation.gate import ValidationLimits
from components.validation.validate import ValidateConfig

LIMITS = ValidationLimits()


def everything() -> list[Any]:
    """All expectations the stage can run but drift's."""
    return [
        *suite.column_suite("COLUMN_MISSING", "COLUMN_TYPE"),
        *suite.column_suite("VIEW_COLUMN", "VIEW_TYPE"),
        *suite.whole_suite(LIMITS, dated=True, imported=True),
        *suite.day_suite(),
        *suite.split_suite(),
        *suite.context_suite(),
        *suite.view_suite(LIMITS, AS_OF),
        *suite.field_suite(LIMITS),
    ]


def test_every_code_is_used_and_documented() -> None:
    used = {rule.meta["reason"] for rule in everything()} | {"DRIFT"}
    assert used == {code for code, (scope, _) in suite.REASONS.items() if scope == suite.SET}
    assert [code for code, _, _ in suite.rules_table()] == list(suite.REASONS)
    for code, scope, sentence in suite.rules_table():
        assert scope in ("row", "set"), code
        assert sentence.endswith("."), code


def test_every_rule_says_what_it_is_and_what_is_wrong_when_it_fails() -> None:
    for rule in everything():
        assert rule.meta["scope"] == "set"
        assert len(rule.meta["says"]) > 10
        assert rule.meta["broken"] != rule.meta["says"]


def test_rules_that_do_not_apply_are_left_out() -> None:
    def codes(**facts: bool) -> set[str]:
        return {rule.meta["reason"] for rule in suite.whole_suite(LIMITS, **facts)}

    assert codes(dated=False, imported=False) == {"NO_ROWS", "CLICK_RATE"}
    assert codes(dated=True, imported=False) - codes(dated=False, imported=False) == {"DAY_MISSING"}
    assert codes(dated=False, imported=True) >= {"LINES_REFUSED", "SOURCE_TRUNCATED"}


def test_columns_of_the_log_follow_contract_context_and_spec(config: ValidateConfig) -> None:
    plain = suite.log_types(config.info, config.spec)
    assert c.GROUP_ID not in plain
    wide = suite.log_types(WIDE_CONFIG.info, WIDE_CONFIG.spec)
    assert set(wide) - set(plain) == {c.GROUP_ID, "tags", "tags_weights", "words"}
    final = config.info.model_copy(update={"has_label_times": False})
    assert set(plain) - set(suite.log_types(final, config.spec)) == set(c.LABEL_TIMESTAMPS)
    bare = suite.log_types(
        config.info.model_copy(update={"context": {}}), FeatureSpec(features=config.spec.features[:2])
    )
    assert set(bare) == {*c.REQUIRED, *c.LABEL_TIMESTAMPS, c.SPLIT}


@pytest.mark.parametrize(
    ("dtype", "good", "bad"),
    [("int", "int32", "string"), ("bool", "bool", "int64"), ("strings", "list<string>", "string"),
     ("floats", "list<double>", "list<string>")],
)  # fmt: skip
def test_types_of_context(dtype: Any, good: str, bad: str) -> None:
    assert good in suite.TYPES[dtype]
    assert bad not in suite.TYPES[dtype]


def test_every_kind_of_column_has_a_plain_name() -> None:
    allowed = {*suite.TYPES.values(), suite.STRINGS, suite.UTC, suite.LABEL_TYPES}
    assert allowed == set(suite.PLAIN)
