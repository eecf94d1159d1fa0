"""How complete the labels are at as-of, and an estimate of the conversions still to be seen.

Of the mature impressions (all windows passed, whatever came of them) we know

    p_c, F   the share with a click in its window, and the distribution of impression -> click delays
    p_v, G   the share of those clicks with a conversion in its window, and that of click -> conversion delays

An immature impression is expected to go on as they did. One of age a that has no click yet will get one with
probability p_c (1 - F(a)) / (1 - p_c F(a)), by Bayes' rule (its click is one of those still to come, or it gets none),
and a conversion after it with probability p_v; one whose click is b old and has no conversion yet will get one with
probability p_v (1 - G(b)) / (1 - p_v G(b)). `to_come` is the sum over the immature impressions of a day.

Assumption: recent impressions are clicked and bought at the rates, and with the delays, of the mature ones. A sale on
the last day makes the estimate too low. (Known conversions divided by G, "chain ladder", would follow the sale, but
divides by nearly nothing where the last hours are all there is.) The estimate is shown to people; no row is chosen and
no label made by it.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.dataset import DatasetInfo
from components.contracts.quality import Maturity, MaturityDay

BINS = 1000
"""Delays and ages are counted in this many equal parts of their window: bounded memory, whatever the log."""
FINAL = "labels are final"

Floats = NDArray[np.float64]


def maturity(db: Any, info: DatasetInfo, readable: bool, as_of: datetime, late: tuple[int, int]) -> Maturity:
    """From what is visible at as-of in the view `placed` (ingest.py), before validation has judged on it.

    Args:
        db: connection with `placed`: the log with labels attributed, + fate and dt.
        readable: whether labels and their times have the types they must have.
        late: clicks and conversions after their windows, which became negatives.
    """
    if not info.has_label_times:
        return Maturity(basis=FINAL)
    if not readable:
        return Maturity(basis="no estimate: labels or their times are missing or of another type; validation says more")
    _known(db, as_of)
    days = db.execute(
        "SELECT dt, count(*), sum(immature), sum(click), sum(conversion) FROM known GROUP BY dt ORDER BY dt"
    )
    counted = days.fetchall()
    impressions, clicks, conversions = db.execute(
        "SELECT count(*), sum(click), sum(conversion) FROM known WHERE immature = 0"
    ).fetchone()
    median, p90 = db.execute(
        "SELECT quantile_cont(bought_after, 0.5), quantile_cont(bought_after, 0.9) FROM known WHERE immature = 0"
    ).fetchone()
    to_come: dict[str, float] = {}
    if clicks and conversions:
        to_come = _to_come(db, info, clicks / impressions, conversions / clicks)
        basis = (
            f"of {impressions:,} mature impressions {clicks / impressions:.2%} were clicked, of those clicks "
            f"{conversions / clicks:.2%} converted, within their windows; the others are expected to go on at these "
            "rates and with these delays"
        )
    else:
        basis = f"no estimate: the {impressions:,} mature impressions hold no conversion to estimate from"
    known, coming = sum(day[4] for day in counted), sum(to_come.values())
    return Maturity(
        days=tuple(
            MaturityDay(
                day=day, impressions=total, immature=immature, clicks=clicked, conversions=bought,
                to_come=to_come.get(day, 0.0),
            )
            for day, total, immature, clicked, bought in counted
        ),
        delay_median=None if median is None else median / 1e6,
        delay_p90=None if p90 is None else p90 / 1e6,
        late_clicks=late[0],
        late_conversions=late[1],
        share_to_come=coming / (known + coming) if clicks and conversions else None,
        basis=basis,
    )  # fmt: skip


def _known(db: Any, as_of: datetime) -> None:
    """View `known`: visible rows with what was known of them at as-of. Ages and delays in microseconds, null where
    there are none or where the row contradicts itself."""
    now = duck.instant(as_of)

    def between(later: str, earlier: str) -> str:
        return f"CASE WHEN {later} >= {earlier} THEN epoch_us({later}) - epoch_us({earlier}) END"

    db.execute(
        f"""CREATE VIEW known AS
        WITH seen AS (
            SELECT dt, fate, {c.EVENT_TIMESTAMP} AS shown, {c.CLICK_TIMESTAMP} AS clicked,
                {c.CONVERSION_TIMESTAMP} AS bought,
                coalesce({c.CLICK} = 1 AND coalesce({c.CLICK_TIMESTAMP} < {now}, true), false) AS click,
                coalesce({c.CONVERSION} = 1 AND coalesce({c.CONVERSION_TIMESTAMP} < {now}, true), false) AS conversion
            FROM placed WHERE fate <> 'invisible')
        SELECT dt, (fate = 'immature')::BIGINT AS immature, click::BIGINT AS click, conversion::BIGINT AS conversion,
            CASE WHEN click THEN {between("clicked", "shown")} END AS clicked_after,
            CASE WHEN conversion THEN {between("bought", "clicked")} END AS bought_after,
            CASE WHEN NOT click THEN {between(now, "shown")} END AS unclicked_for,
            CASE WHEN click AND NOT conversion THEN {between(now, "clicked")} END AS unbought_for
        FROM seen"""
    )


def _to_come(db: Any, info: DatasetInfo, p_click: float, p_conversion: float) -> dict[str, float]:
    """Expected conversions still to come, by day."""
    total: dict[str, float] = {}
    for age, delay, window, rate, then in (
        ("unclicked_for", "clicked_after", info.click_window_seconds, p_click, p_conversion),
        ("unbought_for", "bought_after", info.conversion_window_seconds, p_conversion, 1.0),
    ):
        width = max(1, round(window * 1e6))
        part = f"least(({{}}::HUGEINT * {BINS}) // {width}, {BINS - 1})::BIGINT"
        delays = db.execute(
            f"SELECT {part.format(delay)} AS part, count(*) FROM known WHERE immature = 0 AND {delay} IS NOT NULL "
            "GROUP BY part ORDER BY part"
        ).fetchall()
        ages = db.execute(
            f"SELECT dt, {part.format(age)} AS part, count(*) FROM known WHERE immature = 1 AND {age} < {width} "
            "GROUP BY dt, part ORDER BY dt, part"
        ).fetchall()
        chance = then * still_to_come(delays, rate)
        for day, number, rows in ages:
            total[day] = total.get(day, 0.0) + rows * float(chance[number])
    return total


def still_to_come(delays: Sequence[tuple[int, int]], rate: float) -> Floats:
    """Probability that the event still comes, by the part of the window that has passed without it: [BINS].

    Args:
        delays: (part of the window, how many events came in it), of impressions whose window has passed.
        rate: share of those impressions (or clicks) that had the event within the window.
    """
    counts = np.zeros(BINS)
    for number, count in delays:
        counts[number] = count
    # At the parts' edges: [BINS + 1].
    passed = np.concatenate([[0.0], np.cumsum(counts) / max(1.0, counts.sum())])
    chance = rate * (1 - passed) / np.maximum(1 - rate * passed, 1e-12)
    return np.asarray((chance[:-1] + chance[1:]) / 2, dtype=np.float64)
