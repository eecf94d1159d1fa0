"""The losses, each a mean over the rows of a batch in nats, from logits a (CTR) and b (CVR) of shape [B].

ESMM (Ma et al., "Entire Space Multi-Task Model", SIGIR 2018, equation 4) trains two tasks over *all* impressions:

    L = sum_i l(y_i, f(x_i)) + sum_i l(y_i & z_i, f(x_i) * g(x_i)),    f = s(a) = pCTR, g = s(b) = pCVR

with y the click, z the conversion, s the sigmoid and l the cross entropy. The product is one of *probabilities*; a
product of the logits, a mistake seen in the wild, is another model.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid

HALF = -0.6931471805599453
"""log(1/2)"""


class _CtcvrLoss(torch.autograd.Function):
    """Cross entropy of p = s(a) s(b) in log space, with its gradient written out.

    Left to autograd, the gradient of log(1 - p) is a difference of two nearly equal numbers wherever s(b) is small,
    which is where most impressions are, and float32 keeps none of it below s(b) = 1e-7.
    """

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, label: Tensor) -> Tensor:
        log_a, log_b = logsigmoid(a), logsigmoid(b)
        log_p = log_a + log_b
        log_rest = _log_rest(a, b, log_a, log_b)
        ctx.save_for_backward(a, b, label, log_a, log_b, log_rest)
        return -(label * log_p + (1 - label) * log_rest)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (grad,) = grads
        a, b, label, log_a, log_b, log_rest = ctx.saved_tensors
        # d/da -log p = -s(-a);  d/da -log(1 - p) = s(a) s(-a) s(b) / (1 - p). Exponents are <= 0: nothing overflows.
        both = log_a + log_b - log_rest
        grad_a = (1 - label) * torch.exp(logsigmoid(-a) + both) - label * torch.sigmoid(-a)
        grad_b = (1 - label) * torch.exp(logsigmoid(-b) + both) - label * torch.sigmoid(-b)
        return grad * grad_a, grad * grad_b, None


def _log_rest(a: Tensor, b: Tensor, log_a: Tensor, log_b: Tensor) -> Tensor:
    """log(1 - s(a) s(b)), accurate to a few ulp on both sides of p = 1/2.

    For p > 1/2 by the identity 1 - s(a) s(b) = s(-a) + s(a) s(-b), a sum of positive terms; below by log1p(-p).
    """
    log_p = log_a + log_b
    near_one = torch.logaddexp(logsigmoid(-a), log_a + logsigmoid(-b))
    near_zero = torch.log1p(-torch.exp(torch.clamp(log_p, max=HALF)))
    return torch.where(log_p > HALF, near_one, near_zero)


def ctcvr_losses(logit_ctr: Tensor, logit_cvr: Tensor, conversion: Tensor) -> Tensor:
    """-(t log p + (1 - t) log(1 - p)) of each row, p = s(a) s(b) and t the click-and-conversion; [B], nats.

    Value and gradient match float64 to a relative 1e-3 for logits in [-50, 50].
    """
    losses: Tensor = _CtcvrLoss.apply(logit_ctr, logit_cvr, conversion)  # type: ignore[no-untyped-call]
    return losses


def ctcvr_loss(logit_ctr: Tensor, logit_cvr: Tensor, conversion: Tensor) -> Tensor:
    """Mean of `ctcvr_losses`: the second term of ESMM's loss, over all impressions."""
    return ctcvr_losses(logit_ctr, logit_cvr, conversion).mean()


def ctr_loss(logit_ctr: Tensor, click: Tensor) -> Tensor:
    """Mean cross entropy of pCTR = s(a) over all impressions: the first term of ESMM's loss."""
    return binary_cross_entropy_with_logits(logit_ctr, click)


def clicked_cvr_loss(logit_cvr: Tensor, click: Tensor, conversion: Tensor) -> Tensor:
    """Mean cross entropy of pCVR = s(b) over the *clicked* rows of the batch, 0 if there are none.

    The conventional CVR model, BASE in the paper. Rows without a click enter with weight zero, so their gradient is
    exactly zero; masking rather than selecting keeps the shapes fixed, and a GPU from waiting for the host.
    """
    losses = binary_cross_entropy_with_logits(logit_cvr, conversion, reduction="none")
    return (losses * click).sum() / click.sum().clamp(min=1)
