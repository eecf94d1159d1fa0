"""The real service: a Bento built from a small model, started, asked over HTTP."""

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import httpx
import numpy as np
import pytest
from tiny_model import AS_OF, make_model, rows

from components.contracts.paths import Home
from components.packaging import bento, process
from components.scoring.score import Scorer
from serving.settings import MAX_BODY_BYTES, MAX_ITEMS

CONTEXT = {"hour": 5, "device": "ios", "speed": 12.5, "member": True}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(client, model folder, tag)."""
    bench = tmp_path_factory.mktemp("serving")
    home, model = Home(bench / "home"), make_model(bench / "model")
    tag, _ = bento.build(home, bento.PackageConfig(dataset="shop"), model, "20260110T000000-aaaa")
    with (
        process.serving(home, process.bento_path(home, tag), log=bench / "log") as service,
        httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client,
    ):
        yield client, model, tag


@pytest.fixture
def rank(served):
    return lambda **body: served[0].post("/rank", json={"user_id": "u1", "item_ids": ["i1", "i2", "i3"], **body})


def columns(items, **context):
    values = {"hour": None, "device": None, "speed": None, "member": None, **context}
    made = {"user_id": np.array(["u1"] * len(items), object), "item_id": np.array(items, object)}
    for name, value in values.items():
        number = name in ("hour", "speed")
        made[name] = np.array([np.nan if value is None and number else value] * len(items), None if number else object)
    return made


def test_scores_are_the_models_sorted_and_multiplied_exactly(served, rank):
    _, model, tag = served
    items = [f"i{n}" for n in range(30)]
    answer = rank(item_ids=items, context=CONTEXT).json()
    scores = Scorer(model).score(columns(items, **CONTEXT))
    for name, offline in (("pctr", scores.pctr), ("pcvr", scores.pcvr)):
        online = {i["item_id"]: i[name] for i in answer["items"]}
        assert online == pytest.approx(dict(zip(items, offline.tolist(), strict=True)), rel=1e-6)
    assert all(i["pctcvr"] == i["pctr"] * i["pcvr"] for i in answer["items"])
    order = [(-i["pctcvr"], i["item_id"]) for i in answer["items"]]
    assert order == sorted(order)
    assert (answer["model_version"], answer["run"], answer["user_id"]) == (tag, "20260110T000000-aaaa", "u1")
    assert (answer["unknown_user"], answer["unknown_items"], answer["expired_features"]) == (False, [], 0)
    assert answer["unknown_group"] is None


def test_missing_context_is_a_missing_value(served, rank):
    answer = rank().json()
    scores = Scorer(served[1]).score(columns(["i1", "i2", "i3"]))
    assert sorted(i["pctr"] for i in answer["items"]) == pytest.approx(sorted(scores.pctr.tolist()))
    assert rank(context={"hour": None}).json()["items"] == answer["items"]


def test_position_is_ignored(rank):
    plain = rank(context=CONTEXT).json()
    assert rank(context={**CONTEXT, "position": 9}).json() == plain
    assert rank(context={**CONTEXT, "position": "first"}).json() == plain


def test_unknown_ids_are_reported_and_tied_items_keep_their_order(rank):
    answer = rank(user_id="nobody", item_ids=["new-b", "i1", "new-a"]).json()
    assert answer["unknown_user"] is True
    assert answer["unknown_items"] == ["new-b", "new-a"]
    new = [i["item_id"] for i in answer["items"] if i["item_id"] != "i1"]
    assert new == ["new-a", "new-b"]


def test_integers_are_their_decimals(rank):
    answer = rank(user_id=7, item_ids=[1, "2"]).json()
    assert answer["user_id"] == "7"
    assert {i["item_id"] for i in answer["items"]} == {"1", "2"}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"user_id": 1.0}, "user_id: an id is"),
        ({"user_id": True}, "user_id: an id is"),
        ({"item_ids": ["a", 2.5]}, "item_ids.1: an id is"),
        ({"item_ids": []}, "empty"),
        ({"item_ids": ["a", "a"]}, "twice"),
        ({"item_ids": list(range(MAX_ITEMS + 1))}, "split it"),
        ({"context": {"hours": 5}}, "knows device, hour, member, speed"),
        ({"context": {"hour": "five"}}, "is no int"),
        ({"extra": 1}, "extra"),
        ({"group_id": 1.5}, "group_id: an id is a non-empty string or an integer, not 1.5"),
        ({"item_context": {"price": [1, 2, 3]}}, "knows no item_context"),
        ({"item_context": {"price": 1}}, "item_context.price: Input should be a valid array"),
    ],
)
def test_a_bad_request_gets_400_and_a_sentence(rank, body, said):
    answer = rank(**body)
    assert answer.status_code == 400
    assert said in answer.json()["error"]


def test_bad_json(served):
    answer = served[0].post("/rank", content=b"{", headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "JSON" in answer.json()["error"]


def test_a_form_is_no_json(served):
    answer = served[0].post("/rank", data={"user_id": "u1", "item_ids": "i1"})
    assert answer.status_code == 415
    assert served[0].post("/rank", content=b"{}").status_code == 415


def test_too_large_with_and_without_content_length(served):
    headers = {"content-type": "application/json"}
    big = b" " * (MAX_BODY_BYTES + 1)
    assert served[0].post("/rank", content=big, headers=headers).status_code == 413
    answer = served[0].post("/rank", content=(big[i : i + 65536] for i in range(0, len(big), 65536)), headers=headers)
    assert answer.status_code == 413


def test_the_largest_allowed_request_is_answered(rank):
    assert len(rank(item_ids=[f"{n:0100d}" for n in range(MAX_ITEMS)]).json()["items"]) == MAX_ITEMS


def test_info_by_get_and_post(served):
    client, _, tag = served
    answer = client.get("/info").json()
    assert client.post("/info").json() == answer
    assert (answer["model_version"], answer["dataset"], answer["as_of"]) == (tag, "shop", AS_OF)
    assert answer["context"] == {"hour": "int", "device": "string", "speed": "float", "member": "bool"}
    assert (answer["item_context"], answer["group_id"]) == ({}, False)
    assert (answer["reference_position"], answer["materialized_as_of"]) == (1, None)
    assert answer["features"][:2] == ["user_id", "item_id"]


def test_health(served):
    assert [served[0].get(path).status_code for path in ("/livez", "/readyz")] == [200, 200]


def test_many_at_once_answer_alike(rank):
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: rank(context=CONTEXT).json(), range(40)))
    assert all(answer == answers[0] for answer in answers)


@pytest.fixture(scope="module")
def bags(tmp_path_factory):
    """(client, model folder) of a model with a bag of the request and a weighted one of each item."""
    bench = tmp_path_factory.mktemp("bags")
    home, model = Home(bench / "home"), make_model(bench / "model", bags=True)
    tag, _ = bento.build(home, bento.PackageConfig(dataset="shop"), model, "20260110T000000-aaaa")
    with (
        process.serving(home, process.bento_path(home, tag), log=bench / "log") as service,
        httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client,
    ):
        yield client, model


def test_bags_are_scored_as_offline_each_item_with_its_own(bags):
    client, model = bags
    items = [f"i{n}" for n in range(30)]
    raw = {name: column[np.arange(30)] for name, column in rows(seed=5, bags=True).items()}
    user, of_request = np.zeros(30, np.int64), ("hour", "device", "speed", "member", "shown_with")
    raw |= {name: raw[name][user] for name in ("user_id", *of_request)}
    tags, weights = (lists(raw[name]) for name in ("tags", "tags_weights"))
    context = {name: np.asarray(raw[name]).tolist()[0] for name in of_request if name != "shown_with"}
    body = {
        "user_id": raw["user_id"][0],
        "item_ids": items,
        "context": {**context, "shown_with": lists(raw["shown_with"])[0]},
        "item_context": {"tags": [bag or None for bag in tags], "tags_weights": weights},
    }
    answer = client.post("/rank", json=body).json()
    scores = Scorer(model).score(raw)
    online = {item["item_id"]: item["pctr"] for item in answer["items"]}
    assert online == pytest.approx(dict(zip(items, scores.pctr.tolist(), strict=True)), rel=1e-6)
    assert len({round(value, 9) for value in online.values()}) > 20
    without = client.post("/rank", json={**body, "item_context": {}}).json()
    assert without["items"] != answer["items"]
    # A null, an empty list and nothing at all are the same missing bag.
    nothing = {"tags": [None, []] * 15, "tags_weights": [[], None] * 15}
    assert client.post("/rank", json={**body, "item_context": nothing}).json() == without


def lists(column):
    ends = column.offsets.tolist()
    return [column.values[start:end].tolist() for start, end in pairwise(ends)]


def test_a_bad_bag_gets_400_and_a_sentence(bags):
    def said(**body):
        answer = bags[0].post("/rank", json={"user_id": "u1", "item_ids": ["i1", "i2"], **body})
        assert answer.status_code == 400
        return answer.json()["error"]

    assert "'tags' has 1 values for 2 items" in said(item_context={"tags": [["a"]]})
    weights = {"tags": [["a"], ["b"]], "tags_weights": [[1], [-1]]}
    assert "'tags_weights' = [-1] is no list of numbers of zero or more" in said(item_context=weights)
    assert "send one value for each item in item_context" in said(context={"tags": ["a"]})


def test_info_of_bags(bags):
    answer = bags[0].get("/info").json()
    assert answer["context"]["shown_with"] == "strings"
    assert answer["item_context"] == {"tags": "strings", "tags_weights": "floats"}
