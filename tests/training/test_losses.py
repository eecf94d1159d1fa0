"""The CTCVR loss against float64 (value and gradient), and against what it is often mistaken for."""

import math

import numpy as np
import pytest
import torch

from components.training.losses import clicked_cvr_loss, ctcvr_loss, ctcvr_losses, ctr_loss

GRID = np.concatenate([np.linspace(-50, 50, 201), [-1e-3, 1e-3, -16.6, 16.6, -17.4, 17.4]])


def softplus(x: np.ndarray) -> np.ndarray:
    return np.logaddexp(0.0, x)


def exact(a: np.ndarray, b: np.ndarray, label: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Loss and its gradient in float64, by formulas without cancellation and other than those under test.

    1 - s(a) s(b) = (1 + e^a + e^b) / ((1 + e^a)(1 + e^b)), so -log(1 - p) = log1p(e^a e^b / (1 + e^a + e^b)), whose
    derivative in a is s(a) s(b) (1 + e^b) / (1 + e^a + e^b).
    """
    if label == 1:
        return softplus(-a) + softplus(-b), -np.exp(-softplus(a)), -np.exp(-softplus(b))
    log_sum = np.logaddexp(0.0, np.logaddexp(a, b))
    log_p = -softplus(-a) - softplus(-b)
    loss = np.logaddexp(0.0, a + b - log_sum)
    odds = a + b - log_sum
    loss = np.where(odds < -20, np.exp(odds), loss)
    return loss, np.exp(log_p + softplus(b) - log_sum), np.exp(log_p + softplus(a) - log_sum)


@pytest.mark.parametrize("label", [0, 1])
def test_value_and_gradient_match_float64_on_a_grid(label: int) -> None:
    a, b = (x.ravel() for x in np.meshgrid(GRID, GRID))
    # What float32 is given, not what it was rounded from.
    a, b = (x.astype(np.float32).astype(np.float64) for x in (a, b))
    tensors = [torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in (a, b)]
    losses = ctcvr_losses(*tensors, torch.full((len(a),), float(label)))
    losses.sum().backward()
    found = [losses.detach(), tensors[0].grad, tensors[1].grad]
    for name, mine, wanted in zip(("loss", "d/da", "d/db"), found, exact(a, b, label), strict=True):
        got = mine.double().numpy()
        assert np.isfinite(got).all(), name
        counts = np.abs(wanted) > 1e-12
        assert counts.sum() > 1000
        relative = np.abs(got - wanted)[counts] / np.abs(wanted)[counts]
        assert relative.max() < 1e-3, (name, relative.max(), a[counts][relative.argmax()], b[counts][relative.argmax()])
        assert (np.abs(got)[~counts] < 2e-12).all(), name


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_gradient_is_that_of_the_value(label: float) -> None:
    a, b = torch.randn(2, 50, dtype=torch.float64).mul(3).unbind()
    assert torch.autograd.gradcheck(
        lambda x, y: ctcvr_losses(x, y, torch.full_like(x, label)), (a.requires_grad_(), b.requires_grad_())
    )


def test_it_is_the_cross_entropy_of_the_product_of_probabilities_and_not_of_logits() -> None:
    a, b = torch.tensor([0.0, 1.0]), torch.tensor([0.0, -2.0])
    p = [0.25, 1 / (1 + math.exp(-1)) / (1 + math.exp(2))]
    wanted = [-math.log(p[0]), -math.log(1 - p[1])]
    assert ctcvr_losses(a, b, torch.tensor([1.0, 0.0])).tolist() == pytest.approx(wanted, rel=1e-6)
    assert float(ctcvr_loss(a, b, torch.tensor([1.0, 0.0]))) == pytest.approx(sum(wanted) / 2, rel=1e-6)
    of_logits = torch.nn.functional.binary_cross_entropy_with_logits(a * b, torch.tensor([1.0, 0.0]))
    assert abs(float(of_logits) - sum(wanted) / 2) > 0.3


def test_an_impression_without_click_teaches_the_cvr_logit_too() -> None:
    """What ESMM is for: with no conversion, pCVR is pushed down in proportion to how likely the click was."""
    a = torch.tensor([-3.0, 3.0])
    b = torch.zeros(2, requires_grad=True)
    ctcvr_losses(a, b, torch.zeros(2)).sum().backward()
    s = torch.sigmoid(a)
    assert b.grad.tolist() == pytest.approx((s * 0.25 / (1 - s * 0.5)).tolist(), rel=1e-5)


def test_ctr_loss_by_hand() -> None:
    assert float(ctr_loss(torch.tensor([0.0, 2.0]), torch.tensor([1.0, 0.0]))) == pytest.approx(
        (math.log(2) + math.log(1 + math.exp(2))) / 2
    )


def test_clicked_cvr_loss_is_a_mean_over_clicked_rows_and_blind_to_the_others() -> None:
    b = torch.tensor([0.0, 2.0, 5.0, -40.0], requires_grad=True)
    loss = clicked_cvr_loss(b, torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([1.0, 0.0, 0.0, 0.0]))
    loss.backward()
    assert loss.item() == pytest.approx((math.log(2) + math.log(1 + math.exp(2))) / 2)
    assert b.grad[:2].tolist() == pytest.approx([-0.25, 0.5 / (1 + math.exp(-2))])
    assert b.grad[2:].tolist() == [0, 0]


def test_clicked_cvr_loss_of_no_clicks_is_zero_and_not_nan() -> None:
    b = torch.ones(3, requires_grad=True)
    loss = clicked_cvr_loss(b, torch.zeros(3), torch.zeros(3))
    loss.backward()
    assert loss.item() == 0
    assert b.grad.tolist() == [0, 0, 0]
