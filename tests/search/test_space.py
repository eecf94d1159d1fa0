"""A space says clearly what is wrong with it, and carries values to Optuna and back unchanged."""

import json

import pytest

from components.contracts.errors import UsageError
from components.search.config import SweepConfig
from components.search.space import Choices, Range, distributions


def parse(space, **sweep):
    return SweepConfig.parse({"space": space, **sweep}, where="recipe")


@pytest.mark.parametrize(
    ("dimension", "says"),
    [
        ({"low": 2, "high": 2}, "an empty range, low 2 is not below high 2"),
        ({"low": 0, "high": 1, "log": True}, "a logarithmic range starts above 0"),
        ({"low": "a", "high": 1}, "space.training.lr.range.low"),
        ({"low": True, "high": 3}, "space.training.lr.range.low"),
        ({"low": 1, "hihg": 3}, "unknown key 'space.training.lr.range.hihg'"),
        ([5], "at least 2 items"),
        ([], "at least 2 items"),
        ([1, 2, 1], "a value is listed twice"),
        (0.1, "has to be a range"),
        ("0.1 to 0.2", "has to be a range"),
    ],
)
def test_what_is_no_dimension_is_refused(dimension, says):
    with pytest.raises(UsageError, match=says):
        parse({"training.lr": dimension})


@pytest.mark.parametrize(
    ("sweep", "says"),
    [
        ({"rounds": 2, "rungs": 3}, "3 rungs take 3 rounds or more"),
        ({"rounds": 9, "rungs": 3, "trials": 6}, "6 trials are too few: 7 rounds"),
        ({"eta": 1}, "eta = 1"),
        ({"space": {"training.batch_size": [1, 2], "training.dimension": {"low": 1, "high": 5}}}, "holds 10 configs"),
        ({"space": {}}, "space = "),
        ({"space": "{"}, "no json"),
    ],
)
def test_a_search_that_cannot_be_is_refused(sweep, says):
    with pytest.raises(UsageError, match=says):
        SweepConfig.parse({"trials": 12, **sweep})


def test_whole_bounds_give_whole_numbers_and_can_be_made_real():
    whole, real = Range(low=1, high=10), Range(low=1, high=10.0)
    assert whole.whole
    assert not real.whole
    assert not whole.real().whole
    kinds = {key: type(d).__name__ for key, d in distributions({"a": whole, "b": real, "c": whole.real()}).items()}
    assert kinds == {"a": "IntDistribution", "b": "FloatDistribution", "c": "FloatDistribution"}


def test_values_of_any_kind_survive_optuna():
    choices = Choices(([80, 40], None, "gelu", 3, True))
    for value in choices.root:
        assert choices.holds(value)
        assert choices.from_optuna(choices.to_optuna(value)) == value
    assert not choices.holds([80, 41])
    assert not choices.holds("true")
    assert set(choices.distribution().choices) == {choices.to_optuna(value) for value in choices.root}


def test_a_range_holds_its_bounds_and_no_truth_values():
    unit = Range(low=0, high=1)
    assert unit.holds(0)
    assert unit.holds(1.0)
    assert not unit.holds(True)
    assert not unit.holds(1.1)
    assert not unit.holds("1")


def test_a_space_survives_its_own_json():
    sweep = parse({"candidate": ["esmm", "base"], "training.hidden": [[8], [16, 8]]}, trials=3)
    assert SweepConfig.parse(sweep.to_json()) == sweep
    text = json.dumps({"training.lr": {"low": 0.1, "high": 0.2}})
    assert parse(text).space == {"training.lr": Range(low=0.1, high=0.2)}


def test_budgets_and_configs_of_the_rounds():
    sweep = SweepConfig(trials=11, rounds=4, rungs=3, eta=3)
    assert [sweep.fresh(number) for number in range(4)] == [6, 5, 0, 0]
    assert [sweep.share(rung) for rung in range(3)] == pytest.approx([1 / 9, 1 / 3, 1])
    assert sweep.share(2) == 1.0
