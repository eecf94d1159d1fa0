"""Shares as text, and held against a limit."""

from __future__ import annotations


def percent(share: float, limit: float | None = None) -> str:
    """`12.3 %`, two significant digits below one percent; and as many as it takes to differ from the limit's text."""
    value = 100 * share
    text = f"{value:.1f} %" if value >= 1 or value == 0 else f"{value:.2g} %"
    if limit is None or share <= limit or text != percent(limit):
        return text
    return next(t for digits in range(2, 17) if (t := f"{value:.{digits}f} %") != f"{100 * limit:.{digits}f} %")


def exceeds(part: int, whole: int, limit: float) -> bool:
    """Whether part / whole is more than the limit; exactly the limit is allowed, whatever binary fractions say."""
    return part > limit * whole * (1 + 1e-12)
