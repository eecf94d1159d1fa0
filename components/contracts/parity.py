"""Features online against offline: what the parity stage found, as it stands in the run record and in the report."""

from __future__ import annotations

from components.contracts.config import Config

PARITY = "parity"
"""Name of the stage."""
GATE = "online_parity"
SCORE = "score"
"""What the rows of the three scores say in place of a view."""
EVENT_TIME = "(event time)"
"""What the row of a view's event times says in place of a feature."""


class Example(Config):
    """The first impression that differs. Values as text; "missing": null, expired, unknown, or an empty list."""

    impression_id: str
    at: str
    offline: str
    online: str

    @property
    def says(self) -> str:
        return f"{self.impression_id} at {self.at}: {self.offline} offline, {self.online} online"


class FeatureParity(Config):
    """One stored feature, one view's event times or one score over the sampled impressions.

    `share` = differing / checked. `at_expiry`: values that are missing online alone, in the last second of their time
    to live; they are explained and not among `differing`. `largest`: the largest difference of two numbers, or of two
    times in seconds; None where none of the differing were two numbers.
    """

    feature: str
    view: str
    checked: int
    differing: int
    share: float
    at_expiry: int = 0
    largest: float | None = None
    example: Example | None = None
