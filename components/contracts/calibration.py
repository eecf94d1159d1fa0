"""How a model's pCVR was brought to what was observed: part of model.json, and of what its graph computes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from components.contracts.config import Config


class Calibration(Config):
    """A strictly increasing function of the logit of pCVR, so that it changes no order of pCVR.

    "none": the logit itself. "platt": `scale` * logit + `bias`. "isotonic": straight lines between `knots`, pairs of a
    logit and what it becomes, and beyond the first and last with slope `scale`.

    `clicks` and `conversions` are those it was fitted on: validation impressions that were clicked. `note` says why it
    is of this kind where the recipe left a choice or asked for another. A model.json of before there was calibration
    reads as "none".
    """

    kind: Literal["none", "platt", "isotonic"] = "none"
    scale: float = Field(1.0, gt=0)
    bias: float = 0.0
    knots: tuple[tuple[float, float], ...] = ()
    clicks: int = Field(0, ge=0)
    conversions: int = Field(0, ge=0)
    note: str = ""

    @model_validator(mode="after")
    def _is_one_increasing_function(self) -> Self:
        if self.kind == "none" and (self.scale, self.bias, self.knots) != (1.0, 0.0, ()):
            raise ValueError("calibration 'none' has no scale, bias or knots")
        if self.kind == "platt" and self.knots:
            raise ValueError("calibration 'platt' has no knots")
        if self.kind == "isotonic":
            if self.bias != 0 or len(self.knots) < 2:
                raise ValueError("calibration 'isotonic' has two knots or more, and no bias")
            if not all(a < c and b < d for (a, b), (c, d) in pairwise(self.knots)):
                raise ValueError("the knots of an isotonic calibration have to rise in both values")
        return self

    @property
    def function(self) -> dict[str, Any]:
        """What decides predictions, without what it was fitted on; {} where it changes nothing."""
        if self.kind == "none":
            return {}
        return self.model_dump(mode="json", include={"kind", "scale", "bias", "knots"})

    @property
    def parameters(self) -> str:
        """The function in words: `scale 0.931, bias -0.120`."""
        if self.kind == "platt":
            return f"scale {self.scale:.4g}, bias {self.bias:+.4g}"
        return f"{len(self.knots)} knots" if self.kind == "isotonic" else ""

    @property
    def fitted_on(self) -> str:
        return f"{self.clicks:,} clicked validation impressions ({self.conversions:,} conversions)"

    @property
    def says(self) -> str:
        """One sentence for reports, without a full stop."""
        note = f"; {self.note}" if self.note else ""
        if self.kind == "none":
            return f"pCVR is not calibrated{note}"
        name = {"platt": "Platt scaling", "isotonic": "isotonic regression"}[self.kind]
        return f"pCVR is calibrated by {name} ({self.parameters}), fitted on {self.fitted_on}{note}"
