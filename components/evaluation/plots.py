"""The report's figures, as inline SVG: deterministic, text as text, colours that hold on light and dark paper.

Each function takes plain numbers and returns `<svg ...>...</svg>`, or "" where there is nothing to draw.
"""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

INK = "#010101"
"""Stands for the page's own text colour; replaced by `currentColor` in the SVG."""
FAINT = "#8c8c8c"
PALETTE = ("#3576c4", "#d9772b", "#2c9a6b", "#9463c4", "#c24d6f", "#7d7f2a")
GOOD, BAD = "#2c9a6b", "#c8453b"

Points = Sequence[Mapping[str, float]]

STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 10.5,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": FAINT,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.7,
    "figure.constrained_layout.use": True,
}


def colour(index: int) -> str:
    return PALETTE[index % len(PALETTE)]


def inline(figure: Figure, name: str) -> str:
    """The figure as an inline element: no prolog, no metadata, no ids that change from one rendering to the next."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name, "svg.fonttype": "none"}):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9.]+_\d+"', "", text)  # group names, the same in every figure; nothing refers to them
    text = re.sub(r'(<svg [^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg [^>]*?) height="[^"]*"', r"\1", text, count=1)
    return text.replace(INK, "currentColor").replace("<svg ", f'<svg role="img" data-plot="{name}" ', 1).strip()


def training_curves(history: Mapping[str, Points]) -> str:
    """Validation log losses over rows seen, a line a candidate."""
    heads = [("ctr_log_loss", "CTR"), ("ctcvr_log_loss", "CTCVR")]
    drawn = [
        (key, title)
        for key, title in heads
        if any(key in point and "rows" in point for points in history.values() for point in points)
    ]
    if not drawn:
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.9))
        axes = figure.subplots(1, len(drawn), squeeze=False)[0]
        for axis, (key, title) in zip(axes, drawn, strict=True):
            for index, (name, points) in enumerate(history.items()):
                line = [(point["rows"], point[key]) for point in points if key in point and "rows" in point]
                if line:
                    xs, ys = zip(*line, strict=True)
                    axis.plot(xs, ys, color=colour(index), marker="o", markersize=3.2, label=name)
            axis.set_title(f"{title} log loss on validation (nats)")
            axis.set_xlabel("training rows seen")
            axis.xaxis.set_major_formatter(lambda value, _: _thousands(value))
            axis.grid(axis="y")
        axes[0].legend(frameon=False)
        return inline(figure, "training-curves")


def _thousands(value: float) -> str:
    return f"{value / 1e6:g}M" if value >= 1e6 else f"{value / 1e3:g}k" if value >= 1e3 else f"{value:g}"


def reliability(points: Mapping[str, Mapping[str, Points]], names: Sequence[str]) -> str:
    """Observed against predicted share in bins of equal mass, both axes logarithmic; bars: 95% of the binomial.

    `names` fixes the colours; a bin in which nothing was observed is drawn as a triangle at the foot.
    """
    heads = [("ctr", "pCTR, all"), ("cvr_clicked", "pCVR, clicked only"), ("ctcvr", "pCTCVR, all")]
    if not any(points.get(name, {}).get(head) for name in names for head, _ in heads):
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 3.3))
        axes = figure.subplots(1, len(heads))
        for axis, (head, title) in zip(axes, heads, strict=True):
            values = [p for name in names for p in points.get(name, {}).get(head, [])]
            positive = [v for p in values for v in (p["predicted"], p["observed"]) if v > 0]
            low, high = (min(positive) / 1.6, max(positive) * 1.6) if positive else (1e-3, 1.0)
            axis.plot([low, high], [low, high], color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
            for index, name in enumerate(names):
                bins = points.get(name, {}).get(head, [])
                if not bins:
                    continue
                shown = [p for p in bins if p["observed"] > 0 and p["predicted"] > 0]
                error = [1.96 * (p["observed"] * (1 - p["observed"]) / p["rows"]) ** 0.5 for p in shown]
                below = [min(e, p["observed"] * 0.95) for e, p in zip(error, shown, strict=True)]
                axis.errorbar(
                    [p["predicted"] for p in shown],
                    [p["observed"] for p in shown],
                    yerr=[below, error],
                    color=colour(index),
                    marker="o",
                    markersize=3.2,
                    linewidth=1.3,
                    elinewidth=0.6,
                    label=name,
                )
                nothing = [p["predicted"] for p in bins if p["observed"] <= 0 < p["predicted"]]
                axis.plot(nothing, [low * 1.15] * len(nothing), linestyle="", marker="v", color=colour(index))
            axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high), title=title, xlabel="predicted")
            for side in (axis.xaxis, axis.yaxis):
                side.set_major_locator(LogLocator(subs=(1.0, 3.0)))
                side.set_major_formatter(lambda value, _: f"{value:g}")
            axis.minorticks_off()
            axis.grid()
        axes[0].set_ylabel("observed")
        axes[0].legend(frameon=False)
        return inline(figure, "reliability")


def non_inferiority(comparison: Mapping[str, Any] | None, margins: Mapping[str, float]) -> str:
    """Interval of the relative log-loss difference to the champion, a row a head, against its margin."""
    rows = [("ctcvr_log_loss", "CTCVR", "ctcvr_margin"), ("ctr_log_loss", "CTR", "ctr_margin")]
    if not comparison or any(key not in comparison or limit not in margins for key, _, limit in rows):
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 1.9))
        axis = figure.subplots()
        span = max(
            max(abs(comparison[key][end]) for key, _, _ in rows for end in ("low", "high")),
            max(margins[limit] for _, _, limit in rows),
        )
        axis.axvline(0, color=FAINT, linewidth=1)
        for height, (key, label, limit) in enumerate(reversed(rows)):
            interval, margin = comparison[key], margins[limit]
            shade = GOOD if interval["high"] <= margin else BAD
            axis.plot([100 * interval["low"], 100 * interval["high"]], [height, height], color=shade, linewidth=3)
            axis.plot(100 * interval["difference"], height, marker="o", markersize=7, color=shade)
            axis.plot([100 * margin] * 2, [height - 0.36, height + 0.36], color=INK, linewidth=1.6)
            axis.annotate(
                f"margin {margin:.1%}", (100 * margin, height + 0.36), (3, -3), textcoords="offset points", fontsize=8.5
            )
            axis.text(-128 * span, height, label, va="center", ha="left")
        axis.set(xlim=(-130 * span, 130 * span), ylim=(-0.6, 1.6), yticks=[])
        axis.spines["left"].set_visible(False)
        axis.set_xlabel("log loss against the champion's, %   (left: better, right: worse)")
        return inline(figure, "non-inferiority")


def auc_dots(
    aucs: Mapping[str, Mapping[str, float]], champion: Mapping[str, float], oracle: Mapping[str, float]
) -> str:
    """AUCs at the reference position, a row a head: a dot a candidate, a diamond the champion, a bar the oracle."""
    rows = [("ctr_auc", "CTR"), ("cvr_auc_clicked", "CVR, clicked"), ("ctcvr_auc", "CTCVR")]
    if not any(aucs.values()):
        return ""
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(9.2, 2.5))
        axis = figure.subplots()
        for height, (key, _) in enumerate(reversed(rows)):
            axis.axhline(height, color=FAINT, linewidth=0.6, alpha=0.4)
            for index, (name, values) in enumerate(aucs.items()):
                if key in values:
                    label = name if height == 0 else None
                    axis.plot(values[key], height, "o", markersize=8, color=colour(index), alpha=0.85, label=label)
            if key in champion:
                label = "champion" if height == 0 else None
                axis.plot(champion[key], height, "D", markersize=8, mfc="none", color=INK, label=label)
            if key in oracle:
                label = "oracle (the truth)" if height == 0 else None
                axis.plot(oracle[key], height, "|", markersize=20, mew=2, color=INK, label=label)
        axis.axvline(0.5, color=FAINT, linewidth=1, linestyle=(0, (4, 3)))
        axis.set_yticks(range(len(rows)), [label for _, label in reversed(rows)])
        axis.tick_params(axis="y", length=0)
        axis.spines["left"].set_visible(False)
        axis.set(ylim=(-0.6, len(rows) - 0.4), xlabel="AUC on test, reference position (dashed: chance)")
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5), markerscale=0.75)
        return inline(figure, "aucs")
