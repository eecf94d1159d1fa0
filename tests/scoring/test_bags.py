"""Bags through the encoder, against values worked out by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tiny_model import BAGS_SPEC, make_model, rows

from components.contracts.errors import CorruptArtifact, DataError
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoded, Encoder
from components.scoring.raw import Ragged, columns_from_table
from components.scoring.score import Scorer


def bag(name: str = "tags", **more: Any) -> Feature:
    options = {"min_count": 1, "weighted": True, **more}
    return Feature(name=name, source="item_context", dtype="strings", encoding="bag", **options)


def ragged(*lists: list[Any] | None) -> Ragged:
    values = [value for row in lists for value in row or []]
    array = np.empty(len(values), object)
    array[:] = values
    return Ragged(array, np.cumsum([0, *(len(row or []) for row in lists)]).astype(np.int64))


def weighted(*lists: dict[str, float]) -> dict[str, Ragged]:
    """Columns `tags` and `tags_weights` of rows given as value: weight."""
    return {
        "tags": ragged(*(list(row) for row in lists)),
        "tags_weights": ragged(*(list(row.values()) for row in lists)),
    }


def of(feature: Feature) -> FeatureSpec:
    return FeatureSpec(features=(feature,))


TRAINED = weighted({"a": 1, "b": 2, "c": 1}, {"a": 1}, {"a": 5, "b": 0})
"""Vocabulary a, b, c: ids 2, 3, 4; width 3."""


def encode(feature: Feature, *lists: dict[str, float]) -> Encoded:
    return Encoder.fit(of(feature), TRAINED).transform(weighted(*lists))


def test_a_vocabulary_counts_occurrences_whatever_their_weight() -> None:
    columns = weighted({"a": 9, "b": 0}, {"b": 0.1}, {"c": 1, "b": 1}, {"c": 1})
    assert Encoder.fit(of(bag()), columns).vocabularies["tags"] == ("b", "c", "a")
    assert Encoder.fit(of(bag(min_count=2)), columns).vocabularies["tags"] == ("b", "c")
    assert Encoder.fit(of(bag(max_vocabulary=1)), columns).vocabularies["tags"] == ("b",)
    twice = {"tags": ragged(["a", "a", "b"])}
    assert Encoder.fit(of(bag(weighted=False, min_count=2)), twice).vocabularies["tags"] == ("a",)


def test_a_mean_divides_by_the_sum_of_the_weights_and_a_sum_does_not() -> None:
    mean = encode(bag(), {"a": 1, "b": 3}, {"c": 2})
    assert mean.ids.tolist() == [[2, 3, 0], [4, 0, 0]]
    assert mean.weights.tolist() == [[0.25, 0.75, 0], [1, 0, 0]]
    assert (mean.ids.dtype, mean.weights.dtype) == (np.int64, np.float32)
    total = encode(bag(combiner="sum"), {"a": 1, "b": 3}, {"c": 2})
    assert total.ids.tolist() == mean.ids.tolist()
    assert total.weights.tolist() == [[1, 3, 0], [2, 0, 0]]


def test_without_weights_each_value_weighs_one() -> None:
    columns = {"tags": ragged(["a", "b"], ["a"], [])}
    mean = Encoder.fit(of(bag(weighted=False)), columns).transform(columns)
    assert mean.weights.tolist() == [[0.5, 0.5], [1, 0], [1, 0]]
    assert mean.ids.tolist() == [[2, 3], [2, 0], [0, 0]]


def test_an_unknown_value_keeps_its_weight() -> None:
    found = encode(bag(), {"new": 3, "a": 1})
    assert found.ids.tolist() == [[1, 2, 0]]
    assert found.weights.tolist() == [[0.75, 0.25, 0]]


@pytest.mark.parametrize("combiner", ["mean", "sum"])
def test_a_missing_bag_is_one_entry_missing(combiner: str) -> None:
    found = encode(bag(combiner=combiner), {}, {"a": 1})
    assert found.ids.tolist() == [[0, 0, 0], [2, 0, 0]]
    assert found.weights.tolist() == [[1, 0, 0], [1, 0, 0]]


def test_weights_that_sum_to_zero_are_a_missing_mean_and_a_sum_of_nothing() -> None:
    mean = encode(bag(), {"a": 0, "b": 0})
    assert (mean.ids.tolist(), mean.weights.tolist()) == ([[0, 0, 0]], [[1, 0, 0]])
    total = encode(bag(combiner="sum"), {"a": 0, "b": 0})
    assert (total.ids.tolist(), total.weights.tolist()) == ([[2, 3, 0]], [[0, 0, 0]])


def test_a_longer_bag_keeps_its_heaviest_values_and_of_equal_ones_the_earlier() -> None:
    found = encode(bag(combiner="sum"), {"x": 1, "a": 2, "y": 1, "b": 1, "c": 3}, {"a": 1, "b": 1, "c": 1, "z": 1})
    assert found.ids.tolist() == [[1, 2, 4], [2, 3, 4]]
    assert found.weights.tolist() == [[1, 2, 3], [1, 1, 1]]
    mean = encode(bag(), {"x": 1, "a": 2, "y": 1, "b": 1, "c": 3})
    assert mean.weights[0].tolist() == pytest.approx([1 / 6, 2 / 6, 3 / 6])


def test_the_width_is_the_longest_bag_of_training_within_the_limit() -> None:
    assert Encoder.fit(of(bag()), TRAINED).widths == (3,)
    assert Encoder.fit(of(bag(max_values=2)), TRAINED).widths == (2,)
    assert Encoder.fit(of(bag()), weighted({}, {})).widths == (1,)
    assert Encoder.fit(of(bag()), weighted()).widths == (1,)


def test_a_null_among_values_takes_no_part() -> None:
    columns = {"tags": ragged(["a", None, "b"], [None], [None, "a"]), "tags_weights": ragged([1, 7, 3], [1], [1, 0])}
    encoder = Encoder.fit(of(bag()), columns)
    assert (encoder.vocabularies["tags"], encoder.widths) == (("a", "b"), (2,))
    found = encoder.transform(columns)
    assert found.ids.tolist() == [[2, 3], [0, 0], [0, 0]]
    assert found.weights.tolist() == [[0.25, 0.75], [1, 0], [1, 0]]


def test_random_bags_equal_a_loop_over_rows() -> None:
    """The rules once more, a row at a time."""
    rng = np.random.default_rng(0)
    names = [f"t{n}" for n in range(30)]
    lists = [
        {str(value): float(rng.integers(0, 4)) for value in rng.choice(names, rng.integers(0, 12), replace=False)}
        for _ in range(500)
    ]
    for combiner in ("mean", "sum"):
        feature = bag(combiner=combiner, max_values=5, min_count=92)
        encoder = Encoder.fit(of(feature), weighted(*lists))
        index = {value: n + 2 for n, value in enumerate(encoder.vocabularies["tags"])}
        assert 0 < len(index) < 30
        found = encoder.transform(weighted(*lists))
        for row, pairs in enumerate(lists):
            kept = sorted(sorted(enumerate(pairs.items()), key=lambda p: (-p[1][1], p[0]))[:5])
            total = sum(weight for _, (_, weight) in kept) if combiner == "mean" else 1.0
            expected = [(index.get(value, 1), weight / total) for _, (value, weight) in kept] if total else []
            expected = expected or [(0, 1.0)]
            expected += [(0, 0.0)] * (5 - len(expected))
            assert found.ids[row].tolist() == [value for value, _ in expected]
            assert found.weights[row].tolist() == pytest.approx([weight for _, weight in expected])


def test_columns_are_in_the_specs_order_with_a_bags_side_by_side() -> None:
    """Each feature of a mixed spec encodes in its place as it does alone."""
    columns = rows(bags=True)
    encoder = Encoder.fit(BAGS_SPEC, columns)
    assert encoder.widths == (1, 1, 1, 3, 1, 1, 1, 1, 4)
    assert (encoder.ids_columns, encoder.weights_columns) == (14, 7)
    found = encoder.transform(columns)
    assert (found.ids.shape, found.dense.shape, found.weights.shape) == ((600, 14), (600, 0), (600, 7))
    at = at_weights = 0
    for feature, width in zip(BAGS_SPEC.features, encoder.widths, strict=True):
        alone = Encoder.fit(of(feature), columns).transform(columns)
        assert (found.ids[:, at : at + width] == alone.ids).all()
        at += width
        if feature.encoding == "bag":
            assert (found.weights[:, at_weights : at_weights + width] == alone.weights).all()
            at_weights += width
        else:
            assert alone.weights.shape == (600, 0)


def test_a_bag_is_unknown_where_all_its_values_are() -> None:
    encoder = Encoder.fit(of(bag()), TRAINED)
    unknown = encoder.unknown(weighted({"new": 1, "newer": 2}, {"new": 9, "a": 1}, {}, {"b": 1}))
    assert unknown["tags"].tolist() == [True, False, False, False]


def test_saved_and_loaded_it_encodes_the_same(tmp_path: Path) -> None:
    columns = rows(bags=True)
    encoder = Encoder.fit(BAGS_SPEC, columns)
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert (loaded.widths, loaded.sizes) == (encoder.widths, encoder.sizes)
    before, after = encoder.transform(columns), loaded.transform(columns)
    assert (before.ids == after.ids).all()
    assert (before.weights == after.weights).all()
    head = json.loads((tmp_path / "encoder.json").read_text())
    (tmp_path / "encoder.json").write_text(json.dumps(head | {"bag_widths": {"tags": 4}}))
    with pytest.raises(CorruptArtifact, match="sizes"):
        Encoder.load(tmp_path)


def test_an_encoder_from_before_bags_is_read_and_one_from_later_is_not(tmp_path: Path) -> None:
    spec = FeatureSpec(features=(Feature(name="hour", source="context", dtype="int", encoding="id", min_count=1),))
    columns = {"hour": np.array([7, 8, 8])}
    encoder = Encoder.fit(spec, columns)
    encoder.save(tmp_path)
    head = json.loads((tmp_path / "encoder.json").read_text())
    del head["bag_widths"]
    for feature in head["spec"]["features"]:
        for new in ("weighted", "combiner", "max_values", "minimum", "maximum"):
            del feature[new]
    (tmp_path / "encoder.json").write_text(json.dumps(head | {"format": 1}))
    loaded = Encoder.load(tmp_path)
    assert (loaded.spec, loaded.widths) == (spec, (1,))
    assert loaded.transform(columns).ids.tolist() == encoder.transform(columns).ids.tolist()
    (tmp_path / "encoder.json").write_text(json.dumps(head | {"format": 3}))
    with pytest.raises(DataError, match="format 3 and this version reads 1 and 2: train the model again"):
        Encoder.load(tmp_path)


@pytest.mark.parametrize("wrong", [None, float("nan"), float("inf"), -1.0, 1e39])
def test_a_weight_that_is_none_is_refused_by_name(wrong: Any) -> None:
    encoder = Encoder.fit(of(bag()), TRAINED)
    columns = {"tags": ragged(["a", "b"], ["c"]), "tags_weights": ragged([1.0, wrong], [2.0])}
    with pytest.raises(DataError, match=r"1 of 3 weights of the bag 'tags'"):
        encoder.transform(columns)
    with pytest.raises(DataError, match=r"1 of 3 weights of the bag 'tags'"):
        Encoder.fit(of(bag()), columns)


def test_columns_that_do_not_fit_are_named() -> None:
    encoder = Encoder.fit(of(bag()), TRAINED)
    tags = ragged(["a"], ["b", "c"], ["a"])
    with pytest.raises(DataError, match=r"'tags' has other numbers of values than 'tags_weights' .* row 1"):
        encoder.transform({"tags": tags, "tags_weights": ragged([1], [1], [1, 2])})
    with pytest.raises(DataError, match="no column tags_weights"):
        encoder.transform({"tags": tags})
    with pytest.raises(DataError, match="differ in length"):
        encoder.transform({"tags": tags, "tags_weights": ragged([1])})
    with pytest.raises(DataError, match="'tags' of the bag 'tags' holds single values"):
        encoder.transform({"tags": np.array(["a", "b", "c"], object), "tags_weights": tags})
    with pytest.raises(DataError, match=r"\('tags_weights'\) are no numbers"):
        encoder.transform({"tags": tags, "tags_weights": ragged(["x"], [1, 1], [1])})
    single = Encoder.fit(
        of(Feature(name="hour", source="context", dtype="int", encoding="id")), {"hour": np.array([1, 2, 2])}
    )
    with pytest.raises(DataError, match=r"'hour' .* list a row"):
        single.transform({"hour": tags})


def test_no_rows_encode_to_no_rows() -> None:
    found = encode(bag())
    assert found.ids.shape == found.weights.shape == (0, 3)


@pytest.mark.parametrize("chunked", [False, True])
def test_lists_of_a_table_come_as_ragged(chunked: bool) -> None:
    table = pa.table(
        {
            "tags": pa.array([["a", "b"], None, [], ["c", None]]),
            "tags_weights": pa.array([[1, 3], None, [], [2, 5]], pa.list_(pa.float32())),
            "coded": pa.array([["a", "b"], None, [], ["c", None]], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
        }
    )
    if chunked:
        table = pa.concat_tables([table[:1], table[1:]])
    columns = columns_from_table(table, table.column_names)
    for name in ("tags", "coded"):
        column = columns[name]
        assert isinstance(column, Ragged)
        assert len(column) == 4
        assert column.values.tolist() == ["a", "b", "c", None]
        assert column.offsets.tolist() == [0, 2, 2, 2, 4]
    found = Encoder.fit(of(bag()), TRAINED).transform(columns)
    assert found.ids.tolist() == [[2, 3, 0], [0, 0, 0], [0, 0, 0], [4, 0, 0]]
    assert found.weights.tolist() == [[0.25, 0.75, 0], [1, 0, 0], [1, 0, 0], [1, 0, 0]]


def test_rows_of_a_ragged_column_can_be_taken_and_repeated() -> None:
    column = ragged(["a", "b"], [], ["c"])
    taken = column[np.array([2, 0, 0, 1])]
    assert taken.values.tolist() == ["c", "a", "b", "a", "b"]
    assert taken.offsets.tolist() == [0, 1, 3, 5, 5]
    assert column[1:].values.tolist() == ["c"]


def test_a_model_reads_the_weights_of_its_bags(tmp_path: Path) -> None:
    scorer = Scorer(make_model(tmp_path / "model", bags=True))
    columns = rows(seed=1, count=50, bags=True)
    before = scorer.score(columns)
    changed = columns["tags_weights"]
    assert isinstance(changed, Ragged)
    lengths = np.diff(changed.offsets)
    scaled = Ragged(changed.values * 2, changed.offsets)
    assert scorer.score({**columns, "tags_weights": scaled}).pctr == pytest.approx(before.pctr)
    uneven = Ragged(changed.values * np.arange(1, len(changed.values) + 1), changed.offsets)
    moved = scorer.score({**columns, "tags_weights": uneven}).pctr != before.pctr
    assert not moved[lengths < 2].any()
    assert moved[lengths > 1].mean() > 0.9
