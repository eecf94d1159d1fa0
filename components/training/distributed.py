"""Several processes, one a GPU, that train one network as a single process would: data parallelism under torchrun.

Every process holds the whole network, or all of it but a share of the tables (`ShardedStep`). Of each batch it passes
its share of the rows through the network; then it gathers the logits of all rows, so that every process computes *the*
loss of *the* batch, whatever that is a mean over, and differentiates it with respect to its own logits. The sum of the
processes' gradients is therefore the gradient of the batch, for any loss. Dense gradients are summed, those of the
tables gathered by row; each process applies them all.

What is left between this and one process is rounding: matrix products of other shapes, sums of a few terms in another
order (docs/scale-out.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from components.training.checkpoint import Saved
from components.training.config import CandidateConfig, TrainingConfig
from components.training.data import Rows, Split
from components.training.divergence import Watch
from components.training.model import FunnelNetwork, Outputs
from components.training.processes import ALONE, Group
from components.training.sharding import Shards, place
from components.training.step import Gradients, Step
from components.training.tables import read_rows


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
        mine, rows = batch.take(shares[processes.rank]), self.wanted(batch, shares)
        read = [found.requires_grad_() for found in self.readings(rows, len(mine))]
        said = self._outputs(read, mine)
        part = torch.stack([logit for logit in (said.ctr, said.cvr, said.auxiliary) if logit is not None], 1)
        outputs = Outputs(*processes.gather(part, sizes).unbind(1))
        loss = self.objective(outputs, batch, self.draw(len(batch), batch.device))
        return loss.detach(), self.exchanged(self.differentiated(loss, rows, read))

    def wanted(self, batch: Rows, shares: Sequence[slice]) -> list[Tensor]:
        """Of each table the rows that every process reads, [size * longest, K]: one share behind the other, each filled
        up to the longest with row 0. Every process knows the whole batch, so nobody has to be told."""
        rows = [found for tables in self.embedded for found in tables.rows(batch.ids)]
        sizes = [share.stop - share.start for share in shares]
        missing = [max(sizes) - size for size in sizes]
        return [
            torch.cat([pad(found[share], [0, 0, 0, more]) for share, more in zip(shares, missing, strict=True)])
            for found in rows
        ]

    def readings(self, wanted: Sequence[Tensor], count: int) -> list[Tensor]:
        """What stands in those rows of each table that this process wants, for its `count` rows: [count, K, d]."""
        processes = self.processes
        parts = [rows.chunk(processes.size)[processes.rank][:count] for rows in wanted]
        return [read_rows(table, rows) for table, rows in zip(self.tables.tables, parts, strict=True)]

    def exchanged(self, own: Gradients) -> Gradients:
        """The gradients of the batch, from those of this process's readings and with the rows of all.

        Filling up is with a gradient of zero, which changes nothing in row 0: so shapes follow from the size of the
        batch, and no process has to be told by another how much is coming.
        """
        size = self.processes.size
        read = [
            self.processes.gather_padded(part, len(rows) // size) for part, rows in zip(own.read, own.rows, strict=True)
        ]
        return Gradients(self.processes.sum_(own.dense), own.rows, read)

    def scored(self, split: Split) -> Iterator[tuple[Tensor, Tensor, Rows]]:
        """Each process takes its turn of the chunks."""
        for part in islice(split.chunks(), self.processes.rank, None, self.processes.size):
            yield (*self.network(*part.inputs), part)

    def start_alike(self) -> None:
        """Gives every process the first one's weights."""
        self.processes.follow([parameter.detach() for parameter in self.network.parameters()])

    def dealt(self, name: str, saved: Tensor | None, like: Tensor) -> Tensor:
        """In every process what the first one saved under a name. `like`: of its shape and type, on the device."""
        del name
        found = torch.empty_like(like)
        if saved is not None:
            found.copy_(saved)
        self.processes.follow([found])
        return found

    def taken_over(self, saved: Saved | None, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        outline = None
        if saved is not None:
            shapes = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in saved.tensors.items()}
            outline = shapes, saved.progress
        outline = self.processes.told(outline)
        if outline is None:
            return None
        found = {}
        for name, (shape, kind) in outline[0].items():
            like = torch.empty((), dtype=kind, device=device).expand(shape)
            found[name] = self.dealt(name, None if saved is None else saved.tensors[name], like)
        return found, outline[1]

    def stay_alike(self, watch: Watch) -> None:
        self.processes.follow(list(watch.state_dict().values()))
        self.follow_tables()

    def follow_tables(self) -> None:
        """Gives every process the tables of the first one, where they can differ: a GPU adds up the gradients of equal
        rows in any order, so that copies of a table drift apart by rounding."""
        if next(self.network.parameters()).is_cuda:
            self.processes.follow([*(table.detach() for table in self.tables.tables), *self.tables.totals])


class ShardedStep(SharedStep):
    """A step of processes that each hold a share of every table (`sharding.py`).

    Every process knows the whole batch, and so what the others read. It hands on what it holds of that, with zeros for
    what it does not, and each adds up what is meant for it: a sum with one term. Gradients come back as they do where
    every process holds all tables, and each applies those of its own rows. So no shape depends on the values of ids,
    which the host would have to wait for, at the price of more traffic than an exchange of exactly the rows needed.
    """

    def __init__(
        self, network: FunnelNetwork, candidate: CandidateConfig, config: TrainingConfig, processes: Group
    ) -> None:
        super().__init__(network, candidate, config, processes)
        self.shards = Shards(network, processes)

    def readings(self, wanted: Sequence[Tensor], count: int) -> list[Tensor]:
        read = []
        for table, rows in zip(self.tables.tables, wanted, strict=True):
            places, elsewhere = place(rows, self.processes)
            held = read_rows(table, places).masked_fill_(elsewhere.unsqueeze(2), 0)
            read.append(self.processes.add_up_shares(held)[:count])
        return read

    def exchanged(self, own: Gradients) -> Gradients:
        whole = super().exchanged(own)
        for n, (rows, gradient) in enumerate(zip(whole.rows, whole.read, strict=True)):
            whole.rows[n], elsewhere = place(rows, self.processes)
            gradient.masked_fill_(elsewhere.unsqueeze(1), 0)
        return whole

    def scored(self, split: Split) -> Iterator[tuple[Tensor, Tensor, Rows]]:
        """Each process takes its share of every chunk, since what it reads comes from all."""
        for part in split.chunks():
            shares = self.processes.shares(len(part))
            mine = part.take(shares[self.processes.rank])
            outputs = self.outputs_of(self.readings(self.wanted(part, shares), len(mine)), mine)
            yield outputs.ctr, self.network.pcvr_logit(outputs), mine

    def start_alike(self) -> None:
        """Tables are built alike, from the seed; each process holds others of their rows."""
        self.processes.follow([parameter.detach() for parameter in self.dense])

    def dealt(self, name: str, saved: Tensor | None, like: Tensor) -> Tensor:
        if name in self.shards.heights:
            return self.shards.deal(name, saved, like)
        return super().dealt(name, saved, like)

    def follow_tables(self) -> None:
        """Every row lies in one process only."""

    def collected(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.shards.collected(tensors)

    def agreed(self, wish: bool, meeting: bool) -> bool:
        """All have to take part in saving; between two meetings the others cannot know of the first one's wish."""
        return meeting and bool(self.processes.told(wish))


def is_sharded(config: TrainingConfig, processes: Group) -> bool:
    return config.tables == "sharded" and processes.size > 1


def step_of(
    network: FunnelNetwork, candidate: CandidateConfig, config: TrainingConfig, processes: Group = ALONE
) -> Step:
    """The step of a training: with every other process's weights the first one's, where there are others."""
    if processes.size == 1:
        return Step(network, candidate, config)
    kind = ShardedStep if is_sharded(config, processes) else SharedStep
    step = kind(network, candidate, config, processes)
    step.start_alike()
    return step
