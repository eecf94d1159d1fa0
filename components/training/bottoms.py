"""What lies between the embeddings and the towers: one representation [B, E] in, one a task out.

"shared" hands on what it gets, as in ESMM. The others mix experts by gates, so that tasks that disagree can keep apart
(MMoE: Ma et al., "Modeling Task Relationships in Multi-task Learning with Multi-gate Mixture-of-Experts", KDD 2018;
PLE: Tang et al., "Progressive Layered Extraction", RecSys 2020, one extraction layer, as its CGC module).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

TASKS = 2
"""CTR and CVR, in this order. An auxiliary tower reads what the CVR tower reads."""


class Shared(nn.Module):
    """Both tasks read the embeddings themselves."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.width = inputs

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, E] -> (for CTR, for CVR), [B, E] each."""
        return x, x


class Experts(nn.Module):
    """`count` ReLU layers side by side, as one matrix product. [B, E] -> [B, count, width]."""

    def __init__(self, inputs: int, count: int, width: int) -> None:
        super().__init__()
        self.count, self.width = count, width
        self.layer = nn.Linear(inputs, count * width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.layer(x)).view(-1, self.count, self.width)


class Gate(nn.Module):
    """A softmax over experts from the input, and their sum by it. [B, E], [B, N, width] -> [B, width]."""

    def __init__(self, inputs: int, experts: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, experts)

    def forward(self, x: Tensor, experts: Tensor) -> Tensor:
        # The softmax in float32, whatever the products are in: in bfloat16 its shares do not add up to one.
        shares = torch.softmax(self.layer(x).float(), 1)
        return (experts * shares.unsqueeze(2)).sum(1)


class MMoE(nn.Module):
    """Every expert serves both tasks, each by a gate of its own."""

    def __init__(self, inputs: int, experts: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.experts = Experts(inputs, experts, width)
        self.gates = nn.ModuleList(Gate(inputs, experts) for _ in range(TASKS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, E] -> (for CTR, for CVR), [B, width] each."""
        found = self.experts(x)
        ctr, cvr = (gate(x, found) for gate in self.gates)
        return ctr, cvr


class PLE(nn.Module):
    """A task's gate sees its own experts and the common ones, never the other task's."""

    def __init__(self, inputs: int, experts: int, width: int) -> None:
        super().__init__()
        self.width = width
        self.common = Experts(inputs, experts, width)
        self.own = nn.ModuleList(Experts(inputs, experts, width) for _ in range(TASKS))
        self.gates = nn.ModuleList(Gate(inputs, 2 * experts) for _ in range(TASKS))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, E] -> (for CTR, for CVR), [B, width] each."""
        common = self.common(x)
        ctr, cvr = (gate(x, torch.cat([own(x), common], 1)) for own, gate in zip(self.own, self.gates, strict=True))
        return ctr, cvr


def bottom_of(kind: str, inputs: int, experts: int, width: int) -> Shared | MMoE | PLE:
    """The bottom named `kind`, of a CandidateConfig; without inputs there is nothing to mix."""
    if kind == "shared" or not inputs:
        return Shared(inputs)
    return MMoE(inputs, experts, width) if kind == "mmoe" else PLE(inputs, experts, width)
