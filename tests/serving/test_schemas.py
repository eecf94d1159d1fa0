import json

import pytest
from pydantic import ValidationError

from components.contracts.errors import UsageError
from serving.schemas import RankRequest, canonical_id
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
    assert (parse().context, parse().item_context, parse().group_id) == ({}, {}, None)


def test_a_group_is_an_id_or_nothing():
    assert [parse(group_id=sent).group_id for sent in ("train-1", 12, None)] == ["train-1", "12", None]
    assert parse(item_context={"price": [1.5, None]}).item_context == {"price": [1.5, None]}


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
        ({"group_id": 1.5}, "an id is a non-empty string or an integer, not 1.5"),
        ({"group_id": ""}, "an id is"),
        ({"item_context": []}, "dictionary|object"),
        ({"item_context": {"price": 3}}, "list"),
    ],
)
def test_a_request_that_is_none(changes, said):
    with pytest.raises(ValidationError, match=said):
        parse(**changes)


def test_as_many_items_as_allowed():
    assert len(parse(item_ids=list(range(MAX_ITEMS))).item_ids) == MAX_ITEMS


def test_settings_outside_a_bento(tmp_path):
    with pytest.raises(UsageError, match="not from a checkout"):
        Settings.load({}, tmp_path)


def test_settings_in_a_bento(tmp_path):
    note = {"dataset": "shop", "run": "r", "candidate": "esmm", "as_of": "2026-01-10T00:00:00Z", "clock": "frozen"}
    (tmp_path / "packaged.json").write_text(json.dumps(note))
    settings = Settings.load({"ESMM_HOME": str(tmp_path / "home")}, tmp_path)
    assert settings.place is not None
    assert settings.place.folder == tmp_path / "home/feast/shop"
    assert settings.model == tmp_path / "model"
    assert Settings.load({}, tmp_path).place is None
