"""One pass over the training split, evaluated as it goes; the best weights are kept.

The loop only. Which rows make a batch is `sampler.py`'s, where they lie `data.py`'s and `streaming.py`'s, what a step
does `step.py`'s, what is carried from step to step `progress.py`'s; `checkpoint.py` saves that, and `divergence.py`
notices a training that goes wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from tqdm import tqdm

from components.training.checkpoint import Checkpoints
from components.training.config import CandidateConfig, TrainingConfig
from components.training.data import CHUNK, Rows, Split, batches
from components.training.distributed import step_of
from components.training.divergence import Guard
from components.training.losses import ctcvr_losses, ctr_loss
from components.training.model import FunnelNetwork
from components.training.processes import ALONE, Group
from components.training.progress import Fitted, Progress
from components.training.sampler import Order
from components.training.step import Step


def fit(
    network: FunnelNetwork,
    train: Split,
    valid: Split,
    config: TrainingConfig,
    candidate: CandidateConfig,
    name: str,
    checkpoints: Checkpoints | None = None,
    study: Path | None = None,
    share: float = 1.0,
    processes: Group = ALONE,
) -> Fitted:
    """Trains `network` in place and leaves it with the weights that did best on validation.

    Args:
        train, valid: their batches come on the network's device.
        name: what the progress bar and messages say.
        checkpoints: where to go on from, if there is one, and to save to.
        study: folder that gets the batch at which a training diverged.
        share: train only up to the evaluation nearest to this share of the steps. Less than 1 leaves a checkpoint
            there, from which a later call goes on as if training had never stopped.
        processes: those that train together, each with a call of its own; only the first has checkpoints and a study.

    Raises:
        TrainingDiverged: if a loss explodes or stops being finite (`divergence.py` says when).
    """
    order = Order(len(train), config.batch_for(len(train)), config.seed, config.shuffle_block, config.shuffle_window)
    steps = min(order.batches * config.epochs, config.max_steps or sys.maxsize)
    due = {round(order.batches * (n + 1) / config.evaluations) for n in range(config.evaluations * config.epochs)}
    step = step_of(network, candidate, config, processes)
    progress = Progress(network, step, train.device)
    guard = Guard(name, config, train, order, study)
    saved = checkpoints.latest() if checkpoints else None
    found = step.taken_over(saved, train.device)
    if found is not None:
        progress.restore(*found)
    if saved is not None:
        print(f"{name}: resumed after step {progress.fitted.steps} of {steps}, from {saved.folder}", file=sys.stderr)
    done = progress.fitted
    ends = sorted(at for at in {*due, steps} if 0 < at <= steps)
    until = steps if share == 1 else min(ends, key=lambda at: abs(at - share * steps))
    if done.stopped_early:
        until = done.steps
    hidden = None if processes.is_first else True
    with tqdm(
        total=steps, initial=done.steps, desc=name, unit="step", file=sys.stderr, disable=hidden, leave=False
    ) as bar:
        for batch in batches(train, order, done.steps, until):
            progress.take(step(batch), len(batch))
            bar.update()
            evaluates = done.steps in due or done.steps == steps
            if evaluates:
                step.stay_alike(progress.watch)
                guard.check_losses(progress.watch)
                point = {"step": done.steps, "rows": done.rows, "train_loss": progress.train_loss()}
                point = processes.told(point | evaluate(step, valid, processes) | step.objective.report())
                guard.check_evaluation(point)
                progress.judge(point)
                if processes.is_first:
                    _say(bar, name, point, steps)
                done.stopped_early = progress.waited >= config.patience
            pauses = share < 1 and (done.steps == until or done.stopped_early)
            wanted = checkpoints is not None and (pauses or checkpoints.due(done.steps))
            if wanted and processes.size == 1:
                guard.check_losses(progress.watch)
            # Of several processes this one alone must not stop: all do at the next evaluation.
            meeting = evaluates or (config.checkpoint_steps is not None and done.steps % config.checkpoint_steps == 0)
            if step.agreed(wanted and progress.watch.bad() is None, meeting):
                tensors = step.collected(progress.tensors())
                if checkpoints is not None:
                    checkpoints.save(done.steps, tensors, progress.facts())
            if done.stopped_early:
                break
    progress.use_best()
    return done


def chunks(rows: Split) -> Iterator[Rows]:
    """A split in pieces that fit a cache or two, in order (`data.Split.chunks`)."""
    return rows.chunks()


@torch.no_grad()
def predict(network: nn.Module, rows: Split) -> tuple[Tensor, Tensor]:
    """Logits of a split in float32, ([B], [B])."""
    # Filled in place: small results that outlive large intermediate ones, piece by piece, scatter the heap, which then
    # took 400 bytes a row.
    ctr, cvr = (torch.empty(len(rows), device=rows.device) for _ in range(2))
    at = 0
    for part in rows.chunks():
        place = slice(at, at + len(part))
        ctr[place], cvr[place] = network(*part.inputs)
        at = place.stop
    return ctr, cvr


@torch.no_grad()
def evaluate(step: Step, valid: Split, processes: Group = ALONE) -> dict[str, float]:
    """Mean log losses on validation in nats, at the logged position: of pCTR and of pCTCVR over all impressions."""
    sums = torch.zeros(2, dtype=torch.float64, device=valid.device)
    for logit_ctr, logit_cvr, part in step.scored(valid):
        sums += _sums(logit_ctr, logit_cvr, part)
    ctr_mean, ctcvr_mean = (processes.sum_([sums])[0] / len(valid)).tolist()
    return {"valid_ctr_log_loss": ctr_mean, "valid_ctcvr_log_loss": ctcvr_mean}


def log_losses(logit_ctr: Tensor, logit_cvr: Tensor, rows: Rows) -> dict[str, float]:
    """Mean log losses over all rows in nats, summed in float64 from logits [B]."""
    sums = torch.zeros(2, dtype=torch.float64, device=rows.device)
    for part in pieces(len(rows)):
        sums += _sums(logit_ctr[part], logit_cvr[part], rows.take(part))
    ctr, ctcvr = (sums / len(rows)).tolist()
    return {"ctr_log_loss": ctr, "ctcvr_log_loss": ctcvr}


def _sums(logit_ctr: Tensor, logit_cvr: Tensor, rows: Rows) -> Tensor:
    """Log losses of CTR and CTCVR, nats, summed over rows: float64 [2]."""
    a, b = logit_ctr.double(), logit_cvr.double()
    ctr = ctr_loss(a, rows.click.double()) * len(rows)
    return torch.stack([ctr, ctcvr_losses(a, b, rows.conversion.double()).sum()])


def pieces(rows: int) -> list[slice]:
    """Slices of at most CHUNK rows, so that what is made in between does not grow with a split."""
    return [slice(at, at + CHUNK) for at in range(0, rows, CHUNK)]


def _say(bar: tqdm, name: str, point: dict[str, float], steps: int) -> None:
    text = f"{point['valid_ctr_log_loss']:.5f} ctr, {point['valid_ctcvr_log_loss']:.6f} ctcvr"
    bar.set_postfix_str(f"valid {text}")
    if bar.disable:
        # Not a terminal: a line an evaluation instead of a bar.
        print(f"{name}: step {point['step']} of {steps}, validation log loss {text}", file=sys.stderr, flush=True)
