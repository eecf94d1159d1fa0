"""The network: fused embedding tables, one bottom, towers. Every candidate is a config of it, not a branch.

Letters of shapes: B rows, I ids columns, W columns of bags among them, D numeric features, E width of what is embedded.

    ids [B, I] ─────┬─ tables ─── embedded [B, E] ── bottom ─┬── CTR tower ── ctr [B]
    weights [B, W] ─┘                   │                    │      ^ position: features of tower "ctr" enter here only
    dense [B, 2D] ──────────────────────┘                    ├── CVR tower ── cvr [B]
                                                             └── auxiliary tower ── auxiliary [B], of some losses

Where embeddings are not shared, the CVR tower has table rows of its own, and an auxiliary one reads those.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from components.training.bottoms import bottom_of
from components.training.config import CandidateConfig
from components.training.tables import Layout, Tables

LARGEST_RATIO = 0.99
"""DIVISION's ratio is cut here: log loss and serving want a probability. Nearer to 1 the float32 rounding of a ratio is
no small thing to its log odds, and a calibration that lowers them would show it."""


@dataclass(frozen=True)
class Outputs:
    """Logits as the towers give them, [B] each: what losses are made of. `auxiliary`: None where no loss wants one.

    Of most candidates `cvr` is the logit of pCVR; of OVERSAMPLING that of the oversampled rate, of DIVISION that of
    pCTCVR, with `auxiliary` the logit of a pCTR that does not see the position. `pcvr_logit` reads pCVR out of either.
    """

    ctr: Tensor
    cvr: Tensor
    auxiliary: Tensor | None = None


class Tower(nn.Module):
    """ReLU layers and a last one to a logit. [B, inputs] -> [B]."""

    def __init__(self, inputs: int, hidden: Sequence[int]) -> None:
        super().__init__()
        widths = [inputs, *hidden]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.hidden = nn.Sequential(*layers)
        self.last = nn.Linear(widths[-1], 1)

    def forward(self, x: Tensor) -> Tensor:
        # As a product and a sum, not a matrix product: autocast leaves those in float32, and a logit needs it.
        logit: Tensor = (self.hidden(x).float() * self.last.weight).sum(-1) + self.last.bias
        return logit


class FunnelNetwork(nn.Module):
    """pCTR and pCVR of an impression, as logits.

    Args:
        layout: which columns feed what.
        hidden: widths of each tower's hidden layers.
        shape: the candidate: whether the CVR tower reads the CTR tower's embeddings, which bottom, which towers.
        deviation: standard deviation of fresh embeddings; small, since Adagrad's first steps are large.
    """

    def __init__(self, layout: Layout, hidden: Sequence[int], shape: CandidateConfig, deviation: float = 0.01) -> None:
        super().__init__()
        self.shape = shape
        self.ctr_tables = Tables(layout.shared, deviation)
        self.cvr_tables = self.ctr_tables if shape.share_embeddings else Tables(layout.shared, deviation)
        self.position_tables = Tables(layout.ctr_only, deviation)
        self.register_buffer("dense_shared", torch.tensor(layout.dense_shared, dtype=torch.long), persistent=False)
        self.register_buffer("dense_ctr_only", torch.tensor(layout.dense_ctr_only, dtype=torch.long), persistent=False)
        self.bottom = bottom_of(
            shape.bottom, self.ctr_tables.width + len(layout.dense_shared), shape.experts, shape.expert_width
        )
        wide = self.bottom.width
        self.ctr_tower = Tower(wide + self.position_tables.width + len(layout.dense_ctr_only), hidden)
        self.cvr_tower = Tower(wide, hidden)
        self.auxiliary_tower = Tower(wide, hidden) if shape.has_auxiliary else None

    def forward(self, ids: Tensor, dense: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        """ids [B, I] of any integers, dense float32 [B, 2D], weights float32 [B, W] -> logits of (pCTR, pCVR), [B]."""
        outputs = self.outputs(ids, dense, weights)
        return outputs.ctr, self.pcvr_logit(outputs)

    def outputs(self, ids: Tensor, dense: Tensor, weights: Tensor) -> Outputs:
        """What the towers say, which is what a loss is made of; inputs as in `forward`."""
        return self.outputs_of([tables(ids, weights) for tables in self.embedded()], dense)

    def embedded(self) -> list[Tables]:
        """All tables once: the CTR tower's, the CVR tower's where they are others, the position's."""
        own = [] if self.shape.share_embeddings else [self.cvr_tables]
        return [self.ctr_tables, *own, self.position_tables]

    def outputs_of(self, parts: Sequence[list[Tensor]], dense: Tensor) -> Outputs:
        """From what each of `embedded` found, and dense float32 [B, 2D]: all of the network but its tables."""
        for_both, *for_cvr_alone, for_position = parts
        dense_shared = self._dense(dense, "dense_shared")
        for_ctr, for_cvr = self.bottom(_beside([*for_both, *dense_shared]))
        if for_cvr_alone:
            for_cvr = _beside([*for_cvr_alone[0], *dense_shared])
        return Outputs(
            self.ctr_tower(_beside([for_ctr, *for_position, *self._dense(dense, "dense_ctr_only")])),
            self.cvr_tower(for_cvr),
            self.auxiliary_tower(for_cvr) if self.auxiliary_tower is not None else None,
        )

    def pcvr_logit(self, outputs: Outputs) -> Tensor:
        """The logit of pCVR, [B], which what is served, evaluated and exported is made of."""
        if self.shape.cvr_loss == "oversampled":
            # Each conversion was seen k times, so the odds learnt are k times too high.
            return outputs.cvr - math.log(self.shape.oversampling)
        if self.shape.cvr_loss == "division":
            log_p = self.raw_ratio(outputs).clamp(max=math.log(LARGEST_RATIO))
            return log_p - torch.log(-torch.expm1(log_p))
        return outputs.cvr

    @staticmethod
    def raw_ratio(outputs: Outputs) -> Tensor:
        """DIVISION's log(pCTCVR / pCTR), [B], not cut at 1: what it ranks by."""
        assert outputs.auxiliary is not None
        return logsigmoid(outputs.cvr) - logsigmoid(outputs.auxiliary)

    def _dense(self, dense: Tensor, name: str) -> list[Tensor]:
        places = self.get_buffer(name)
        return [dense.index_select(1, places)] if places.numel() else []

    @torch.no_grad()
    def start_at(self, ctr: float, cvr: float) -> None:
        """Sets the last biases to the log-odds of what their towers predict on average: training starts calibrated.

        Args:
            ctr: share of impressions clicked. cvr: share of clicks converted. Both in (0, 1).
        """
        kind = self.shape.cvr_loss
        odds = cvr / (1 - cvr) * (self.shape.oversampling if kind == "oversampled" else 1)
        starts = {self.ctr_tower: ctr, self.cvr_tower: ctr * cvr if kind == "division" else odds / (1 + odds)}
        if self.auxiliary_tower is not None:
            # Of DIVISION a pCTR, of DCMT the probability of no conversion, of ESCM2-DR an error in nats.
            entropy = -cvr * math.log(cvr) - (1 - cvr) * math.log(1 - cvr)
            error = -math.expm1(-entropy)  # softplus(logit(1 - exp(-e))) = e
            starts[self.auxiliary_tower] = {"division": ctr, "dcmt": 1 - cvr}.get(kind, error)
        for tower, rate in starts.items():
            tower.last.bias.fill_(math.log(rate) - math.log1p(-rate))

    def embedding_parameters(self) -> list[nn.Parameter]:
        """Every table once, shared or not."""
        return [p for name, p in self.named_parameters() if ".tables." in name]

    def dense_parameters(self) -> list[nn.Parameter]:
        return [p for name, p in self.named_parameters() if ".tables." not in name]


def _beside(parts: list[Tensor]) -> Tensor:
    """[B, a], [B, b], ... -> [B, a + b + ...]; one alone is not copied.

    In autocast's dtype where that is on: it would cast once for every layer that reads this, and back again.
    """
    x = parts[0] if len(parts) == 1 else torch.cat(parts, 1)
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x
