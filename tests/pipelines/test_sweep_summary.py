"""What a search says at its end, from the run folder alone."""

import pytest

from components.contracts.files import write_json
from components.contracts.paths import Home
from pipelines import sweep_summary

RECORD = {
    "run": "r1", "status": "swept", "reasons": [],
    "data": "/data/my shop", "recipe": "smoke", "as_of": "2026-01-10T00:00:00Z",
    "stages": {
        "encode": {"status": "cached", "seconds": None, "cached": True},
        "trial-0-rung-0": {"status": "succeeded", "seconds": 2.0, "cached": False, "facts": {}},
        "choose": {
            "status": "succeeded", "seconds": 0.1, "cached": False,
            "facts": {"trials": 4, "best": 2, "rung": 1, "last_rung": 1, "value": 0.25, "params": {}, "recipe": None},
        },
    },
}  # fmt: skip


def trial(number, state, rung, value, **params):
    params = {"candidate": "base", "training.lr": 0.00123456, **params}
    return {"trial": number, "state": state, "rung": rung, "value": value, "params": params}


TRIALS = [
    trial(0, "pruned", 0, 0.125),
    trial(1, "diverged", -1, None),
    trial(2, "complete", 1, 0.25),
    trial(3, "complete", 1, 0.375),
]


@pytest.fixture
def home(tmp_path):
    home = Home(tmp_path)
    write_json(home.runs / "r1" / "record.json", RECORD)
    write_json(home.runs / "r1" / "trials.json", TRIALS)
    return home


def test_the_table_has_the_best_first_and_those_that_diverged_last(home):
    text = sweep_summary.text(sweep_summary.result(home.runs / "r1"), home)
    rows = [line.split() for line in text.splitlines()[1:6]]
    assert rows[0] == ["trial", "rung", "state", "loss", "candidate", "lr"]
    assert rows[1] == ["2", "1", "complete", "0.250000", "base", "0.00123"]
    assert [row[0] for row in rows[1:]] == ["2", "3", "0", "1"]
    assert rows[4] == ["1", "-", "diverged", "-", "base", "0.00123"]
    assert "best: trial 2, 0.250000 at rung 1 of 1" in text
    assert "reused from the cache: encode" in text
    assert "the recipe as it stands" not in text


def test_the_next_command_trains_by_the_best_on_the_same_data(home):
    text = sweep_summary.text(sweep_summary.result(home.runs / "r1"), home)
    folder = home.runs / "r1"
    assert text.endswith(
        f"--home {home.root} run '--data=/data/my shop' --recipe=smoke --as-of=2026-01-10T00:00:00Z "
        f"--config={folder / 'best.json'}"
    )


def test_what_was_gained_over_the_recipe_is_said(home):
    found = sweep_summary.result(home.runs / "r1")
    found["best"] = {**found["best"], "recipe": {"rung": 1, "value": 0.375}}
    assert "the recipe as it stands: trial 0, 0.375000 at rung 1" in sweep_summary.text(found, home)


def test_a_search_that_failed_says_why_and_has_no_config(home):
    stages = {"plan": {"status": "failed", "seconds": 0.1, "cached": False}}
    record = {**RECORD, "status": "failed", "reasons": ["tell-1: it broke"], "stages": stages}
    write_json(home.runs / "r1" / "record.json", record)
    result = sweep_summary.result(home.runs / "r1")
    assert (result["best"], result["trials"], result["config"], result["study"]) == (None, [], None, None)
    text = sweep_summary.text(result, home)
    assert "FAILED\n  - tell-1: it broke" in text
    assert "kfp.log" in text
