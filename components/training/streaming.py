"""Splits that are read from files while they are trained on, for data larger than memory, and the choice of them.

A thread reads the next window of rows while the current one is trained on, so two windows and little else are in
memory, however many rows there are. For a GPU they lie in pinned memory and are copied a window at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import psutil
import torch
from torch import Tensor

from components.contracts import columns as c
from components.scoring.encoder import Encoder
from components.training.arrays import LABELS, NAMES, Arrays
from components.training.config import TrainingConfig
from components.training.data import CHUNK, Rows, Split, Windows, chunk_of, load
from components.training.sampler import Order, Span

DEVICE_SHARE, MEMORY_SHARE = 0.5, 0.25
"""Of a GPU's free memory, and of the machine's: two candidates may be trained at once, each needs room to work in."""
CGROUP = Path("/sys/fs/cgroup")

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class Streamed:
    """A split of which no more than is needed is read, in the order of `Rows`.

    Its iterators raise DataError for ids outside their vocabulary or a file that has become shorter, when they come
    there.
    """

    arrays: Arrays
    device: torch.device

    def __len__(self) -> int:
        return len(self.arrays)

    def take(self, rows: Tensor | slice) -> Rows:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            spans = [Span(start, stop)] if step == 1 else [Span(n, n + 1) for n in range(start, stop, step)]
        else:
            spans = [Span(n, n + 1) for n in rows.tolist()]
        return self._read(spans).to(self.device)

    def labels(self) -> Iterator[tuple[Tensor, Tensor]]:
        for span in self._spans(CHUNK):
            click, conversion = (torch.from_numpy(self.arrays.read(name, [span])) for name in LABELS)
            yield click, conversion

    def chunks(self) -> Iterator[Rows]:
        spans = self._spans(chunk_of(self.arrays.columns["ids"].shape[1]))
        for rows in ahead(spans, lambda span: self._read([span])):
            yield rows.to(self.device)

    def windows(self, order: Order, epoch: int, first: int) -> Windows:
        def read(window: int) -> tuple[Rows, Tensor]:
            return self._read(order.spans(epoch, window)), self._pinned(torch.from_numpy(order.mixed(epoch, window)))

        for rows, places in ahead(range(first, order.windows), read):
            yield rows.to(self.device), places.to(self.device, non_blocking=True)

    def cpu(self) -> Streamed:
        return Streamed(self.arrays, torch.device("cpu"))

    def _spans(self, size: int) -> Iterator[Span]:
        return (Span(at, min(at + size, len(self))) for at in range(0, len(self), size))

    def _read(self, spans: list[Span]) -> Rows:
        rows = sum(span.stop - span.start for span in spans)
        found = []
        for name in NAMES:
            column = self.arrays.columns[name]
            kind = torch.from_numpy(np.empty(0, column.dtype)).dtype if name == "ids" else torch.float32
            tensor = torch.empty((rows, *column.shape[1:]), dtype=kind, pin_memory=self._pins)
            self.arrays.read(name, spans, tensor.numpy())
            found.append(tensor)
        return Rows(*found)

    @property
    def _pins(self) -> bool:
        return self.device.type == "cuda"

    def _pinned(self, tensor: Tensor) -> Tensor:
        return tensor.pin_memory() if self._pins else tensor


def ahead(tasks: Iterable[T], work: Callable[[T], R]) -> Generator[R, None, None]:
    """`work` of each task in order, of the next one in a thread while the current one is looked at.

    What `work` raises is raised where its result would have come.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        upcoming = None
        for task in tasks:
            done, upcoming = upcoming, pool.submit(work, task)
            if done is not None:
                yield done.result()
        if upcoming is not None:
            yield upcoming.result()


def open_splits(encoded: Path, encoder: Encoder, device: torch.device, training: TrainingConfig) -> tuple[Split, Split]:
    """Training and validation split, resident on `device` or streamed, as `training.data` says.

    Raises:
        DataError: as `data.load`; of a streamed split ids are looked at when they are read.
    """
    names = (c.TRAIN, c.VALID)
    arrays = [Arrays.of(encoded / name, encoder) for name in names]
    if training.data == "streamed" or (
        training.data == "auto" and sum(a.bytes_in_memory for a in arrays) > budget(training, device)
    ):
        train, valid = (Streamed(each, device) for each in arrays)
        return train, valid
    return load(encoded, c.TRAIN, encoder, device), load(encoded, c.VALID, encoder, device)


def budget(training: TrainingConfig, device: torch.device) -> int:
    """Bytes up to which `auto` holds both splits: `training.data_bytes`, or a share of what is free now."""
    if training.data_bytes is not None:
        return training.data_bytes
    if device.type == "cuda":
        return int(DEVICE_SHARE * torch.cuda.mem_get_info(device)[0])
    return int(MEMORY_SHARE * free_memory())


def free_memory(cgroup: Path = CGROUP) -> int:
    """Bytes this process may still take: what the machine has available, or less where a container's limit is lower."""
    available = int(psutil.virtual_memory().available)
    try:
        limit, used = ((cgroup / name).read_text().strip() for name in ("memory.max", "memory.current"))
        cache = next(
            int(line.split()[1]) for line in (cgroup / "memory.stat").read_text().splitlines()
            if line.startswith("inactive_file ")
        )  # fmt: skip
    except (OSError, StopIteration):
        return available  # no limit that this process can see (no cgroup v2, or the root's)
    return available if limit == "max" else min(available, max(0, int(limit) - int(used) + cache))
