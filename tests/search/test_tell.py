"""Telling writes each trial as it stands; choosing takes the best of the highest rung."""

import json
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend
from search.made import search, state

from components.contracts.errors import DataError, TrainingDiverged
from components.contracts.trial import STUDY_LOG
from components.search import study as studies
from components.search.choose import BEST_JSON, TRIALS_JSON, ChooseConfig, choose
from components.search.suggest import begin, suggest
from components.search.tell import tell

CONFIG = search(trials=4, rounds=3, rungs=2, eta=2)


@pytest.fixture
def told(tmp_path):
    """A function that runs round `number` with the given values, and returns (asked, folder of the study)."""
    begin(tmp_path / "study-0", tmp_path / "states-0")

    def one(number, *values):
        study, states = tmp_path / f"study-{number}", tmp_path / f"states-{number}"
        asked = suggest(CONFIG, number, study)
        reached = [
            state(tmp_path / f"r-{number}-{i}", asked[i], value, reason="" if value else "it blew up.")
            for i, value in enumerate(values)
        ]
        after = tmp_path / f"study-{number + 1}"
        tell(CONFIG, asked, reached, study, states, after, tmp_path / f"states-{number + 1}")
        return asked, after

    return one


def test_states_and_values_are_optunas_own(told):
    told(0, 0.3, None)
    asked, study = told(1, 0.2, 0.4, 0.1)
    assert [(one.trial, one.rung) for one in asked] == [(0, 1), (2, 0), (3, 0)]
    journal = optuna.storages.JournalStorage(JournalFileBackend(str(study / STUDY_LOG)))
    trials = optuna.load_study(study_name=studies.NAME, storage=journal).trials
    assert [(t.state.name, t.intermediate_values) for t in trials] == [
        ("COMPLETE", {0: 0.3, 1: 0.2}),
        ("FAIL", {}),
        ("PRUNED", {0: 0.4}),
        ("PRUNED", {0: 0.1}),
    ]
    assert trials[0].value == 0.2
    assert trials[1].user_attrs["reason"] == "it blew up."
    assert trials[0].datetime_complete > trials[0].datetime_start


def test_a_study_is_read_without_a_trace(told):
    _, study = told(0, 0.3, 0.2)
    before = {path.name: path.stat().st_mtime_ns for path in study.iterdir()}
    study.chmod(0o555)
    studies.read(study)
    study.chmod(0o755)
    assert {path.name: path.stat().st_mtime_ns for path in study.iterdir()} == before


def test_results_of_another_round_are_refused(told, tmp_path):
    asked, _ = told(0, 0.3, 0.2)
    study, states = tmp_path / "study-1", tmp_path / "states-1"
    with pytest.raises(DataError, match="run the sweep again"):
        tell(CONFIG, suggest(CONFIG, 1, study), [tmp_path / "r-0-0"] * 3, study, states, tmp_path / "s", tmp_path / "t")
    assert not (tmp_path / "s").exists()
    assert asked


def test_the_best_of_the_highest_rung_is_chosen_with_all_that_the_sweep_changed(told, tmp_path):
    told(0, 0.3, 0.1)
    asked, study = told(1, 0.25, 0.28, 0.05, 0.07)
    assert [(one.trial, one.rung) for one in asked] == [(1, 1), (0, 1), (2, 0), (3, 0)]
    overrides = {"training": {"seed": 5, "lr": 1.0}, "sweep": {"trials": 4}, "evaluation": {"seed": 1}}
    config = ChooseConfig(search=CONFIG, overrides=json.dumps(overrides))
    run = tmp_path / "run"
    facts = choose(config, study, tmp_path / "best.json", run)
    assert (facts["best"], facts["rung"], facts["value"]) == (1, 1, 0.25)
    assert facts["recipe"] == {"rung": 1, "value": 0.28}
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {
        "training": {"seed": 5, "lr": facts["params"]["training.lr"]},
        "evaluation": {"seed": 1},
        "candidates": [facts["params"]["candidate"]],
    }
    assert json.loads((run / BEST_JSON).read_text()) == best
    rows = json.loads((run / TRIALS_JSON).read_text())
    assert [(row["trial"], row["state"], row["rung"], row["value"]) for row in rows] == [
        (0, "complete", 1, 0.28), (1, "complete", 1, 0.25), (2, "pruned", 0, 0.05), (3, "pruned", 0, 0.07),
    ]  # fmt: skip
    assert (run / STUDY_LOG).read_bytes() == (study / STUDY_LOG).read_bytes()


def test_one_that_diverged_at_a_higher_rung_is_not_chosen(told, tmp_path):
    told(0, 0.3, 0.1)
    _, study = told(1, None, 0.4, 0.5, 0.6)
    facts = choose(ChooseConfig(search=CONFIG), study, tmp_path / "best.json", None)
    assert (facts["best"], facts["value"]) == (0, 0.4)


def test_a_recipe_that_diverged_is_compared_with_nothing(told, tmp_path):
    _, study = told(0, None, 0.1)
    assert choose(ChooseConfig(search=CONFIG), study, tmp_path / "best.json", None)["recipe"] is None


def test_a_search_in_which_all_diverged_says_so(told, tmp_path):
    _, study = told(0, None, None)
    with pytest.raises(TrainingDiverged, match=r"all 2 trials diverged: narrow .* it blew up\."):
        choose(ChooseConfig(search=CONFIG), study, tmp_path / "best.json", None)
    assert not Path(tmp_path / "best.json").exists()
