"""Whole chunks of raw Ali-CCP lines to columns, without a loop over lines.

One pass marks every byte that is no digit. What may follow what, and with how many digits between, is a table
(`_GRAMMAR`), and one look-up a mark tells the lines that keep to it. All other lines are suspects: `judge` decides on
each, and what it refuses is cut out before the rest is scanned again. Suffixes are shapes: M marks, T tokens (what
stands between delimiters), L lines, F features (of all lines, in the order of the file), C the shape's fields.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from components.ingestion.sources.ali_ccp_format import Shape, judge
from components.ingestion.sources.byte_chunks import LONGEST

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

_DIGIT, _OTHER, _LETTER, _POINT, _LOW, _COMMA, _ONE, _TWO, _THREE, _END = range(10)
"""Classes of bytes; from _COMMA on they are delimiters."""
_CLASSES = np.full(256, _OTHER, np.uint8)
for _bytes, _class in (
    *((b"0123456789", _DIGIT), (b"abcdefABCDEF", _LETTER), (b".", _POINT), (b"_", _LOW)),
    *((b",", _COMMA), (b"\x01", _ONE), (b"\x02", _TWO), (b"\x03", _THREE), (b"\n", _END)),
):
    _CLASSES[list(_bytes)] = _class
_TABLE = _CLASSES.tobytes()

_GROUP_LETTERS = (0, 64)
_GRAMMAR = {
    **dict.fromkeys(((_END, _COMMA), (_COMMA, _COMMA)), (1, 64)),
    **dict.fromkeys(((_END, _LETTER), (_COMMA, _LETTER), (_LETTER, _LETTER), (_LETTER, _COMMA)), _GROUP_LETTERS),
    **dict.fromkeys(((_COMMA, _TWO), (_ONE, _TWO), (_COMMA, _LOW), (_ONE, _LOW)), (3, 3)),
    (_LOW, _TWO): (2, 2),
    (_TWO, _THREE): (1, 40),
    **dict.fromkeys(((_THREE, _ONE), (_THREE, _END)), (1, 17)),
    **dict.fromkeys(((_THREE, _POINT), (_POINT, _ONE), (_POINT, _END)), (1, 9)),
}
"""(mark, next mark): fewest and most digits between. Longer numbers are not wrong, but are looked at one by one."""
_FEWEST, _MOST = bytearray(b"\xff" * 256), bytearray(256)
for (_mark, _next), (_fewest, _most) in _GRAMMAR.items():
    _FEWEST[10 * _mark + _next], _MOST[10 * _mark + _next] = _fewest, _most
_LONG_COUNT = 6
_UNKNOWN = 255


@dataclass(frozen=True)
class Refused:
    """A line of the chunk (from 0), its reason and its bytes."""

    line: int
    reason: str
    data: bytes


class Scan:
    """Where lines and tokens of a chunk lie. Every line ends with a newline."""

    def __init__(self, data: bytes, shape: Shape) -> None:
        self.bytes, self.shape = data, shape
        self.data = np.frombuffer(data, np.uint8)
        classes = np.frombuffer(data.translate(_TABLE), np.uint8)
        self.marks = np.flatnonzero(classes != _DIGIT)
        self.kind_M = classes[self.marks]
        self.at_T = np.flatnonzero(self.kind_M >= _COMMA)
        """Index of each token's delimiter, the one after it, among the marks."""
        self.kind_T = self.kind_M[self.at_T]
        self.end_T = self.marks[self.at_T]
        self.last_L = np.flatnonzero(self.kind_T == _END)
        self.first_L = _after(self.last_L)
        self.count_L = self.last_L - self.first_L + 1
        """First and last token of each line, and how many it has."""
        self.begin_L = _after(self.end_T[self.last_L])

    def line(self, index: int) -> bytes:
        return self.bytes[self.begin_L[index] : self.end_T[self.last_L[index]]]

    def sizes_L(self) -> Ints:
        """Bytes of each line, its end included."""
        return self.end_T[self.last_L] + 1 - self.begin_L

    def marks_before(self, token: Ints) -> Ints:
        """How many marks the chunk has before these tokens begin."""
        return np.where(token > 0, self.at_T[token - 1] + 1, 0)

    def grammatical_L(self) -> Bools:
        """Lines that keep to the grammar, with the columns they must have, and letters in the group's index alone."""
        pair_M = self.kind_M.copy()
        pair_M[0] += 10 * _END
        pair_M[1:] += 10 * self.kind_M[:-1]
        digits_M = np.minimum(self.marks - _after(self.marks), 255).astype(np.uint8)
        pairs = pair_M.tobytes()  # bytes.translate looks up a byte faster than numpy does
        fewest_M, most_M = (np.frombuffer(pairs.translate(table), np.uint8) for table in (_FEWEST, _MOST))
        wrong_M = np.flatnonzero((digits_M < fewest_M) | (digits_M > most_M))
        head = len(self.shape.head)
        good_L: Bools = (self.count_L >= head + 3) & (self.sizes_L() <= LONGEST)
        good_L[np.searchsorted(self.at_T[self.last_L], wrong_M)] = False
        lines = np.flatnonzero(good_L)
        first = self.first_L[lines]
        field, group = first + head, first + head - 2
        in_order = (self.kind_T[field] == _TWO) & (self.kind_T[field - 1] == _COMMA)
        # By the grammar only commas and letters come before the first \x02.
        letters = self.marks_before(field) - self.marks_before(first) - head
        good_L[lines] = in_order & (letters == self.at_T[group] - self.marks_before(group))
        return good_L


class Features:
    """The features of the lines of a scan that `good_L` marks; of each line's delimiters the right number is there."""

    def __init__(self, scan: Scan, good_L: Bools) -> None:
        self.scan, self.shape = scan, scan.shape
        self.first_L = scan.first_L[good_L]
        field_T = scan.kind_T == _TWO
        if not good_L.all():
            field_T &= np.repeat(good_L, scan.count_L)
        self.field_F = np.flatnonzero(field_T)
        """Token of the field; id and weight are the next two."""
        self.number_L = (scan.count_L[good_L] - len(self.shape.head)) // 3
        self.code_F = self._codes()
        width = len(self.shape.fields) + 1
        cell_F = np.repeat(np.arange(0, len(self.first_L) * width, width), self.number_L)
        cell_F += np.minimum(self.code_F, width - 1)
        counts = np.bincount(cell_F, minlength=len(self.first_L) * width).reshape(-1, width)
        self.counts_LC, self.unknown_L = counts[:, :-1], counts[:, -1]
        """How often each line has each of the shape's fields, and others."""

    def _codes(self) -> NDArray[np.uint8]:
        """Position of each feature's field among the shape's fields, or _UNKNOWN; the grammar saw to its digits."""
        data, end_F = self.scan.data, self.scan.end_T[self.field_F]
        long_F = self.scan.kind_M[self.scan.at_T[self.field_F] - 1] == _LOW
        start_F = end_F - np.where(long_F, len("109_14"), len("101"))
        number_F = np.zeros(len(start_F), np.int16)
        for place in range(3):
            number_F = number_F * np.int16(10) + (data[start_F + place] - ord("0"))
        code_F = self._table(3)[number_F]
        rest = np.flatnonzero(long_F)
        is_14 = (data[end_F[rest] - 2] == ord("1")) & (data[end_F[rest] - 1] == ord("4"))
        code_F[rest] = np.where(is_14, self._table(6)[number_F[rest]], _UNKNOWN)
        return code_F

    def _table(self, size: int) -> NDArray[np.uint8]:
        """Code by the first three digits of a field's name, for names of this size."""
        table = np.full(1000, _UNKNOWN, np.uint8)
        for code, name in enumerate(self.shape.fields):
            if len(name) == size:
                table[int(name[:3])] = code
        return table

    def plain_L(self) -> Bools:
        """Good beyond doubt."""
        single = len(self.shape.single)
        required = self.shape.fields.index(self.shape.required)
        plain_L: Bools = (self.counts_LC[:, :single] <= 1).all(1) & (self.counts_LC[:, required] == 1)
        plain_L &= (self.unknown_L == 0) & self._plain_head()
        return plain_L

    def _plain_head(self) -> Bools:
        """feature_num is right, and the labels are 0 or 1."""
        scan, column = self.scan, {name: self.first_L + place for place, name in enumerate(self.shape.head)}
        number = column["feature_num"]
        start_L = scan.end_T[number - 1] + 1
        size_L = scan.end_T[number] - start_L
        good_L: Bools = size_L <= _LONG_COUNT
        value_L = np.zeros(len(good_L), np.int64)
        for place in range(_LONG_COUNT):
            inside = np.flatnonzero(good_L & (place < size_L))
            value_L[inside] = value_L[inside] * 10 + (scan.data[start_L[inside] + place] - ord("0"))
        good_L &= value_L == self.number_L
        for label in ("click", "buy"):
            if label in column:
                end_L = scan.end_T[column[label]]
                good_L &= (end_L - scan.end_T[column[label] - 1] == 2) & (scan.data[end_L - 1] <= ord("1"))
        return good_L


@dataclass(frozen=True)
class Parsed:
    """Columns of a chunk's good lines: `lines` are their numbers in it (from 0), `bags` lists of ids and of weights.

    A field that a line lacks is null.
    """

    lines: Ints
    head: dict[str, pa.Array]
    single: dict[str, pa.Array]
    bags: dict[str, tuple[pa.Array, pa.Array]]
    refused: tuple[Refused, ...]
    _scan: Scan

    @property
    def size(self) -> int:
        """Bytes of the good lines."""
        return len(self._scan.bytes)

    def text(self, row: int) -> bytes:
        """The line that a row was made from."""
        return self._scan.line(row)


def parse(data: bytes, shape: Shape) -> Parsed:
    """Columns of the lines of `data`, each of which ends with a newline; without columns if none is good."""
    scan = Scan(data, shape)
    lines = np.arange(len(scan.last_L))
    plain_L = scan.grammatical_L()
    features = Features(scan, plain_L)
    plain_L[plain_L] = features.plain_L()
    suspects = np.flatnonzero(~plain_L).tolist()
    judged = [(line, scan.line(line)) for line in suspects]
    refused = tuple(Refused(line, reason, text) for line, text in judged if (reason := judge(text, shape)))
    if refused:
        keep_L = np.ones(len(lines), np.bool_)
        keep_L[[each.line for each in refused]] = False
        lines = lines[keep_L]
        if not len(lines):
            return Parsed(lines, {}, {}, {}, refused, scan)
        scan = Scan(scan.data[np.repeat(keep_L, scan.sizes_L())].tobytes(), shape)
    if suspects:
        features = Features(scan, np.ones(len(lines), np.bool_))
    return _columns(features, lines, refused)


def _columns(features: Features, lines: Ints, refused: tuple[Refused, ...]) -> Parsed:
    """All lines of the scan are good."""
    scan, shape = features.scan, features.shape
    tokens = _tokens(scan)
    order = np.argsort(features.code_F, kind="stable")
    field_F = features.field_F[order]
    ids = _canonical(tokens.take(pa.array(field_F + 1)))
    edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(features.counts_LC.sum(0))])
    single, bags = {}, {}
    for code, name in enumerate(shape.fields):
        count_L = features.counts_LC[:, code]
        begin, end = int(edges[code]), int(edges[code + 1])
        mine = ids.slice(begin, end - begin)
        if name in shape.single:
            single[name] = mine if count_L.all() else mine.take(_positions(count_L))
        else:
            weights = pc.cast(tokens.take(pa.array(field_F[begin:end] + 2)), pa.float64())
            bags[name] = _lists(count_L, mine), _lists(count_L, weights)
    head = {name: tokens.take(pa.array(scan.first_L + column)) for column, name in enumerate(shape.head)}
    for label in ("click", "buy"):
        if label in head:
            head[label] = pc.cast(head[label], pa.int64())
    if "sample_id" in head:
        head["sample_id"] = _canonical(head["sample_id"])
    return Parsed(lines, head, single, bags, refused, scan)


def _tokens(scan: Scan) -> pa.Array:
    """What stands between the delimiters: the chunk without them, cut where they were."""
    text = scan.bytes.translate(None, b",\x01\x02\x03\n")
    offsets = np.zeros(len(scan.end_T) + 1, np.int32)
    offsets[1:] = scan.end_T - np.arange(len(scan.end_T))
    return pa.StringArray.from_buffers(len(scan.end_T), pa.py_buffer(offsets), pa.py_buffer(text))


def _canonical(ids: pa.Array) -> pa.Array:
    """Digits without leading zeros."""
    if not pc.any(pc.and_(pc.starts_with(ids, "0"), pc.greater(pc.binary_length(ids), 1))).as_py():
        return ids
    stripped = pc.ascii_ltrim(ids, "0")
    return pc.if_else(pc.equal(stripped, ""), "0", stripped)


def _positions(count_L: Ints) -> pa.Array:
    """Index of each line's value among the values, null where it has none."""
    return pa.array(np.cumsum(count_L) - 1, mask=count_L == 0)


def _lists(count_L: Ints, values: pa.Array) -> pa.Array:
    offsets = np.zeros(len(count_L) + 1, np.int32)
    np.cumsum(count_L, out=offsets[1:])
    return pa.ListArray.from_arrays(pa.array(offsets), values, mask=pa.array(count_L == 0))


def _after(end: Ints) -> Ints:
    """Where each of consecutive pieces begins, given the index of the delimiter that ends it."""
    begin = np.zeros_like(end)
    np.add(end[:-1], 1, out=begin[1:])
    return begin


def _ranges(begin: Ints, count: Ints) -> Ints:
    """begin[0], begin[0] + 1, ... (count[0] of them), begin[1], ... as one array."""
    before = np.cumsum(count) - count
    return np.repeat(begin - before, count) + np.arange(int(count.sum()))
