"""What the service is told by its environment."""

import pytest

from components.contracts.errors import UsageError
from components.contracts.packaged import PACKAGED_JSON, Packaged
from serving.settings import CACHED_ITEMS, Settings

PRODUCTION = {
    "ESMM_PROFILE": "production",
    "ESMM_REDIS": "redis:6379,password=x",
    "ESMM_REGISTRY": "postgresql+psycopg://a:b@c/d",
}


@pytest.fixture
def source(tmp_path):
    note = Packaged(dataset="shop", run="r", candidate="esmm", as_of="2026-01-01T00:00:00Z", clock="wall")
    (tmp_path / PACKAGED_JSON).write_text(note.to_json())
    return tmp_path


def test_one_machine_needs_a_home(source):
    assert Settings.load({}, source).place is None
    place = Settings.load({"ESMM_HOME": str(source)}, source).place
    assert (place.folder, place.project, place.profile) == (source / "feast" / "shop", "shop", "embedded")
    assert place.registry == f"sqlite:///{source}/feast/shop/registry.db"


def test_production_needs_its_variables_and_no_home(source):
    place = Settings.load(PRODUCTION, source).place
    assert (place.redis, place.redis_type) == ("redis:6379,password=x", "redis")
    assert place.registry == PRODUCTION["ESMM_REGISTRY"]
    with pytest.raises(UsageError, match="ESMM_REDIS"):
        Settings.load({"ESMM_PROFILE": "production", "ESMM_HOME": str(source)}, source)


def test_the_cache_s_size(source):
    assert Settings.load({}, source).cache_items == CACHED_ITEMS
    assert Settings.load({"ESMM_CACHE_ITEMS": "0"}, source).cache_items == 0
    with pytest.raises(UsageError, match="give a number of items"):
        Settings.load({"ESMM_CACHE_ITEMS": "-5"}, source)


def test_a_checkout_is_no_bento(tmp_path):
    with pytest.raises(UsageError, match="runs from a Bento"):
        Settings.load({}, tmp_path)
