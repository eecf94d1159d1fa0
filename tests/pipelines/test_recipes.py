"""A recipe is checked as a whole: nothing misspelt is ever ignored."""

import json

import pytest

from components.contracts.errors import UsageError
from pipelines import recipes


def test_sets_reach_down_and_keep_the_rest():
    changes = recipes.parse_sets(("training.seed=7", "validation.max_day_bad_share=0.2", 'candidates=["esmm"]'))
    recipe = recipes.load("nightly", json.dumps(changes))
    assert recipe.training.seed == 7
    assert recipe.validation.max_day_bad_share == 0.2
    assert recipe.candidates == ("esmm",)
    assert recipe.training.batch_size == recipes.nightly().training.batch_size


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ('{"training": {"sede": 1}}', "unknown key 'training.sede'"),
        ('{"training": {"seed": "many"}}', "training.seed = 'many'"),
        ('{"parity": {"sample": 0}}', "parity.sample = 0"),
        ('{"parity": {"tolerance": -1}}', "parity.tolerance = -1"),
        ('{"candidates": ["esnn"]}', "esnn"),
        ('{"candidates": []}', "candidates"),
    ],
)
def test_what_cannot_be_is_refused(overrides, says):
    with pytest.raises(UsageError, match=says):
        recipes.load("nightly", overrides)


def test_unknown_recipe_lists_the_known():
    with pytest.raises(UsageError, match=r"choose one of .*hillstrom.*nightly"):
        recipes.load("nightli")


def test_every_recipe_loads_and_says_what_it_is_for():
    for name, recipe in recipes.RECIPES.items():
        assert recipes.load(name).candidates
        assert (recipe.__doc__ or "").strip(), name


def test_a_set_without_equals_is_refused():
    with pytest.raises(UsageError, match="KEY=VALUE"):
        recipes.parse_sets(("training.seed",))


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"b": 1, "c": 2}}
    assert recipes.merge(base, {"a": {"b": 3}}) == {"a": {"b": 3, "c": 2}}
    assert base == {"a": {"b": 1, "c": 2}}
