"""The report's figures of the data: quarantine and conversions by day, drift against its limits. As in `plots.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from components.contracts.quality import DayQuality, Drift, MaturityDay
from components.evaluation.plots import BAD, FAINT, GOOD, INK, STYLE, colour, inline

DATES_SHOWN = 10
REASONS_SHOWN = 6
MEASURES_SHOWN = 16
FARTHEST = 2.0
"""Where a measure that lies further out is drawn, in limits."""


def quarantine(days: Sequence[DayQuality]) -> str:
    """Share of each day's rows by reason, stacked; the rarest reasons together. A row with two reasons is in both."""
    totals: dict[str, int] = {}
    for day in days:
        for reason, count in day.reasons.items():
            totals[reason] = totals.get(reason, 0) + count
    ordered = sorted(totals, key=lambda reason: (-totals[reason], reason))
    if not ordered:
        return ""
    named, rest = ordered[:REASONS_SHOWN], ordered[REASONS_SHOWN:]
    series = {reason: [_percent(day.reasons.get(reason, 0), day.rows) for day in days] for reason in named}
    if rest:
        others = [sum(day.reasons.get(reason, 0) for reason in rest) for day in days]
        series[f"{len(rest)} others"] = [_percent(n, day.rows) for n, day in zip(others, days, strict=True)]
    colours = [*(colour(index) for index in range(len(named))), FAINT]
    return _stacked("quarantine", [day.day for day in days], series, colours, "% of the day's rows")


def maturity(days: Sequence[MaturityDay]) -> str:
    """Conversions known at as-of, and on top of them those still to come."""
    if not any(day.conversions or day.to_come for day in days):
        return ""
    series = {
        "known at as-of": [float(day.conversions) for day in days],
        "still to come (estimate)": [day.to_come for day in days],
    }
    return _stacked("maturity", [day.day for day in days], series, [colour(0), colour(1)], "conversions", hatched=(1,))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def _stacked(
    name: str,
    days: Sequence[str],
    series: Mapping[str, Sequence[float]],
    colours: Sequence[str],
    unit: str,
    hatched: tuple[int, ...] = (),
) -> str:
    """A bar a day, the series one on the other."""
    with matplotlib.rc_context({**STYLE, "hatch.linewidth": 0.7}):
        figure = Figure(figsize=(9.2, 2.6))
        axis = figure.subplots()
        foot = [0.0] * len(days)
        for index, (label, values) in enumerate(series.items()):
            look: dict[str, Any] = {"color": colours[index]}
            if index in hatched:
                look = {"facecolor": "none", "edgecolor": colours[index], "hatch": "////", "linewidth": 0.8}
            axis.bar(range(len(days)), values, bottom=foot, width=0.72, label=_plain(label), **look)
            foot = [below + value for below, value in zip(foot, values, strict=True)]
        every = -(-len(days) // DATES_SHOWN) or 1
        axis.set_xticks(
            range(0, len(days), every), [day[5:] if len(day) == 10 else _plain(day) for day in days[::every]]
        )
        axis.set_xlim(-0.6, len(days) - 0.4)
        axis.set_ylim(0, 1.06 * max(foot))
        axis.set_ylabel(unit)
        axis.grid(axis="y")
        axis.set_axisbelow(True)
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
        return inline(figure, name)


def drift(measures: Sequence[Drift]) -> str:
    """How far each measure went from the reference towards its limit, the worst first."""
    worst = sorted(measures, key=lambda measure: -measure.relative)[:MEASURES_SHOWN]
    if not worst:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 0.75 + 0.24 * len(worst)))
        axis = figure.subplots()
        for height, measure in enumerate(reversed(worst)):
            shade = GOOD if measure.passed else BAD
            at = min(max(measure.relative, 0.0), FARTHEST)
            axis.plot([0, at], [height, height], color=shade, linewidth=2.2, alpha=0.45)
            axis.plot(at, height, "o" if measure.relative <= FARTHEST else ">", markersize=6, color=shade)
        axis.axvline(1, color=INK, linewidth=1.4)
        axis.axvline(0, color=FAINT, linewidth=0.8)
        axis.set_yticks(range(len(worst)), [_plain(named(measure)) for measure in reversed(worst)])
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        right = max(1.15, min(FARTHEST, max(measure.relative for measure in worst)) + 0.1)
        axis.set(xlim=(-0.02, right), ylim=(-0.7, len(worst) - 0.3))
        axis.set_xlabel("way from the reference (0) to the limit (1)")
        axis.grid(axis="x")
        return inline(figure, "drift")


def named(measure: Drift) -> str:
    """What was measured: `null share of log.device`."""
    return f"{measure.measure} of {measure.table}.{measure.column}" if measure.column else measure.measure


def _plain(text: str) -> str:
    """Text that the drawing library must not take for a formula."""
    return text.replace("$", r"\$")
