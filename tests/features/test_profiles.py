"""One repository, three profiles: each yaml is the place it says, and the servers hold the values that SQLite holds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from feast.repo_config import RepoConfig, load_repo_config
from features.made import GROUP_VIEW, at, spec, view_table, write_features
from features.timelines import keys, timelines
from servers import postgres, redis_server

import feature_repo
from components.contracts.errors import UsageError
from components.contracts.online import PROFILE_VARIABLE, Place
from components.features.point_in_time import PointInTime
from feature_repo import store as repo

REPO = Path(feature_repo.__file__).parent
HARD = """p"a'ss: #w$or%d\\${HOME}{x}&*!|>@`"""
"""What a generated password may hold, but for the comma that ends it in Feast's connection string."""
SERVERS = {
    "ESMM_REDIS": f"cache.example:6379,password={HARD},ssl=true,ssl_ca_certs=/etc/ssl/redis.pem",
    "ESMM_REDIS_TYPE": "redis_cluster",
    "ESMM_REGISTRY": "postgresql+psycopg://feast:p%40ss%3A%23@db.example/feast",
}
SPARK = {
    "ESMM_SPARK_MASTER": "local[2]",
    "ESMM_SPARK_HOST": "127.0.0.1",
    "ESMM_SPARK_MEMORY": "1g",
    "ESMM_SPARK_PARTITIONS": "4",
}
AS_OF = at(10)


@pytest.fixture
def environment(monkeypatch):
    """Sets the variables of a profile."""

    def set_(profile, **variables):
        monkeypatch.setenv(PROFILE_VARIABLE, profile)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return set_


def need_pyspark(profile):
    if profile == "spark":
        pytest.importorskip("pyspark", reason="the spark profile needs pyspark: pip install 'esmm-pipeline[spark]'")


@pytest.mark.parametrize("profile", list(repo.FILES))
def test_each_yaml_is_where_its_place_says(tmp_path, environment, profile):
    """And Feast's own reader, with exported variables, reads it as ours: passwords that mean something to yaml, shells
    and templates come out as they are."""
    need_pyspark(profile)
    environment(profile, ESMM_FEAST_PROJECT="tiny", ESMM_FEAST_DIR=str(tmp_path), **SERVERS, **SPARK)
    place = Place.of(tmp_path, "tiny")
    assert place.profile == profile
    made = repo.settings(place)
    assert made["project"] == "tiny"
    assert made["online_store"] == place.online_store
    assert made["registry"]["path"] == place.registry
    assert made["registry"]["registry_type"] == "sql"
    ours, theirs = RepoConfig(repo_path=tmp_path, **made), load_repo_config(tmp_path, REPO / repo.FILES[profile])
    for part in ("project", "online_store", "registry", "offline_store", "batch_engine", "materialization_config"):
        assert getattr(theirs, part) == getattr(ours, part), part


def test_the_profiles_differ_in_nothing_else():
    """What a reader of the store relies on is in each file: they cannot include one another."""
    shared = {}
    for profile, file in repo.FILES.items():
        made = yaml.safe_load((REPO / file).read_text())
        made["registry"] = {k: v for k, v in made["registry"].items() if k not in ("path", "sqlalchemy_config_kwargs")}
        shared[profile] = {k: v for k, v in made.items() if k not in ("online_store", "offline_store", "batch_engine")}
    assert shared["production"] == shared["spark"] == shared["embedded"]


def test_a_scratch_store_touches_no_server(tmp_path, environment):
    """Its registry and online store are files, whatever the profile: these servers do not exist."""
    environment("production", **SERVERS)
    features = write_features(
        tmp_path / "f", {"item_activity": view_table("item_activity", [{"item_id": "i1", "event": 0}])}
    )
    assert repo.scratch("scratch", tmp_path) == Place.of(tmp_path, "scratch", {})
    opened = repo.open_store("scratch", tmp_path, repo.scratch("scratch", tmp_path))
    repo.apply(opened, features, ("item_activity",))
    assert (tmp_path / "registry.db").exists()
    environment("spark")
    place = repo.scratch("scratch", tmp_path)
    assert (place.profile, place.redis, place.registry) == ("spark", None, f"sqlite:///{tmp_path}/registry.db")


def test_without_pyspark_the_spark_profile_says_what_to_install(tmp_path, environment, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyspark", None)
    environment("spark")
    with pytest.raises(UsageError, match=r"pip install 'esmm-pipeline\[spark\]'"):
        repo.open_store("tiny", tmp_path)


@pytest.mark.parametrize(
    ("variables", "sentence"),
    [
        ({PROFILE_VARIABLE: "cloud"}, "choose one of embedded, production, spark"),
        ({PROFILE_VARIABLE: "production", "ESMM_REGISTRY": "postgresql://x"}, "needs ESMM_REDIS, which is not set"),
        ({PROFILE_VARIABLE: "production", "ESMM_REDIS": "x:1"}, "needs ESMM_REGISTRY, which is not set"),
        ({**SERVERS, PROFILE_VARIABLE: "production", "ESMM_REDIS_TYPE": "sentinel"}, "choose one of redis, redis_clus"),
    ],
)
def test_a_profile_that_is_not_told_everything_is_refused(tmp_path, variables, sentence):
    with pytest.raises(UsageError, match=sentence):
        Place.of(tmp_path, "tiny", variables)


@pytest.fixture(scope="module")
def servers():
    with redis_server(password="5ecret#word") as redis, postgres() as registry:
        yield {"ESMM_REDIS": redis.address, "ESMM_REGISTRY": registry, "ESMM_REDIS_TYPE": "redis"}


TABLES = {
    "user_profile": [
        {"user_id": "u1", "event": 1, "country": "de", "age_band": 3},
        {"user_id": "u1", "event": 2, "country": "fr", "age_band": None},
        {"user_id": "ü 2", "event": 1, "country": "", "age_band": 2**53 + 1},
    ],
    "item_activity": [
        {"item_id": "i1", "event": 9, "item_clicks_7d": 1, "item_ctr_7d": 1 / 3},
        {"item_id": "i1", "event": 9.5, "created": 11, "item_clicks_7d": 99},
        {"item_id": "i1", "event": 12, "item_clicks_7d": 98},
        {"item_id": "i2", "event": 8, "created": 8.5, "item_clicks_7d": 5},
        {"item_id": "i2", "event": 8, "created": 8.2, "item_clicks_7d": 4},
    ],
    GROUP_VIEW: [
        {"group_id": "g1", "event": 1, "f109_14": ["a", "b"], "f109_14_weights": [0.5, 3.0000000000000004]},
        {"group_id": "g2", "event": 1, "f109_14": [], "f109_14_weights": []},
        {"group_id": "g3", "event": 1, "f121": "é😀"},
    ],
}
ASKED = {
    "user_profile": ("user_id", ["u1", "ü 2", "nobody"]),
    "item_activity": ("item_id", ["i1", "i2", "nothing"]),
    GROUP_VIEW: ("group_id", ["g1", "g2", "g3", "none"]),
}


def online(store):
    """Every value of every view, by plain get_online_features."""
    found = {}
    for view in store.list_feature_views():
        key, values = ASKED[view.name]
        references = [f"{view.name}:{feature.name}" for feature in view.features]
        found[view.name] = store.get_online_features(references, [{key: value} for value in values]).to_dict()
    return found


def test_every_profile_serves_the_same_values(tmp_path, environment, servers):
    """Materialized and read back: SQLite, and Redis with PostgreSQL; the spark profile serves as the embedded one."""
    from components.features.online.bring_up import bring_up

    features = write_features(tmp_path / "f", {view: view_table(view, rows) for view, rows in TABLES.items()})
    found = {}
    for profile in ("embedded", "production", "spark"):
        need_pyspark(profile)
        environment(profile, **servers)
        folder = tmp_path / profile
        folder.mkdir()
        place = Place.of(folder, "tiny")
        report = bring_up(place, features, tuple(TABLES), AS_OF)
        assert {view: state.rows for view, state in report.views.items()} == {
            "user_profile": 2, "item_activity": 2, GROUP_VIEW: 3,
        }  # fmt: skip
        found[profile] = online(repo.open_store("tiny", folder))
    assert found["embedded"]["item_activity"]["item_clicks_7d"] == [1, 5, None]
    assert found["embedded"]["user_profile"]["country"] == ["fr", "", None]
    assert found["embedded"]["user_profile"]["age_band"] == [None, 2**53 + 1, None]
    assert found["production"] == found["embedded"]
    assert found["spark"] == found["embedded"]


def test_joins_are_the_same_under_the_production_profile(tmp_path, environment, servers):
    """The profile changes where values are served, not what is retrieved (for Spark: test_profiles_spark.py)."""
    versions, rows = timelines(5)
    features = write_features(tmp_path / "f", {"item_activity": view_table("item_activity", versions)})
    found = []
    for profile in ("embedded", "production"):
        environment(profile, **servers)
        with PointInTime(features, spec(("item_activity",))) as store:
            found.append(store.join(keys(rows)))
    assert found[0].equals(found[1])


def feast(*arguments, cwd, **variables):
    environment = {**os.environ, "PYTHONPATH": str(REPO.parent), **variables}
    command = [Path(sys.executable).parent / "feast", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_feast_s_own_commands_work_on_the_production_yaml(tmp_path, servers):
    features = write_features(tmp_path / "f", {view: view_table(view, rows) for view, rows in TABLES.items()})
    variables = {
        PROFILE_VARIABLE: "production", "ESMM_FEAST_PROJECT": "cli", "ESMM_FEATURES_DIR": str(features), **servers,
    }  # fmt: skip
    yaml_file = ("-f", "feature_store.production.yaml")
    done = feast(*yaml_file, "apply", cwd=REPO, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    listed = feast(*yaml_file, "feature-views", "list", cwd=REPO, **variables)
    assert all(view in listed.stdout for view in TABLES)
