"""Tables that lie by row in several processes, for those that are larger than one device: process k of n holds every
n-th row of each table, from row k, and the accumulators of those rows.

Only where a row lies is decided here, and how tables get from one whole on the first process's CPU to their shares and
back; what a step does with them is `distributed.ShardedStep`'s.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from components.training.model import FunnelNetwork
from components.training.processes import Group
from components.training.tables import Tables

PIECE_BYTES = 1 << 26
"""That go from process to process at a time: what a device needs beside its share."""


def place(rows: Tensor, processes: Group) -> tuple[Tensor, Tensor]:
    """Rows of a table, integers of any shape -> where they lie in this process's share, and whether they do *not*.

    Of those that do not the place is 0.
    """
    elsewhere = rows.remainder(processes.size) != processes.rank
    return rows.div(processes.size, rounding_mode="floor").masked_fill_(elsewhere, 0), elsewhere


def share_of(whole: Tensor, rank: int, size: int) -> Tensor:
    """The share of a process in a table [R, ...]: [ceil(R / size), ...], filled up with zeros."""
    part = whole[rank::size]
    return pad(part, [0, 0] * (whole.dim() - 1) + [0, -(-len(whole) // size) - len(part)]).contiguous()


def shard(network: FunnelNetwork, processes: Group) -> None:
    """Leaves `network`, built alike in every process, with this process's share of every table."""
    for tables in network.embedded():
        for n, table in enumerate(tables.tables):
            tables.tables[n] = nn.Parameter(share_of(table.detach(), processes.rank, processes.size))


class Shards:
    """Brings the tables of a sharded network, and all that lies as they do, to the first process and back.

    Tensors go by the names that `Progress.tensors` gives them. All of it takes every process.
    """

    def __init__(self, network: FunnelNetwork, processes: Group) -> None:
        self.network, self.processes = network, processes
        of_network = {
            f"{name}.tables.{n}": height
            for name, tables in network.named_modules()
            if isinstance(tables, Tables)
            for n, height in enumerate(tables.heights)
        }
        heights = [height for tables in network.embedded() for height in tables.heights]
        self.heights = {f"{part}.{name}": height for part in ("network", "best") for name, height in of_network.items()}
        self.heights |= {f"step.tables.{n}": height for n, height in enumerate(heights)}
        """Rows of each table and of its accumulators, as a whole."""

    def collected(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """In the first process `tensors` with whole tables, those on the CPU; in the others nothing."""
        found = {}
        for name, tensor in tensors.items():
            whole = self._collect(tensor, self.heights[name]) if name in self.heights else tensor
            if whole is not None:
                found[name] = whole
        return found if self.processes.is_first else {}

    def deal(self, name: str, whole: Tensor | None, like: Tensor) -> Tensor:
        """This process's share, on the device of `like`, of a table that the first process has as a whole."""
        share = like.new_empty((-(-self.heights[name] // self.processes.size), *like.shape[1:]))
        step = _rows_of_a_piece(share)
        for target in range(self.processes.size):
            theirs = None if whole is None else share_of(whole, target, self.processes.size)
            for piece, at in zip(torch.split(share, step), range(0, len(share), step), strict=True):
                given = None if theirs is None else theirs[at : at + step].to(share.device)
                self.processes.send(given, piece, source=0, target=target)
        return share

    def make_whole(self) -> None:
        """Leaves the network of the first process with whole tables, on the CPU, and the others' as they are."""
        for tables in self.network.embedded():
            for n, (table, height) in enumerate(zip(tables.tables, tables.heights, strict=True)):
                whole = self._collect(table.detach(), height)
                if whole is not None:
                    tables.tables[n] = nn.Parameter(whole)
        if self.processes.is_first:
            self.network.cpu()

    def _collect(self, share: Tensor, height: int) -> Tensor | None:
        """The whole [height, ...] on the CPU, in the first process; shares are of one shape."""
        processes, step = self.processes, _rows_of_a_piece(share)
        whole = torch.empty((height, *share.shape[1:]), dtype=share.dtype) if processes.is_first else None
        for source in range(processes.size):
            for at in range(0, len(share), step):
                piece = share[at : at + step]
                got = torch.empty_like(piece) if processes.is_first else None
                processes.send(piece, got, source=source, target=0)
                if whole is not None and got is not None:
                    places = whole[source :: processes.size][at : at + step]
                    places.copy_(got[: len(places)])
        return whole


def _rows_of_a_piece(share: Tensor) -> int:
    return max(1, PIECE_BYTES // (share[:1].numel() * share.element_size() or 1))
