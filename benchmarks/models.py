"""Every loss of the family on the same data: the comparison of Ma et al., SIGIR 2018, table 2, and what came after.

    esmm bench models [--json] [--seeds N] [--data FOLDER] [--plot FILE]

Without a data set each seed simulates a shop of its own and trains on it, so that the spread is that of data and of
training together, and pCVR of every impression can be held against the truth. With one (Ali-CCP, imported) the data
stay and only the training varies, as in the paper.
"""

from __future__ import annotations

import json
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.figures import machine
from benchmarks.model_runs import Measured, measure, prepare, train_all
from benchmarks.paired import Paired, paired
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from components.training.config import CANDIDATES

SEEDS = 5
REFERENCE = "base"
HEADINGS = {
    "cvr_auc": "CVR AUC",
    "ctcvr_auc": "CTCVR AUC",
    "ctcvr_auc_own": "CTCVR, own",
    "entire_space_cvr_auc": "CVR AUC, all",
    "entire_space_cvr_excess": "excess loss",
    "entire_space_cvr_ratio": "pCVR/true",
    "cvr_ratio_clicked": "pCVR/seen",
}
"""Of each metric of `model_runs.measure`, in columns."""
LEGEND = """\
CVR AUC: clicked test impressions. CTCVR AUC: all, pCVR x the pCTR of BASE's CTR network; own: x the model's own.
CVR AUC, all, excess loss (nats above the truth's own entropy) and pCVR/true: every impression, against
P(conversion | do(click)). pCVR/seen: sum of pCVR over conversions, clicked impressions.
Mean ± standard deviation; before the calibration that a run fits."""


def run(
    data: Path | None, seeds: int, names: Sequence[str], shop: SimulatorConfig | None = None
) -> Iterator[tuple[int, Measured]]:
    """Metrics of each seed, one after the other."""
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder)
            if data is None:
                simulate((shop or SimulatorConfig()).model_copy(update={"seed": seed}), work / "shop")
            prepared = prepare(data or work / "shop", work)
            yield seed, measure(train_all(prepared, names, seed), prepared)


def by_metric(found: Sequence[Measured]) -> dict[str, dict[str, list[float]]]:
    """Model -> metric -> a value a seed, of the metrics that every seed has."""
    models = found[0]
    return {
        name: {
            metric: [one[name][metric] for one in found]
            for metric in HEADINGS
            if all(metric in one[name] for one in found)
        }
        for name in models
    }


def differences(values: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, Paired]]:
    """Each model less BASE, paired by seed; nothing where there is no BASE or one seed only."""
    base = values.get(REFERENCE, {})
    return {
        name: {metric: paired(series, base[metric]) for metric, series in metrics.items() if len(series) > 1}
        for name, metrics in values.items()
        if base and name not in (REFERENCE, "oracle")
    }


def table(values: dict[str, dict[str, list[float]]], against: dict[str, dict[str, Paired]]) -> str:
    """Markdown: a row a model; below it the differences to BASE, in bold where the interval leaves zero out."""
    metrics = [metric for metric in HEADINGS if any(metric in found for found in values.values())]
    lines = [
        "| model | " + " | ".join(HEADINGS[metric] for metric in metrics) + " |",
        "| --- " * (len(metrics) + 1) + "|",
    ]
    for name, found in values.items():
        lines.append(f"| {name} | " + " | ".join(_spread(found.get(metric, [])) for metric in metrics) + " |")
    if not against:
        return "\n".join(lines)
    lines += ["", f"| less {REFERENCE} | " + " | ".join(HEADINGS[metric] for metric in metrics) + " |"]
    lines.append("| --- " * (len(metrics) + 1) + "|")
    for name, differ in against.items():
        lines.append(f"| {name} | " + " | ".join(_interval(differ.get(metric)) for metric in metrics) + " |")
    return "\n".join(lines)


def _spread(series: Sequence[float]) -> str:
    if not series:
        return ""
    deviation = statistics.stdev(series) if len(series) > 1 else 0.0
    return f"{statistics.mean(series):.4f} ± {deviation:.4f}"


def _interval(difference: Paired | None) -> str:
    if difference is None:
        return ""
    text = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    return f"**{text}**" if difference.low > 0 or difference.high < 0 else text


def plot(values: dict[str, dict[str, list[float]]], out: Path) -> None:
    """One panel a metric, a model a line: every seed a dot, the mean a bar."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metrics = [metric for metric in HEADINGS if metric in values.get(REFERENCE, {})][:6]
    models = [name for name in values if name != "oracle"][::-1]
    figure, axes = pyplot.subplots(2, 3, figsize=(13, 8), sharey=True, layout="constrained")
    for axis, metric in zip(axes.flat, metrics, strict=False):
        for row, name in enumerate(models):
            series = values[name].get(metric, [])
            axis.plot(series, [row] * len(series), "o", color="#4a7ab5", alpha=0.5, markersize=4)
            axis.plot([statistics.mean(series)], [row], "|", color="#1b3a5c", markersize=14, markeredgewidth=2)
        best = values.get("oracle", {}).get(metric)
        if best and metric != "cvr_ratio_clicked":
            axis.axvline(statistics.mean(best), color="#b5564a", linewidth=1, label="oracle")
            axis.legend(loc="best", frameon=False)
        axis.set_title(HEADINGS[metric])
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(models)), models)
    for axis in list(axes.flat)[len(metrics) :]:
        axis.set_visible(False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=110, metadata={"Software": None})
    pyplot.close(figure)


def main(as_json: bool, data: Path | None = None, seeds: int = SEEDS, out: Path | None = None) -> None:
    """Prints the table (or one JSON object) and, with `out`, draws it."""
    found = [measured for _, measured in run(data, seeds, list(CANDIDATES))]
    values = by_metric(found)
    against = differences(values)
    if out is not None:
        plot(values, out)
    if as_json:
        print(
            json.dumps(
                {"figures": _figures(values), "ratios": {}, "differences": _plain(against), "machine": machine()}
            )
        )
        return
    source = f"{data}, {seeds} trainings" if data else f"{seeds} simulated shops"
    print(f"{source}, {len(CANDIDATES)} models\n\n{table(values, against)}\n\n{LEGEND}")


def _figures(values: dict[str, dict[str, list[float]]]) -> dict[str, dict[str, float]]:
    return {
        f"{name}_{metric}": {
            "mean": statistics.mean(series),
            "sd": statistics.stdev(series) if len(series) > 1 else 0.0,
            "median": statistics.median(series),
            "min": min(series),
            "max": max(series),
            "runs": float(len(series)),
        }
        for name, metrics in values.items()
        for metric, series in metrics.items()
    }


def _plain(against: dict[str, dict[str, Paired]]) -> dict[str, dict[str, float]]:
    return {
        f"{name}_minus_{REFERENCE}_{metric}": {"mean": one.mean, "low": one.low, "high": one.high, "p": one.p}
        for name, metrics in against.items()
        for metric, one in metrics.items()
    }
