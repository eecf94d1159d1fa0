"""The raw Ali-CCP files, line by line: what a good line is, and why another is refused.

    skeleton    sample_id,click,buy,common_feature_index,feature_num,features
    common      common_feature_index,feature_num,features

Features are joined by \\x01, each is `field \\x02 id \\x03 weight`; there are no quotes and no header. `judge` is the
definition in plain Python; `ali_ccp_lines` finds in bulk the lines that are plainly good and asks it about all others.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from components.ingestion.sources.byte_chunks import LONGEST

REASONS = {
    "EMPTY": "The line is empty.",
    "NOT_UTF8": "The line holds bytes that are not UTF-8.",
    "TRUNCATED": "The gzip file ends or breaks in the middle of this line.",
    "TOO_LONG": "The line is longer than 8 MiB: the file is not what it claims to be.",
    "COLUMNS": "The line has not as many comma-separated columns as its file must have (skeleton 6, common 3).",
    "SAMPLE_ID": "The sample id is no whole number.",
    "LABEL": "click or buy is no whole number (whole numbers other than 0 and 1 go on to validation).",
    "GROUP": "The common-feature index is empty, or holds blanks or control characters.",
    "FEATURE_NUM": "feature_num is no whole number.",
    "SEPARATOR": "A feature is not field \\x02 id \\x03 weight.",
    "FIELD": "A feature's field is none of this kind of file.",
    "FEATURE_ID": "A feature's id is no whole number.",
    "WEIGHT": "A feature's weight is no number, not finite, or negative.",
    "FEATURE_COUNT": "The line has another number of features than its feature_num says.",
    "FIELD_TWICE": "A field that holds one value is given twice.",
    "NO_USER": "A common line without field 101: its impressions would have no user_id.",
    "NO_ITEM": "A skeleton line without field 205: the impression would have no item_id.",
    "DUPLICATE_GROUP": "The common-feature index was seen before: the first line stays.",
    "ORPHAN": "The file of common features has no good line for the skeleton line's index.",
}
"""Reason codes of refused lines; docs/ali-ccp.md lists them."""


@dataclass(frozen=True)
class Shape:
    """One of the two kinds of file: columns before the feature list, fields with one value, fields with several."""

    head: tuple[str, ...]
    single: tuple[str, ...]
    bags: tuple[str, ...]
    required: str
    """The single field that no line may lack."""
    without: str
    """Reason of a line that lacks it."""

    @property
    def fields(self) -> tuple[str, ...]:
        return self.single + self.bags


SKELETON = Shape(
    head=("sample_id", "click", "buy", "common_feature_index", "feature_num"),
    single=("205", "206", "207", "216", "301"),
    bags=("210", "508", "509", "702", "853"),
    required="205",
    without="NO_ITEM",
)
COMMON = Shape(
    head=("common_feature_index", "feature_num"),
    single=("101", "121", "122", "124", "125", "126", "127", "128", "129"),
    bags=("109_14", "110_14", "127_14", "150_14"),
    required="101",
    without="NO_USER",
)

_ID = re.compile(r"[0-9]+")
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_WEIGHT = re.compile(r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def judge(line: bytes, shape: Shape) -> str | None:
    """Why the line (without its end) is refused, as a key of REASONS; None if it is good."""
    if not line:
        return "EMPTY"
    if len(line) > LONGEST:
        return "TOO_LONG"
    try:
        columns = line.decode("utf-8").split(",")
    except UnicodeDecodeError:
        return "NOT_UTF8"
    if len(columns) != len(shape.head) + 1:
        return "COLUMNS"
    head = dict(zip(shape.head, columns, strict=False))
    if not _ID.fullmatch(head.get("sample_id", "0")):
        return "SAMPLE_ID"
    if not all(_INTEGER.fullmatch(head.get(label, "0")) for label in ("click", "buy")):
        return "LABEL"
    group = head["common_feature_index"]
    if not group or not group.isprintable() or " " in group:
        return "GROUP"
    if not _ID.fullmatch(head["feature_num"]):
        return "FEATURE_NUM"
    return _judge_features(columns[-1], head["feature_num"], shape)


def _judge_features(text: str, feature_num: str, shape: Shape) -> str | None:
    seen: set[str] = set()
    features = text.split("\x01") if text else []
    for feature in features:
        field, two, rest = feature.partition("\x02")
        number, three, weight = rest.partition("\x03")
        if not two or not three or "\x02" in rest or "\x03" in weight:
            return "SEPARATOR"
        if field not in shape.fields:
            return "FIELD"
        if not _ID.fullmatch(number):
            return "FEATURE_ID"
        if not _WEIGHT.fullmatch(weight) or not math.isfinite(float(weight)):
            return "WEIGHT"
        if field in seen and field in shape.single:
            return "FIELD_TWICE"
        seen.add(field)
    if (feature_num.lstrip("0") or "0") != str(len(features)):
        return "FEATURE_COUNT"
    return None if shape.required in seen else shape.without


def shown(line: bytes) -> str:
    """The beginning of a line, 200 characters of text: bytes that are no plain characters as backslash escapes."""
    return repr(line[:200])[2:-1][:200]
