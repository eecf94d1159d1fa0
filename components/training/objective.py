"""From a candidate's config to the loss of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from components.training import losses
from components.training.config import CandidateConfig
from components.training.data import Rows
from components.training.model import Outputs

DRAWING = ("random_negatives", "unbiased")
WEIGHTED = ("ips", "doubly_robust", "dcmt")


class Objective:
    """The loss of a candidate, nats: that of the CTR task plus that of its CVR task.

    Counts on the device, for the report, how many of the propensities that weigh a click were cut at the floor.
    """

    def __init__(self, candidate: CandidateConfig, device: torch.device) -> None:
        self.candidate = candidate
        self.draws = candidate.cvr_loss in DRAWING
        self.counts = torch.zeros(2, dtype=torch.float64, device=device)
        """Clicks whose propensity was cut, and all clicks."""

    def __call__(self, outputs: Outputs, rows: Rows, draw: Tensor | None = None) -> Tensor:
        """`draw`: uniform in [0, 1), [B], where `draws`. All of `outputs` in float32."""
        return losses.ctr_loss(outputs.ctr, rows.click) + self._cvr(outputs, rows, draw)

    def _cvr(self, outputs: Outputs, rows: Rows, draw: Tensor | None) -> Tensor:
        shape, b, y, z = self.candidate, outputs.cvr, rows.click, rows.conversion
        match shape.cvr_loss:
            case "clicked":
                return losses.clicked_cvr_loss(b, y, z)
            case "ctcvr":
                return losses.ctcvr_loss(outputs.ctr, b, z)
            case "oversampled":
                return losses.oversampled_loss(b, y, z, shape.oversampling)
            case "random_negatives":
                return losses.random_negatives_loss(b, y, z, _there(draw), shape.negative_rate)
            case "unbiased":
                return losses.unbiased_loss(outputs.ctr, b, y, z, _there(draw), shape.click_floor)
            case "division":
                return losses.division_loss(b, _there(outputs.auxiliary), y, z)
        return shape.counterfactual_weight * self._debiased(outputs, y, z) + shape.ctcvr_weight * losses.ctcvr_loss(
            outputs.ctr, b, z
        )

    def _debiased(self, outputs: Outputs, y: Tensor, z: Tensor) -> Tensor:
        shape, b = self.candidate, outputs.cvr
        seen = losses.propensity(outputs.ctr, shape.propensity_floor)
        self.counts += torch.stack([(y * (seen <= shape.propensity_floor)).sum(), y.sum()])
        match shape.cvr_loss:
            case "ips":
                return losses.ips_loss(b, y, z, seen)
            case "doubly_robust":
                return losses.doubly_robust_loss(b, _there(outputs.auxiliary), y, z, seen)
        return losses.dcmt_loss(b, _there(outputs.auxiliary), y, z, seen, shape.prior_weight)

    def report(self) -> dict[str, float]:
        """`propensity_clip_rate`: share of clicks so far whose propensity was cut; nothing for other losses."""
        if self.candidate.cvr_loss not in WEIGHTED:
            return {}
        cut, clicks = self.counts.tolist()
        return {"propensity_clip_rate": cut / max(clicks, 1.0)}


def _there(tensor: Tensor | None) -> Tensor:
    assert tensor is not None, "a tower or a draw that this loss needs was not given"
    return tensor
