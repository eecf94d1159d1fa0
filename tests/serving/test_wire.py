"""Feast's bytes as columns, against Feast's own protobuf."""

from datetime import UTC, datetime

import numpy as np
import pytest
from feast.protos.feast.types.Value_pb2 import DoubleList, FloatList, Int64List, StringList, Value
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import ServiceError
from components.contracts.spec import Feature, FeatureSpec, View
from serving.online import wire
from serving.online.fields import fields
from serving.online.rows import Block

TEXT = st.text(st.characters(exclude_categories=("Cs",)))
INT64, INT32 = st.integers(-(2**63), 2**63 - 1), st.integers(-(2**31), 2**31 - 1)
# More than the few that are decoded one by one.
MANY = 3 * wire.FEW


def lists(values):
    """Both the few and the many, with nulls."""
    return st.lists(st.none() | values, min_size=0, max_size=MANY)


def blobs(values, name):
    return [None if value is None else Value(**{name: value}).SerializeToString() for value in values]


@given(lists(st.floats()), st.sampled_from([None, b""]))
def test_doubles(values, null):
    found, present = wire.floats([[null if blob is None else blob for blob in blobs(values, "double_val")]])
    assert present[0].tolist() == [value is not None for value in values]
    np.testing.assert_array_equal(found[0], [np.nan if value is None else value for value in values])


@given(lists(st.floats(width=32) | st.floats()))
def test_floats_of_either_width(values):
    """Single and double precision mixed: what Feast reads."""
    made = [
        None if v is None else (Value(float_val=v) if abs(v) < 1e30 else Value(double_val=v)).SerializeToString()
        for v in values
    ]
    expected = [np.nan if b is None else (p := Value.FromString(b)).float_val or p.double_val for b in made]
    np.testing.assert_array_equal(wire.floats([made])[0][0], expected)


@given(lists(INT64 | INT32), st.booleans())
def test_ints(values, narrow):
    made = [
        None if v is None
        else Value(**{"int32_val" if narrow and abs(v) < 2**31 else "int64_val": v}).SerializeToString()
        for v in values
    ]  # fmt: skip
    found, present = wire.ints([made])
    assert present[0].tolist() == [value is not None for value in values]
    assert found[0].tolist() == [value or 0 for value in values]


@given(st.lists(lists(INT64), min_size=2, max_size=4).filter(lambda rows: len({len(row) for row in rows}) == 1))
def test_several_columns_at_once(rows):
    found, _ = wire.ints([blobs(row, "int64_val") for row in rows])
    assert found.tolist() == [[value or 0 for value in row] for row in rows]


@given(lists(TEXT))
def test_strings(values):
    found, present = wire.objects([blobs(values, "string_val")], ["string"])
    assert found[0].tolist() == values
    assert present[0].tolist() == [value is not None for value in values]


@given(lists(st.booleans()))
def test_bools(values):
    assert wire.objects([blobs(values, "bool_val")], ["bool"])[0][0].tolist() == values


@given(lists(st.lists(TEXT, max_size=4)), lists(st.lists(st.floats(), max_size=4)))
def test_bags(texts, numbers):
    for values, name, dtype, message in (
        (texts, "string_list_val", "strings", StringList),
        (numbers, "double_list_val", "floats", DoubleList),
    ):
        made = blobs([None if value is None else message(val=value) for value in values], name)
        found, present = wire.objects([made], [dtype])
        assert present[0].tolist() == [bool(value) for value in values]
        for one, value in zip(found[0], values, strict=True):
            np.testing.assert_array_equal(
                [] if one is None else one, np.array(value or [], one.dtype if value else None)
            )


SECONDS = st.integers(-62_135_596_800, 253_402_300_799)


@given(st.lists(st.none() | st.tuples(SECONDS, st.integers(0, 999_999_999) | st.just(0)), max_size=MANY))
def test_times(values):
    """Of any year that a Timestamp can name; beyond 64 bits of nanoseconds the last that fits, never another sign."""
    made = [None if v is None else Timestamp(seconds=v[0], nanos=v[1]).SerializeToString() for v in values]
    largest = wire.LARGEST_SECONDS
    expected = [0 if v is None else max(-largest, min(largest, v[0])) * 10**9 + v[1] for v in values]
    assert wire.times(made).tolist() == expected


@given(st.lists(st.integers(0, 10**6 - 1), min_size=1, max_size=MANY))
def test_times_of_today(microseconds):
    stamps = []
    for value in microseconds:
        stamp = Timestamp()
        stamp.FromDatetime(
            datetime(2026, 3, 1, 0, 0, value % 60, value, UTC) if value < 10**6 else datetime(2026, 1, 1)
        )
        stamps.append(stamp)
    found = wire.times([stamp.SerializeToString() for stamp in stamps])
    assert found.tolist() == [stamp.ToNanoseconds() for stamp in stamps]


OTHERS = {
    "float": [Value(int64_val=3), Value(string_val="x"), Value(double_list_val=DoubleList(val=[1.0])),
              Value(bool_val=True), Value(string_val="12345678" * 2), Value(string_val="9 bytes"),
              Value(int64_val=2**55)],
    "int": [Value(double_val=3.0), Value(string_val=""), Value(unix_timestamp_val=5), Value(bool_val=True)],
    "string": [Value(bytes_val=b"x"), Value(int64_val=1), Value(string_list_val=StringList(val=["a"]))],
    "bool": [Value(int64_val=1), Value(string_val="true")],
    "strings": [Value(string_val="a"), Value(int64_list_val=Int64List(val=[1]))],
    "floats": [Value(double_val=1.0), Value(int64_list_val=Int64List(val=[1]))],
}  # fmt: skip
GOOD = {
    "float": Value(double_val=1.5), "int": Value(int64_val=7), "string": Value(string_val="a"),
    "bool": Value(bool_val=True), "strings": Value(string_list_val=StringList(val=["a"])),
    "floats": Value(float_list_val=FloatList(val=[0.5])),
}  # fmt: skip


def read(dtype, made):
    if dtype in ("float", "int"):
        return (wire.floats if dtype == "float" else wire.ints)([made])
    return wire.objects([made], [dtype])


@pytest.mark.parametrize("dtype", OTHERS)
@pytest.mark.parametrize("count", [1, MANY])
def test_a_value_of_another_kind_is_an_error_wherever_it_is(dtype, count):
    good = GOOD[dtype].SerializeToString()
    assert read(dtype, [good] * count)[1].all()
    for other in OTHERS[dtype]:
        for place in (0, count // 2, count - 1):
            made = [good] * count
            made[place] = other.SerializeToString()
            with pytest.raises(wire.Unreadable, match=str(other.WhichOneof("val"))):
                read(dtype, made)


def test_others_that_are_as_long_as_two_doubles_together():
    long, short = Value(string_val="x" * 14).SerializeToString(), Value(bool_val=True).SerializeToString()
    assert len(long + short) == 2 * wire.DOUBLE_BYTES
    for pair in ([long, short], [short, long]):
        with pytest.raises(wire.Unreadable):
            read("float", [GOOD["float"].SerializeToString()] * MANY + pair)


@pytest.mark.parametrize("dtype", OTHERS)
@pytest.mark.parametrize("junk", [b"\x29\x00", b"\xff" * 30, b"\x20", b"\x80" * 12 + b"\x01"])
def test_bytes_that_nobody_wrote_are_an_error(dtype, junk):
    for count in (1, MANY):
        with pytest.raises(wire.Unreadable, match="bytes that Feast did not write"):
            read(dtype, [GOOD[dtype].SerializeToString()] * count + [junk])


@pytest.mark.parametrize("dtype", OTHERS)
def test_a_null_that_is_written_out_is_a_null(dtype):
    null = Value(null_val=0).SerializeToString()
    for count in (1, MANY):
        present = read(dtype, [GOOD[dtype].SerializeToString()] * count + [null])[1]
        assert present[0].tolist() == [True] * count + [False]


def test_the_memory_for_strings_is_bounded():
    made = blobs([f"s{number}" for number in range(wire.MEMORY + 100)], "string_val")
    found, _ = wire.objects([made], ["string"])
    assert found[0, -1] == f"s{wire.MEMORY + 99}"
    assert len(wire._READ["string"].__self__) <= wire.MEMORY


def test_the_sentence_names_view_feature_and_kinds():
    spec = FeatureSpec(
        features=(
            Feature(name="price", source="shelf", dtype="float", encoding="bucket"),
            Feature(name="stock", source="shelf", dtype="int", encoding="bucket"),
            Feature(name="brand", source="shelf", dtype="string", encoding="id"),
        ),
        views=(View(name="shelf", entity="item_id", ttl_seconds=60, fields=("brand", "stock", "price")),),
    )
    of = fields(spec, "item_id", {"shelf"})
    assert of.names == ("price", "stock", "brand")
    stamps = np.ones((1, 1), np.int64)
    for number, wrong in enumerate((Value(string_val="9"), Value(double_val=2.5), Value(int64_val=1))):
        row = [[GOOD[kind].SerializeToString()] for kind in ("float", "int", "string")]
        row[number] = [wrong.SerializeToString()]
        said = rf"holds a {wrong.WhichOneof('val')} as shelf:{of.names[number]}, which the model reads as "
        with pytest.raises(ServiceError, match=said + of.dtypes[number] + r".*esmm materialize"):
            Block.decoded(of, stamps, row)


def test_a_value_without_a_time_is_not_stored():
    """It could not be aged."""
    spec = FeatureSpec(
        features=(Feature(name="price", source="shelf", dtype="float", encoding="bucket"),),
        views=(View(name="shelf", entity="item_id", ttl_seconds=60, fields=("price",)),),
    )
    of = fields(spec, "item_id", {"shelf"})
    block = Block.decoded(of, np.array([[0, 5]], np.int64), [blobs([1.0, 2.0], "double_val")])
    assert block.present.tolist() == [[False, True]]
