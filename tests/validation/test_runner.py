"""Reading Great Expectations' results: the traps it has."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from components.validation.runner import Runner, fill
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


def test_lines_come_from_the_library_and_are_put_into_words(runner: Runner) -> None:
    frame = pd.DataFrame({"view": ["a", "b", "c"], "rows": [12345.0, 0.0, np.nan]})
    rules = [
        rule("ColumnValuesToBeBetween", "VIEW_EMPTY", "tables have rows", column="rows", min_value=1, unit="tables",
             broken="table {view} has {rows} rows ({found}, {unknown})"),
        rule("ColumnValuesToBeBetween", "VIEW_EMPTY", "tables are small", column="rows", max_value=100, unit="tables",
             broken="table {view} has {rows} rows"),
    ]  # fmt: skip
    checked = runner.check("lines", frame, rules, set(frame.columns))
    assert {number: rows.tolist() for number, rows in checked.bad.items()} == {0: [1], 1: [0]}
    assert checked.outcomes[0].problem == "table b has 0 rows (1 of 3 tables, {unknown})"
    assert checked.outcomes[1].problem == "table a has 12,345 rows"
    assert checked.outcomes[0].examples == ("0",)


def test_many_failing_lines_are_counted(runner: Runner) -> None:
    frame = pd.DataFrame({"day": [f"day {n}" for n in range(50)], "rows": [0] * 50})
    rules = [
        rule("ColumnValuesToBeBetween", "DAY_EMPTY", "days have rows", column="rows", min_value=1, broken="no {day}")
    ]
    (outcome,) = runner.check("many", frame, rules, {"rows"}).outcomes
    assert outcome.problem.startswith("no day 0; no day 1; ")
    assert outcome.problem.endswith("no day 19; and 30 more like it")
    assert outcome.unexpected == 50


def test_what_is_put_into_a_sentence_is_not_read_again() -> None:
    assert fill("{a} and {b}", {"a": "{b}", "b": "x\n"}) == "{b} and 'x\\n'"


def test_pages_show_what_was_observed(runner: Runner, caplog: pytest.LogCaptureFixture) -> None:
    """The library reads numbers from their repr, which numpy changed."""
    frame = pd.DataFrame({"click_rate": [0.0625]})
    rules = [rule("ColumnMaxToBeBetween", "CLICK_RATE", "the click rate", column="click_rate", max_value=0.5)]
    checked = runner.check("page", frame, rules, {"click_rate"})
    assert "0.0625" in checked.page
    assert checked.outcomes[0].observed == "0.0625"
    assert "unexpected Exception" not in caplog.text


def test_one_frame_after_another_is_judged_anew(runner: Runner) -> None:
    def judged(value: float) -> str:
        rules = [rule("ColumnMaxToBeBetween", "CLICK_RATE", "the click rate", column="x", max_value=1)]
        return runner.check("same", pd.DataFrame({"x": [value]}), rules, {"x"}).outcomes[0].status

    assert [judged(0.5), judged(2.0), judged(0.5)] == ["passed", "failed", "passed"]


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
