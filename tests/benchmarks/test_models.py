"""`esmm bench models` and the study: the same rows for all, the right rows for each metric, statistics by hand."""

import json
import math

import numpy as np
import pytest

from benchmarks import debias, models
from benchmarks.model_runs import Predictions, Prepared, measure, prepare, train_all
from benchmarks.paired import holm, paired
from components.evaluation.metrics import auc
from components.ingestion.sources.simulator import SimulatorConfig, simulate

SHOP = SimulatorConfig(
    days=8, users=1000, items=100, impressions=12_000, valid_days=1.0, test_days=2.0, ctr=0.3, cvr=0.3, dirty_share=0.0
)
NAMES = ("base", "esmm", "division")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    folder = tmp_path_factory.mktemp("models")
    simulate(SHOP, folder / "shop")
    return prepare(folder / "shop", folder)


@pytest.fixture(scope="module")
def found(prepared: Prepared) -> dict[str, Predictions]:
    return train_all(prepared, NAMES, seed=1)


def test_a_seed_is_a_training(prepared: Prepared, found: dict[str, Predictions]) -> None:
    again, other = train_all(prepared, ["esmm"], seed=1), train_all(prepared, ["esmm"], seed=2)
    assert np.array_equal(again["esmm"].pcvr, found["esmm"].pcvr)
    assert not np.array_equal(other["esmm"].pcvr, found["esmm"].pcvr)


def test_metrics_are_over_the_right_rows(prepared: Prepared, found: dict[str, Predictions]) -> None:
    measured = measure(found, prepared)
    click, conversion = prepared.outcome.click, prepared.outcome.conversion
    assert len(click) == len(prepared.test) == len(found["esmm"].pcvr)
    esmm, base = found["esmm"], found["base"]
    assert measured["esmm"]["cvr_auc"] == auc(esmm.pcvr[click], conversion[click])
    assert measured["esmm"]["ctcvr_auc"] == auc(base.pctr * esmm.pcvr, conversion)
    assert measured["esmm"]["ctcvr_auc_own"] == auc(esmm.pctr * esmm.pcvr, conversion)
    assert measured["base"]["ctcvr_auc"] == measured["base"]["ctcvr_auc_own"]
    assert measured["oracle"]["entire_space_cvr_excess"] == 0
    assert measured["oracle"]["entire_space_cvr_auc"] > max(measured[name]["entire_space_cvr_auc"] for name in NAMES)


def test_division_ranks_by_the_ratio_before_it_is_cut(prepared: Prepared, found: dict[str, Predictions]) -> None:
    division = found["division"]
    whole = division.factor <= division.pcvr.max() - 1e-6
    assert np.allclose(division.factor[whole], division.pcvr[whole], rtol=1e-4)
    assert (division.pcvr < 1).all()
    cut = Predictions(division.pctr, division.pcvr, np.where(np.arange(len(division.pcvr)) % 2, 3.0, 2.0))
    ranked = measure({"division": cut}, prepared)["division"]["cvr_auc"]
    click = prepared.outcome.click
    assert ranked == auc(cut.factor[click], prepared.outcome.conversion[click])


def test_table_and_json_have_every_model_and_the_differences(
    capsys: pytest.CaptureFixture[str], monkeypatch, tmp_path
) -> None:
    two = [
        {"base": {"cvr_auc": 0.6, "ctcvr_auc": 0.7}, "esmm": {"cvr_auc": 0.65, "ctcvr_auc": 0.69}},
        {"base": {"cvr_auc": 0.62, "ctcvr_auc": 0.7}, "esmm": {"cvr_auc": 0.67, "ctcvr_auc": 0.73}},
    ]
    monkeypatch.setattr(models, "run", lambda *_: enumerate(two))
    models.main(as_json=True, seeds=2, out=tmp_path / "models.png")
    shown = json.loads(capsys.readouterr().out)
    assert set(shown) >= {"figures", "ratios", "machine"}
    assert shown["figures"]["esmm_cvr_auc"]["mean"] == pytest.approx(0.66)
    assert shown["differences"]["esmm_minus_base_cvr_auc"]["mean"] == pytest.approx(0.05)
    assert (tmp_path / "models.png").read_bytes()[:4] == b"\x89PNG"
    models.main(as_json=False, seeds=2)
    text = capsys.readouterr().out
    assert "| esmm | 0.6600 ± 0.0141 | 0.7100 ± 0.0283 |" in text
    assert "| esmm | **+0.0500 [+0.0500, +0.0500]** | +0.0100 [-0.2441, +0.2641] |" in text


def test_paired_t_by_hand() -> None:
    one = paired([3.0, 5.0, 7.0], [1.0, 2.0, 3.0])
    # Differences 2, 3, 4: mean 3, standard error 1 / sqrt(3), t with two degrees of freedom 4.3027.
    assert one.mean == 3
    assert (one.low, one.high) == pytest.approx((3 - 4.3027 / math.sqrt(3), 3 + 4.3027 / math.sqrt(3)), rel=1e-4)
    assert one.p == pytest.approx(0.03509, rel=1e-3)
    with pytest.raises(ValueError, match="fewer than two"):
        paired([1.0], [2.0])


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]


def test_the_study_corrects_all_but_its_hypothesis() -> None:
    rng = np.random.default_rng(0)

    def seed() -> dict[str, dict[str, float]]:
        return {
            name: {
                "entire_space_cvr_excess": float(rng.normal(0.02, 0.001)) - (0.01 if name == "escm2-dr" else 0),
                "entire_space_cvr_auc": float(rng.normal(0.7, 0.01)),
                "entire_space_cvr_ratio": float(rng.uniform(0.9, 1.1)),
            }
            for name in (*debias.MODELS, "oracle")
        }

    found = {shop: [seed() for _ in range(6)] for shop in debias.SHOPS}
    tests, corrected = debias.compared(found)
    assert len(tests) == 42
    assert debias.PRIMARY not in corrected
    assert len(corrected) == 41
    assert all(corrected[key] >= tests[key].p for key in corrected)
    text = debias.report(found)
    assert text.startswith("Primary: ESCM2-DR less BASE")
    assert "*" in next(line for line in text.splitlines() if line.startswith("| escm2-dr"))
