"""The losses, each a mean over rows in nats, from logits of shape [B]: a of the CTR tower, b of the CVR tower.

y is the click, z the conversion, s the sigmoid, l(y, p) the cross entropy. ESMM (Ma et al., "Entire Space Multi-Task
Model", SIGIR 2018, section 2.3) trains two tasks over *all* impressions:

    L = sum_i l(y_i, f(x_i)) + sum_i l(y_i & z_i, f(x_i) * g(x_i)),    f = s(a) = pCTR, g = s(b) = pCVR

The product is one of *probabilities*; a product of the logits, a mistake seen in the wild, is another model.

Every loss has fixed shapes, whatever the labels: rows that do not count get weight zero, so their gradient is exactly
zero, and a GPU never waits for the host. A propensity is a constant in a CVR loss: it is detached, and cut.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, logsigmoid, softplus

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


def weighted_cvr_loss(logit_cvr: Tensor, conversion: Tensor, weights: Tensor) -> Tensor:
    """Weighted mean of l(z, s(b)), weights [B] at least 0; zero where all of them are zero."""
    losses = binary_cross_entropy_with_logits(logit_cvr, conversion, reduction="none")
    total = weights.sum()
    return (losses * weights).sum() / torch.where(total > 0, total, 1.0)


def clicked_cvr_loss(logit_cvr: Tensor, click: Tensor, conversion: Tensor) -> Tensor:
    """Mean of l(z, s(b)) over *clicked* rows: the conventional CVR model, BASE in Ma et al., section 3.1."""
    return weighted_cvr_loss(logit_cvr, conversion, click)


def random_negatives_loss(
    logit_cvr: Tensor, click: Tensor, conversion: Tensor, draw: Tensor, negative_rate: float
) -> Tensor:
    """AMAN, "all missing as negative" (Pan et al., "One-Class Collaborative Filtering", ICDM 2008), sampled.

    Mean over clicked rows and a random share `negative_rate` of the others, which count as not converted. `draw`:
    uniform in [0, 1), [B].
    """
    return weighted_cvr_loss(logit_cvr, conversion, torch.maximum(click, (draw < negative_rate).to(click)))


def oversampled_loss(logit_cvr: Tensor, click: Tensor, conversion: Tensor, times: int) -> Tensor:
    """OVERSAMPLING (Weiss, "Mining with Rarity", SIGKDD Explorations 2004): each conversion `times` times.

    As a weight, which is what copies come to in expectation. The logit learnt is that of pCVR plus log(times):
    `FunnelNetwork.pcvr_logit` takes it off again.
    """
    return weighted_cvr_loss(logit_cvr, conversion, click * (1 + (times - 1) * conversion))


def unbiased_loss(
    logit_ctr: Tensor, logit_cvr: Tensor, click: Tensor, conversion: Tensor, draw: Tensor, floor: float
) -> Tensor:
    """UNBIAS by rejection sampling (Zhang et al., "Bid-aware Gradient Descent", KDD 2016, as in Ma et al.).

    A click is kept with probability min(1, floor / pCTR), so that those kept are spread as impressions are, as far as
    pCTR is above `floor`. `draw`: uniform in [0, 1), [B].
    """
    kept = (draw * torch.sigmoid(logit_ctr.detach()) < floor).to(click)
    return weighted_cvr_loss(logit_cvr, conversion, click * kept)


def division_loss(logit_ctcvr: Tensor, logit_ctr: Tensor, click: Tensor, conversion: Tensor) -> Tensor:
    """DIVISION (Ma et al., section 3.1): pCTCVR and pCTR each by a network of its own, pCVR their ratio.

    The CTR here is a second one that does not see the position: the ratio must not move with it.
    """
    return ctr_loss(logit_ctcvr, conversion) + ctr_loss(logit_ctr, click)


def propensity(logit_ctr: Tensor, floor: float) -> Tensor:
    """pCTR as the probability of being observed, [B]: a constant to the loss, within [floor, 1 - floor]."""
    return torch.sigmoid(logit_ctr.detach()).clamp(floor, 1 - floor)


def ips_loss(logit_cvr: Tensor, click: Tensor, conversion: Tensor, seen: Tensor) -> Tensor:
    """Inverse propensity score: 1/B sum_i y_i l(z_i, s(b_i)) / e_i, e = `seen`, from `propensity`.

    The counterfactual risk of ESCM2-IPS (Wang et al., "ESCM2: Entire Space Counterfactual Multi-Task Model", SIGIR
    2022), which stands beside the losses of CTR and CTCVR. In expectation the mean loss over all impressions, where e
    is the true probability of a click.
    """
    losses = binary_cross_entropy_with_logits(logit_cvr, conversion, reduction="none")
    return (losses * click / seen).mean()


def doubly_robust_loss(
    logit_cvr: Tensor, logit_error: Tensor, click: Tensor, conversion: Tensor, seen: Tensor
) -> Tensor:
    """The counterfactual risk of ESCM2-DR with the loss of its imputation tower (SIGIR 2022).

        1/B sum_i d_i + y_i (l_i - d_i) / e_i      +      1/B sum_i y_i (l_i - d_i)^2 / e_i

    with d = softplus(`logit_error`) >= 0 the imputed loss and l_i = l(z_i, s(b_i)). The square trains the imputation
    alone, so l is a constant in it. As in the paper d does not depend on b: the CVR tower itself sees the gradient of
    IPS, and what imputation adds reaches it through what they share.
    """
    losses = binary_cross_entropy_with_logits(logit_cvr, conversion, reduction="none")
    imputed = softplus(logit_error)
    risk = imputed + click * (losses - imputed) / seen
    error = click * (losses.detach() - imputed).square() / seen
    return (risk + error).mean()


def dcmt_loss(
    logit_cvr: Tensor, logit_counter: Tensor, click: Tensor, conversion: Tensor, seen: Tensor, prior_weight: float
) -> Tensor:
    """DCMT (Zhu et al., "Direct Entire-Space Causal Multi-Task Framework", ICDE 2023).

    A second tower, s(`logit_counter`), predicts the counterfactual: of rows without a click, that they do not convert.
    Factual and counterfactual cross entropies are weighted by 1 / e and 1 / (1 - e), each set of weights scaled to add
    up to one; `prior_weight` times the mean |1 - pCVR - counterfactual| over all rows ties the two together.
    """
    factual = weighted_cvr_loss(logit_cvr, conversion, click / seen)
    counter = weighted_cvr_loss(logit_counter, 1 - conversion, (1 - click) / (1 - seen))
    prior = (1 - torch.sigmoid(logit_cvr) - torch.sigmoid(logit_counter)).abs().mean()
    return factual + counter + prior_weight * prior
