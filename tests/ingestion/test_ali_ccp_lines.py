"""The parser of whole chunks against the definition in plain Python, line by line."""

from __future__ import annotations

import random
from typing import Any

import pytest

from benchmarks.ali_ccp_files import Files, write
from components.ingestion.sources.ali_ccp_format import COMMON, REASONS, SKELETON, Shape, judge, shown
from components.ingestion.sources.ali_ccp_lines import parse

COMMON_LINE = b"ab12,3,101\x027\x031.0\x01121\x0298\x031.0\x01109_14\x0255\x032.5"
SKELETON_LINE = b"10,1,0,ab12,3,205\x0277\x031.0\x01301\x024\x031.0\x01210\x0288\x030.5"


def plainly(line: bytes, shape: Shape) -> dict[str, Any]:
    """A good line's values, by splitting."""
    *head, features = line.decode().split(",")
    row: dict[str, Any] = dict(zip(shape.head, head, strict=True))
    del row["feature_num"]
    row |= {label: int(row[label]) for label in ("click", "buy") if label in row}
    if "sample_id" in row:
        row["sample_id"] = str(int(row["sample_id"]))
    row |= dict.fromkeys(shape.fields)
    for feature in features.split("\x01"):
        field, rest = feature.split("\x02")
        value, weight = rest.split("\x03")
        if field in shape.bags:
            row[field] = (row[field] or []) + [(str(int(value)), float(weight))]
        else:
            row[field] = str(int(value))
    return row


def rows(data: bytes, shape: Shape) -> tuple[dict[int, dict[str, Any]], dict[int, str]]:
    """What `parse` makes of it: values of good lines and reasons of refused ones, by the line's number."""
    parsed = parse(data, shape)
    found: dict[int, dict[str, Any]] = {}
    columns = {name: column.to_pylist() for name, column in {**parsed.head, **parsed.single}.items()}
    bags = {name: [each.to_pylist() for each in pair] for name, pair in parsed.bags.items()}
    for row, line in enumerate(parsed.lines.tolist()):
        values = {name: column[row] for name, column in columns.items() if name != "feature_num"}
        for name, (ids, weights) in bags.items():
            assert (ids[row] is None) == (weights[row] is None)
            values[name] = None if ids[row] is None else list(zip(ids[row], weights[row], strict=True))
        found[line] = values
        assert parsed.text(row) == data.split(b"\n")[line]
    refused = {each.line: each.reason for each in parsed.refused}
    assert all(each.data == data.split(b"\n")[each.line] for each in parsed.refused)
    return found, refused


def check(lines: list[bytes], shape: Shape) -> int:
    """Every line has the outcome of the plain rule. Returns how many are refused."""
    found, refused = rows(b"".join(line + b"\n" for line in lines), shape)
    assert len(found) + len(refused) == len(lines)
    for number, line in enumerate(lines):
        reason = judge(line, shape)
        assert refused.get(number) == reason, line
        if reason is None:
            assert found[number] == plainly(line, shape), line
    return len(refused)


@pytest.fixture(scope="module")
def generated(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[bytes]]:
    folder = tmp_path_factory.mktemp("raw")
    write(folder, Files(lines=1500, groups=300, seed=5))
    return {path.name: path.read_bytes().splitlines() for path in folder.iterdir()}


@pytest.mark.parametrize(
    ("name", "shape"), [("sample_skeleton_train.csv", SKELETON), ("common_features_train.csv", COMMON)]
)
def test_generated_lines_spoiled_at_random(generated: dict[str, list[bytes]], name: str, shape: Shape) -> None:
    good = generated[name]
    assert check(good, shape) == 0
    chance = random.Random(3)
    alphabet = b"0123456789,.\x01\x02\x03_-+eE aZ\x00\xff\xc3\r"
    for _ in range(4):
        spoiled = []
        for line in good:
            bytes_ = bytearray(line)
            for _ in range(chance.choice((0, 1, 1, 2))):
                at = chance.randrange(len(bytes_))
                what = chance.choice(("replace", "insert", "delete"))
                bytes_[at : at + (what != "insert")] = b"" if what == "delete" else bytes([chance.choice(alphabet)])
            spoiled.append(bytes(bytes_))
        refused = check(spoiled, shape)
        assert len(good) * 0.3 < refused < len(good) * 0.8


BAD = [
    ("EMPTY", b""),
    ("COLUMNS", b"10,1,0,ab12"),
    ("COLUMNS", SKELETON_LINE.replace(b",", b";", 1)),
    ("COLUMNS", SKELETON_LINE + b",1"),
    ("NOT_UTF8", SKELETON_LINE.replace(b"ab12", b"ab\xff")),
    ("SAMPLE_ID", SKELETON_LINE.replace(b"10,", b"1.0,", 1)),
    ("SAMPLE_ID", SKELETON_LINE.replace(b"10,", b",", 1)),
    ("LABEL", SKELETON_LINE.replace(b",1,0,", b",yes,0,")),
    ("LABEL", SKELETON_LINE.replace(b",1,0,", b",1,,")),
    ("LABEL", SKELETON_LINE.replace(b",1,0,", b",1,0.0,")),
    ("LABEL", SKELETON_LINE.replace(b",1,0,", b",1,99999999999999999999,")),
    ("GROUP", SKELETON_LINE.replace(b"ab12", b"")),
    ("GROUP", SKELETON_LINE.replace(b"ab12", b"a b")),
    ("GROUP", SKELETON_LINE.replace(b"ab12", b"a\x00b")),
    ("FEATURE_NUM", SKELETON_LINE.replace(b",3,", b",three,")),
    ("FEATURE_COUNT", SKELETON_LINE.replace(b",3,", b",4,")),
    ("FEATURE_COUNT", SKELETON_LINE[: SKELETON_LINE.rindex(b"\x01")]),
    ("SEPARATOR", SKELETON_LINE.replace(b"\x02", b":", 1)),
    ("SEPARATOR", SKELETON_LINE.replace(b"\x03", b"\x02", 1)),
    ("SEPARATOR", SKELETON_LINE.replace(b"\x01", b"\x01\x01", 1)),
    ("SEPARATOR", SKELETON_LINE + b"\x01"),
    ("SEPARATOR", SKELETON_LINE.replace(b"\x01", b" ", 1)),
    ("FIELD", SKELETON_LINE.replace(b"301", b"999")),
    ("FIELD", SKELETON_LINE.replace(b"301", b"121")),  # a user's field
    ("FIELD", SKELETON_LINE.replace(b"301", b"205_14")),
    ("FIELD", SKELETON_LINE.replace(b"301", b"0301")),
    ("FIELD_TWICE", SKELETON_LINE.replace(b"301", b"205")),
    ("FEATURE_ID", SKELETON_LINE.replace(b"\x0277", b"\x0277.5")),
    ("FEATURE_ID", SKELETON_LINE.replace(b"\x0277", b"\x02-7")),
    ("FEATURE_ID", SKELETON_LINE.replace(b"\x0277", b"\x02")),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x03")),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x03.")),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x03-0.5")),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x03nan")),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x03inf")),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x031e999")),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x03" + b"9" * 400)),
    ("WEIGHT", SKELETON_LINE.replace(b"\x030.5", b"\x030_5")),
    ("NO_ITEM", SKELETON_LINE.replace(b"205", b"206")),
    ("NO_ITEM", b"10,1,0,ab12,0,"),
]


@pytest.mark.parametrize(("reason", "line"), BAD)
def test_a_bad_line_has_its_reason_and_leaves_its_neighbours_alone(reason: str, line: bytes) -> None:
    found, refused = rows(b"\n".join([SKELETON_LINE, line, SKELETON_LINE, b""]), SKELETON)
    assert refused == {1: reason}
    assert found[0] == found[2] == plainly(SKELETON_LINE, SKELETON)
    assert reason in REASONS
    assert rows(line + b"\n", SKELETON) == ({}, {0: reason})


def test_a_common_line_needs_a_user() -> None:
    _, refused = rows(COMMON_LINE.replace(b"101\x02", b"126\x02") + b"\n" + COMMON_LINE + b"\n", COMMON)
    assert refused == {0: "NO_USER"}


@pytest.mark.parametrize(
    ("line", "column", "value"),
    [
        (SKELETON_LINE.replace(b"\x0277", b"\x0200077"), "205", "77"),
        (SKELETON_LINE.replace(b"\x0277", b"\x02000"), "205", "0"),
        (SKELETON_LINE.replace(b"\x0277", b"\x02" + b"9" * 30), "205", "9" * 30),  # beyond int64
        (SKELETON_LINE.replace(b"10,", b"0010,", 1), "sample_id", "10"),
        (SKELETON_LINE.replace(b",1,0,", b",2,-1,"), "click", 2),  # for validation to quarantine
        (SKELETON_LINE.replace(b",1,0,", b",2,-1,"), "buy", -1),
        (SKELETON_LINE.replace(b",1,0,", b",0,1,"), "buy", 1),
        (SKELETON_LINE.replace(b"ab12", b"grp-Zz"), "common_feature_index", "grp-Zz"),
        (SKELETON_LINE.replace(b"ab12", "é".encode() * 70), "common_feature_index", "é" * 70),
        (SKELETON_LINE.replace(b",3,", b",0000000003,"), "301", "4"),
        (SKELETON_LINE.replace(b"\x030.5", b"\x031e-3"), "210", [("88", 0.001)]),
        (SKELETON_LINE.replace(b"\x030.5", b"\x03.5"), "210", [("88", 0.5)]),
        (SKELETON_LINE.replace(b"\x030.5", b"\x037."), "210", [("88", 7.0)]),
        (SKELETON_LINE.replace(b"\x030.5", b"\x037"), "210", [("88", 7.0)]),
        (SKELETON_LINE.replace(b"\x030.5", b"\x030"), "210", [("88", 0.0)]),
        (SKELETON_LINE.replace(b"301", b"210"), "210", [("4", 1.0), ("88", 0.5)]),
        (SKELETON_LINE.replace(b"301", b"210"), "301", None),
    ],
)
def test_unusual_but_good(line: bytes, column: str, value: Any) -> None:
    found, refused = rows(b"\n".join([SKELETON_LINE, line, b""]), SKELETON)
    assert not refused
    assert found[1][column] == value
    assert found[0] == plainly(SKELETON_LINE, SKELETON)


def test_the_shown_text_is_short_and_plain() -> None:
    assert shown(b"1,\x01\xff'\"\\") == r"1,\x01\xff\'\"\\".replace(r"\"", '"')
    assert len(shown(b"\x00" * 1000)) == 200
