"""Each CVR loss of the family: by hand on a tiny case, by finite differences in float64, blind to its propensity."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from components.contracts.errors import UsageError
from components.training import losses
from components.training.config import CANDIDATES, CandidateConfig
from components.training.data import Rows
from components.training.model import Outputs
from components.training.objective import Objective

CPU = torch.device("cpu")
Y = torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64)
Z = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
A = torch.tensor([0.5, -1.0, 2.0, -6.0], dtype=torch.float64)
B = torch.tensor([-0.3, 0.7, 1.5, -2.0], dtype=torch.float64)
C = torch.tensor([0.2, -0.4, 0.9, 1.1], dtype=torch.float64)
DRAW = torch.tensor([0.9, 0.05, 0.05, 0.5], dtype=torch.float64)
FLOOR = 0.1


def s(x: Tensor | float) -> Any:
    return 1 / (1 + math.exp(-float(x)))


def cross(z: float, p: float) -> float:
    return -math.log(p if z else 1 - p)


CLICKED = [cross(1, s(-0.3)), cross(0, s(0.7))]
SEEN = [s(0.5), s(-1.0), 0.88079707797, FLOOR]
"""The last is cut: s(-6) = 0.0025."""

BY_HAND: dict[str, tuple[Callable[[], Tensor], float]] = {
    "clicked": (lambda: losses.clicked_cvr_loss(B, Y, Z), sum(CLICKED) / 2),
    "random_negatives": (
        # Row 3 is drawn (0.05 < 0.1), row 4 is not.
        lambda: losses.random_negatives_loss(B, Y, Z, DRAW, 0.1),
        (sum(CLICKED) + cross(0, s(1.5))) / 3,
    ),
    "oversampled": (lambda: losses.oversampled_loss(B, Y, Z, 3), (3 * CLICKED[0] + CLICKED[1]) / 4),
    "unbiased": (
        # Kept with probability 0.3 / s(0.5) = 0.48 < 0.9: out; and 0.3 / s(-1) > 1: in.
        lambda: losses.unbiased_loss(A, B, Y, Z, DRAW, 0.3),
        CLICKED[1],
    ),
    "division": (
        lambda: losses.division_loss(B, C, Y, Z),
        (cross(1, s(-0.3)) + cross(0, s(0.7)) + cross(0, s(1.5)) + cross(0, s(-2))) / 4
        + (cross(1, s(0.2)) + cross(1, s(-0.4)) + cross(0, s(0.9)) + cross(0, s(1.1))) / 4,
    ),
    "ips": (
        lambda: losses.ips_loss(B, Y, Z, losses.propensity(A, FLOOR)),
        (CLICKED[0] / SEEN[0] + CLICKED[1] / SEEN[1]) / 4,
    ),
    "doubly_robust": (
        lambda: losses.doubly_robust_loss(B, C, Y, Z, losses.propensity(A, FLOOR)),
        sum(
            math.log1p(math.exp(float(c))) + (((e - d) + (e - d) ** 2) / seen if y else 0)
            for c, y, e, seen in zip(C, Y, [*CLICKED, 0, 0], SEEN, strict=True)
            for d in [math.log1p(math.exp(float(c)))]
        )
        / 4,
    ),
    "dcmt": (
        lambda: losses.dcmt_loss(B, C, Y, Z, losses.propensity(A, FLOOR), 0.2),
        (CLICKED[0] / SEEN[0] + CLICKED[1] / SEEN[1]) / (1 / SEEN[0] + 1 / SEEN[1])
        + (cross(1, s(0.9)) / (1 - SEEN[2]) + cross(1, s(1.1)) / (1 - SEEN[3]))
        / (1 / (1 - SEEN[2]) + 1 / (1 - SEEN[3]))
        + 0.2 * sum(abs(1 - s(b) - s(c)) for b, c in zip(B, C, strict=True)) / 4,
    ),
}


@pytest.mark.parametrize("name", BY_HAND)
def test_value_worked_out_by_hand(name: str) -> None:
    found, wanted = BY_HAND[name]
    assert found().item() == pytest.approx(wanted, rel=1e-9)


def rows(y: Tensor = Y, z: Tensor = Z) -> Rows:
    nothing = torch.zeros(len(y), 0)
    return Rows(nothing, nothing, nothing, y, z)


@pytest.mark.parametrize("name", CANDIDATES)
def test_gradient_of_every_candidate_by_finite_differences_with_what_is_detached_held_constant(name: str) -> None:
    shape = CANDIDATES[name].model_copy(update={"propensity_floor": FLOOR, "negative_rate": 0.4, "click_floor": 0.3})
    objective = Objective(shape, CPU)
    inputs = [x.clone().requires_grad_() for x in (A, B, C)]
    objective(Outputs(*inputs), rows(), DRAW).backward()

    held: dict[str, Tensor] = {}
    with torch.no_grad():
        # What the losses detach, as constants: the propensity, what was kept by it, and the loss that is imputed.
        held["seen"] = losses.propensity(A, FLOOR)
        held["kept"] = (DRAW * torch.sigmoid(A) < 0.3).to(Y)
        held["loss"] = torch.nn.functional.binary_cross_entropy_with_logits(B, Z, reduction="none")

    def value(a: Tensor, b: Tensor, c: Tensor) -> float:
        return float(losses.ctr_loss(a, Y) + reference(shape, a, b, c, held))

    step = 1e-6
    for n, given in enumerate(inputs):
        for row in range(4):
            moved = []
            for sign in (1, -1):
                changed = [x.clone() for x in (A, B, C)]
                changed[n][row] += sign * step
                moved.append(value(*changed))
            numeric = (moved[0] - moved[1]) / (2 * step)
            analytic = float(given.grad[row]) if given.grad is not None else 0.0
            assert analytic == pytest.approx(numeric, abs=1e-8, rel=1e-6), (n, row)


def reference(shape: CandidateConfig, a: Tensor, b: Tensor, c: Tensor, held: dict[str, Tensor]) -> Tensor:
    """The CVR part of a candidate's loss, written anew on probabilities, from constants where the loss detaches."""
    p, q, d = torch.sigmoid(a), torch.sigmoid(b), torch.sigmoid(c)
    each = -(Z * q.log() + (1 - Z) * (1 - q).log())
    ctcvr = -(Z * (p * q).log() + (1 - Z) * (1 - p * q).log()).mean()
    seen = held["seen"]
    match shape.cvr_loss:
        case "clicked":
            return (each * Y).sum() / Y.sum()
        case "random_negatives":
            chosen = torch.maximum(Y, (shape.negative_rate > DRAW).to(Y))
            return (each * chosen).sum() / chosen.sum()
        case "oversampled":
            weight = Y + Y * Z * (shape.oversampling - 1)
            return (each * weight).sum() / weight.sum()
        case "unbiased":
            return (each * Y * held["kept"]).sum() / (Y * held["kept"]).sum()
        case "division":
            return -(Z * q.log() + (1 - Z) * (1 - q).log()).mean() - (Y * d.log() + (1 - Y) * (1 - d).log()).mean()
        case "ctcvr":
            return ctcvr
        case "ips":
            return (Y * each / seen).mean() + ctcvr
        case "doubly_robust":
            imputed = torch.log1p(c.exp())
            risk = imputed + Y * (each - imputed) / seen
            return (risk + Y * (held["loss"] - imputed) ** 2 / seen).mean() + ctcvr
    one, other = Y / seen, (1 - Y) / (1 - seen)
    counter = -((1 - Z) * d.log() + Z * (1 - d).log())
    prior = shape.prior_weight * (1 - q - d).abs().mean()
    return (one * each).sum() / one.sum() + (other * counter).sum() / other.sum() + prior + ctcvr


@pytest.mark.parametrize(
    "loss",
    [
        lambda a, b, c: losses.unbiased_loss(a, b, Y, Z, DRAW, 0.3),
        lambda a, b, c: losses.ips_loss(b, Y, Z, losses.propensity(a, FLOOR)),
        lambda a, b, c: losses.doubly_robust_loss(b, c, Y, Z, losses.propensity(a, FLOOR)),
        lambda a, b, c: losses.dcmt_loss(b, c, Y, Z, losses.propensity(a, FLOOR), 0.1),
    ],
    ids=["unbias", "ips", "dr", "dcmt"],
)
def test_a_cvr_loss_sends_nothing_through_the_propensity(loss: Callable[..., Tensor]) -> None:
    a, b, c = (x.clone().requires_grad_() for x in (A, B, C))
    loss(a, b, c).backward()
    assert a.grad is None
    assert b.grad.abs().sum() > 0


def test_the_imputation_loss_does_not_reach_the_cvr_tower() -> None:
    """So the gradient in b of doubly robust is that of IPS, whatever was imputed."""
    found = []
    for loss in (
        lambda b, seen: losses.ips_loss(b, Y, Z, seen),
        lambda b, seen: losses.doubly_robust_loss(b, C, Y, Z, seen),
    ):
        b = B.clone().requires_grad_()
        loss(b, losses.propensity(A, FLOOR)).backward()
        found.append(b.grad)
    assert torch.allclose(*found)


def test_ips_and_doubly_robust_average_over_clicks_to_the_mean_over_all_impressions() -> None:
    """Over every outcome of the clicks, weighted by its probability, with the propensity true: exactly the naive mean
    over all rows, which clicks alone do not give."""
    p = torch.sigmoid(torch.tensor([1.0, -1.0, 0.0], dtype=torch.float64))
    b, z = torch.tensor([3.0, -1.0, 0.5], dtype=torch.float64), torch.tensor([0.0, 1.0, 1.0], dtype=torch.float64)
    each = torch.nn.functional.binary_cross_entropy_with_logits(b, z, reduction="none")
    ips = clicked = 0.0
    for outcome in range(8):
        y = torch.tensor([float(outcome >> n & 1) for n in range(3)], dtype=torch.float64)
        chance = float((y * p + (1 - y) * (1 - p)).prod())
        ips += chance * float(losses.ips_loss(b, y, z, p))
        clicked += chance * float(losses.clicked_cvr_loss(b, y, z))
    assert ips == pytest.approx(float(each.mean()), rel=1e-12)
    assert abs(clicked - float(each.mean())) > 0.05


@pytest.mark.parametrize("name", CANDIDATES)
def test_batches_without_a_click_or_a_conversion_are_finite(name: str) -> None:
    objective = Objective(CANDIDATES[name], CPU)
    zero = torch.zeros(4, dtype=torch.float64)
    for y, z in ((zero, zero), (torch.ones_like(zero), zero), (torch.ones_like(zero), torch.ones_like(zero))):
        inputs = [(30 * x).clone().requires_grad_() for x in (A, B, C)]
        loss = objective(Outputs(*inputs), rows(y, z), DRAW)
        loss.backward()
        assert torch.isfinite(loss)
        assert all(x.grad is None or torch.isfinite(x.grad).all() for x in inputs)


def test_the_clip_rate_counts_clicks_whose_propensity_was_cut() -> None:
    objective = Objective(CANDIDATES["escm2-ips"].model_copy(update={"propensity_floor": 0.3}), CPU)
    objective(Outputs(A, B), rows())
    objective(Outputs(A, B), rows())
    # Of the two clicks of each batch s(-1) = .27 is below .3; the cut row without a click does not count.
    assert objective.report() == {"propensity_clip_rate": 0.5}
    assert Objective(CANDIDATES["esmm"], CPU).report() == {}


def test_experts_want_shared_embeddings() -> None:
    with pytest.raises(UsageError, match="share_embeddings has to be true"):
        CandidateConfig.parse({"share_embeddings": False, "cvr_loss": "ctcvr", "bottom": "ple"}, where="a test")
