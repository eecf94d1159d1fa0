"""What a round trains: decided by config, round and study alone, and never nothing."""

import json
import math

import pytest
from search.made import TRAIN, result, search, state

from components.contracts.errors import CorruptArtifact
from components.contracts.trial import STUDY_LOG, Asked, folder_of
from components.search import study as studies
from components.search.space import distributions
from components.search.suggest import begin, draw, suggest
from components.search.tell import tell


def rounds(config, folder, values):
    """The rounds of a search: what each asked; `values(asked)` is what a training comes to."""
    study, states = folder / "study-0", folder / "states-0"
    begin(study, states)
    for number in range(config.sweep.rounds):
        asked = suggest(config, number, study)
        assert suggest(config, number, study) == asked
        reached = [state(folder / f"reached-{number}-{i}", one, values(one)) for i, one in enumerate(asked)]
        told, kept = folder / f"study-{number + 1}", folder / f"states-{number + 1}"
        facts = tell(config, asked, reached, study, states, told, kept)
        study, states = told, kept
        yield asked, studies.read(told), kept, facts


def distance(asked):
    """The lower, the nearer lr is to 0.01; higher budgets do a little better."""
    lr = json.loads(asked.config)["training"]["lr"]
    return abs(math.log10(lr) + 2) + 0.1 - 0.01 * asked.rung


def test_the_first_trial_is_the_recipe_and_a_trial_differs_from_it_in_the_space_alone(tmp_path):
    begin(tmp_path / "study", tmp_path / "states")
    first, second, *_ = suggest(search(trials=9), 0, tmp_path / "study")
    assert (first.trial, first.rung, first.candidate) == (0, 0, "esmm")
    assert json.loads(first.config)["training"]["lr"] == 0.002
    changed = json.loads(second.config)
    assert changed["training"].pop("lr") == json.loads(second.params)["training.lr"] != 0.002
    assert changed["training"].pop("candidates") == {
        second.candidate: TRAIN["training"]["candidates"][second.candidate]
    }
    assert changed["training"] == {"seed": 3, "hidden": [8]}
    assert changed["dataset"] == "shop"


def test_a_recipe_outside_of_the_space_is_not_tried(tmp_path):
    begin(tmp_path / "study", tmp_path / "states")
    config = search(trials=9, space={"training.lr": {"low": 0.01, "high": 0.1}})
    assert all(json.loads(one.config)["training"]["lr"] >= 0.01 for one in suggest(config, 0, tmp_path / "study"))


def test_another_seed_suggests_others_and_another_round_too(tmp_path):
    begin(tmp_path / "study", tmp_path / "states")
    params = [
        [one.params for one in suggest(search(trials=12, rounds=5, seed=seed), number, tmp_path / "study")][1:]
        for seed, number in ((0, 0), (1, 0), (0, 1))
    ]
    assert params[0] != params[1]
    assert params[0] != params[2]


def test_a_whole_search_ends_on_the_last_rung_and_does_no_more_than_halving_allows(tmp_path):
    config = search(trials=12, rounds=4, rungs=3, eta=3)
    done = list(rounds(config, tmp_path, distance))
    assert [sum(one.rung == 0 for one in asked) for asked, *_ in done] == [6, 6, 0, 0]
    trials = done[-1][1]
    assert len(trials) == 12
    at = [sum(rung in trial.intermediate_values for trial in trials) for rung in range(3)]
    assert at[0] == 12
    assert 4 <= at[1] <= 6
    assert 2 <= at[2] <= 4
    assert trials[0].state.name == "COMPLETE", "the recipe's own config is trained whole"
    complete = [trial for trial in trials if trial.state.name == "COMPLETE"]
    assert {trial.state.name for trial in trials} == {"COMPLETE", "PRUNED"}
    best = min(trials, key=lambda trial: trial.intermediate_values[0])
    assert best.number in [trial.number for trial in complete]
    assert done[-1][3]["best"] == min(trial.value for trial in complete)


def test_what_was_told_moves_the_suggestions_to_where_it_is_good():
    """Over 8 seeds, suggestions after the first round, which is drawn at random, lie nearer to the optimum.

    Of a sampler that ignores what it is told the ratio of the two means has a standard error of about 0.1.
    """
    first, later = [], []
    for seed in range(8):
        config = search(trials=24, rounds=4, rungs=1, seed=seed)
        trials = []
        for number in range(4):
            for params in draw(config, number, trials, 6):
                asked = Asked(trial=len(trials), rung=0, share=1, candidate="esmm", params="{}", config="{}")
                found = abs(math.log10(params["training.lr"]) + 2)
                (later if number else first).append(found)
                new = studies.new(len(trials), params, distributions(config.sweep.space))
                trials.append(studies.standing(new, result(asked, found), 0))
    assert sum(later) / len(later) < 0.8 * sum(first) / len(first)


def test_a_round_is_never_empty_even_if_all_diverge(tmp_path):
    config = search(trials=4, rounds=4, rungs=3)
    for asked, trials, kept, _ in rounds(config, tmp_path, lambda one: None):
        assert asked
        assert all(studies.failed(trial) for trial in trials)
        assert not list(kept.glob("trial-*"))


def test_a_small_space_is_tried_whole_and_nothing_twice(tmp_path):
    space = {"candidate": ["esmm", "base"], "training.lr": [0.1, 0.2, 0.002]}
    config = search(trials=6, rounds=3, rungs=1, space=space)
    tried = [one.params for asked, *_ in rounds(config, tmp_path, distance) for one in asked]
    assert len(set(tried)) == 6


def test_states_of_those_that_may_go_on_are_carried_from_round_to_round(tmp_path):
    config = search(trials=12, rounds=4, rungs=3, eta=3)
    for asked, trials, kept, facts in rounds(config, tmp_path, distance):
        carried = {int(folder.name.removeprefix("trial-")) for folder in kept.glob("trial-*")}
        assert carried == set(facts["kept"])
        for number in carried:
            rung = studies.rung_of(trials[number])
            assert rung < 2
            assert (folder_of(kept, number) / "weights").read_text() == f"{number} at {rung}"
        assert asked


def test_a_study_that_was_changed_is_refused(tmp_path):
    begin(tmp_path / "study", tmp_path / "states")
    with (tmp_path / "study" / STUDY_LOG).open("a") as file:
        file.write("{}\n")
    with pytest.raises(CorruptArtifact, match=STUDY_LOG):
        suggest(search(), 0, tmp_path / "study")
