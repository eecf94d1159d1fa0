"""Do debiased losses come closer to the truth? The study planned in docs/debiasing-study.md.

    esmm bench debias [--json] [--seeds N]

Two shops: one whose clicks select through features that the model sees, one whose clicks select through something that
it does not. One hypothesis was named before anything was run; the rest is corrected for being many (Holm).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks.figures import machine
from benchmarks.model_runs import Measured
from benchmarks.models import run
from benchmarks.paired import Paired, holm, paired
from components.ingestion.sources.simulator import SimulatorConfig

SEEDS = 10
IMPRESSIONS = 300_000
MODELS = ("base", "base-shared", "unbias", "esmm-ns", "esmm", "escm2-ips", "escm2-dr", "dcmt")
SHOPS = {
    "observed": SimulatorConfig(impressions=IMPRESSIONS, selection_observed=1.5, selection_latent=0.0),
    "latent": SimulatorConfig(impressions=IMPRESSIONS, selection_observed=0.5, selection_latent=1.0),
}
METRICS = ("excess", "auc", "miscalibration")
"""Over every test impression, against P(conversion | do(click)): log loss above the truth's own entropy, nats; expected
AUC; |log(mean pCVR / mean truth)|."""
PRIMARY = ("observed", "escm2-dr", "excess")
"""Less BASE: the one hypothesis."""

Key = tuple[str, str, str]
"""Shop, model, metric."""


def metrics_of(found: dict[str, float]) -> dict[str, float]:
    return {
        "excess": found["entire_space_cvr_excess"],
        "auc": found["entire_space_cvr_auc"],
        "miscalibration": abs(math.log(found["entire_space_cvr_ratio"])),
    }


def compared(found: Mapping[str, Sequence[Measured]]) -> tuple[dict[Key, Paired], dict[Key, float]]:
    """Every model less BASE in every shop; and the p values corrected, of all but the primary one."""
    tests: dict[Key, Paired] = {}
    for shop, seeds in found.items():
        base = [metrics_of(one["base"]) for one in seeds]
        for name in MODELS[1:]:
            other = [metrics_of(one[name]) for one in seeds]
            for metric in METRICS:
                tests[shop, name, metric] = paired([x[metric] for x in other], [x[metric] for x in base])
    rest = [key for key in tests if key != PRIMARY]
    return tests, dict(zip(rest, holm([tests[key].p for key in rest]), strict=True))


def report(found: Mapping[str, Sequence[Measured]]) -> str:
    """Markdown: the primary result, then a table a shop."""
    tests, corrected = compared(found)
    first = tests[PRIMARY]
    lines = [
        "Primary: ESCM2-DR less BASE, selection through observed features, entire-space log loss of pCVR: "
        f"{first.mean:+.5f} nats, 95% interval [{first.low:+.5f}, {first.high:+.5f}], p = {first.p:.3g}, "
        f"{first.n} seeds."
    ]
    for shop, seeds in found.items():
        lines += [
            "",
            f"Selection {shop}:",
            "",
            "| model | excess loss | AUC | miscalibration |",
            "| --- | --- | --- | --- |",
        ]
        for name in (*MODELS, "oracle"):
            values = [metrics_of(one[name]) for one in seeds]
            cells = [f"{sum(v[metric] for v in values) / len(values):.4f}" for metric in METRICS]
            if name in MODELS[1:]:
                cells = [
                    f"{cell} {_versus(tests, corrected, (shop, name, m))}"
                    for cell, m in zip(cells, METRICS, strict=True)
                ]
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _versus(tests: dict[Key, Paired], corrected: dict[Key, float], key: Key) -> str:
    """The difference to BASE, with a star where it is still there after correction (the primary one needs none)."""
    one = tests[key]
    sure = corrected.get(key, one.p) < 0.05
    return f"({one.mean:+.4f} [{one.low:+.4f}, {one.high:+.4f}]{'*' if sure else ''})"


def main(as_json: bool, seeds: int = SEEDS) -> None:
    """Runs the study and prints what came out."""
    found = {shop: [measured for _, measured in run(None, seeds, MODELS, config)] for shop, config in SHOPS.items()}
    if as_json:
        tests, corrected = compared(found)
        named = {"_".join(key): asdict(one) | {"p_holm": corrected.get(key)} for key, one in tests.items()}
        print(json.dumps({"figures": named, "ratios": {}, "machine": machine()}))
        return
    print(report(found))
