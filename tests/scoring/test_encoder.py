"""The encoder, against values worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from components.contracts.errors import CorruptArtifact, DataError
from components.contracts.spec import Feature, FeatureSpec
from components.scoring.encoder import Encoder


def spec(*features: Feature) -> FeatureSpec:
    return FeatureSpec(features=features)


def context(name: str, dtype: str, encoding: str, **more: object) -> Feature:
    return Feature(
        name=name,
        source="context",
        dtype=dtype,
        encoding=encoding,
        tower="ctr" if name == "position" else "shared",
        **more,
    )


def objects(*values: object) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


DEVICE = context("device", "string", "id", min_count=2)


def test_vocabulary_is_most_frequent_first_with_ties_by_value_and_rare_values_left_out() -> None:
    encoder = Encoder.fit(spec(DEVICE), {"device": objects("tv", "b", "a", "b", "a", None, "phone", "phone", "phone")})
    assert encoder.vocabularies["device"] == ("phone", "a", "b")
    assert encoder.sizes == (5,)
    encoded = encoder.transform({"device": objects("phone", "a", "b", "tv", "new", None)})
    assert encoded.ids[:, 0].tolist() == [2, 3, 4, 1, 1, 0]
    assert encoded.ids.dtype == np.int64
    assert encoded.dense.shape == (6, 0)


def test_max_vocabulary_keeps_the_most_frequent() -> None:
    encoder = Encoder.fit(
        spec(context("device", "string", "id", min_count=1, max_vocabulary=1)), {"device": objects("a", "b", "b")}
    )
    assert encoder.vocabularies["device"] == ("b",)


@pytest.mark.parametrize(
    "arrived",
    [
        np.array([3, 12, 3], np.int64),
        np.array([3.0, 12.0, 3.0]),
        np.array([3, 12, 3], np.int32),
        np.array(["3", "12", "3"]),
        objects(3, 12, 3.0),
        objects("3", np.int64(12), "3"),
    ],
)
def test_an_integer_is_the_same_value_however_it_arrives(arrived: np.ndarray) -> None:
    encoder = Encoder.fit(spec(context("age", "int", "id", min_count=1)), {"age": np.array([3, 3, 12])})
    assert encoder.transform({"age": arrived}).ids[:, 0].tolist() == [2, 3, 2]


def test_integers_with_nulls_come_as_floats_and_fit_the_same_vocabulary() -> None:
    feature = spec(context("age", "int", "id", min_count=1))
    of_floats = Encoder.fit(feature, {"age": np.array([3.0, np.nan, 3.0, 12.0])})
    assert of_floats.vocabularies["age"] == ("3", "12")
    assert of_floats.transform({"age": np.array([np.nan, np.inf, 12.0])}).ids[:, 0].tolist() == [0, 0, 3]


@pytest.mark.parametrize(
    "arrived", [np.array([True, False, True]), objects(True, False, True), np.array([1.0, 0.0, 1.0]), objects(1, 0, 1)]
)
def test_booleans_however_they_arrive(arrived: np.ndarray) -> None:
    encoder = Encoder.fit(spec(context("member", "bool", "id", min_count=1)), {"member": arrived})
    assert encoder.vocabularies["member"] == ("true", "false")
    assert encoder.transform({"member": objects(True, None, False)}).ids[:, 0].tolist() == [2, 0, 3]


def test_true_is_not_one() -> None:
    encoder = Encoder.fit(spec(context("x", "string", "id", min_count=1)), {"x": objects("a", 1, True, True)})
    assert encoder.vocabularies["x"] == ("true", "1", "a")


def test_buckets_cut_at_quantiles_half_way_between_values() -> None:
    encoder = Encoder.fit(spec(context("price", "float", "bucket", buckets=4)), {"price": np.arange(8.0)})
    assert encoder.edges["price"].tolist() == [1.5, 3.5, 5.5]
    assert encoder.sizes == (5,)
    encoded = encoder.transform({"price": np.array([-9.0, 1.0, 1.5, 2.0, 7.0, 99.0, np.nan, np.inf])})
    assert encoded.ids[:, 0].tolist() == [1, 1, 2, 2, 4, 4, 0, 0]


def test_a_mass_of_zeros_takes_one_bucket_and_leaves_the_others_to_the_rest() -> None:
    counts = np.array([0] * 90 + list(range(1, 11)))
    encoder = Encoder.fit(spec(context("clicks", "int", "bucket", buckets=6)), {"clicks": counts})
    assert encoder.edges["clicks"].tolist() == [0.5, 2.5, 4.5, 6.5, 8.5]


@pytest.mark.parametrize("values", [[7, 7, 7], [np.nan, np.nan]])
def test_a_bucket_feature_without_two_values_has_one_bucket(values: list[float]) -> None:
    encoder = Encoder.fit(spec(context("x", "float", "bucket")), {"x": np.array(values)})
    assert encoder.sizes == (2,)
    assert encoder.transform({"x": np.array([1.0, 8.0, np.nan])}).ids[:, 0].tolist() == [1, 1, 0]


def test_float32_copies_of_training_values_fall_into_the_same_buckets() -> None:
    values = np.random.default_rng(0).random(1000)
    encoder = Encoder.fit(spec(context("x", "float", "bucket")), {"x": values})
    single = values.astype(np.float32).astype(np.float64)
    assert (encoder.transform({"x": values}).ids == encoder.transform({"x": single}).ids).all()


def test_numeric_is_standardised_with_a_missing_flag() -> None:
    encoder = Encoder.fit(spec(context("x", "float", "numeric")), {"x": np.array([1.0, 3.0, np.nan, np.inf])})
    encoded = encoder.transform({"x": objects(1, None, 2.0, float("inf"), 1e300)})
    assert encoder.sizes == ()
    assert encoded.ids.shape == (5, 0)
    assert encoded.dense.dtype == np.float32
    assert encoded.dense.tolist() == [[-1, 0], [0, 1], [0, 0], [0, 1], [10, 0]]


def test_a_constant_number_divides_by_one() -> None:
    encoder = Encoder.fit(spec(context("x", "float", "numeric")), {"x": np.full(1000, 0.1)})
    assert encoder.transform({"x": np.array([0.1, 1.1])}).dense[:, 0].tolist() == pytest.approx([0, 1])


def test_position_is_overridden_for_all_rows_and_its_column_is_then_not_needed() -> None:
    encoder = Encoder.fit(
        spec(DEVICE, context("position", "int", "id", min_count=1)),
        {"device": objects("a", "a", "a"), "position": np.array([1, 1, 2])},
    )
    rows = {"device": objects("a", "b", "a")}
    assert encoder.transform({**rows, "position": np.array([2, 1, 9])}).ids.tolist() == [[2, 3], [1, 2], [2, 1]]
    assert encoder.transform(rows, position=2).ids[:, 1].tolist() == [3, 3, 3]
    assert encoder.transform({**rows, "position": np.array([1, 1, 1])}, position=2).ids[:, 1].tolist() == [3, 3, 3]
    with pytest.raises(DataError, match="no column position"):
        encoder.transform(rows)


def test_unknown_tells_new_values_from_missing_ones() -> None:
    encoder = Encoder.fit(
        spec(DEVICE, context("x", "int", "bucket"), context("position", "int", "id")),
        {"device": objects("a", "a"), "x": np.array([1, 2]), "position": np.array([1, 1])},
    )
    unknown = encoder.unknown({"device": objects("a", "new", None), "x": np.array([9, 9, 9])})
    assert list(unknown) == ["device"]
    assert unknown["device"].tolist() == [False, True, False]


def test_missing_columns_ragged_columns_and_wrong_values_are_named() -> None:
    encoder = Encoder.fit(
        spec(DEVICE, context("x", "float", "bucket")), {"device": objects("a", "a"), "x": np.array([1.0, 2.0])}
    )
    with pytest.raises(DataError, match="no column device, x"):
        encoder.transform({"y": np.array([1])})
    with pytest.raises(DataError, match="differ in length"):
        encoder.transform({"device": objects("a"), "x": np.array([1.0, 2.0])})
    with pytest.raises(DataError, match=r"'x' .* no number"):
        encoder.transform({"device": objects("a"), "x": objects("cheap")})
    with pytest.raises(DataError, match=r"'device' .* list"):
        encoder.transform({"device": objects(["a"]), "x": np.array([1.0])})
    with pytest.raises(DataError, match=r"'device' .*bytes"):
        encoder.transform({"device": objects(b"a"), "x": np.array([1.0])})


def test_no_rows_encode_to_no_rows() -> None:
    encoder = Encoder.fit(spec(DEVICE, context("x", "float", "numeric")), {"device": objects("a"), "x": np.ones(1)})
    encoded = encoder.transform({"device": np.array([], object), "x": np.array([])})
    assert encoded.ids.shape == (0, 1)
    assert encoded.dense.shape == (0, 2)


def everything() -> tuple[FeatureSpec, dict[str, np.ndarray]]:
    rng = np.random.default_rng(3)
    columns = {
        "device": objects(*rng.choice(["", "téléphone", "a,b\n", "\udcff", "tv"], 500), None),
        "age": np.append(rng.integers(0, 9, 500).astype(float), np.nan),
        "price": np.append(rng.lognormal(size=500), np.nan),
        "score": np.append(rng.normal(size=500), np.nan),
    }
    declared = spec(
        DEVICE,
        context("score", "float", "numeric"),
        context("age", "int", "id"),
        context("price", "float", "bucket"),
    )
    return declared, columns


def test_saved_and_loaded_it_encodes_the_same(tmp_path: Path) -> None:
    declared, columns = everything()
    encoder = Encoder.fit(declared, columns)
    encoder.save(tmp_path)
    loaded = Encoder.load(tmp_path)
    assert loaded.spec == declared
    assert loaded.sizes == encoder.sizes == (7, 11, 17)
    before, after = encoder.transform(columns), loaded.transform(columns)
    assert (before.ids == after.ids).all()
    assert (before.dense == after.dense).all()


def test_equal_encoders_are_equal_bytes_whatever_the_row_order_and_the_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    declared, columns = everything()
    order = np.random.default_rng(1).permutation(501)
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    Encoder.fit(declared, columns).save(tmp_path / "a")
    monkeypatch.setattr("time.time", lambda: 2_000_000_000.0)
    Encoder.fit(declared, {**columns, "device": columns["device"][order]}).save(tmp_path / "b")
    for name in ("encoder.json", "encoder.npz"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_arrays_of_another_encoder_are_refused(tmp_path: Path) -> None:
    declared, columns = everything()
    Encoder.fit(declared, columns).save(tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    Encoder.fit(declared, {name: column[:60] for name, column in columns.items()}).save(other)
    (tmp_path / "encoder.npz").write_bytes((other / "encoder.npz").read_bytes())
    with pytest.raises(CorruptArtifact, match="sizes"):
        Encoder.load(tmp_path)
    (tmp_path / "encoder.npz").write_bytes(b"not a zip")
    with pytest.raises(CorruptArtifact, match=r"encoder\.npz"):
        Encoder.load(tmp_path)
    (tmp_path / "encoder.npz").unlink()
    with pytest.raises(DataError, match="does not exist"):
        Encoder.load(tmp_path)
