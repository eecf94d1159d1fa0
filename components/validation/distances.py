"""How two columns' profiles are laid side by side, so that an expectation can judge the one by the other.

A profile names only a column's most frequent values, and a number's quantiles on a grid. What it does not name is taken
in the most favourable way that both profiles allow (`completed`); what lies within the grid, by a straight line.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np

from components.validation.profile import GRID, ColumnProfile, significant

REPEATED = 10_000
"""Rows of a frame in which categories are repeated in proportion to their shares."""
OTHERS = "all others"


def completed(batch: ColumnProfile, reference: ColumnProfile) -> tuple[dict[str, float], dict[str, float]]:
    """Shares of both over the same categories, the unnamed ones last, under one label.

    A profile does not name values rarer than its rarest named one: such a value has there a share between 0 and that,
    and all of them no more than `others` in total. The share closest to the other profile's is taken.
    """
    mine, my_others = _filled(batch, reference)
    theirs, their_others = _filled(reference, batch)
    label = OTHERS
    while label in mine:
        label += "…"
    order = sorted(mine, key=lambda value: (-theirs[value], -mine[value], value))
    return (
        {value: mine[value] for value in order} | {label: my_others},
        {value: theirs[value] for value in order} | {label: their_others},
    )


def _filled(profile: ColumnProfile, other: ColumnProfile) -> tuple[dict[str, float], float]:
    """The profile's shares with the other's categories added, and what is left for the unnamed."""
    rest = profile.others
    rarest = min([rest, *profile.categories.values()])
    shares = dict(profile.categories)
    for value, share in sorted(other.categories.items(), key=lambda item: (-item[1], item[0])):
        if value not in shares:
            shares[value] = min(share, rarest, rest)
            rest -= shares[value]
    return shares, max(0.0, rest)


def normal(shares: list[float]) -> list[float]:
    """Rounded shares made to sum to one."""
    total = sum(shares)
    return [share / total for share in shares]


def repeat(shares: Mapping[str, float]) -> list[str]:
    """Each category as often as its share of `REPEATED` says; what rounding leaves goes to the largest remainders."""
    exact = {value: REPEATED * share for value, share in zip(shares, normal(list(shares.values())), strict=True)}
    counts = {value: int(count) for value, count in exact.items()}
    by_remainder = sorted(exact, key=lambda value: (counts[value] - exact[value], value))
    for value in by_remainder[: REPEATED - sum(counts.values())]:
        counts[value] += 1
    return [value for value, count in counts.items() for _ in range(count)]


def quantile(share: float, quantiles: tuple[float, ...]) -> float | None:
    """The quantile at any share; None outside of (0, 1): a sample's smallest and largest value are no limits."""
    return float(np.interp(share, GRID, quantiles)) if 0 < share < 1 else None


def shift(p: float, value: float, quantiles: tuple[float, ...]) -> float:
    """Share of the reference's values between its own quantile at `p` and `value`, which is the batch's.

    It is at most s exactly if `value` lies between the reference's quantiles at p - s and p + s.
    """
    grid = np.asarray(quantiles)

    def below(side: Literal["left", "right"]) -> float:
        index = int(np.searchsorted(grid, value, side))
        if index in (0, len(grid)):
            return float(index > 0)
        low, high = grid[index - 1], grid[index]
        return GRID[index - 1] + (GRID[index] - GRID[index - 1]) * float((value - low) / (high - low))

    return significant(max(0.0, below("left") - p, p - below("right")))
