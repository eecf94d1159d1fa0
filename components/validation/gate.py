"""Whether the data may be trained on: a pure function from what was counted to a verdict with every reason.

The shares are of rows, per day (the log's `dt` partition) and over the whole log. No evidence means closed:
a log without rows, or one no set-wide expectation was run on, is not known to be good.
"""

from __future__ import annotations

from components.contracts.config import Config
from components.contracts.decision import GateResult
from components.validation.drift import DriftLimits
from components.validation.shares import exceeds, percent

DAYS_NAMED = 3
"""How many offending days a sentence names before it only counts the rest."""


class ValidationLimits(Config):
    """What the data gate tolerates (a recipe's `validation` part). Shares are between 0 and 1."""

    max_day_bad_share: float = 0.10
    max_day_funnel_share: float = 0.01
    max_total_bad_share: float = 0.05
    min_click_rate: float = 0.0
    """The click rate of the clean rows must lie strictly above this ..."""
    max_click_rate: float = 1.0
    """... and strictly below this."""
    min_train_conversions: int = 1
    min_test_conversions: int = 1
    max_id_length: int = 256
    max_position: int = 1000
    earliest: str = "1990-01-01T00:00:00Z"
    """An event before this is taken for a broken clock or a lost unit (seconds read as microseconds)."""
    max_missing_days: int = 0
    """Dates without a partition, between the log's first and last usable day, where the log is split by time."""
    max_refused_share: float = 0.05
    """Of the source's lines, those that the importer could not read."""
    max_view_age: float = 1.0
    """Age of a feature table's newest row at as-of, in times to live."""
    max_view_range_share: float = 0.0
    """Of a feature's rows, those outside its declared minimum and maximum."""
    drift: DriftLimits = DriftLimits()


class Day(Config):
    """Counts of one `dt` partition. `funnel` counts conversions without a click among the bad rows; `mostly` is the
    most frequent reason."""

    day: str
    rows: int
    bad: int
    funnel: int
    mostly: str = ""

    @property
    def bad_share(self) -> float:
        return self.bad / self.rows if self.rows else 0.0

    @property
    def funnel_share(self) -> float:
        return self.funnel / self.rows if self.rows else 0.0


class Evidence(Config):
    """What validation found. `set_checks` is how many set-wide expectations were evaluated; `failures` has one
    sentence for each of them that failed, and for each row rule that could not be evaluated."""

    days: tuple[Day, ...]
    set_checks: int
    failures: tuple[str, ...] = ()

    @property
    def rows(self) -> int:
        return sum(day.rows for day in self.days)

    @property
    def bad(self) -> int:
        return sum(day.bad for day in self.days)


class Verdict(Config):
    """Open only if every gate passed. `reasons` holds the sentence of each gate that did not."""

    open: bool
    gates: tuple[GateResult, ...]

    @property
    def reasons(self) -> tuple[str, ...]:
        return tuple(gate.reason for gate in self.gates if not gate.passed)


def decide(evidence: Evidence | None, limits: ValidationLimits) -> Verdict:
    """The data gate.

    Closed when a day's bad share exceeds `max_day_bad_share`, a day's conversions without click
    `max_day_funnel_share`, the whole log's bad share `max_total_bad_share`, when a set-wide expectation failed,
    or when there is nothing to decide on.
    """
    if evidence is None or evidence.set_checks == 0:
        reason = "nothing was measured, and no evidence means closed"
        return Verdict(open=False, gates=(GateResult(gate="evidence", passed=False, reason=reason),))
    gates = (
        _set_wide(evidence),
        _day_bad(evidence, limits.max_day_bad_share),
        _day_funnel(evidence, limits.max_day_funnel_share),
        _total(evidence, limits.max_total_bad_share),
    )
    return Verdict(open=all(gate.passed for gate in gates), gates=gates)


def _set_wide(evidence: Evidence) -> GateResult:
    failures = evidence.failures
    if evidence.rows == 0 and not failures:
        failures = ("the log has no rows",)
    return GateResult(
        gate="set-wide expectations",
        passed=not failures,
        reason="; ".join(failures) if failures else f"all {evidence.set_checks} set-wide expectations hold",
        evidence={"measured": len(failures), "limit": 0, "checks": evidence.set_checks},
    )


def _day_bad(evidence: Evidence, limit: float) -> GateResult:
    over = [day for day in evidence.days if exceeds(day.bad, day.rows, limit)]
    worst = max(evidence.days, key=lambda day: day.bad_share, default=None)
    return _by_day(
        "bad rows in a day", "bad", [(_where(day), day.rows, day.bad_share) for day in over], limit,
        (worst.day, worst.bad_share) if worst else None,
    )  # fmt: skip


def _where(day: Day) -> str:
    return f"{day.day} (mostly {day.mostly})" if day.mostly else day.day


def _day_funnel(evidence: Evidence, limit: float) -> GateResult:
    over = [day for day in evidence.days if exceeds(day.funnel, day.rows, limit)]
    worst = max(evidence.days, key=lambda day: day.funnel_share, default=None)
    return _by_day(
        "conversions without a click in a day", "conversions without a click",
        [(day.day, day.rows, day.funnel_share) for day in over], limit,
        (worst.day, worst.funnel_share) if worst else None,
    )  # fmt: skip


def _by_day(
    gate: str, what: str, over: list[tuple[str, int, float]], limit: float, worst: tuple[str, float] | None
) -> GateResult:
    over = sorted(over, key=lambda item: -item[2])
    day, share = worst or ("", 0.0)
    if over:
        named = ", ".join(f"{percent(s, limit)} of {rows:,} rows on {d}" for d, rows, s in over[:DAYS_NAMED])
        rest = len(over) - DAYS_NAMED
        more = f" and too many on {rest} other day{'s' * (rest > 1)}" if rest > 0 else ""
        reason = f"{named}{more} are {what} (limit {percent(limit)} a day)"
    else:
        reason = f"at worst {percent(share)} on {day} (limit {percent(limit)} a day)" if worst else "no day to measure"
    return GateResult(
        gate=gate, passed=not over, reason=reason, evidence={"measured": share, "limit": limit, "day": day}
    )


def _total(evidence: Evidence, limit: float) -> GateResult:
    closed = exceeds(evidence.bad, evidence.rows, limit)
    share = evidence.bad / evidence.rows if evidence.rows else 0.0
    return GateResult(
        gate="bad rows in the whole log",
        passed=not closed,
        reason=f"{percent(share, limit)} of all {evidence.rows:,} rows are bad (limit {percent(limit)})",
        evidence={"measured": share, "limit": limit},
    )
