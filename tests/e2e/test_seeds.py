"""The simulated default, ten times over: the same gates promote, and the models find most of what can be found.

`make test-slow` prints one line a seed. The oracle is the true probability scored as if it were a model, at the
reference position like the models; a share is (AUC - 0.5) / (oracle AUC - 0.5).
"""

import json
import statistics

import pytest
from e2e.command import Esmm

pytestmark = [pytest.mark.slow, pytest.mark.e2e, pytest.mark.timeout(7200)]
SEEDS = range(1, 11)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """One full run, from simulation to promotion, a seed."""
    found = []
    for seed in SEEDS:
        folder = tmp_path_factory.mktemp(f"seed{seed}")
        esmm = Esmm(folder / "home", folder)
        esmm("simulate", "--out", folder / "shop", "--seed", seed)
        result = esmm.run(folder / "shop")
        evaluation = json.loads((esmm.home / "runs" / result["run"] / "evaluation.json").read_text())
        winner = result["candidates"][result["winner"]]
        share = {h: (winner[f"{h}_auc"] - 0.5) / (evaluation["oracle"][f"{h}_auc"] - 0.5) for h in ("ctr", "ctcvr")}
        conversions = next(c for c in evaluation["candidates"] if c["name"] == result["winner"])["test"]["conversions"]
        found.append({"seed": seed, "promoted": result["promoted"], "conversions": conversions, **share})
        print(
            f"\nseed {seed:2}  {result['status']:8} winner {result['winner']:8} conversions {conversions:5}  "
            f"CTR AUC {winner['ctr_auc']:.4f} ({share['ctr']:.0%} of the oracle's)  "
            f"CTCVR AUC {winner['ctcvr_auc']:.4f} ({share['ctcvr']:.0%})  "
            f"calibration {winner['ctcvr_calibration']:.3f}  {'; '.join(result['reasons'])[:160]}",
            flush=True,
        )
    return found


def test_nine_of_ten_promote(outcomes):
    assert sum(outcome["promoted"] for outcome in outcomes) >= 9


def test_the_median_of_five_reaches_60_percent_of_the_oracle(outcomes):
    for head in ("ctr", "ctcvr"):
        assert statistics.median(outcome[head] for outcome in outcomes[:5]) >= 0.6


def test_there_is_enough_to_judge_by(outcomes):
    assert min(outcome["conversions"] for outcome in outcomes) >= 500
