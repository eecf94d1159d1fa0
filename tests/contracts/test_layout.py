"""The layout against Feast's own functions: what one writes the other reads."""

import sqlite3

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import _mmh3, _redis_key
from feast.infra.online_stores.sqlite import _quote_id, _table_id
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value, ValueType
from hypothesis import given
from hypothesis import strategies as st

from components.contracts import layout
from components.contracts.online import ENTITY_KEY_VERSION

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
JOIN_KEYS = st.sampled_from(["user_id", "item_id", "group_id", "ключ"])


def by_feast(join_key: str, value: str) -> EntityKey:
    return EntityKey(join_keys=[join_key], entity_values=[Value(string_val=value)])


@given(JOIN_KEYS, TEXT)
def test_entity_keys(join_key, value):
    expected = serialize_entity_key(by_feast(join_key, value), ENTITY_KEY_VERSION)
    assert layout.entity_key(join_key, value) == expected


@given(TEXT.filter(bool), JOIN_KEYS, TEXT)
def test_redis_keys(project, join_key, value):
    assert layout.redis_key(project, join_key, value) == _redis_key(project, by_feast(join_key, value))


@given(TEXT, TEXT)
def test_redis_fields(view, feature):
    assert layout.redis_field(view, feature) == _mmh3(f"{view}:{feature}")
    assert len(layout.redis_field(view, feature)) == 4


def test_the_time_field_is_what_feast_reads():
    """Feast builds it inline; tests/serving reads what it wrote."""
    assert layout.redis_time_field("item_profile") == b"_ts:item_profile"


def test_keys_are_strings():
    assert layout.STRING == ValueType.STRING


class Named:
    def __init__(self, name: str) -> None:
        self.name = name


@pytest.mark.parametrize("name", ["item_profile", 'a"b', "Ünï code", "a; DROP TABLE x"])
def test_sqlite_tables(name):
    assert layout.sqlite_table("shop", name) == _quote_id(_table_id("shop", Named(name)))
    with sqlite3.connect(":memory:") as db:
        db.execute(f"CREATE TABLE {layout.sqlite_table('shop', name)} (x)")
        assert db.execute("SELECT name FROM sqlite_master").fetchone() == (f"shop_{name}",)


@given(JOIN_KEYS, TEXT)
def test_no_entity_key_is_that_of_the_note(join_key, value):
    assert not layout.redis_key("shop", join_key, value).startswith(b"esmm:")
