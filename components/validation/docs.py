"""The validation page: one HTML file with its style and drawings inside, rendered from the rules' outcomes.

Everything that comes from the data is escaped; nothing is loaded from anywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from components.contracts.quality import DayQuality, Quality
from components.validation.gate import Evidence, ValidationLimits, Verdict
from components.validation.runner import Outcome
from components.validation.shares import percent
from components.validation.suite import REASONS

WIDTH, HEIGHT, BASE, LEFT = 920.0, 220.0, 188.0, 56.0
"""Drawing of the days, in SVG units: size, where the axis lies, and where the first bar may start."""
MATRIX_LEFT, MATRIX_ROW = 200.0, 24.0
"""The same of reasons by day: where the first day starts, and the height of a reason's line."""
DATES_SHOWN = 10
NUMBERS_UP_TO = 20
"""More days than this are drawn without figures."""
LIMIT_AT = 62.0
"""Where the limit's mark stands in a gate's bar, percent of its width."""


@dataclass(frozen=True)
class Page:
    """What the page shows."""

    dataset: str
    as_of: str
    source: str
    verdict: Verdict
    evidence: Evidence
    limits: ValidationLimits
    reasons: dict[str, int]
    quality: Quality
    outcomes: tuple[Outcome, ...]


def render(page: Page) -> str:
    """The whole page as HTML text."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["count"] = lambda value: f"{value:,}"
    template = environment.get_template("docs.html")
    reasons = _reasons(page.reasons)
    statuses = [outcome.status for outcome in page.outcomes]
    return template.render(
        page=page,
        rows=page.evidence.rows,
        bad=page.evidence.bad,
        bad_share=percent(page.evidence.bad / page.evidence.rows) if page.evidence.rows else "0 %",
        tally={status: statuses.count(status) for status in ("passed", "failed", "error", "not run")},
        set_failures=sum(o.scope == "set" and o.status in ("failed", "error") for o in page.outcomes),
        gates=[_gate(gate.gate, gate.passed, gate.reason, gate.evidence) for gate in page.verdict.gates],
        reasons=reasons,
        days=_days(page.evidence, page.limits),
        matrix=_matrix(page.quality.days, [reason["code"] for reason in reasons]),
        groups=_groups(page.outcomes),
    )


def _gate(name: str, passed: bool, reason: str, evidence: dict[str, Any]) -> dict[str, Any]:
    """One line of the table of gates; the bar's limit mark always stands at the same place."""
    measured, limit = float(evidence.get("measured", 0)), float(evidence.get("limit", 0))
    shares = limit > 0
    return {
        "name": name,
        "passed": passed,
        "sentences": reason.split("; "),
        "measured": percent(measured, limit) if shares else (f"{measured:.0f} failed" if evidence else "none"),
        "limit": percent(limit) if shares else f"{limit:.0f}",
        "width": min(100.0, LIMIT_AT * measured / limit) if shares else (0.0 if passed else 100.0),
        "mark": LIMIT_AT if shares else None,
        "day": evidence.get("day", ""),
    }


def _reasons(reasons: dict[str, int]) -> list[dict[str, Any]]:
    most = max(reasons.values(), default=1)
    ordered = sorted(reasons.items(), key=lambda item: -item[1])
    return [
        {"code": code, "says": REASONS[code][1], "rows": rows, "width": max(0.5, 100 * rows / most)}
        for code, rows in ordered
    ]


def _days(evidence: Evidence, limits: ValidationLimits) -> dict[str, Any]:
    """Bars of each day's bad share, the funnel's part of it dark, and the lines of the two limits."""
    top = max([limits.max_day_bad_share, *(day.bad_share for day in evidence.days)]) * 1.18 or 1.0
    step = (WIDTH - LEFT) / max(1, len(evidence.days))
    every = -(-len(evidence.days) // DATES_SHOWN) or 1

    def y(share: float) -> float:
        return round(BASE - (BASE - 12) * share / top, 2)

    bars = []
    for number, day in enumerate(evidence.days):
        middle, width = LEFT + (number + 0.5) * step, min(step * 0.72, 64.0)
        bars.append(
            {
                "x": round(middle - width / 2, 2),
                "middle": round(middle, 2),
                "width": round(width, 2),
                "top": y(day.bad_share),
                "height": round(BASE - y(day.bad_share), 2),
                "funnel_top": y(day.funnel_share),
                "funnel_height": round(BASE - y(day.funnel_share), 2),
                "label": day.day[5:] if number % every == 0 else "",
                "value": percent(day.bad_share) if day.bad else "",
                "over": day.bad_share > limits.max_day_bad_share,
                "title": f"{day.day}: {day.bad:,} of {day.rows:,} rows bad ({percent(day.bad_share)}), "
                f"{day.funnel:,} conversions without a click ({percent(day.funnel_share)})",
            }
        )
    return {
        "bars": bars,
        "width": WIDTH,
        "height": HEIGHT,
        "base": BASE,
        "left": LEFT,
        "numbers": len(bars) <= NUMBERS_UP_TO,
        "limits": [
            {"y": y(limits.max_day_bad_share), "text": percent(limits.max_day_bad_share), "kind": "bad"},
            {"y": y(limits.max_day_funnel_share), "text": percent(limits.max_day_funnel_share), "kind": "funnel"},
        ],
    }


def _matrix(days: tuple[DayQuality, ...], reasons: list[str]) -> dict[str, Any]:
    """A line a reason and a cell a day, the darker the larger the share of the day's rows that have the reason."""
    shares = {(code, n): day.reasons.get(code, 0) / day.rows if day.rows else 0.0
              for code in reasons for n, day in enumerate(days)}  # fmt: skip
    top = max(shares.values(), default=0.0) or 1.0
    step = (WIDTH - MATRIX_LEFT) / max(1, len(days))
    every = -(-len(days) // DATES_SHOWN) or 1
    lines = [
        {
            "code": code,
            "y": number * MATRIX_ROW,
            "cells": [
                {
                    "x": round(MATRIX_LEFT + n * step, 2),
                    "width": round(step - min(2.0, step * 0.1), 2),
                    # By the root, so that a single row among thousands still shows.
                    "opacity": round(0.1 + 0.9 * math.sqrt(shares[code, n] / top), 3),
                    "rows": day.reasons.get(code, 0),
                    "title": f"{code} on {day.day}: {day.reasons.get(code, 0):,} of {day.rows:,} rows "
                    f"({percent(shares[code, n])})",
                }
                for n, day in enumerate(days)
                if day.reasons.get(code, 0)
            ],
        }
        for number, code in enumerate(reasons)
    ]
    labels = [
        {"x": round(MATRIX_LEFT + (n + 0.5) * step, 2), "text": day.day[5:]}
        for n, day in enumerate(days)
        if n % every == 0
    ]
    return {
        "lines": lines, "labels": labels, "width": WIDTH, "left": MATRIX_LEFT, "row": MATRIX_ROW,
        "height": len(lines) * MATRIX_ROW + 22, "numbers": len(days) <= NUMBERS_UP_TO, "step": step,
    }  # fmt: skip


def _groups(outcomes: tuple[Outcome, ...]) -> list[dict[str, Any]]:
    """Outcomes by suite, in the order they were run."""
    groups: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        groups.setdefault(outcome.suite.split(":")[0], []).append(outcome)
    return [
        {
            "name": name,
            "outcomes": members,
            "passed": sum(outcome.status == "passed" for outcome in members),
            "trouble": any(outcome.status != "passed" for outcome in members),
            "closes": members[0].scope == "set",
        }
        for name, members in groups.items()
    ]
