"""The real service of the profile production: a Bento on Redis and a PostgreSQL registry, without the home's store."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import httpx
import numpy as np
import pytest
from online_made import NOW, PROJECT, apply, by_feast, note, random_rows, spec, write
from servers import postgres, redis_server
from tiny_model import make_model

from components.contracts.online import Place
from components.contracts.paths import Home
from components.contracts.times import format_utc
from components.packaging import bento, process
from components.packaging.guard import write_guard
from components.scoring.score import Scorer
from serving.lookup import OnlineLookup

ITEMS = [f"i{number}" for number in range(60)]
VIEWS = ("user_profile", "item_profile", "item_activity")


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(client, Redis, Feast store, model folder, log)."""
    bench = tmp_path_factory.mktemp("production")
    with ExitStack() as stack:
        server = stack.enter_context(redis_server(password="p", settings=("--appendonly", "yes")))
        url = stack.enter_context(postgres())
        place = Place(bench, PROJECT, "production", url, server.address)
        store = apply(place, VIEWS)
        write(store, "user_profile", random_rows("user_profile", ["u1", "u2"], 1))
        for number, view in enumerate(VIEWS[1:]):
            write(store, view, random_rows(view, ITEMS, 2 + number))
        note(place, server.client(), views=dict.fromkeys(VIEWS, 60))
        lookup = OnlineLookup(place, spec(VIEWS), "frozen")
        model = make_model(bench / "model", lookup.rows("u1", ITEMS, {}).columns, spec(VIEWS))
        lookup.close()
        home = Home(bench / "home")
        tag, _ = bento.build(home, bento.PackageConfig(dataset=PROJECT, clock="frozen"), model, "r")
        path = process.bento_path(home, tag)
        write_guard(bench, path)
        environment = {
            "ESMM_PROFILE": "production", "ESMM_REDIS": server.address, "ESMM_REGISTRY": url, "PYTHONPATH": str(bench),
        }  # fmt: skip
        running = stack.enter_context(process.serving(home, path, environment=environment, log=bench / "log"))
        client = stack.enter_context(httpx.Client(base_url=running.url, timeout=30, trust_env=False))
        assert not home.feast(PROJECT).exists()
        yield client, server, store, model, bench / "log"


def ask(client, user="u1", items=ITEMS):
    return client.post("/rank", json={"user_id": user, "item_ids": items})


def test_scores_are_those_of_what_feast_says(served):
    client, _, store, model, _ = served
    for user in ("u1", "u2", "nobody"):
        columns, expired = by_feast(store, spec(VIEWS), user, ITEMS, None)
        ids = {"user_id": np.array([user] * len(ITEMS), object), "item_id": np.array(ITEMS, object)}
        scores = Scorer(model).score({**ids, **columns})
        for _ in range(3):
            answer = ask(client, user).json()
            online = {item["item_id"]: item["pctr"] for item in answer["items"]}
            assert online == pytest.approx(dict(zip(ITEMS, scores.pctr.tolist(), strict=True)), rel=1e-6)
            assert answer["expired_by_view"] == expired
            assert answer["expired_features"] == sum(expired.values()) > 0
            assert answer["unknown_user"] == (user == "nobody")


def test_info_says_how_fresh_it_is(served):
    client = served[0]
    for _ in range(3):
        ask(client)
    answer = client.get("/info").json()
    assert answer["materialized_as_of"] == format_utc(NOW)
    fresh = answer["freshness"]
    assert fresh["views"]["item_activity"]["as_of"] == format_utc(NOW)
    assert fresh["views"]["item_activity"]["pushed"] is False
    assert fresh["views"]["item_activity"]["expired"] > 0
    assert fresh["cache"]["items"] == len(ITEMS)
    assert 0 < fresh["cache"]["hits"] < fresh["cache"]["asked"]
    assert fresh["registry"] == "read"


def test_many_at_once(served):
    client = served[0]
    alone = {user: ask(client, user).json() for user in ("u1", "u2", "u3")}
    with ThreadPoolExecutor(8) as pool:
        users = ["u1", "u2", "u3"] * 10
        for user, answer in zip(users, pool.map(lambda user: ask(client, user).json(), users), strict=True):
            assert answer == alone[user]


def test_redis_down_is_503_with_a_sentence_and_passes(served):
    client, server, _, _, log = served
    before = ask(client).json()
    server.kill()
    answer = ask(client)
    assert answer.status_code == 503
    assert "Redis at 127.0.0.1" in answer.json()["error"]
    assert "does not answer" in answer.json()["error"]
    info = client.get("/info")
    assert (info.status_code, info.json()["materialized_as_of"]) == (200, None)
    server.start()
    assert ask(client).json() == before
    assert "503: the feature store in Redis at" in log.read_text()
