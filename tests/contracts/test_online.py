import json

import pytest

from components.contracts.errors import UsageError
from components.contracts.online import Materialized, Place, ViewState, read_materialized, write_materialized

PRODUCTION = {
    "ESMM_PROFILE": "production",
    "ESMM_REDIS": "redis:6379,ssl=true,password=p",
    "ESMM_REGISTRY": "postgresql+psycopg://feast@db/feast",
}


def test_without_a_profile_everything_is_in_the_folder(tmp_path):
    place = Place.of(tmp_path, "shop", {})
    assert place.profile == "embedded"
    assert place.registry == f"sqlite:///{tmp_path}/registry.db"
    assert place.online_store == {"type": "sqlite", "path": f"{tmp_path}/online.db"}


def test_spark_changes_the_offline_store_alone(tmp_path):
    spark, embedded = Place.of(tmp_path, "shop", {"ESMM_PROFILE": "spark"}), Place.of(tmp_path, "shop", {})
    assert (spark.registry, spark.online_store) == (embedded.registry, embedded.online_store)


@pytest.mark.parametrize("kind", ["redis", "redis_cluster"])
def test_production_is_redis_and_postgresql(tmp_path, kind):
    place = Place.of(tmp_path, "shop", {**PRODUCTION, "ESMM_REDIS_TYPE": kind})
    assert place.registry == "postgresql+psycopg://feast@db/feast"
    assert place.online_store == {
        "type": "redis",
        "redis_type": kind,
        "connection_string": "redis:6379,ssl=true,password=p",
    }


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"ESMM_PROFILE": "productoin"}, "choose one of embedded, production, spark"),
        ({"ESMM_REDIS": ""}, "needs ESMM_REDIS, which is not set"),
        ({"ESMM_REGISTRY": ""}, "needs ESMM_REGISTRY, which is not set"),
        ({"ESMM_REDIS_TYPE": "sentinel"}, "choose one of redis, redis_cluster"),
    ],
)
def test_what_is_missing_or_misspelt_is_named(tmp_path, changed, said):
    with pytest.raises(UsageError, match=said):
        Place.of(tmp_path, "shop", PRODUCTION | changed)


def test_a_password_is_in_no_message(tmp_path):
    with pytest.raises(UsageError) as raised:
        Place.of(tmp_path, "shop", PRODUCTION | {"ESMM_REDIS": "redis:6379,password=hunter2", "ESMM_REGISTRY": ""})
    assert "hunter2" not in str(raised.value)


def test_what_was_materialized_is_read_back(tmp_path):
    state = ViewState(rows=3, as_of="2026-01-02T00:00:00Z", newest_event="2026-01-01T00:00:00Z", known="ab")
    written = Materialized(as_of="2026-01-02T00:00:00Z", views={"user_activity": state})
    write_materialized(tmp_path, written)
    assert read_materialized(tmp_path) == written


def test_a_file_from_before_watermarks_says_rows_and_no_watermark(tmp_path):
    (tmp_path / "materialized.json").write_text(json.dumps({"as_of": "2026-01-02T00:00:00Z", "views": {"a": 7}}))
    done = read_materialized(tmp_path)
    assert done is not None
    assert done.views == {"a": ViewState(rows=7)}


def test_nothing_materialized_is_none(tmp_path):
    assert read_materialized(tmp_path) is None
