"""Running Great Expectations over tables in memory, and reading its results into plain outcomes.

The library is imported late (it takes seconds) and with its analytics switched off.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.contracts.config import Config

EXAMPLES = 5
LONGEST_EXAMPLE = 80
INDEX_NAME = "file"
TRIMMED = ("unexpected_list", "unexpected_index_list", "unexpected_index_query")
"""Parts of a result that hold one entry a bad row: the quarantine has them, the kept JSON need not."""

Status = Literal["passed", "failed", "error", "not run"]


@cache
def library() -> SimpleNamespace:
    """What is used of Great Expectations. Its analytics are off (contracts/quiet.py)."""
    import great_expectations as gx
    import great_expectations.expectations as expectations
    from great_expectations.expectations.row_conditions import Column
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    return SimpleNamespace(
        gx=gx,
        expectations=expectations,
        Column=Column,
        renderer=ValidationResultsPageRenderer,
        view=DefaultJinjaPageView,
    )


class Outcome(Config):
    """What became of one expectation, in words and counts. `unexpected` and `rows` count what it looked at."""

    suite: str
    kind: str
    code: str
    scope: Literal["row", "set"]
    says: str
    status: Status
    needs: tuple[str, ...] = ()
    observed: str = ""
    unexpected: int = 0
    rows: int = 0
    examples: tuple[str, ...] = ()
    problem: str = ""
    """Why it failed (set), or why it could not be run."""


@dataclass(frozen=True)
class Checked:
    """One suite over one table. `bad` maps the position of an outcome to the row numbers it objects to."""

    outcomes: tuple[Outcome, ...]
    native: dict[str, Any] | None = None
    """Great Expectations' own result as JSON, without the lists that grow with the number of bad rows."""
    bad: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    page: str = ""
    """Great Expectations' own page of the result (HTML that loads scripts from the web); "" if nothing ran."""


class Runner:
    """An in-memory Great Expectations context; it writes nothing to disk and asks no network."""

    def __init__(self) -> None:
        gx = library().gx
        self._context = gx.get_context(mode="ephemeral")
        self._context.variables.progress_bars = {"globally": False}
        self._pandas = self._context.data_sources.add_pandas("tables")

    def check(self, name: str, frame: Any, expectations: list[Any], healthy: set[str]) -> Checked:
        """Runs those expectations whose needed columns are healthy over a pandas frame.

        Row rules need the frame's index to be 0..rows-1; an index named `file` is given with the examples.
        """
        runnable = [e for e in expectations if set(e.meta["needs"]) <= healthy]
        for order, expectation in enumerate(runnable):
            expectation.meta = {**expectation.meta, "order": order}
        results: list[Any] = []
        native = None
        if runnable:
            suite = library().gx.ExpectationSuite(name=name, expectations=runnable)
            asset = self._pandas.add_dataframe_asset(name)
            batch = asset.add_batch_definition_whole_dataframe("whole").get_batch(
                batch_parameters={"dataframe": frame.reset_index() if frame.index.name == INDEX_NAME else frame}
            )
            form: dict[str, Any] = {"result_format": "COMPLETE"}
            if frame.index.name == INDEX_NAME:
                form["unexpected_index_column_names"] = [INDEX_NAME]
            validated = batch.validate(suite, result_format=form)
            results = sorted(validated.results, key=lambda r: int(r.expectation_config.meta["order"]))
            native = _native(validated)
        outcomes: list[Outcome] = []
        bad: dict[int, NDArray[np.int64]] = {}
        found = iter(results)
        for expectation in expectations:
            lacking = sorted(set(expectation.meta["needs"]) - healthy)
            if lacking:
                outcomes.append(_not_run(name, expectation, lacking))
                continue
            result = next(found)
            outcome = _outcome(name, expectation, result)
            if outcome.scope == "row" and outcome.status == "failed":
                bad[len(outcomes)] = np.asarray(result.result["unexpected_index_list"], dtype=np.int64)
            outcomes.append(outcome)
        return Checked(tuple(outcomes), native, bad, _page(validated) if runnable else "")


def _page(validated: Any) -> str:
    """GX's own page of a result. It loads scripts and styles from the web: kept beside ours, not in its place."""
    gx = library()
    for result in validated.results:
        for key in TRIMMED:
            result.result.pop(key, None)
    validated.meta.setdefault("run_id", None)
    page: str = gx.view().render(gx.renderer().render(validated))
    return page


def _not_run(suite: str, expectation: Any, lacking: list[str]) -> Outcome:
    return Outcome(
        suite=suite, **_facts(expectation), status="not run",
        problem=f"not run: it needs {', '.join(lacking)}",
    )  # fmt: skip


def _facts(expectation: Any) -> dict[str, Any]:
    meta = expectation.meta
    return {
        "kind": type(expectation).__name__,
        "code": meta["reason"],
        "scope": meta["scope"],
        "says": meta["says"],
        "needs": tuple(meta["needs"]),
    }


def _outcome(suite: str, expectation: Any, result: Any) -> Outcome:
    facts = _facts(expectation)
    raised = _raised(result.exception_info)
    if raised:
        problem = f"the rule that {facts['says']} could not be evaluated ({raised})"
        return Outcome(suite=suite, **facts, status="error", problem=problem)
    values = result.result
    unexpected = int(values.get("unexpected_count") or 0)
    rows = int(values.get("element_count") or 0)
    examples = _examples(values)
    if "unexpected_count" in values:
        observed = f"{unexpected:,} of {rows:,} rows"
    else:
        observed = _text(values.get("observed_value")) if values.get("observed_value") is not None else ""
    problem = ""
    if not result.success and facts["scope"] == "set":
        found = examples[0] if "partial_unexpected_index_list" in values and _named(values) else observed
        problem = str(expectation.meta["broken"]).replace("{found}", found or "nothing")
    return Outcome(
        suite=suite, **facts, status="passed" if result.success else "failed", observed=observed,
        unexpected=unexpected, rows=rows, examples=examples, problem=problem,
    )  # fmt: skip


def _raised(info: dict[str, Any]) -> str:
    """The message of an exception, in either of the two shapes the library reports it in; empty if there is none."""
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]
    return messages[0].strip().splitlines()[0] if messages else ""


def _named(values: dict[str, Any]) -> bool:
    places = values.get("partial_unexpected_index_list") or []
    return bool(places) and isinstance(places[0], dict)


def _examples(values: dict[str, Any]) -> tuple[str, ...]:
    """The first few different unexpected values; with the file they are in where the table is one of files."""
    if _named(values):
        texts = [
            f"{_text(next(v for k, v in place.items() if k != INDEX_NAME))} in {place[INDEX_NAME]}"
            for place in values["partial_unexpected_index_list"]
        ]
    else:
        texts = [_text(value) for value in values.get("partial_unexpected_list") or [] if not _missing(value)]
    return tuple(dict.fromkeys(texts))[:EXAMPLES]


def _missing(value: Any) -> bool:
    """Whether a value is one of pandas' nulls; a pair of values is not."""
    import pandas as pd

    return not isinstance(value, (list, tuple, dict)) and bool(pd.isna(value))


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())[:LONGEST_EXAMPLE]
    if isinstance(value, (list, tuple)):
        return " / ".join(_text(item) for item in value)
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6g}"
    if isinstance(value, str):
        text = value if value.isprintable() and value.strip() == value != "" else repr(value)
    else:
        text = str(value)
    return text if len(text) <= LONGEST_EXAMPLE else text[: LONGEST_EXAMPLE - 1] + "…"


def _native(validated: Any) -> dict[str, Any]:
    document: dict[str, Any] = validated.to_json_dict()
    for result in document.get("results", []):
        for key in TRIMMED:
            result.get("result", {}).pop(key, None)
        if "exception_info" in result and not _raised(result["exception_info"]):
            del result["exception_info"]
    cleaned: dict[str, Any] = _finite(document)
    return cleaned


def _finite(value: Any) -> Any:
    """NaN and infinity as text: JSON has neither."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
