"""One line in views.py: run, promote, roll back, serve the former model."""

import re
import shutil

import pytest
from e2e.command import ONE, ROOT, serving

pytestmark = pytest.mark.e2e


@pytest.fixture
def code(tmp_path):
    """A copy of the project with `user_sessions_7d` declared: one line after that of user_ctr_7d."""
    for package in ("components", "pipelines", "serving", "feature_repo"):
        shutil.copytree(ROOT / package, tmp_path / "code" / package, ignore=shutil.ignore_patterns("__pycache__"))
    views = tmp_path / "code/feature_repo/views.py"
    text = views.read_text()
    line = re.search(r'^.*"user_clicks_7d".*\n', text, re.MULTILINE).group(0)
    views.write_text(text.replace(line, line + line.replace("user_clicks_7d", "user_sessions_7d")))
    return {"PYTHONPATH": str(tmp_path / "code")}


def test_add_a_feature_promote_and_roll_back(esmm, shop, code):
    # A margin wide enough for a like model: what is tested is the way, not whether sessions predict.
    result = esmm.run(
        shop,
        "--recipe",
        "smoke",
        *ONE,
        "--set",
        "evaluation.ctcvr_margin=0.2",
        "--set",
        "evaluation.ctr_margin=0.2",
        env=code,
    )
    assert result["promoted"], result["reasons"]
    assert "user_sessions_7d" in esmm.record(result)["stages"]["plan"]["facts"]["features"]
    assert esmm.champion() == 2

    # Back in the code without the line: the champion needs the feature, so a run is refused at once.
    refused = esmm.run(shop, "--recipe", "smoke", code=2)
    assert "user_sessions_7d" in " ".join(refused["reasons"])

    esmm("models", "rollback")
    assert esmm.champion() == 1
    with serving(esmm) as rank:
        assert len(rank("--user", "u1", "--items", "i1,i2")["items"]) == 2
