"""The suites: how many rules, that every code is used and every rule says what it is."""

from __future__ import annotations

from typing import Any

import pytest

from components.contracts import columns as c
from components.contracts.dataset import DatasetInfo
from components.contracts.spec import Feature, FeatureSpec
from components.validation import suite
from components.validation.gate import ValidationLimits
from components.validation.validate import ValidateConfig

AS_OF = "2026-01-20T00:00:00Z"


def everything(config: ValidateConfig) -> list[Any]:
    """All expectations the stage runs for a config."""
    info, spec, limits = config.info, config.spec, config.limits
    log = suite.log_types(info, spec)
    rules = [
        *suite.exist_suite(log, "COLUMN_MISSING", "the log"),
        *suite.type_suite(log, "COLUMN_TYPE", "the log"),
        *suite.row_suite(info, spec, limits, AS_OF),
        *suite.count_suite("NO_ROWS", "the log"),
        *suite.whole_suite(info, spec, limits),
    ]
    for view in spec.views:
        types = suite.view_types(view, spec)
        rules += suite.exist_suite(types, "VIEW_COLUMN", view.name) + suite.type_suite(types, "VIEW_TYPE", view.name)
        rules += suite.count_suite("VIEW_EMPTY", view.name) + suite.view_suite(view, spec, AS_OF)
    return rules


def test_there_are_more_than_25_expectations_even_without_context_or_views() -> None:
    spec = FeatureSpec(features=(Feature(name="item_id", source="id", dtype="string", encoding="id"),))
    info = DatasetInfo(name="bare", source="parquet")
    assert len(everything(ValidateConfig(spec=spec, info=info))) >= 25
    assert len(suite.row_suite(info, spec, ValidationLimits(), AS_OF)) >= 20


def test_every_code_is_used_and_documented(config: ValidateConfig) -> None:
    rules = everything(config)
    assert {rule.meta["reason"] for rule in rules} == set(suite.REASONS)
    assert [code for code, _, _ in suite.rules_table()] == list(suite.REASONS)
    for code, scope, sentence in suite.rules_table():
        assert scope in ("row", "set"), code
        assert sentence.endswith("."), code


def test_every_rule_says_what_it_is(config: ValidateConfig) -> None:
    rules = everything(config)
    for rule in rules:
        assert rule.meta["scope"] == suite.REASONS[rule.meta["reason"]][0]
        assert len(rule.meta["says"]) > 10
    sentences = [rule.meta["says"] for rule in rules]
    assert len(set(sentences)) == len(sentences), "no rule is stated twice"


def test_context_rules_follow_names_and_types(config: ValidateConfig) -> None:
    def codes(context: dict[str, Any]) -> list[tuple[str, str]]:
        info = config.info.model_copy(update={"context": context})
        spec = FeatureSpec(features=config.spec.features[:2])
        made = suite.row_suite(info, spec, config.limits, AS_OF)
        return [
            (r.meta["reason"], r.column) for r in made if r.meta["reason"] in ("POSITION", "HOUR", "CONTEXT_INFINITE")
        ]

    assert codes({"position": "int", "hour": "int", "price": "float", "device": "string"}) == [
        ("POSITION", "position"), ("HOUR", "hour"), ("CONTEXT_INFINITE", "price"),
    ]  # fmt: skip
    assert codes({"hour": "string", "fresh": "bool"}) == []


def test_label_times_are_checked_only_where_the_log_has_them(config: ValidateConfig) -> None:
    info = config.info.model_copy(update={"has_label_times": False})
    assert c.CLICK_TIMESTAMP not in suite.log_types(info, config.spec)
    needed = {name for r in suite.row_suite(info, config.spec, config.limits, AS_OF) for name in r.meta["needs"]}
    assert not needed & set(c.LABEL_TIMESTAMPS)


@pytest.mark.parametrize(("dtype", "good", "bad"), [("int", "int32", "string"), ("bool", "bool", "int64")])
def test_types_of_context(dtype: Any, good: str, bad: str) -> None:
    assert good in suite.TYPES[dtype]
    assert bad not in suite.TYPES[dtype]
