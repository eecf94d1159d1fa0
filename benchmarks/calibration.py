"""`python -m benchmarks.calibration`: Platt scaling, isotonic regression and "auto" on clicks whose truth is known.

Logits are normal (mean -2, deviation 1); the true log odds are a function of them: a straight line, which is what Platt
scaling can express, or one of three bends. Printed is what calibration costs later on: mean Kullback-Leibler divergence
to the truth on fresh clicks (nats a click, times 100,000), how often "auto" takes isotonic, and mean and standard
deviation over the seeds of predicted / true conversions.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from components.contracts.calibration import Calibration
from components.training.calibration import FOLDS, Clicks, apply, calibrate, isotonic, platt

Array = NDArray[np.float64]

TRUTHS: dict[str, Callable[[Array], Array]] = {
    "straight": lambda z: 0.7 * z - 0.5,
    "bends up": lambda z: z + 0.15 * (z + 2) ** 2 - 0.3,
    "kink": lambda z: np.where(z < -2, -3 + 0.4 * (z + 2), -3 + 1.4 * (z + 2)),
    "saturates": lambda z: -1.2 - np.logaddexp(0, -1.2 * (z + 2)),
}
FRESH = 50_000


def divergence(calibration: Calibration, logits: Array, truth: Array) -> float:
    """Mean Kullback-Leibler divergence of calibrated pCVR from the true probabilities, nats."""
    z = apply(calibration, logits)
    entropy = -(truth * np.log(truth) + (1 - truth) * np.log1p(-truth))
    return float((np.logaddexp(0, z) - z * truth - entropy).mean())


def one(truth: Callable[[Array], Array], clicks: int, seed: int) -> list[float]:
    """Of one draw: conversions; divergence of Platt, isotonic, "auto"; whether that took isotonic; its ratio."""
    rng = np.random.default_rng(seed)
    logits, fresh = rng.normal(-2, 1, clicks), rng.normal(-2, 1, FRESH)
    made = Clicks(logits, rng.random(clicks) < expit(truth(logits)), np.arange(clicks) % FOLDS)
    auto, expected = calibrate(made, "auto"), expit(truth(fresh))
    costs = [divergence(fitted, fresh, expected) for fitted in (platt(made), isotonic(made), auto)]
    ratio = float(expit(apply(auto, fresh)).sum() / expected.sum())
    return [made.conversions, *costs, float(auto.kind == "isotonic"), ratio]


def main(seeds: int, sizes: tuple[int, ...] = (10_000, 30_000, 100_000)) -> None:
    print("| truth | clicks | conversions | Platt | isotonic | auto | isotonic taken | ratio | its deviation |")
    print("| --- |" + " ---: |" * 8)
    for name, truth in TRUTHS.items():
        for clicks in sizes:
            found = np.array([one(truth, clicks, seed) for seed in range(seeds)])
            conversions, *costs, taken, ratio = found.mean(axis=0)
            shown = " | ".join(f"{1e5 * cost:.1f}" for cost in costs)
            print(
                f"| {name} | {clicks:,} | {conversions:,.0f} | {shown} | {taken:.0%} | {ratio:.3f} | "
                f"{found[:, -1].std(ddof=1):.3f} |"
            )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seeds", type=int, default=20)
    main(parser.parse_args().seeds)
