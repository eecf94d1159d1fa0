"""What is known of the data's quality: found by ingestion and validation, shown by the report.

Travels in manifests under `quality` (clean, dataset) and `maturity` (impressions).
"""

from __future__ import annotations

import math

from components.contracts.config import Config
from components.contracts.dataset import Imported

MATURITY, QUALITY = "maturity", "quality"
PROFILE_JSON = "profile.json"
"""The profile of the usable rows (validation/profile.py), in the quarantine artifact and in the run's folder."""


class MaturityDay(Config):
    """One day of impressions. `immature` ones have label windows not yet passed at as-of; `conversions` are those known
    then, of all its impressions; `to_come` is an estimate of those still to be seen within the windows."""

    day: str
    impressions: int
    immature: int
    clicks: int
    conversions: int
    to_come: float


class Maturity(Config):
    """How complete the labels are at as-of. Delays are seconds from click to conversion, of mature impressions.

    `share_to_come` = sum of to_come / (known conversions + to_come), of all visible impressions; None where there is
    nothing to estimate from. `basis` says in a sentence how it was estimated, or why not.
    """

    days: tuple[MaturityDay, ...] = ()
    delay_median: float | None = None
    delay_p90: float | None = None
    late_clicks: int = 0
    late_conversions: int = 0
    share_to_come: float | None = None
    basis: str = ""


class DayQuality(Config):
    """One `dt` partition. A row with two reasons counts under both."""

    day: str
    rows: int
    bad: int
    reasons: dict[str, int] = {}


class Drift(Config):
    """One measure of the batch against the reference. `limit` and the figures are in the measure's own unit."""

    table: str
    column: str
    measure: str
    reference: float | None
    observed: float | None
    limit: float
    passed: bool
    says: str

    @property
    def relative(self) -> float:
        """How far it lies on the way from the reference to the limit: 0 where it has not moved, 1 at the limit, below 0
        where it moved to the side that has none. Infinite where nothing was observed and that is a failure."""
        if self.observed is None or self.limit == (self.reference or 0.0):
            return 0.0 if self.passed else math.inf
        start = self.reference or 0.0
        return (self.observed - start) / (self.limit - start)


class Quality(Config):
    """All of it. `reference` says which profile the batch was held against, or why none was."""

    days: tuple[DayQuality, ...] = ()
    drift: tuple[Drift, ...] = ()
    reference: str = ""
    maturity: Maturity | None = None
    imported: Imported | None = None
