"""Running Great Expectations over small frames of aggregates, and reading its results into plain outcomes.

The library is imported late (it takes seconds) and with its analytics switched off.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cache
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from components.contracts.config import Config

EXAMPLES = 5
LONGEST_EXAMPLE = 80
SENTENCES = 20
"""How many failing lines of a frame are each put into words before the rest are only counted."""
TRIMMED = ("unexpected_list", "unexpected_index_list", "unexpected_index_query")
"""Parts of a result that hold one entry an unexpected line: ours hold them, the kept JSON need not."""

Status = Literal["passed", "failed", "error", "not run"]


@cache
def library() -> SimpleNamespace:
    """What is used of Great Expectations. Its analytics are off (contracts/quiet.py)."""
    import great_expectations as gx
    import great_expectations.expectations as expectations
    from great_expectations.render.renderer import ValidationResultsPageRenderer
    from great_expectations.render.view import DefaultJinjaPageView

    # One view for all pages: each keeps the templates it has compiled.
    return SimpleNamespace(
        gx=gx, expectations=expectations, renderer=ValidationResultsPageRenderer(), view=DefaultJinjaPageView()
    )


class Outcome(Config):
    """What became of one rule, in words and counts. `unexpected` and `rows` count what it looked at."""

    suite: str
    kind: str
    """The expectation's class, or what else evaluated the rule."""
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
    """One suite over one frame. `bad` maps the position of an outcome to the frame's lines it objects to."""

    outcomes: tuple[Outcome, ...]
    native: dict[str, Any] | None = None
    """Great Expectations' own result as JSON, without the lists that grow with the number of unexpected lines."""
    bad: dict[int, NDArray[np.int64]] = field(default_factory=dict)
    page: str = ""
    """Great Expectations' own page of the result (HTML that loads scripts from the web); "" if nothing ran."""


class Runner:
    """An in-memory Great Expectations context; it writes nothing to disk and asks no network."""

    def __init__(self) -> None:
        context = library().gx.get_context(mode="ephemeral")
        context.variables.progress_bars = {"globally": False}
        # One asset for all frames: each new one costs the library two dumps of its whole configuration.
        asset = context.data_sources.add_pandas("aggregates").add_dataframe_asset("frame")
        self._frame = asset.add_batch_definition_whole_dataframe("whole")

    def check(self, name: str, frame: Any, expectations: list[Any], healthy: set[str]) -> Checked:
        """Runs those expectations whose needed columns are healthy over a pandas frame.

        The frame's index must be 0..lines-1. A rule over a frame's lines gets one sentence for each line it objects
        to, made from `broken` by putting the line's cells for {column}; a rule over a whole column gets one, in which
        {found} is what was observed.
        """
        runnable = [e for e in expectations if set(e.meta["needs"]) <= healthy]
        for order, expectation in enumerate(runnable):
            expectation.meta = {**expectation.meta, "order": order}
        results: list[Any] = []
        native = None
        if runnable:
            suite = library().gx.ExpectationSuite(name=name, expectations=runnable)
            batch = self._frame.get_batch(batch_parameters={"dataframe": frame})
            validated = batch.validate(suite, result_format={"result_format": "COMPLETE"})
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
            outcome, lines = _outcome(name, expectation, result, frame)
            if lines.size:
                bad[len(outcomes)] = lines
            outcomes.append(outcome)
        return Checked(tuple(outcomes), native, bad, _page(validated) if runnable else "")


def _page(validated: Any) -> str:
    """GX's own page of a result. It loads scripts and styles from the web: kept beside ours, not in its place."""
    gx = library()
    for result in validated.results:
        for key in TRIMMED:
            result.result.pop(key, None)
        if isinstance(observed := result.result.get("observed_value"), np.generic):
            result.result["observed_value"] = observed.item()  # the library reads numbers from their repr
    validated.meta.setdefault("run_id", None)
    page: str = gx.view.render(gx.renderer.render(validated))
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


def _outcome(suite: str, expectation: Any, result: Any, frame: Any) -> tuple[Outcome, NDArray[np.int64]]:
    """What a result says, and the frame's lines it objects to."""
    facts = _facts(expectation)
    none = np.zeros(0, dtype=np.int64)
    raised = _raised(result.exception_info)
    if raised:
        problem = f"the rule that {facts['says']} could not be evaluated ({raised})"
        return Outcome(suite=suite, **facts, status="error", problem=problem), none
    values = result.result
    unexpected, rows = int(values.get("unexpected_count") or 0), int(values.get("element_count") or 0)
    lines = np.asarray(values.get("unexpected_index_list") or [], dtype=np.int64)
    broken = str(expectation.meta["broken"])
    if "unexpected_count" in values:
        observed = f"{unexpected:,} of {rows:,} {expectation.meta.get('unit') or 'rows'}"
        sentences = [fill(broken, {**frame.iloc[line].to_dict(), "found": observed}) for line in lines[:SENTENCES]]
        sentences += [f"and {len(lines) - SENTENCES} more like it"] if len(lines) > SENTENCES else []
    else:
        observed = text(values.get("observed_value")) if values.get("observed_value") is not None else ""
        sentences = [fill(broken, {**_only_line(frame), "found": observed or "nothing"})]
    problem = "; ".join(dict.fromkeys(sentences)) if not result.success and facts["scope"] == "set" else ""
    outcome = Outcome(
        suite=suite, **facts, status="passed" if result.success else "failed", observed=observed,
        unexpected=unexpected, rows=rows, examples=_examples(values), problem=problem,
    )  # fmt: skip
    return outcome, lines


def _only_line(frame: Any) -> dict[str, Any]:
    return dict(frame.iloc[0].to_dict()) if len(frame) == 1 else {}


def _cell(value: Any) -> str:
    """A cell of a frame in a sentence: whole numbers with commas, text uncut."""
    if isinstance(value, (float, np.floating)) and float(value).is_integer() and abs(float(value)) < 1e15:
        return f"{int(value):,}"
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return f"{int(value):,}"
    if isinstance(value, str):
        return value if value.isprintable() else repr(value)
    return text(value)


def fill(template: str, values: dict[str, Any]) -> str:
    """The template with {name} replaced where the name is known, in one go: what is put in is not read again."""
    return re.sub(
        r"\{([^{}]+)\}", lambda part: _cell(values[part[1]]) if part[1] in values else part[0], template
    )  # fmt: skip


def _raised(info: dict[str, Any]) -> str:
    """The message of an exception, in either of the two shapes the library reports it in; empty if there is none."""
    entries = [info] if "raised_exception" in info else list(info.values())
    messages = [str(entry.get("exception_message")) for entry in entries if entry.get("raised_exception")]
    return messages[0].strip().splitlines()[0] if messages else ""


def _examples(values: dict[str, Any]) -> tuple[str, ...]:
    """The first few different unexpected values."""
    texts = [text(value) for value in values.get("partial_unexpected_list") or [] if not _missing(value)]
    return tuple(dict.fromkeys(texts))[:EXAMPLES]


def _missing(value: Any) -> bool:
    """Whether a value is one of pandas' nulls; a pair of values is not."""
    import pandas as pd

    return not isinstance(value, (list, tuple, dict)) and bool(pd.isna(value))


def text(value: Any) -> str:
    """A value as a person reads it: numbers short, what cannot be printed escaped, at most 80 characters."""
    if isinstance(value, dict):
        return ", ".join(f"{key} {text(item)}" for key, item in value.items())[:LONGEST_EXAMPLE]
    if isinstance(value, (list, tuple)):
        return " / ".join(text(item) for item in value)
    if isinstance(value, (float, np.floating)):
        return f"{float(value):.6g}"
    if isinstance(value, str):
        shown = value if value.isprintable() and value.strip() == value != "" else repr(value)
    else:
        shown = str(value)
    return shown if len(shown) <= LONGEST_EXAMPLE else shown[: LONGEST_EXAMPLE - 1] + "…"


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
    """NaN and infinity as text, since JSON has neither; numpy's scalars as Python's."""
    if isinstance(value, dict):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, np.generic):
        return _finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
