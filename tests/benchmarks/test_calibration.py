"""What `python -m benchmarks.calibration` prints: divergences to a truth that is known."""

import numpy as np
import pytest
from scipy.special import logit

from benchmarks import calibration
from components.contracts.calibration import Calibration


def test_the_truth_diverges_from_itself_by_nothing_and_anything_else_by_more():
    truth = np.array([0.1, 0.3, 0.9])
    assert calibration.divergence(Calibration(), logit(truth), truth) == pytest.approx(0, abs=1e-12)
    off = calibration.divergence(Calibration(kind="platt", scale=1.0, bias=0.1), logit(truth), truth)
    by_hand = truth * np.log(truth / (p := 1 / (1 + np.exp(-logit(truth) - 0.1)))) + (1 - truth) * np.log(
        (1 - truth) / (1 - p)
    )
    assert off == pytest.approx(by_hand.mean())


def test_a_row_a_truth_and_size(capsys):
    calibration.main(seeds=2, sizes=(2000,))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 + len(calibration.TRUTHS)
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        platt, _, auto = (float(cell) for cell in cells[3:6])
        # With 2,000 clicks no truth here has 1,000 conversions.
        assert auto == platt > 0
        assert cells[6] == "0%"
