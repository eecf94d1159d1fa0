"""The online lookup of groups, bags and context of items."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from features.made import (
    AS_OF,
    GROUP_VIEW,
    GROUPED,
    LOGGED,
    grouped_spec,
    impressions,
    view_table,
    write_clean,
    write_features,
)
from lookup_made import place, tables

from components.contracts.errors import ServiceError
from components.contracts.paths import Home
from components.features.materialize import MaterializeConfig
from components.features.materialize import run as materialize
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from components.scoring.raw import Ragged, columns_from_table
from serving.context import context_columns
from serving.lookup import OnlineLookup

GROUPS = [
    {"group_id": "g1", "event": 18, "f121": "x", "f109_14": ["a", "b"], "f109_14_weights": [0.5, 2.0]},
    {"group_id": "g2", "event": 18, "f109_14": [], "f109_14_weights": []},
    {"group_id": "g3", "event": 18},
    {"group_id": "g4", "event": 18 - 400, "f121": "x", "f109_14": ["a"], "f109_14_weights": [1.0]},
]


@pytest.fixture(scope="module")
def grouped(tmp_path_factory):
    """(store, expected rows) of a dataset with groups, bags and context of items."""
    root = tmp_path_factory.mktemp("grouped")
    made = {GROUP_VIEW: view_table(GROUP_VIEW, GROUPS), "item_activity": tables()["item_activity"]}
    features = write_features(root / "features", made)
    log = [
        {"event": day + n / 100, "split": split, "user_id": f"u{n % 3}", "group_id": f"g{n % 4 + 1}", "seen": ["s"] * n,
         "item_id": f"i{n % 5}", "f206": f"c{n}", "f210": [f"t{n}"] * (n % 3), "f210_weights": [n / 2] * (n % 3)}
        for day, split in ((1, "train"), (5, "valid"), (9, "test"))
        for n in range(12)
    ]  # fmt: skip
    clean = write_clean(root / "clean", impressions(log, **LOGGED), GROUPED)
    retrieve(RetrieveConfig(dataset="tiny", spec=grouped_spec()), clean, features, root / "dataset")
    config = MaterializeConfig(dataset="tiny", as_of=AS_OF, spec=grouped_spec(), clock="frozen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ESMM_HOME", str(root / "home"))
        materialize(config, features, root / "dataset", root / "expected")
    return Home(root / "home").feast("tiny"), pq.read_table(root / "expected/expected.parquet")


@pytest.fixture
def group_lookup(grouped):
    opened = OnlineLookup(place(grouped[0]), grouped_spec(), "frozen")
    yield opened
    opened.close()


def nothing(*items):
    return context_columns(grouped_spec(), {}, {}, len(items))


def lists(column):
    assert isinstance(column, Ragged)
    ends = column.offsets.tolist()
    return [column.values[start:end].tolist() for start, end in pairwise(ends)]


@pytest.mark.parametrize(
    ("group", "bag", "weights", "single", "unknown"),
    [
        ("g1", ["a", "b"], [0.5, 2.0], "x", False),
        ("g2", [], [], None, False),
        ("g3", [], [], None, False),
        ("g4", [], [], None, False),  # too old
        ("nobody", [], [], None, True),
        (None, [], [], None, True),
    ],
)
def test_features_of_a_group(group_lookup, group, bag, weights, single, unknown):
    found = group_lookup.rows("u1", ["i1", "i3"], nothing("i1", "i3"), group)
    assert lists(found.columns["f109_14"]) == [bag, bag]
    assert lists(found.columns["f109_14_weights"]) == [weights, weights]
    assert found.columns["f109_14_weights"].values.dtype == np.float64
    assert found.columns["f121"].tolist() == [single, single]
    assert lists(found.columns["f110_14"]) == [[], []]
    assert found.unknown_group is unknown
    assert found.columns["item_clicks_7d"].tolist() == [7, 6]
    assert (found.unknown_user, found.unknown_items) == (False, [])
    # f121 and one bag; its weights are no value of their own.
    assert found.expired == (2 if group == "g4" else 0)


def test_what_is_served_of_groups_is_what_retrieval_gives(group_lookup, grouped):
    table = grouped[1]
    spec_ = grouped_spec()
    names = [name for name in spec_.raw if name != "position"]
    requests = table["request"].to_numpy()
    for number in np.unique(requests):
        part = table.filter(pa.array(requests == number))
        sent = {name: part[name][0].as_py() for name in ("device", "seen")}
        of_items = {name: part[name].to_pylist() for name in ("f206", "f210", "f210_weights")}
        context = context_columns(spec_, sent, of_items, len(part))
        keys = part["user_id"][0].as_py(), part["item_id"].to_pylist(), context, part["group_id"][0].as_py()
        found = group_lookup.rows(*keys).columns
        for name, expected in columns_from_table(part, names).items():
            if isinstance(expected, Ragged):
                assert lists(found[name]) == lists(expected), name
            else:
                np.testing.assert_array_equal(found[name], expected, err_msg=name)
    assert len(np.unique(requests)) == 6


def test_weights_that_the_store_lacks_are_a_sentence(grouped):
    changed = grouped_spec().model_dump(mode="json")
    last = next(feature for feature in changed["features"] if feature["name"] == "f109_14")
    changed["features"].append({**last, "name": "f999"})
    with pytest.raises(ServiceError, match="no feature 'f999'"):
        OnlineLookup(place(grouped[0]), type(grouped_spec()).parse(changed), "frozen")
