import re
from itertools import pairwise

import numpy as np
import pytest
from tiny_model import BAGS_SPEC, CONTEXT_SPEC

from components.contracts.spec import FeatureSpec
from components.scoring.raw import Ragged
from serving.context import BadContext, context_columns, context_types, item_context_types

ITEMS_SPEC = FeatureSpec.parse(
    {
        "features": [
            {"name": "hour", "source": "context", "dtype": "int", "encoding": "id"},
            {"name": "position", "source": "context", "dtype": "int", "encoding": "id", "tower": "ctr"},
            {"name": "seen", "source": "context", "dtype": "strings", "encoding": "bag", "weighted": True},
            {"name": "price", "source": "item_context", "dtype": "float", "encoding": "bucket"},
            {"name": "stock", "source": "item_context", "dtype": "int", "encoding": "bucket"},
            {"name": "sale", "source": "item_context", "dtype": "bool", "encoding": "id"},
            {"name": "tags", "source": "item_context", "dtype": "strings", "encoding": "bag", "weighted": True},
        ]
    },
    "spec",
)


def lists(column):
    assert isinstance(column, Ragged)
    ends = column.offsets.tolist()
    return [column.values[start:end].tolist() for start, end in pairwise(ends)]


def test_names_and_types():
    assert context_types(CONTEXT_SPEC) == {"hour": "int", "device": "string", "speed": "float", "member": "bool"}
    assert item_context_types(CONTEXT_SPEC) == {}
    assert context_types(BAGS_SPEC)["shown_with"] == "strings"
    assert item_context_types(BAGS_SPEC) == {"tags": "strings", "tags_weights": "floats"}
    assert "position" not in context_types(BAGS_SPEC)


def test_context_is_completed_and_position_ignored():
    sent = {"hour": 5, "speed": 3, "position": "nonsense", "member": None}
    columns = context_columns(CONTEXT_SPEC, sent, {}, 2)
    assert {name: column.tolist() for name, column in columns.items()} == {
        "hour": [5, 5], "device": [None, None], "speed": [3.0, 3.0], "member": [None, None],
    }  # fmt: skip
    assert [str(columns[name].dtype) for name in ("hour", "device", "speed")] == ["int64", "object", "float64"]
    np.testing.assert_array_equal(context_columns(CONTEXT_SPEC, {}, {}, 2)["hour"], [np.nan, np.nan])


def test_values_of_items_in_their_order():
    sent = {"price": [1, None, 2.5], "stock": [3, 4, 5], "sale": [True, None, False]}
    columns = context_columns(ITEMS_SPEC, {"hour": 5}, sent, 3)
    np.testing.assert_array_equal(columns["price"], [1.0, np.nan, 2.5])
    assert (columns["stock"].tolist(), columns["stock"].dtype) == ([3, 4, 5], np.int64)
    assert columns["sale"].tolist() == [True, None, False]
    assert columns["hour"].tolist() == [5, 5, 5]
    assert len(columns["tags"]) == len(columns["tags_weights"]) == len(columns["seen"]) == 3


def test_bags_of_the_request_and_of_items():
    columns = context_columns(
        ITEMS_SPEC,
        {"seen": ["a", "b"], "seen_weights": [1, 0.5]},
        {"tags": [["x"], None, [], ["y", "x"]], "tags_weights": [[2], None, None, [0, 3.5]]},
        4,
    )
    assert lists(columns["seen"]) == [["a", "b"]] * 4
    assert lists(columns["seen_weights"]) == [[1.0, 0.5]] * 4
    assert lists(columns["tags"]) == [["x"], [], [], ["y", "x"]]
    assert lists(columns["tags_weights"]) == [[2.0], [], [], [0.0, 3.5]]
    assert columns["tags_weights"].values.dtype == np.float64
    assert columns["tags"].values.dtype == object


def test_a_bag_without_weights():
    columns = context_columns(BAGS_SPEC, {"shown_with": ["a", "a"]}, {}, 1)
    assert lists(columns["shown_with"]) == [["a", "a"]]
    assert "shown_with_weights" not in columns


def test_position_of_items_is_ignored_too():
    columns = context_columns(ITEMS_SPEC, {}, {"position": [1, 2, 3]}, 2)
    assert "position" not in columns


@pytest.mark.parametrize(
    ("sent", "of_items", "said"),
    [
        (
            {"hours": 1, "daytime": 2},
            {},
            "context has unknown 'daytime', 'hours': this model knows hour, seen, seen_wei",
        ),
        ({}, {"cost": [1, 2]}, "item_context has unknown 'cost': this model knows price, sale, stock, tags, tags_weig"),
        ({"price": 3.0}, {}, "context has 'price': send one value for each item in item_context"),
        ({}, {"hour": [1, 2]}, "item_context has 'hour': send one value for all items in context"),
        (
            {},
            {"price": [1.0]},
            "item_context 'price' has 1 values for 2 items: send one for each of item_ids, in their",
        ),
        ({}, {"price": []}, "has 0 values for 2 items"),
        ({}, {"price": [1.0, 2.0, 3.0]}, "has 3 values for 2 items"),
        ({}, {"price": [1.0, "x"]}, "item_context 'price' = 'x' is no float: send one, or null"),
        ({}, {"stock": [1, 2.0]}, "item_context 'stock' = 2.0 is no int"),
        ({}, {"tags": [["a"], "b"]}, "item_context 'tags' = 'b' is no list of strings"),
        ({}, {"tags": [["a"], ["b", None]]}, "is no list of strings"),
        ({}, {"tags": [["a"], [1]]}, "is no list of strings"),
        ({}, {"tags": [["a"], []], "tags_weights": [[-1.0], None]}, "is no list of numbers of zero or more"),
        ({}, {"tags": [["a"], []], "tags_weights": [[True], None]}, "is no list of numbers"),
        ({}, {"tags": [["a"], []], "tags_weights": [[float("nan")], None]}, "is no list of numbers"),
        ({}, {"tags": [["a"], []], "tags_weights": [[1e39], None]}, "is no list of numbers"),
        ({}, {"tags": [["a"], []], "tags_weights": [[10**400], None]}, "is no list of numbers"),
        ({}, {"tags": [["a"], []], "tags_weights": [None, None]}, "'tags' has 1 values and 'tags_weights' 0 weights"),
        ({}, {"tags": [["a"], []]}, "item_context 'tags' has 1 values and 'tags_weights' 0 weights: send one weight"),
        ({}, {"tags_weights": [[1.0], []]}, "'tags' has 0 values and 'tags_weights' 1 weights"),
        ({"seen": ["a"]}, {}, "context 'seen' has 1 values and 'seen_weights' 0 weights"),
        ({"seen": "a"}, {}, "context 'seen' = 'a' is no list of strings: send one, or null"),
        ({"seen": [["a"] * 100]}, {}, "..."),
    ],
)
def test_what_is_refused(sent, of_items, said):
    with pytest.raises(BadContext, match=re.escape(said)) as caught:
        context_columns(ITEMS_SPEC, sent, of_items, 2)
    assert len(str(caught.value)) < 250


def test_a_model_without_context_of_items():
    with pytest.raises(BadContext, match="unknown 'price': this model knows no item_context"):
        context_columns(CONTEXT_SPEC, {}, {"price": [1]}, 1)


@pytest.mark.parametrize(
    "sent",
    [
        {"hour": "5"},
        {"hour": 5.0},
        {"hour": True},
        {"device": 5},
        {"speed": "fast"},
        {"speed": float("inf")},
        {"speed": True},
        {"member": 1},
        {"member": "true"},
        {"hour": [5]},
        {"hour": 2**63},
        {"hour": 10**400},
        {"speed": float("nan")},
    ],
)
def test_a_value_of_another_type(sent):
    with pytest.raises(BadContext, match=f"context '{next(iter(sent))}'"):
        context_columns(CONTEXT_SPEC, sent, {}, 1)
