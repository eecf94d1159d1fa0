"""Configs are strict: what is misspelt, mistyped or not a number is an error that says so."""

import pytest

from components.contracts.config import Config
from components.contracts.errors import UsageError


class Knobs(Config):
    rate: float = 0.1
    rounds: int = 1


def test_parse_reads_json_and_mappings():
    assert Knobs.parse('{"rate": 0.5}') == Knobs.parse({"rate": 0.5}) == Knobs(rate=0.5)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ({"rat": 1}, "unknown key 'rat'"),
        ({"rate": "fast"}, "rate = 'fast'"),
        ({"rate": float("nan")}, "rate = nan"),
        ({"rounds": 1.5}, "rounds = 1.5"),
        ("{", "invalid json"),
    ],
)
def test_parse_names_the_offending_key(data, says):
    with pytest.raises(UsageError, match=says):
        Knobs.parse(data)


def test_equal_configs_give_equal_text():
    assert Knobs(rounds=2, rate=0.5).to_json() == Knobs(rate=0.5, rounds=2).to_json()
