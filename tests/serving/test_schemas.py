import json

import pytest
from pydantic import ValidationError
from tiny_model import CONTEXT_SPEC

from components.contracts.errors import UsageError
from serving.schemas import BadContext, RankRequest, canonical_id, context_values
from serving.settings import MAX_ITEMS, Settings


@pytest.mark.parametrize(
    ("sent", "meant"), [("u1", "u1"), (12, "12"), ("012", "012"), (0, "0"), (10**30, "1" + "0" * 30)]
)
def test_ids_that_are_ids(sent, meant):
    assert canonical_id(sent) == meant


@pytest.mark.parametrize("sent", [1.0, 1.5, True, None, "", [], {"a": 1}, float("nan")])
def test_ids_that_are_none(sent):
    with pytest.raises(ValueError, match="an id is a non-empty string or an integer"):
        canonical_id(sent)


def parse(**changes):
    return RankRequest.model_validate_json(json.dumps({"user_id": "u", "item_ids": ["a", 2], **changes}))


def test_a_request():
    request = parse(context={"hour": 3})
    assert (request.user_id, request.item_ids, request.context) == ("u", ["a", "2"], {"hour": 3})
    assert parse().context == {}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"item_ids": []}, "empty"),
        ({"item_ids": ["a", "a"]}, "twice"),
        ({"item_ids": ["1", 1]}, "'1' is in item_ids twice"),
        ({"item_ids": [str(n) for n in range(MAX_ITEMS + 1)]}, str(MAX_ITEMS)),
        ({"item_ids": "a,b"}, "list"),
        ({"user": "u"}, "Extra"),
        ({"context": []}, "dictionary|object"),
    ],
)
def test_a_request_that_is_none(changes, said):
    with pytest.raises(ValidationError, match=said):
        parse(**changes)


def test_as_many_items_as_allowed():
    assert len(parse(item_ids=list(range(MAX_ITEMS))).item_ids) == MAX_ITEMS


def test_context_is_completed_and_position_ignored():
    values = context_values(CONTEXT_SPEC, {"hour": 5, "speed": 3, "position": "nonsense", "member": None})
    assert values == {"hour": 5, "device": None, "speed": 3.0, "member": None}
    assert isinstance(values["speed"], float)


def test_unknown_context_lists_the_known():
    with pytest.raises(BadContext, match="unknown 'daytime', 'hours': this model knows device, hour, member, speed"):
        context_values(CONTEXT_SPEC, {"hours": 1, "daytime": 2})


@pytest.mark.parametrize(
    "sent",
    [
        {"hour": "5"},
        {"hour": 5.0},
        {"hour": True},
        {"device": 5},
        {"speed": "fast"},
        {"speed": float("inf")},
        {"speed": True},
        {"member": 1},
        {"member": "true"},
        {"hour": [5]},
        {"hour": 2**63},
        {"hour": 10**400},
        {"speed": float("nan")},
    ],
)
def test_a_value_of_another_type(sent):
    with pytest.raises(BadContext, match=f"context '{next(iter(sent))}'"):
        context_values(CONTEXT_SPEC, sent)


def test_settings_outside_a_bento(tmp_path):
    with pytest.raises(UsageError, match="not from a checkout"):
        Settings.load({}, tmp_path)


def test_settings_in_a_bento(tmp_path):
    note = {"dataset": "shop", "run": "r", "candidate": "esmm", "as_of": "2026-01-10T00:00:00Z", "clock": "frozen"}
    (tmp_path / "packaged.json").write_text(json.dumps(note))
    settings = Settings.load({"ESMM_HOME": str(tmp_path / "home")}, tmp_path)
    assert settings.feast == tmp_path / "home/feast/shop"
    assert settings.model == tmp_path / "model"
    assert Settings.load({}, tmp_path).feast is None
