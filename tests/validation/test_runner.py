"""Reading Great Expectations' results: the traps it has."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from components.validation.runner import Runner
from components.validation.suite import rule


@pytest.fixture(scope="module")
def runner() -> Runner:
    return Runner()


def test_analytics_are_off() -> None:
    """Checked in a fresh process, where nothing else has set the variable."""
    code = (
        "import os; from components.validation.runner import library; library(); "
        "print(os.environ['GX_ANALYTICS_ENABLED'])"
    )
    bare = {name: value for name, value in os.environ.items() if name != "GX_ANALYTICS_ENABLED"}
    done = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["false"]


def test_configs_are_importable_without_the_library() -> None:
    """`plan` and the command line read the limits: that must not cost the seconds the library takes to import."""
    code = "import sys; import components.validation.validate; print('great_expectations' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_row_numbers_come_from_the_library(runner: Runner) -> None:
    frame = pd.DataFrame({"click": [0.0, 1.0, 2.0, np.nan], "conversion": [1.0, 1.0, 0.0, 1.0]})
    rules = [
        rule("ColumnValuesToBeInSet", "LABEL", "click is 0 or 1", column="click", value_set=[0, 1]),
        rule("ColumnValuesToNotBeNull", "NULL_LABEL", "click is not null", column="click"),
    ]
    checked = runner.check("numbers", frame, rules, {"click"})
    assert {number: rows.tolist() for number, rows in checked.bad.items()} == {0: [2], 1: [3]}
    assert checked.outcomes[0].examples == ("2",)
    assert checked.outcomes[0].observed == "1 of 4 rows"


def test_a_rule_without_its_column_is_reported_and_not_run(runner: Runner) -> None:
    rules = [rule("ColumnValuesToNotBeNull", "NULL_LABEL", "click is not null", column="click")]
    (outcome,) = runner.check("lacking", pd.DataFrame({"a": [1]}), rules, {"a"}).outcomes
    assert (outcome.status, outcome.problem) == ("not run", "not run: it needs click")


def test_an_exception_inside_the_library_is_an_error_and_no_pass(runner: Runner) -> None:
    rules = [rule("ColumnValuesToNotBeNull", "NULL_LABEL", "click is not null", column="click")]
    (outcome,) = runner.check("raising", pd.DataFrame({"a": [1]}), rules, {"click"}).outcomes
    assert outcome.status == "error"
    assert "could not be evaluated" in outcome.problem
    assert "click" in outcome.problem


def test_outcomes_keep_the_order_of_the_rules(runner: Runner) -> None:
    frame = pd.DataFrame({name: [1.0] for name in "edcba"})
    rules = [rule("ColumnValuesToNotBeNull", "NULL_LABEL", f"{name} has a value", column=name) for name in "ebdac"]
    outcomes = runner.check("order", frame, rules, set("abcde")).outcomes
    assert [outcome.needs[0] for outcome in outcomes] == list("ebdac")


def test_infinity_and_emptiness_are_found(runner: Runner) -> None:
    frame = pd.DataFrame({"x": [1.0, np.inf, -np.inf, np.nan], "empty": [np.nan] * 4})
    rules = [
        rule("ColumnValuesToBeBetween", "CONTEXT_INFINITE", "x is finite", column="x", min_value=-1e9, max_value=1e9),
        rule("ColumnProportionOfNonNullValuesToBeBetween", "CONTEXT_EMPTY", "empty has a value", column="empty",
             min_value=0, strict_min=True),
    ]  # fmt: skip
    checked = runner.check("infinite", frame, rules, {"x", "empty"})
    assert checked.bad[0].tolist() == [1, 2]
    assert checked.outcomes[1].status == "failed"
