"""The join against a reference short enough to be believed."""

from __future__ import annotations

from datetime import timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import GROUP_VIEW, STRINGS, UTC_US, at, grouped_spec, spec, view_table, write_features
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from components.contracts.errors import DataError
from components.features.point_in_time import PointInTime

TICK = timedelta(microseconds=1)
TTL = timedelta(days=7)
"""Of item_activity."""


def reference(item, time, versions):
    """What was known of `item` at `time`: stamped and made by then, not too old; the newest, ties to the last made."""
    known = [
        v
        for v in versions
        if v["item_id"] == item
        and at(v["event"]) <= time <= at(v["event"]) + TTL
        and at(v.get("created", v["event"])) <= time
    ]
    return max(known, key=lambda v: (v["event"], v.get("created", v["event"])), default=None)


def keys(rows, **more):
    return pa.table(
        {
            "user_id": pa.array([user for user, _, _ in rows], pa.string()),
            "item_id": pa.array([item for _, item, _ in rows], pa.string()),
            "event_timestamp": pa.array([time for _, _, time in rows], UTC_US),
            **{name: pa.array(values, pa.string()) for name, values in more.items()},
        }
    )


def join(folder, versions, rows):
    """item_clicks_7d of each (item, time), through Feast."""
    features = write_features(folder, {"item_activity": view_table("item_activity", versions)})
    with PointInTime(features, spec(("item_activity",))) as store:
        return store.join(keys([("u1", item, time) for item, time in rows]))


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    """A store whose one table each example writes anew."""
    folder = tmp_path_factory.mktemp("opened") / "features"
    write_features(folder, {"item_activity": view_table("item_activity", [])})
    with PointInTime(folder, spec(("item_activity",))) as store:
        yield store


quarters = st.integers(0, 60).map(lambda n: n / 4)
items = st.sampled_from(["i1", "i2"])


@st.composite
def timelines(draw):
    versions = draw(
        st.lists(
            st.builds(
                lambda item, event, late: {"item_id": item, "event": event, "created": event + late},
                items,
                quarters,
                st.sampled_from([0.0, 0.0, 0.25, 3.0, 9.0]),
            ),
            min_size=1,
            max_size=12,
            unique_by=lambda v: (v["item_id"], v["event"], v["created"]),
        )
    )
    versions = [{**v, "item_clicks_7d": number} for number, v in enumerate(versions)]
    # Times that matter: of a version, of its creation, of its last breath, and just beside them.
    moments = [
        at(v[key]) + ttl for v in versions for key, ttl in (("event", 0 * TTL), ("created", 0 * TTL), ("event", TTL))
    ]
    near = st.builds(lambda time, by: time + by * TICK, st.sampled_from(moments), st.sampled_from([-1, 0, 1]))
    rows = draw(st.lists(st.tuples(st.one_of(items, st.just("nobody")), near), min_size=1, max_size=25))
    return versions, rows


@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(timeline=timelines())
def test_equals_the_reference_on_random_timelines(opened, timeline):
    versions, rows = timeline
    pq.write_table(view_table("item_activity", versions), opened.features / "item_activity/part-0.parquet")
    found = opened.join(keys([("u1", item, time) for item, time in rows]))
    expected = [reference(item, time, versions) for item, time in rows]
    assert found["item_clicks_7d"].to_pylist() == [v and v["item_clicks_7d"] for v in expected]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        (at(2) - TICK, 1),
        (at(2), 2),  # stamped at this very moment: known
        (at(9), 2),  # the last moment of seven days
        (at(9) + TICK, None),
    ],
)
def test_edges_of_a_version(tmp_path, time, expected):
    versions = [
        {"item_id": "i1", "event": 1, "item_clicks_7d": 1},
        {"item_id": "i1", "event": 2, "item_clicks_7d": 2},
    ]
    assert join(tmp_path / "f", versions, [("i1", time)])["item_clicks_7d"].to_pylist() == [expected]


def test_a_backfill_written_later_was_not_known(tmp_path):
    versions = [
        {"item_id": "i1", "event": 1, "item_clicks_7d": 1},
        {"item_id": "i1", "event": 2, "created": 5, "item_clicks_7d": 99},
    ]
    found = join(tmp_path / "f", versions, [("i1", at(3)), ("i1", at(5) - TICK), ("i1", at(5))])
    assert found["item_clicks_7d"].to_pylist() == [1, 1, 99]


def test_feast_s_own_default_would_leak_that_backfill(tmp_path):
    """The setting this rests on does something: without it the future is seen."""
    versions = [{"item_id": "i1", "event": 2, "created": 5, "item_clicks_7d": 99}]
    features = write_features(tmp_path / "f", {"item_activity": view_table("item_activity", versions)})
    with PointInTime(features, spec(("item_activity",))) as store:
        rows = keys([("u1", "i1", at(3))])
        honest = store.join(rows)
        store._store.config.offline_store.filter_by_created_timestamp = False
        leaked = store._store.get_historical_features(entity_df=rows, features=["item_activity:item_clicks_7d"])
    assert leaked.to_arrow()["item_clicks_7d"].to_pylist() == [99]
    assert honest["item_clicks_7d"].to_pylist() == [None]


def test_of_two_versions_of_one_time_the_last_written_counts(tmp_path):
    versions = [
        {"item_id": "i1", "event": 1, "created": 1.5, "item_clicks_7d": 2},
        {"item_id": "i1", "event": 1, "created": 1.2, "item_clicks_7d": 1},
    ]
    found = join(tmp_path / "f", versions, [("i1", at(1.3)), ("i1", at(2))])
    assert found["item_clicks_7d"].to_pylist() == [1, 2]


def test_equal_rows_are_kept_and_order_and_types_too(tmp_path):
    profiles = [{"user_id": "u1", "event": 0, "country": "de", "age_band": 3}, {"user_id": "u2", "event": 0}]
    activity = [{"item_id": "i1", "event": 0, "item_clicks_7d": 5, "item_ctr_7d": 0.5}]
    features = write_features(
        tmp_path / "f",
        {"user_profile": view_table("user_profile", profiles), "item_activity": view_table("item_activity", activity)},
    )
    rows = [
        ("u2", "i1", at(1)),
        ("u1", "i1", at(1)),
        ("u1", "nothing", at(1)),
        ("u1", "i1", at(1)),
        ("new", "i1", at(1)),
    ]
    with PointInTime(features, spec()) as store:
        found = store.join(keys(rows))
    assert found["country"].to_pylist() == [None, "de", "de", "de", None]
    assert found["age_band"].to_pylist() == [None, 3, 3, 3, None]
    assert found["item_clicks_7d"].to_pylist() == [5, 5, None, 5, 5]
    assert found.schema.field("age_band").type == pa.int64()
    assert found.schema.field("item_ctr_7d").type == pa.float64()
    assert found.column_names == [feature.name for feature in spec().stored]


def test_a_lost_row_is_an_error(tmp_path, monkeypatch):
    features = write_features(
        tmp_path / "f", {"item_activity": view_table("item_activity", [{"item_id": "i1", "event": 0}])}
    )
    with PointInTime(features, spec(("item_activity",))) as store:
        ask = store._store.get_historical_features

        class Lossy:
            def __init__(self, job):
                self.job = job

            def to_arrow(self):
                return self.job.to_arrow().slice(1)

        monkeypatch.setattr(store._store, "get_historical_features", lambda **k: Lossy(ask(**k)))
        with pytest.raises(DataError, match="1 rows for 2 impressions"):
            store.join(keys([("u1", "i1", at(1)), ("u2", "i1", at(1))]))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.drop_columns(["item_clicks_7d"]), "no column 'item_clicks_7d'"),
        (lambda t: t.set_column(2, "item_clicks_7d", pa.array(["a"])), "'item_clicks_7d' is VARCHAR"),
        (lambda t: t.set_column(2, "item_clicks_7d", pa.array([1.5])), "'item_clicks_7d' is DOUBLE"),
        (lambda t: t.set_column(0, "item_id", pa.array([1])), "has item_id as BIGINT"),
        (lambda t: t.drop_columns(["created"]), "has created as no column"),
    ],
)
def test_a_table_that_is_not_as_declared_is_refused(tmp_path, change, sentence):
    table = view_table("item_activity", [{"item_id": "i1", "event": 0, "item_clicks_7d": 1}])
    folder = write_features(tmp_path / "f", {"item_activity": change(table)})
    with pytest.raises(DataError, match=sentence), PointInTime(folder, spec(("item_activity",))):
        pass


def test_a_view_that_is_not_brought_is_named(tmp_path):
    folder = write_features(tmp_path / "f", {})
    with (
        pytest.raises(DataError, match="no table for view 'item_activity'"),
        PointInTime(folder, spec(("item_activity",))),
    ):
        pass


def test_narrow_integers_and_several_files_are_read(tmp_path):
    table = view_table("item_activity", [{"item_id": "i1", "event": 0, "item_clicks_7d": 3}])
    narrow = table.set_column(2, "item_clicks_7d", table["item_clicks_7d"].cast(pa.int16()))
    folder = write_features(tmp_path / "f", {"item_activity": narrow})
    later = view_table("item_activity", [{"item_id": "i1", "event": 1, "item_clicks_7d": 4}])
    pq.write_table(later, folder / "item_activity" / "part-1.parquet")
    with PointInTime(folder, spec(("item_activity",))) as store:
        found = store.join(keys([("u1", "i1", at(0.5)), ("u1", "i1", at(1.5))]))
    assert found["item_clicks_7d"].to_pylist() == [3, 4]
    assert found["item_clicks_7d"].type == pa.int64()


LISTS = [
    {"group_id": "g1", "event": 1, "f109_14": ["a", "b"], "f109_14_weights": [0.5, 3.0000000000000004], "f121": "x"},
    {"group_id": "g1", "event": 2, "f109_14": ["c"], "f109_14_weights": [1e-300]},
    {"group_id": "g2", "event": 1, "f109_14": [], "f109_14_weights": []},
    {"group_id": "g3", "event": 1},
    {"group_id": "g4", "event": 1, "f109_14": ["", "é😀", 'a"b,]['], "f109_14_weights": [0.0, 1.0, 2.0]},
]


def join_lists(folder, table, groups):
    write_features(folder, {GROUP_VIEW: table, "item_activity": view_table("item_activity", [])})
    rows = keys([("u1", "i1", at(days)) for _, days in groups], group_id=[group for group, _ in groups])
    with PointInTime(folder, grouped_spec()) as store:
        return store.join(rows)


def test_lists_of_a_group_come_back_as_written(tmp_path):
    """Values, nulls and empty lists; equal rows stay apart and the order stays."""
    asked = [("g4", 3), ("g1", 1.5), ("g1", 3), ("nobody", 3), (None, 3), ("g2", 3), ("g3", 3), ("g1", 0), ("g1", 1.5)]
    found = join_lists(tmp_path / "f", view_table(GROUP_VIEW, LISTS), asked)
    first = ["a", "b"]
    assert found["f109_14"].to_pylist() == [["", "é😀", 'a"b,]['], first, ["c"], None, None, [], None, None, first]
    two = [0.5, 3.0000000000000004]
    assert found["f109_14_weights"].to_pylist() == [[0.0, 1.0, 2.0], two, [1e-300], None, None, [], None, None, two]
    assert found["f121"].to_pylist() == [None, "x", None, None, None, None, None, None, "x"]
    assert found["f110_14"].null_count == len(asked)
    assert found.schema.field("f109_14").type == pa.list_(pa.string())
    assert found.schema.field("f109_14_weights").type == pa.list_(pa.float64())
    assert found.column_names == [name for feature in grouped_spec().stored for name in feature.raw]


@pytest.mark.parametrize("kind", [pa.float32(), pa.int64(), pa.decimal128(10, 2)])
def test_weights_of_another_number_type_are_read(tmp_path, kind):
    table = view_table(GROUP_VIEW, [{"group_id": "g1", "event": 1, "f109_14": ["a"], "f109_14_weights": [2.0]}])
    place = table.column_names.index("f109_14_weights")
    other = table.set_column(place, "f109_14_weights", table["f109_14_weights"].cast(pa.list_(kind)))
    found = join_lists(tmp_path / "f", other, [("g1", 2)])
    assert found["f109_14_weights"].to_pylist() == [[2.0]]
    assert found["f109_14_weights"].type == pa.list_(pa.float64())


@pytest.mark.parametrize(
    ("row", "sentence"),
    [
        ({"f109_14": ["a", None], "f109_14_weights": [1.0, 1.0]}, "1 rows have a null among the values of f109_14"),
        ({"f109_14": ["a"], "f109_14_weights": [1.0, 1.0]}, "other numbers of values in f109_14 and weights in"),
        ({"f109_14": ["a"]}, "other numbers of values"),
        ({"f109_14": ["a"], "f109_14_weights": [None]}, "weight in f109_14_weights that is null, negative or not"),
        ({"f109_14": ["a"], "f109_14_weights": [-0.1]}, "weight in f109_14_weights that is null, negative or not"),
        ({"f109_14": ["a"], "f109_14_weights": [float("nan")]}, "that is null, negative or not finite"),
        ({"f109_14": ["a"], "f109_14_weights": [float("inf")]}, "that is null, negative or not finite"),
    ],
)
def test_lists_that_are_no_bags_are_refused(tmp_path, row, sentence):
    """Feast would serve a null as "" or NaN, so that online and offline would differ."""
    with pytest.raises(DataError, match=sentence):
        join_lists(tmp_path / "f", view_table(GROUP_VIEW, [*LISTS, {"group_id": "g9", "event": 1, **row}]), [("g1", 2)])


def test_a_list_where_a_value_is_declared_and_the_other_way_round(tmp_path):
    table = view_table(GROUP_VIEW, LISTS)
    for name, kind, said in (("f121", STRINGS, r"VARCHAR\[\]"), ("f109_14", pa.string(), "VARCHAR")):
        place = table.column_names.index(name)
        other = table.set_column(place, name, pa.nulls(len(table), kind))
        with pytest.raises(DataError, match=f"column '{name}' is {said}, but"):
            join_lists(tmp_path / name, other, [("g1", 2)])
