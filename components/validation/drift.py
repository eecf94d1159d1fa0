"""Drift: a run's data held against the profile of an earlier run that a person accepted (docs/drift.md).

Every rule is a Great Expectations expectation over a small frame made from the batch's profile, with limits made from
the reference's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from components.contracts.config import Config
from components.contracts.quality import Drift
from components.validation.distances import completed, normal, quantile, repeat, shift
from components.validation.profile import GRID, ColumnProfile, Profile, TableProfile, significant
from components.validation.runner import Checked, Outcome, Runner
from components.validation.shares import percent
from components.validation.suite import rule

CODE = "DRIFT"
NEW_CATEGORY = 0.001
"""Share that categories unknown to the reference are expected to make together: without one, any would be infinite."""
NAMED = 3
"""How many columns or categories a sentence names."""
INNER = GRID[1:-1]
NOTHING = TableProfile(rows=0)


class DriftLimits(Config):
    """How far a batch may lie from its reference (a recipe's `validation.drift` part). Shares are between 0 and 1."""

    max_kl: float = 0.2
    max_quantile_shift: float = 0.15
    max_null_change: float = 0.05
    click_rate_factor: float = 2.0
    conversion_rate_factor: float = 2.0
    volume_factor: float = 3.0
    min_values: int = 1000
    """Category shares and quantiles of fewer values, and null shares of fewer rows, in the batch or the reference, are
    not judged."""
    min_values_a_category: int = 50
    """Nor are category shares of fewer values for each category: chance alone moves them by categories / values."""
    min_events: int = 50
    """A rate of fewer clicks or conversions is not judged."""


CATEGORY_SHARES, QUANTILES, NULL_SHARE = "category shares", "quantiles", "null share"
CLICK_RATE, CONVERSION_RATE = "click rate", "conversion rate"
BUSIEST, QUIETEST = "busiest day", "quietest day"
MEASURES: dict[str, tuple[str, str, str]] = {
    CATEGORY_SHARES: (
        "strings, bools, bags, and ints of at most 50 different values",
        "Kullback-Leibler divergence of the batch's shares from the reference's, in nats",
        "max_kl",
    ),
    QUANTILES: (
        "ints, floats, weights of bags",
        "share of the reference's values that a quantile of the batch (0.05, 0.10 ... 0.95) has moved past, the worst",
        "max_quantile_shift",
    ),
    NULL_SHARE: ("every column", "difference of the shares, either way", "max_null_change"),
    CLICK_RATE: ("the log", "clicks by impressions, a factor either way", "click_rate_factor"),
    CONVERSION_RATE: ("the log", "conversions by clicks, a factor either way", "conversion_rate_factor"),
    BUSIEST: ("the log", "impressions of the busiest day, a factor above the reference's busiest", "volume_factor"),
    QUIETEST: (
        "the log",
        "impressions of the quietest whole day, a factor below the reference's quietest",
        "volume_factor",
    ),
}
"""Measure -> of what, what is compared, name of its limit."""


def measures_table() -> list[tuple[str, str, str, str]]:
    """(measure, of what, what is compared, limit with its default) for the documentation."""
    limits = DriftLimits()
    return [(name, of, says, f"`{key}` {getattr(limits, key):g}") for name, (of, says, key) in MEASURES.items()]


@dataclass(frozen=True)
class Measure:
    """A measure to be judged by an expectation over its suite's frame. `observed` None: what the expectation finds.
    `says` tells what moved from what to what; {found} stands for what was found."""

    table: str
    column: str
    measure: str
    reference: float
    observed: float | None
    limit: float
    says: str
    expectation: Any

    def judged(self, outcome: Outcome) -> Drift:
        found = float(outcome.observed) if self.observed is None and outcome.observed else self.observed
        return Drift(
            table=self.table, column=self.column, measure=self.measure, reference=self.reference, observed=found,
            limit=significant(self.limit), passed=outcome.status == "passed",
            says=self.says.replace("{found}", outcome.observed or "nothing that can be computed", 1),
        )  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """One column in both profiles."""

    table: str
    column: str
    batch: ColumnProfile
    reference: ColumnProfile
    rows: int
    """Of the smaller of the two tables."""

    @property
    def place(self) -> str:
        return f"{self.table}.{self.column}"

    @property
    def values(self) -> int:
        return min(self.batch.values, self.reference.values)


Suite = tuple[Any, list[Measure]]
"""A pandas frame, and the measures whose expectations are run over it."""


@dataclass
class Comparison:
    """What the suites are made from. `skipped` collects what cannot be judged, by the reason why."""

    batch: Profile
    reference: Profile
    limits: DriftLimits
    skipped: dict[str, list[str]] = field(default_factory=dict)

    def skip(self, why: str, what: str) -> None:
        names = self.skipped.setdefault(why, [])
        if what not in names:
            names.append(what)

    def pairs(self) -> list[Pair]:
        """Every column that both profiles have, the log's first."""
        found = []
        tables, others = self.batch.tables, self.reference.tables
        for table in sorted({*tables, *others}, key=lambda name: (name != "log", name)):
            batch, reference = tables.get(table, NOTHING), others.get(table, NOTHING)
            mine, theirs = batch.columns, reference.columns
            for column in sorted({*mine, *theirs}):
                if column in mine and column in theirs:
                    rows = min(batch.rows, reference.rows)
                    found.append(Pair(table, column, mine[column], theirs[column], rows))
                else:
                    self.skip("new since the reference" if column in mine else "no longer read", f"{table}.{column}")
        return found

    def enough(self, pair: Pair, of: int) -> bool:
        """Whether there are values or rows enough for shares of them to mean something."""
        least = self.limits.min_values
        if of < least:
            self.skip(f"fewer than {least:,} values", pair.place)
        return of >= least

    def enough_each(self, pair: Pair) -> bool:
        """The same for the shares of categories."""
        least = self.limits.min_values_a_category
        categories = max(len(pair.batch.categories), len(pair.reference.categories))
        if not self.enough(pair, pair.values):
            return False
        if pair.values < least * categories:
            self.skip(f"fewer than {least:,} values a category", pair.place)
        return pair.values >= least * categories


def check(
    runner: Runner, batch: Profile, reference: Profile | None, limits: DriftLimits
) -> tuple[list[Checked], tuple[Drift, ...], str]:
    """Holds `batch` against `reference`.

    Returns:
        The suites as run, each measure taken, and a sentence: which reference it was, or why nothing was judged.
    """
    remedy = (
        "accept a good run's profile with `esmm profile accept RUN --out FILE`, "
        "then give it to runs with `esmm run --reference FILE`"
    )
    if reference is None:
        return [], (), f"drift was not judged, for want of a reference: {remedy}"
    origin = f"the profile of run {reference.run or '(unknown)'}, as of {reference.as_of}"
    # A file that grows holds the reference's days too; only the same file up to the same moment is the same data.
    if (reference.data_fingerprint, reference.as_of) == (batch.data_fingerprint, batch.as_of):
        said = f"drift was not judged: {origin}, was taken of this very data, which says nothing about itself"
        return [], (), f"{said}; {remedy}"
    comparison = Comparison(batch, reference, limits)
    pairs = comparison.pairs()
    suites = {
        "category shares": _categories(comparison, pairs),
        "quantiles": _quantiles(comparison, pairs),
        "null shares": _nulls(comparison, pairs),
        "rates": _rates(comparison),
        "volume by day": _volume(comparison),
    }
    checked: list[Checked] = []
    found: list[Drift] = []
    for name, (frame, measures) in suites.items():
        if measures:
            done = runner.check(f"drift: {name}", frame, [m.expectation for m in measures], set(frame.columns))
            checked.append(done)
            found += [measure.judged(outcome) for measure, outcome in zip(measures, done.outcomes, strict=True)]
    return checked, tuple(found), _sentence(origin, found, comparison.skipped)


def _sentence(origin: str, found: list[Drift], skipped: Mapping[str, list[str]]) -> str:
    beyond = sum(not drift.passed for drift in found)
    if not found:
        held = "nothing in it can be compared"
    elif beyond:
        held = f"{beyond} of {len(found)} measures {'are' if beyond > 1 else 'is'} beyond the limit"
    else:
        held = f"all {len(found)} measures are within their limits"
    left = [f"not judged, {why}: {_listed(names)}" for why, names in skipped.items()]
    return "; ".join([f"held against {origin}: {held}", *left])


def _listed(names: list[str]) -> str:
    rest = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {rest} more" if rest > 0 else "")


def _categories(comparison: Comparison, pairs: list[Pair]) -> Suite:
    import pandas as pd

    limit = comparison.limits.max_kl
    frame: dict[str, list[str]] = {}
    measures = []
    for pair in pairs:
        if not (pair.batch.has_categories and pair.reference.has_categories and comparison.enough_each(pair)):
            continue
        observed, expected = completed(pair.batch, pair.reference)
        frame[pair.place] = repeat(observed)
        known = {value: share for value, share in expected.items() if share > 0}
        says = (
            f"category shares of {pair.place} moved by {{found}} nats (limit {limit:g}): {_moved(observed, expected)}"
        )
        expectation = rule(
            "ColumnKLDivergenceToBeLessThan", CODE, f"the category shares of {pair.place} are like the reference's",
            broken=says, column=pair.place, threshold=limit, tail_weight_holdout=NEW_CATEGORY,
            partition_object={"values": list(known), "weights": normal(list(known.values()))},
        )  # fmt: skip
        measures.append(Measure(pair.table, pair.column, CATEGORY_SHARES, 0.0, None, limit, says, expectation))
    return pd.DataFrame(frame), measures


def _moved(observed: Mapping[str, float], expected: Mapping[str, float]) -> str:
    """The categories that moved most, from what to what."""
    by_change = sorted(observed, key=lambda value: (-abs(observed[value] - expected[value]), value))
    return ", ".join(f"{v!r} from {percent(expected[v])} to {percent(observed[v])}" for v in by_change[:NAMED])


def _quantiles(comparison: Comparison, pairs: list[Pair]) -> Suite:
    import pandas as pd

    limit = comparison.limits.max_quantile_shift
    frame: dict[str, tuple[float, ...]] = {}
    measures = []
    for pair in pairs:
        now, was = pair.batch.quantiles, pair.reference.quantiles
        if not (now and was and comparison.enough(pair, pair.values)):
            continue
        frame[pair.place] = now
        moved = {number: shift(p, now[number], was) for number, p in enumerate(GRID) if p in INNER}
        worst = max(moved, key=lambda number: moved[number])
        says = (
            f"the {GRID[worst]:g} quantile of {pair.place} moved from {was[worst]:g} to {now[worst]:g}, past "
            f"{percent(moved[worst], limit)} of the reference's values (limit {percent(limit)})"
        )
        ranges = {
            "quantiles": list(INNER),
            "value_ranges": [[quantile(p - limit, was), quantile(p + limit, was)] for p in INNER],
        }
        expectation = rule(
            "ColumnQuantileValuesToBeBetween", CODE, f"the quantiles of {pair.place} are like the reference's",
            broken=says, column=pair.place, quantile_ranges=ranges,
        )  # fmt: skip
        measures.append(Measure(pair.table, pair.column, QUANTILES, 0.0, moved[worst], limit, says, expectation))
    return pd.DataFrame(frame), measures


def _nulls(comparison: Comparison, pairs: list[Pair]) -> Suite:
    import pandas as pd

    change = comparison.limits.max_null_change
    within = f"{100 * change:g} percentage points"
    pairs = [pair for pair in pairs if comparison.enough(pair, pair.rows)]
    measures = [
        _share(pair.table, pair.column, NULL_SHARE, pair.place, pair.reference.nulls, pair.batch.nulls,
               (pair.reference.nulls - change, pair.reference.nulls + change), within)
        for pair in pairs
    ]  # fmt: skip
    return pd.DataFrame({pair.place: [pair.batch.nulls] for pair in pairs}), measures


def _share(
    table: str, column: str, measure: str, place: str, was: float, now: float, limits: tuple[float, float], within: str
) -> Measure:
    """A share held between two limits around the reference's; `place` is its column in the frame."""
    what = f"{measure} of {place}" if column else measure
    says = f"the {what} moved from {percent(was)} to {percent(now)} (limit {within})"
    expectation = rule(
        "ColumnMeanToBeBetween", CODE, f"the {what} is within {within} of the reference's", broken=says,
        column=place, min_value=limits[0], max_value=limits[1],
    )  # fmt: skip
    return Measure(table, column, measure, was, now, limits[1] if now >= was else limits[0], says, expectation)


def _rates(comparison: Comparison) -> Suite:
    """A rate is judged where the reference has events enough, and the batch has, or should have, as many."""
    import pandas as pd

    limits = comparison.limits
    frame: dict[str, list[float]] = {}
    measures = []
    for name, event, base, factor in (
        (CLICK_RATE, "clicks", "rows", limits.click_rate_factor),
        (CONVERSION_RATE, "conversions", "clicks", limits.conversion_rate_factor),
    ):
        now, of_now = _total(comparison.batch, event), _total(comparison.batch, base)
        before, of_before = _total(comparison.reference, event), _total(comparison.reference, base)
        was = before / of_before if of_before else 0.0
        if before < limits.min_events or max(now, was * of_now) < limits.min_events:
            comparison.skip(f"fewer than {limits.min_events:,} {event}", name)
            continue
        frame[name] = [now / of_now]
        within = f"a factor of {factor:g}"
        measures.append(
            _share("log", "", name, name, significant(was), significant(now / of_now), (was / factor, was * factor),
                   within)
        )  # fmt: skip
    return pd.DataFrame(frame), measures


def _total(profile: Profile, count: str) -> int:
    return sum(getattr(day, count) for day in profile.days.values())


def _volume(comparison: Comparison) -> Suite:
    """Days that the log's ends may have cut are held against the upper limit alone."""
    import pandas as pd

    batch, reference, factor = comparison.batch.days, comparison.reference.days, comparison.limits.volume_factor
    frame: dict[str, list[float | None]] = {}
    measures = []
    for measure, kind, bound, choose in (
        (BUSIEST, "ColumnMaxToBeBetween", "max_value", max),
        (QUIETEST, "ColumnMinToBeBetween", "min_value", min),
    ):
        whole = measure == QUIETEST
        mine = {name: day.volume for name, day in batch.items() if not (whole and day.partial)}
        theirs = [day.volume for day in reference.values() if not (whole and day.partial)]
        if not mine or not theirs:
            comparison.skip("no whole day to compare", measure)
            continue
        name = choose(mine, key=lambda day: mine[day])
        now, was = mine[name], choose(theirs)
        limit = was / factor if whole else was * factor
        says = (
            f"the {measure}, {name}, has {now:,} impressions and the reference's {was:,} (limit a factor of {factor:g} "
            f"{'below' if whole else 'above'})"
        )
        bounds: dict[str, Any] = {bound: limit}
        frame[measure] = [float(mine[day]) if day in mine else None for day in batch]
        expectation = rule(
            kind, CODE, f"the {measure} is within a factor of {factor:g} of the reference's", broken=says,
            column=measure, **bounds,
        )  # fmt: skip
        measures.append(Measure("log", "", measure, float(was), float(now), limit, says, expectation))
    return pd.DataFrame(frame), measures
