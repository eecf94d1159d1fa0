"""A Bento whose model reads feature views: through Feast, under the import guard, against offline retrieval."""

import shutil
import sqlite3
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import AS_OF, ITEMS, USERS, make_model

from components.contracts.artifacts import EXPECTED
from components.contracts.files import write_manifest
from components.contracts.paths import HOME_VARIABLE, Home
from components.contracts.spec import Feature, FeatureSpec, View
from components.features import materialize
from components.packaging import bento, process, smoke_test
from components.scoring.raw import columns_from_table

DAY = 86400.0
SPEC = FeatureSpec(
    features=(
        Feature(name="user_id", source="id", dtype="string", encoding="id", min_count=1),
        Feature(name="hour", source="context", dtype="int", encoding="id", min_count=1),
        Feature(name="country", source="user_profile", dtype="string", encoding="id", min_count=1),
        Feature(name="user_clicks_7d", source="user_activity", dtype="int", encoding="bucket", buckets=4),
        Feature(name="price", source="item_profile", dtype="float", encoding="bucket", buckets=8),
        Feature(name="brand", source="item_profile", dtype="string", encoding="id", min_count=1),
        Feature(name="seen", source="context", dtype="strings", encoding="bag", combiner="sum", min_count=1),
        Feature(name="shelf", source="item_context", dtype="string", encoding="id", min_count=1),
        Feature(name="tags", source="item_context", dtype="strings", encoding="bag", weighted=True, min_count=1),
        Feature(name="f121", source="ali_ccp_user", dtype="string", encoding="id", min_count=1),
        Feature(name="f109_14", source="ali_ccp_user", dtype="strings", encoding="bag", weighted=True, min_count=1),
    ),
    views=(
        View(name="user_profile", entity="user_id", ttl_seconds=365 * DAY, fields=("country",)),
        View(name="user_activity", entity="user_id", ttl_seconds=7 * DAY, fields=("user_clicks_7d",)),
        View(name="item_profile", entity="item_id", ttl_seconds=365 * DAY, fields=("price", "brand")),
        View(
            name="ali_ccp_user",
            entity="group_id",
            ttl_seconds=365 * DAY,
            fields=("f121", "f109_14", "f109_14_weights"),
        ),
    ),
)
GROUPS = [f"g{n}" for n in range(12)]
STRINGS, FLOATS = pa.list_(pa.string()), pa.list_(pa.float64())
END = datetime.fromisoformat(AS_OF)


def put(folder, entity, ids, age_days, **columns):
    """A feature table with one snapshot an id, `age_days` before as-of."""
    folder.mkdir(parents=True)
    stamp = pa.timestamp("us", tz="UTC")
    times = [END - timedelta(days=days) for days in np.broadcast_to(age_days, len(ids)).tolist()]
    table = {
        entity: pa.array(ids),
        "event_timestamp": pa.array(times, stamp),
        "created": pa.array([time + timedelta(hours=1) for time in times], stamp),
        **{name: pa.array(values) if isinstance(values, list) else values for name, values in columns.items()},
    }
    pq.write_table(pa.table(table), folder / "part-0.parquet")


def put_groups(folder, rng):
    """A third of the groups with a null bag, a third with an empty one, a third with two or five weighted values."""
    sizes = [None, 0, 2, None, 0, 5] * (len(GROUPS) // 6)
    bags = [None if size is None else [f"v{k}" for k in range(size)] for size in sizes]
    weights = [None if bag is None else rng.uniform(0, 2, len(bag)).tolist() for bag in bags]
    values = {"f109_14": pa.array(bags, STRINGS), "f109_14_weights": pa.array(weights, FLOATS)}
    for name in ("f110_14", "f127_14", "f150_14"):
        values |= {name: pa.nulls(len(GROUPS), STRINGS), f"{name}_weights": pa.nulls(len(GROUPS), FLOATS)}
    for number in (121, 122, 124, 125, 126, 127, 128, 129):
        values[f"f{number}"] = pa.array([f"x{n % 5}" for n in range(len(GROUPS))])
    put(folder, "group_id", GROUPS, 1, **values)


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """(home, tag, model, expected): materialized and packaged. The last user's activity is past its time to live."""
    bench = tmp_path_factory.mktemp("online")
    rng = np.random.default_rng(0)
    home, features, dataset = Home(bench / "home"), bench / "features", bench / "dataset"
    users = len(USERS)
    countries = [*["at", "ch", None, "de"] * (users // 4)]
    put(
        *(features / "user_profile", "user_id", USERS, 1),
        country=countries,
        segment=["a"] * users,
        age_band=[1] * users,
        member_days=[5] * users,
    )
    put(
        *(features / "user_activity", "user_id", USERS, [1.0] * (users - 1) + [9.0]),
        user_impressions_7d=rng.integers(0, 100, users).tolist(),
        user_clicks_7d=rng.integers(0, 50, users).tolist(),
        user_conversions_7d=[0] * users,
        user_ctr_7d=[0.1] * users,
    )
    put(
        *(features / "item_profile", "item_id", ITEMS, 1),
        category=["c"] * len(ITEMS),
        brand=rng.choice(["x", "y", "z"], len(ITEMS)).tolist(),
        price=rng.uniform(1, 100, len(ITEMS)).tolist(),
    )
    put_groups(features / "ali_ccp_user", rng)
    write_manifest(features)
    (dataset / "test").mkdir(parents=True)
    count = 200
    log = {
        "impression_id": [str(n) for n in range(count)],
        "user_id": [USERS[-1 - n % users] for n in range(count)],
        "item_id": [ITEMS[n % len(ITEMS)] for n in range(count)],
        "event_timestamp": pa.array([END - timedelta(hours=n) for n in range(count)], pa.timestamp("us", tz="UTC")),
        "hour": [n % 24 for n in range(count)],
        "group_id": [GROUPS[n % len(GROUPS)] for n in range(count)],
        "seen": pa.array([[f"s{n % 5}"] * (n % 3) for n in range(count)], STRINGS),
        "shelf": [f"row {n % 4}" if n % 7 else None for n in range(count)],
        "tags": pa.array([None if n % 6 == 0 else [f"t{n % 9}", "t0"][: n % 3] for n in range(count)], STRINGS),
        "tags_weights": pa.array([None if n % 6 == 0 else [0.5 + n, 3.0][: n % 3] for n in range(count)], FLOATS),
    }
    pq.write_table(pa.table(log), dataset / "test/part-0.parquet")
    write_manifest(dataset)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str(home.root))
        config = materialize.MaterializeConfig(dataset="shop", as_of=AS_OF, spec=SPEC, clock="frozen")
        materialize.run(config, features, dataset, bench / "expected")
    table = pq.read_table(bench / "expected" / EXPECTED)
    columns = columns_from_table(table, SPEC.raw)
    model = make_model(bench / "model", columns, SPEC)
    tag, _ = bento.build(home, bento.PackageConfig(dataset="shop", clock="frozen"), model, "r")
    return home, tag, model, bench / "expected"


def ask(shop, home=None):
    old, tag, model, expected = shop
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HOME_VARIABLE, str((home or old).root))
        return smoke_test.run(smoke_test.SmokeTestConfig(dataset="shop"), tag, model, expected)


def test_online_equals_offline_under_the_guard(shop, no_process_left):
    facts = ask(shop)
    assert facts["passed"], facts
    assert facts["gate"]["evidence"]["rows"] > 80
    # Eight users; an unknown user, group, two unknown items; one without group; nothing but unknown ids.
    assert facts["gate"]["evidence"]["requests"] == 8 + 3 + 1 + 1


@pytest.fixture
def copy(shop, tmp_path):
    home = Home(tmp_path / "home")
    shutil.copytree(shop[0].root, home.root)
    return home


def damage(home, statement):
    with closing(sqlite3.connect(home.feast("shop") / "online.db")) as db:
        assert db.execute(statement).rowcount > 0
        db.commit()


def test_a_store_with_other_values_is_refused(shop, copy, no_process_left):
    """Every item at one item's price: what a materialization of wrong rows would look like."""
    other = "SELECT value FROM shop_item_profile WHERE feature_name = 'price' LIMIT 1"
    damage(copy, f"UPDATE shop_item_profile SET value = ({other}) WHERE feature_name = 'price'")
    facts = ask(shop, copy)
    assert not facts["passed"]
    assert "online and" in facts["gate"]["reason"]


def test_a_store_with_values_of_another_type_is_refused_and_says_why(shop, copy, no_process_left):
    other = "SELECT value FROM shop_item_profile WHERE feature_name = 'brand' LIMIT 1"
    damage(copy, f"UPDATE shop_item_profile SET value = ({other}) WHERE feature_name = 'price'")
    facts = ask(shop, copy)
    assert not facts["passed"]
    assert "failed on a request: " in facts["gate"]["reason"]
    assert facts["gate"]["evidence"]["log"]


def test_a_store_with_other_weights_is_refused(shop, copy, no_process_left):
    """A bag's values with the weights of another group: as many, so that only the scores tell."""
    table = "shop_ali_ccp_user"
    keys = f"SELECT entity_key FROM {table} WHERE feature_name = 'f109_14' AND length(value) > 4"
    other = f"SELECT value FROM {table} WHERE feature_name = 'f109_14_weights' AND entity_key IN ({keys})"
    damage(
        copy,
        f"UPDATE {table} AS old SET value = ({other} AND length(value) = length(old.value) AND value <> old.value) "
        f"WHERE feature_name = 'f109_14_weights' AND entity_key IN ({keys})",
    )
    facts = ask(shop, copy)
    assert not facts["passed"]
    assert "online and" in facts["gate"]["reason"]


def test_a_store_that_lost_its_groups_is_refused(shop, copy, no_process_left):
    damage(copy, "DELETE FROM shop_ali_ccp_user")
    facts = ask(shop, copy)
    assert not facts["passed"]
    assert "online and" in facts["gate"]["reason"]


def test_a_store_that_lost_its_users_is_refused(shop, copy, no_process_left):
    damage(copy, "DELETE FROM shop_user_profile")
    damage(copy, "DELETE FROM shop_user_activity")
    facts = ask(shop, copy)
    assert not facts["passed"]
    assert "online and" in facts["gate"]["reason"]


def test_without_a_store_the_service_does_not_start(shop, copy, no_process_left):
    shutil.rmtree(copy.feast("shop"))
    facts = ask(shop, copy)
    assert not facts["passed"]
    assert "esmm materialize" in facts["gate"]["reason"]


def test_what_the_service_says_of_ids_and_ages(shop, tmp_path, no_process_left):
    home, tag, _, _ = shop
    with (
        process.serving(home, process.bento_path(home, tag), log=tmp_path / "log") as service,
        httpx.Client(base_url=service.url, timeout=30, trust_env=False) as client,
    ):
        stale = client.post("/rank", json={"user_id": USERS[-1], "item_ids": ["i1", "new"]}).json()
        fresh = client.post("/rank", json={"user_id": USERS[0], "item_ids": ["i1"], "context": {"hour": 3}}).json()
        stranger = client.post("/rank", json={"user_id": "nobody", "item_ids": ["i1"]}).json()
        info = client.get("/info").json()
        grouped = client.post("/rank", json={"user_id": USERS[0], "item_ids": ["i1"], "group_id": GROUPS[0]}).json()
        other = client.post("/rank", json={"user_id": USERS[0], "item_ids": ["i1"], "group_id": "nobody"}).json()
        bodies = [{"user_id": user, "item_ids": ITEMS, "context": {"hour": 3}} for user in USERS] * 2
        alone = [client.post("/rank", json=body).json() for body in bodies]
        with ThreadPoolExecutor(8) as pool:
            together = list(pool.map(lambda body: client.post("/rank", json=body).json(), bodies))
    assert together == alone
    assert (stale["unknown_user"], stale["unknown_items"], stale["expired_features"]) == (False, ["new"], 1)
    assert (fresh["unknown_user"], fresh["unknown_items"], fresh["expired_features"]) == (False, [], 0)
    assert stranger["unknown_user"] is True
    assert [answer["unknown_group"] for answer in (fresh, grouped, other)] == [True, False, True]
    assert (info["group_id"], info["item_context"]["tags_weights"], info["context"]["seen"]) == (
        True, "floats", "strings",
    )  # fmt: skip
    assert info["materialized_as_of"] == AS_OF
    assert datetime.fromisoformat(info["materialized_as_of"]).tzinfo == UTC
