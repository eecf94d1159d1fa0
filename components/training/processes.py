"""The processes of a training, and how they exchange tensors: gloo between CPUs, NCCL between GPUs, one GPU each."""

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

    def add_up_shares(self, parts: Tensor) -> Tensor:
        """Of [size * n, ...], n rows for each process, the sum over the processes of those that are for this one."""
        mine = parts.new_empty((len(parts) // self.size, *parts.shape[1:]))
        self.reduce_scatter(mine, parts)
        return mine

    def reduce_scatter(self, mine: Tensor, parts: Tensor) -> None:
        """Fills `mine` with the sum over the processes of that part of `parts` which is this one's."""
        dist.reduce_scatter_single(mine, parts)

    def send(self, given: Tensor | None, got: Tensor | None, source: int, target: int) -> None:
        """Fills `got` of process `target` with `given` of process `source`, both on their device; others do nothing."""
        if self.rank == source == target:
            assert given is not None
            assert got is not None
            got.copy_(given)
        elif self.rank == source:
            assert given is not None
            dist.send(given.contiguous(), target)
        elif self.rank == target:
            assert got is not None
            dist.recv(got, source)

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
