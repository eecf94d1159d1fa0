"""Several processes, one a GPU, that train one network as a single process would: data parallelism under torchrun.

Every process holds the whole network. Of each batch it passes its share of the rows through the network; then it
gathers the logits of all rows, so that every process computes *the* loss of *the* batch, whatever that is a mean over,
and differentiates it with respect to its own logits. The sum of the processes' gradients is therefore the gradient of
the batch, for any loss. Dense gradients are summed, those of the tables gathered by row; each process applies them all.

What is left between this and one process is rounding: matrix products of other shapes, sums of a few terms in another
order (docs/scale-out.md).
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous
from torch.nn.functional import pad

from components.contracts.errors import UsageError
from components.training.checkpoint import Saved
from components.training.config import CandidateConfig, TrainingConfig
from components.training.data import Rows
from components.training.divergence import Watch
from components.training.model import FunnelNetwork, Outputs
from components.training.step import Gradients, Step

PATIENCE = timedelta(minutes=10)
"""How long a process waits for the others before it gives up."""


@dataclass(frozen=True)
class Group:
    """The processes of a training: `size` of them, of which this is number `rank`."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """The one that writes."""
        return self.rank == 0

    def shares(self, rows: int) -> list[slice]:
        """Of a batch of so many rows, each process's: consecutive, in order, and of equal size but for one row."""
        cuts = [rows * n // self.size for n in range(self.size + 1)]
        return [slice(start, stop) for start, stop in pairwise(cuts)]

    def gather(self, part: Tensor, sizes: Sequence[int]) -> Tensor:
        """One behind the other, the parts [n, ...] of all processes, of `sizes` rows; own gradients flow back."""
        gathered = self.gather_padded(part.detach(), max(sizes)).chunk(self.size)
        parts = [whole[:size] for whole, size in zip(gathered, sizes, strict=True)]
        parts[self.rank] = part
        return torch.cat(parts)

    def gather_padded(self, part: Tensor, longest: int) -> Tensor:
        """The parts of all processes, each filled up with zeros to `longest` rows: [size * longest, ...]."""
        everything = part.new_empty((self.size * longest, *part.shape[1:]))
        self.exchange(everything, pad(part, [0, 0] * (part.dim() - 1) + [0, longest - len(part)]))
        return everything

    def sum_(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Of each tensor, all of one type, the sum over the processes, in one exchange: the same bits in each."""
        if self.size == 1:
            return list(tensors)
        flat = torch.cat([tensor.flatten() for tensor in tensors])
        self.add_up(flat)
        sizes = [tensor.numel() for tensor in tensors]
        return [part.view_as(like) for part, like in zip(torch.split(flat, sizes), tensors, strict=True)]

    def exchange(self, everything: Tensor, part: Tensor) -> None:
        """Fills `everything` with the `part` of each process, all of one shape, one behind the other."""
        dist.all_gather_single(everything, part.contiguous())

    def add_up(self, flat: Tensor) -> None:
        """Replaces `flat` by its sum over the processes."""
        dist.all_reduce(flat)

    def follow(self, tensors: Sequence[Tensor]) -> None:
        """Overwrites the tensors with those of the first process."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def told(self, value: Any) -> Any:
        """What the first process was given here: plain values, tensors on the CPU."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]


ALONE = Group()


@contextmanager
def group(device: str) -> Iterator[Group]:
    """The processes that torchrun started this one with; alone where it did not. `device`: "cuda" or "cpu".

    Raises:
        UsageError: more processes on this machine than GPUs.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    local, here = int(os.environ["LOCAL_RANK"]), int(os.environ["LOCAL_WORLD_SIZE"])
    chosen: dict[str, Any] = {"backend": "gloo"}
    if device == "cuda":
        if here > torch.cuda.device_count():
            raise UsageError(
                f"{here} processes on a machine with {torch.cuda.device_count()} GPUs: each process needs one of its "
                "own, so start as many processes as there are GPUs, or set training.device to 'cpu'"
            )
        torch.cuda.set_device(local)
        chosen = {"backend": "nccl", "device_id": torch.device("cuda", local)}
    store, rank, size = next(rendezvous("env://", timeout=PATIENCE))
    # torchrun keeps one store over all its restarts: without a prefix, processes would find the addresses of dead ones.
    attempt = PrefixStore(f"attempt-{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    dist.init_process_group(store=attempt, rank=rank, world_size=size, timeout=PATIENCE, **chosen)
    try:
        yield Group(rank, size)
    finally:
        dist.destroy_process_group()


class SharedStep(Step):
    """A step of which every process does its share. Given the same whole batches, all end with the same weights."""

    def __init__(
        self, network: FunnelNetwork, candidate: CandidateConfig, config: TrainingConfig, processes: Group
    ) -> None:
        super().__init__(network, candidate, config)
        self.processes = processes
        self._outputs = torch.compile(self.outputs, fullgraph=True) if config.compile else self.outputs

    def gradients(self, batch: Rows) -> tuple[Tensor, Gradients]:
        """The loss of the whole batch, and its gradients, the same in every process."""
        processes = self.processes
        shares = processes.shares(len(batch))
        sizes = [share.stop - share.start for share in shares]
        mine = batch.take(shares[processes.rank])
        rows, read = self.read(mine)
        said = self._outputs(read, mine)
        part = torch.stack([logit for logit in (said.ctr, said.cvr, said.auxiliary) if logit is not None], 1)
        outputs = Outputs(*processes.gather(part, sizes).unbind(1))
        loss = self.objective(outputs, batch, self.draw(len(batch), batch.device))
        own = self.differentiated(loss, rows, read)
        return loss.detach(), self._exchanged(own, [found.shape[1] for found in rows], max(sizes))

    def _exchanged(self, own: Gradients, columns: Sequence[int], longest: int) -> Gradients:
        """Padding is row 0 with a gradient of zero, which changes nothing: so shapes follow from the size of the batch,
        and no process has to be told by another how much is coming."""
        lengths = [longest * count for count in columns]
        return Gradients(
            self.processes.sum_(own.dense),
            [self.processes.gather_padded(part, n) for part, n in zip(own.rows, lengths, strict=True)],
            [self.processes.gather_padded(part, n) for part, n in zip(own.read, lengths, strict=True)],
        )


def step_of(
    network: FunnelNetwork, candidate: CandidateConfig, config: TrainingConfig, processes: Group = ALONE
) -> Step:
    """The step of a training: with every other process's weights the first one's, where there are others."""
    if processes.size == 1:
        return Step(network, candidate, config)
    processes.follow([parameter.detach() for parameter in network.parameters()])
    return SharedStep(network, candidate, config, processes)


def taken_over(
    processes: Group, saved: Saved | None, device: torch.device
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the checkpoint that the first process found, in every process; None if it found none."""
    if processes.size == 1:
        return None if saved is None else (saved.tensors, saved.progress)
    outline = None
    if saved is not None:
        outline = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in saved.tensors.items()}, saved.progress
    outline = processes.told(outline)
    if outline is None:
        return None
    tensors = {name: torch.empty(shape, dtype=kind, device=device) for name, (shape, kind) in outline[0].items()}
    if saved is not None:
        for name, tensor in saved.tensors.items():
            tensors[name].copy_(tensor)
    processes.follow(list(tensors.values()))
    return tensors, outline[1]


def stay_alike(processes: Group, step: Step, watch: Watch) -> None:
    """Gives every process what the first one has of that in which they can differ.

    A GPU adds up the gradients of equal rows in any order, so that copies of a table drift apart by rounding. And who
    stops a training has to be of one mind.
    """
    processes.follow(list(watch.state_dict().values()))
    if next(step.network.parameters()).is_cuda:
        processes.follow([*(table.detach() for table in step.tables.tables), *step.tables.totals])
