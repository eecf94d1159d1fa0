"""One pass over the training split, evaluated as it goes; the best weights are kept."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor
from tqdm import tqdm

from components.contracts.errors import TrainingDiverged
from components.training.config import CandidateConfig, TrainingConfig
from components.training.data import Rows
from components.training.losses import clicked_cvr_loss, ctcvr_loss, ctcvr_losses, ctr_loss
from components.training.model import FunnelNetwork
from components.training.optimizer import RowwiseAdagrad, dense_optimizer

CHUNK = 32_768
LOOKUPS = 1_048_576
"""Rows of one forward pass in an evaluation, and embeddings read in one: what they make fits a cache or two."""


@dataclass
class Fitted:
    """What a training did. `history`: one entry an evaluation; losses in nats, `step` and `rows` since the start."""

    history: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    steps: int = 0
    rows: int = 0
    stopped_early: bool = False


def candidate_loss(candidate: CandidateConfig, logit_ctr: Tensor, logit_cvr: Tensor, rows: Rows) -> Tensor:
    """The loss of a batch, nats: that of the CTR task plus that of the candidate's CVR task, weighted alike."""
    if candidate.cvr_loss == "ctcvr":
        second = ctcvr_loss(logit_ctr, logit_cvr, rows.conversion)
    else:
        second = clicked_cvr_loss(logit_cvr, rows.click, rows.conversion)
    return ctr_loss(logit_ctr, rows.click) + second


def fit(
    network: FunnelNetwork, train: Rows, valid: Rows, config: TrainingConfig, candidate: CandidateConfig, name: str
) -> Fitted:
    """Trains `network` in place and leaves it with the weights that did best on validation.

    `name` is what the progress bar says. All rows lie on the network's device.

    Raises:
        TrainingDiverged: if a loss on training or validation stops being finite.
    """
    per_pass = math.ceil(len(train) / config.batch_for(len(train)))
    steps = min(per_pass * config.epochs, config.max_steps or sys.maxsize)
    due = {round(per_pass * (n + 1) / config.evaluations) for n in range(config.evaluations * config.epochs)} | {steps}
    tables = RowwiseAdagrad(
        network.embedding_parameters(), lr=config.embedding_lr, accumulator=config.embedding_accumulator
    )
    towers = dense_optimizer(network.dense_parameters(), lr=config.lr)
    device = train.click.device
    result = Fitted()
    best: tuple[float, dict[str, Tensor]] = (math.inf, {})
    loss_sum, since, waited = torch.zeros((), device=device), 0, 0
    with tqdm(total=steps, desc=name, unit="step", file=sys.stderr, disable=None, leave=False) as bar:
        for batch in _batches(train, config, steps):
            with torch.autocast(device.type, torch.bfloat16, enabled=config.amp and device.type == "cuda"):
                logit_ctr, logit_cvr = network(*batch.inputs)
            loss = candidate_loss(candidate, logit_ctr, logit_cvr, batch)
            for optimizer in (tables, towers):
                optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            tables.step()
            towers.step()
            loss_sum += loss.detach()
            result.steps, result.rows, since = result.steps + 1, result.rows + len(batch), since + 1
            bar.update()
            if result.steps not in due:
                continue
            point = {"step": result.steps, "rows": result.rows, "train_loss": float(loss_sum) / since}
            point |= evaluate(network, valid)
            _check(point, name, config)
            result.history.append(point)
            loss_sum, since = torch.zeros((), device=device), 0
            _say(bar, name, point, steps)
            if point["valid_ctcvr_log_loss"] < best[0]:
                best = (point["valid_ctcvr_log_loss"], {k: v.clone() for k, v in network.state_dict().items()})
                result.best_step, waited = result.steps, 0
                continue
            waited += 1
            if waited >= config.patience:
                result.stopped_early = True
                break
    network.load_state_dict(best[1])
    return result


def _batches(train: Rows, config: TrainingConfig, steps: int) -> Iterator[Rows]:
    """Seeded shuffled batches, one permutation a pass, the last of a pass shorter; `steps` of them in all."""
    generator = torch.Generator().manual_seed(config.seed)
    while True:
        order = torch.randperm(len(train), generator=generator).to(train.click.device)
        for rows in torch.split(order, config.batch_for(len(order))):
            if steps == 0:
                return
            steps -= 1
            yield train.take(rows)


def chunks(rows: Rows) -> Iterator[Rows]:
    """A split in pieces of at most CHUNK rows and about LOOKUPS ids, in order."""
    size = max(1, min(CHUNK, LOOKUPS // max(rows.ids.shape[1], 1)))
    for at in range(0, len(rows), size):
        yield rows.take(slice(at, at + size))


@torch.no_grad()
def predict(network: FunnelNetwork, rows: Rows) -> tuple[Tensor, Tensor]:
    """Logits of a split in float32, ([B], [B])."""
    parts = [network(*part.inputs) for part in chunks(rows)]
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def evaluate(network: FunnelNetwork, valid: Rows) -> dict[str, float]:
    """Mean log losses on validation in nats, at the logged position: of pCTR and of pCTCVR over all impressions."""
    losses = log_losses(*predict(network, valid), valid)
    return {"valid_ctr_log_loss": losses["ctr_log_loss"], "valid_ctcvr_log_loss": losses["ctcvr_log_loss"]}


def log_losses(logit_ctr: Tensor, logit_cvr: Tensor, rows: Rows) -> dict[str, float]:
    """Mean log losses over all rows in nats, summed in float64 from logits [B]."""
    a, b = logit_ctr.double(), logit_cvr.double()
    ctr = ctr_loss(a, rows.click.double())
    ctcvr = ctcvr_losses(a, b, rows.conversion.double()).mean()
    return {"ctr_log_loss": float(ctr), "ctcvr_log_loss": float(ctcvr)}


def _check(point: dict[str, float], name: str, config: TrainingConfig) -> None:
    wrong = [key for key, value in point.items() if not math.isfinite(value)]
    if wrong:
        raise TrainingDiverged(
            f"{name} diverged: {', '.join(wrong)} not finite after {point['step']} steps "
            f"(lr {config.lr:g}, embedding_lr {config.embedding_lr:g}): lower the learning rates"
        )


def _say(bar: tqdm, name: str, point: dict[str, float], steps: int) -> None:
    text = f"{point['valid_ctr_log_loss']:.5f} ctr, {point['valid_ctcvr_log_loss']:.6f} ctcvr"
    bar.set_postfix_str(f"valid {text}")
    if bar.disable:
        # Not a terminal: a line an evaluation instead of a bar.
        print(f"{name}: step {point['step']} of {steps}, validation log loss {text}", file=sys.stderr, flush=True)
