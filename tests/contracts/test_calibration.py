"""A calibration as model.json holds it: one increasing function, or refused; and models of before there was one."""

import json
from pathlib import Path

import pytest
from tiny_model import make_model, reseal

from components.contracts.artifacts import MODEL_JSON, model_identity, read_model
from components.contracts.calibration import Calibration
from components.contracts.errors import UsageError

ISOTONIC = {"kind": "isotonic", "scale": 0.8, "knots": [[-4.0, -4.5], [-2.0, -2.5], [0.5, 0.0]]}
PLATT = {"kind": "platt", "scale": 0.8, "bias": -0.25, "clicks": 1200, "conversions": 90}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "platt", "scale": 0.0}, "scale"),
        ({"kind": "platt", "scale": -1.0}, "scale"),
        ({"kind": "platt", "bias": float("nan")}, "bias"),
        ({"kind": "platt", "knots": [[0.0, 1.0], [1.0, 2.0]]}, "no knots"),
        ({"kind": "none", "scale": 2.0}, "no scale"),
        ({"kind": "sigmoid"}, "kind"),
        ({**ISOTONIC, "knots": [[0.0, 1.0]]}, "two knots"),
        ({**ISOTONIC, "knots": [[0.0, 1.0], [0.0, 2.0]]}, "rise in both"),
        ({**ISOTONIC, "knots": [[0.0, 1.0], [1.0, 1.0]]}, "rise in both"),
        ({**ISOTONIC, "knots": [[0.0, 1.0], [1.0, 2.0], [2.0, 1.5]]}, "rise in both"),
        ({**ISOTONIC, "bias": 1.0}, "no bias"),
        ({"kind": "platt", "clicks": -1}, "clicks"),
        ({"kind": "platt", "offset": 1.0}, "offset"),
    ],
)
def test_what_is_no_increasing_function_is_refused(changes: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        Calibration.parse(changes)


def test_it_says_in_a_sentence_what_it_is_and_what_it_was_fitted_on() -> None:
    assert Calibration.parse(PLATT).says == (
        "pCVR is calibrated by Platt scaling (scale 0.8, bias -0.25), fitted on 1,200 clicked validation impressions "
        "(90 conversions)"
    )
    assert "isotonic regression (3 knots)" in Calibration.parse(ISOTONIC).says
    assert Calibration(note="no clicks").says == "pCVR is not calibrated; no clicks"


def changed(folder: Path, **changes: object) -> Path:
    info = json.loads((folder / MODEL_JSON).read_text())
    for name, value in changes.items():
        info.pop(name, None)
        if value is not None:
            info[name] = value
    (folder / MODEL_JSON).write_text(json.dumps(info))
    reseal(folder)
    return folder


def test_a_model_of_before_there_was_calibration_loads_and_keeps_its_identity(tmp_path: Path) -> None:
    new, old = make_model(tmp_path / "new"), changed(make_model(tmp_path / "old"), calibration=None)
    assert "calibration" not in json.loads((old / MODEL_JSON).read_text())
    assert read_model(old).calibration == Calibration()
    assert model_identity(old) == model_identity(new)


def test_another_calibration_is_another_model_and_what_it_was_fitted_on_is_not(tmp_path: Path) -> None:
    folders = [changed(make_model(tmp_path / str(n)), calibration=c) for n, c in enumerate(
        (PLATT, {**PLATT, "clicks": 5, "note": "why"}, {**PLATT, "bias": 0.0}, ISOTONIC, {"note": "no clicks"})
    )]  # fmt: skip
    identities = [model_identity(folder) for folder in folders]
    assert identities[0] == identities[1]
    assert len(set(identities)) == 4


def test_a_broken_calibration_does_not_load(tmp_path: Path) -> None:
    folder = changed(make_model(tmp_path / "model"), calibration={**PLATT, "scale": -1.0})
    with pytest.raises(UsageError, match=r"model\.json.*scale"):
        read_model(folder)
