"""Files in the raw Ali-CCP format, of any size, deterministic by seed: the set itself is no part of this project.

A made-up shop with the published files' shape. Items have a category, a shop, a brand and a few intention nodes; users
like some categories, shops, brands and nodes, and each group of impressions carries what they liked lately as weighted
bags (109_14, 110_14, 127_14, 150_14). Crosses (508, 509, 702, 853) are there when the item shown meets the bag. Clicks
and conversions follow quality of the item, what the user likes, and for clicks the position (301).
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Array = NDArray[np.float64]

USER_PROFILE = ("121", "122", "124", "125", "127", "128", "129")
CATEGORIES, SHOPS, BRANDS, NODES = 60, 400, 300, 500
FIRST = {"category": 4_500, "shop": 20_000, "brand": 3_600_000, "node": 3_880_000, "cross": 9_000_000}
_BLOCK = 100_000


@dataclass(frozen=True)
class Files:
    """How much to write. `click_rate` and `conversion_rate` (of clicks) are about what comes out.

    `funnel_errors` is the share of lines turned into click=0, buy=1; `dirty` the share of lines spoiled, each in one of
    the ways of `SPOILS`.
    """

    lines: int
    groups: int
    users: int = 0
    items: int = 2_000
    seed: int = 1
    click_rate: float = 0.04
    conversion_rate: float = 0.15
    funnel_errors: float = 0.0
    dirty: float = 0.0


@dataclass(frozen=True)
class Spoiled:
    """A spoiled line: which file, its number from 1, the reason for which it must be refused."""

    file: str
    line: int
    reason: str


SPOILS: dict[str, Callable[[bytes], bytes]] = {
    "EMPTY": lambda line: b"",
    "COLUMNS": lambda line: line.replace(b",", b";", 1),
    "NOT_UTF8": lambda line: line + b"\xff",
    "SEPARATOR": lambda line: line.replace(b"\x02", b":", 1),
    "FIELD": lambda line: line.replace(b"\x01", b"\x01999\x021\x031.0\x01", 1),
    "FEATURE_ID": lambda line: line.replace(b"\x02", b"\x02x", 1),
    "WEIGHT": lambda line: line.replace(b"\x03", b"\x03-", 1),
    "FEATURE_COUNT": lambda line: line[: line.rindex(b"\x01")],
}
"""Ways to spoil a line, by the reason for which it must then be refused; only the first kept applies to a line."""


def write(folder: Path, files: Files, split: str = "train") -> list[Spoiled]:
    """Writes sample_skeleton_<split>.csv and common_features_<split>.csv, grouped as the published files are.

    Splits of one seed have the same items and users, and other groups and impressions.
    """
    folder.mkdir(parents=True, exist_ok=True)
    world = _World(files)
    rng = np.random.default_rng([files.seed, 1, len(split)])
    user_G = rng.integers(0, world.users, files.groups)
    liked_G = world.liked[user_G]
    spoiled = []
    with (folder / f"common_features_{split}.csv").open("wb") as file:
        for begin in range(0, files.groups, _BLOCK):
            part = slice(begin, min(begin + _BLOCK, files.groups))
            text = _common_lines(world, rng, split, begin, user_G[part], liked_G[part])
            spoiled += _put(file, text, files, "common", split, begin)
    group_N = np.sort(rng.integers(0, files.groups, files.lines))
    with (folder / f"sample_skeleton_{split}.csv").open("wb") as file:
        for begin in range(0, files.lines, _BLOCK):
            group = group_N[begin : begin + _BLOCK]
            text = _skeleton_lines(world, rng, files, split, begin, group, liked_G[group])
            spoiled += _put(file, text, files, "skeleton", split, begin)
    return spoiled


class _World:
    """Items and users, the same for all splits of a seed."""

    def __init__(self, files: Files) -> None:
        rng = np.random.default_rng([files.seed, 0])
        self.users = files.users or max(1, int(files.groups * 0.8))
        self.category_I = rng.integers(0, CATEGORIES, files.items)
        self.shop_I = rng.integers(0, SHOPS, files.items)
        self.brand_I = rng.integers(0, BRANDS, files.items)
        self.nodes_I = rng.integers(0, NODES, (files.items, 3))
        self.quality_I = rng.normal(0, 0.6, files.items)
        self.value_I = rng.normal(0, 0.8, files.items)
        self.popular = np.cumsum(1 / np.arange(1, files.items + 1) ** 0.7)
        sizes = (CATEGORIES, SHOPS, BRANDS, NODES)
        self.liked = np.stack([rng.integers(0, size, (self.users, 4)) for size in sizes], axis=1)
        """[users, kinds, 4]: what each user likes of categories, shops, brands and nodes."""

    def items(self, rng: np.random.Generator, liked_N: Ints) -> Ints:
        """An item a line: popular ones, a third of them from a category that the user likes."""
        item = np.searchsorted(self.popular, rng.random(len(liked_N)) * self.popular[-1])
        order = np.argsort(self.category_I, kind="stable")
        edges = np.searchsorted(self.category_I[order], np.arange(CATEGORIES + 1))
        category = liked_N[np.arange(len(liked_N)), 0, rng.integers(0, 4, len(liked_N))]
        size = edges[category + 1] - edges[category]
        offset = np.minimum((rng.random(len(item)) * size).astype(np.int64), np.maximum(size - 1, 0))
        from_liked = (rng.random(len(item)) < 1 / 3) & (size > 0)
        liked: Ints = order[np.minimum(edges[category] + offset, len(order) - 1)]
        return np.where(from_liked, liked, item)


def _common_lines(
    world: _World, rng: np.random.Generator, split: str, begin: int, user_G: Ints, liked_G: Ints
) -> pa.Array:
    count = len(user_G)
    always = np.ones(count, np.bool_)
    parts = [_feature("101", user_G + 1, _ones(count), always)]
    for place, field in enumerate(USER_PROFILE):
        parts.append(_feature(field, 3_438_000 + place * 1000 + user_G % (7 + 3 * place), _ones(count), always))
    parts.append(_feature("126", 3_438_900 + user_G % 4, _ones(count), rng.random(count) < 0.3))
    for kind, (field, first) in enumerate(zip(("109_14", "110_14", "127_14", "150_14"), _kinds(), strict=True)):
        for place in range(4):
            there = rng.random(count) < (0.9, 0.75, 0.6, 0.45)[place]
            parts.append(_feature(field, first + liked_G[:, kind, place], _logs(rng, count), there))
    features, number = _joined(parts)
    return pc.binary_join_element_wise(_groups(split, begin + np.arange(count)), number, features, ",")


def _skeleton_lines(
    world: _World, rng: np.random.Generator, files: Files, split: str, begin: int, group_N: Ints, liked_N: Ints
) -> pa.Array:
    count = len(group_N)
    item = world.items(rng, liked_N)
    position = rng.integers(0, 4, count)
    ids = (world.category_I[item], world.shop_I[item], world.brand_I[item])
    meets = [(value[:, None] == liked_N[:, kind]).any(1) for kind, value in enumerate(ids)]
    nodes = world.nodes_I[item]
    meets.append((nodes[:, :1] == liked_N[:, 3]).any(1))
    likes = 0.9 * meets[0] + 0.5 * (meets[1] | meets[2] | meets[3])
    click = _drawn(rng, world.quality_I[item] + likes - 0.3 * position, files.click_rate)
    bought = click & _drawn(rng, world.value_I[item] + 1.2 * likes, files.conversion_rate, click)
    wrong = rng.random(count) < files.funnel_errors
    click, bought = click & ~wrong, bought | wrong
    always, ones = np.ones(count, np.bool_), _ones(count)
    parts = [_feature("205", 8_000_000 + item, ones, always)]
    for field, first, value in zip(("206", "207", "216"), _kinds(), ids, strict=False):
        parts.append(_feature(field, first + value, ones, always if field != "216" else rng.random(count) < 0.9))
    parts += [
        _feature("210", FIRST["node"] + nodes[:, k], ones, rng.random(count) < (1, 0.8, 0.6)[k]) for k in range(3)
    ]
    for kind, (field, meeting) in enumerate(zip(("508", "509", "702", "853"), meets, strict=True)):
        value = (*ids, nodes[:, 0])[kind]
        parts.append(_feature(field, FIRST["cross"] + 10_000 * kind + value, _logs(rng, count), meeting))
        for place, chance in enumerate(((0.9, 0.7), (0.8, 0.5), (0.7, 0.4), (0.3, 0.1))[kind]):
            other = (value + liked_N[:, kind, place]) % 10_000
            there = rng.random(count) < chance
            parts.append(_feature(field, FIRST["cross"] + 10_000 * kind + other, _logs(rng, count), there))
    parts.append(_feature("301", 9_351_665 + position, ones, always))
    features, number = _joined(parts)
    flags = np.array(["0", "1"])
    head = (
        pc.cast(pa.array(begin + 1 + np.arange(count)), pa.string()),
        *(pa.array(flags[f * 1]) for f in (click, bought)),
    )
    return pc.binary_join_element_wise(*head, _groups(split, group_N), number, features, ",")


def _drawn(rng: np.random.Generator, score: Array, rate: float, among: Any = True) -> NDArray[np.bool_]:
    """Coins with log-odds `score` plus a constant, chosen so that about `rate` of those `among` are heads."""
    chosen = score[np.broadcast_to(among, score.shape)]
    low, high = -12.0, 12.0
    for _ in range(40):
        middle = (low + high) / 2
        mean = float((1 / (1 + np.exp(-(chosen + middle)))).mean()) if len(chosen) else rate
        low, high = (middle, high) if mean < rate else (low, middle)
    return rng.random(len(score)) < 1 / (1 + np.exp(-(score + low)))


def _kinds() -> tuple[int, int, int, int]:
    return FIRST["category"], FIRST["shop"], FIRST["brand"], FIRST["node"]


def _ones(count: int) -> pa.Array:
    return pa.repeat("1.0", count)


_LOGS = pa.array([f"{value:.5f}".rstrip("0") for value in np.log(np.arange(2, 42))])


def _logs(rng: np.random.Generator, count: int) -> pa.Array:
    """Logarithms of counts, as the published weights are."""
    return _LOGS.take(pa.array(np.minimum(rng.geometric(0.25, count), len(_LOGS)) - 1))


def _feature(field: str, ids: Ints, weights: pa.Array, there: NDArray[np.bool_]) -> pa.Array:
    """A feature a line as text, null where it is not there."""
    text = pc.binary_join_element_wise(
        pc.binary_join_element_wise(field, pc.cast(pa.array(ids), pa.string()), "\x02"), weights, "\x03"
    )
    return pc.if_else(pa.array(there), text, pa.scalar(None, pa.string()))


def _joined(parts: list[pa.Array]) -> tuple[pa.Array, pa.Array]:
    """Each line's features joined, and how many they are."""
    number = np.sum([part.is_valid().to_numpy(zero_copy_only=False) for part in parts], axis=0)
    features = pc.binary_join_element_wise(*parts, "\x01", null_handling="skip")
    return features, pc.cast(pa.array(number), pa.string())


def _groups(split: str, number_N: Ints) -> pa.Array:
    """16 hexadecimal digits, different for every number: multiplication by an odd number permutes 64 bits."""
    salt = np.uint64(0x9E3779B97F4A7C15 if split == "train" else 0xD1B54A32D192ED03)
    distinct, index = np.unique(number_N, return_inverse=True)
    names = [f"{value:016x}" for value in (distinct.astype(np.uint64) * salt + np.uint64(1)).tolist()]
    return pa.array(names).take(pa.array(index))


def _put(file: Any, lines: pa.Array, files: Files, kind: str, split: str, begin: int) -> list[Spoiled]:
    """Writes the lines, some of them spoiled."""
    if not files.dirty:
        joined = pc.binary_join(pa.ListArray.from_arrays(pa.array([0, len(lines)], pa.int32()), lines), "\n")
        file.write(joined[0].as_buffer())
        file.write(b"\n")
        return []
    spoiled = []
    chance = random.Random(f"{files.seed} {kind} {split} {begin}")
    for number, text in enumerate(lines.to_pylist(), start=begin + 1):
        line = text.encode()
        if chance.random() < files.dirty:
            reason = chance.choice(sorted(SPOILS))
            line = SPOILS[reason](line)
            spoiled.append(Spoiled(f"{kind}_{split}", number, reason))
        file.write(line + b"\n")
    return spoiled
