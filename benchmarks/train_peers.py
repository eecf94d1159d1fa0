"""The peers of `esmm bench train`, each through its own training loop. Runs in the peers' venv (`train_venv.py`).

DeepCTR-Torch 0.3.0: `ESMM.fit`. torch-rechub 0.9.0: `MTLTrainer.train_one_epoch`, with a loader like `DataGenerator`'s.
Both with Adam, and with their penalties off (`l2_reg_embedding`, `weight_decay`), which would read all tables each
step, though both are on by default; `default_deepctr` leaves its own on. What costs, and is theirs:

- dense Adam over every row of every table;
- a `DataLoader` that takes its rows one at a time, in Python. `ready_steps` gives the same loops ready-made batches;
- of torch-rechub: three lookups of all embeddings a forward pass, and batch normalization in the towers.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from benchmarks.train_data import BATCH, DIMENSION, HIDDEN, Impressions, read

LEARNING_RATES = {"deepctr": 2e-3, "rechub": 1e-3}
"""Adam's: of .001 (the default of both), .002, .004 and .008 the best by CTCVR AUC after a pass over seed 0."""


class Batches:
    """In place of a `DataLoader` over tensors: the same batches in the same kind of order, cut at once."""

    def __init__(self, dataset: Any, shuffle: bool, batch_size: int) -> None:
        self.tensors, self.shuffle, self.size = dataset.tensors, shuffle, batch_size

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        rows = len(self.tensors[0])
        order = torch.randperm(rows) if self.shuffle else torch.arange(rows)
        for part in torch.split(order, self.size):
            yield [tensor[part] for tensor in self.tensors]


class DeepCtr:
    """DeepCTR-Torch's ESMM; with `penalties` "default" as it comes, else without."""

    def __init__(self, folder: Path, sizes: tuple[int, ...], device: str, penalties: str = "none") -> None:
        # It would ask PyPI whether there is a newer one, in a thread.
        with mock.patch("threading.Thread.start"):
            from deepctr_torch.inputs import SparseFeat
            from deepctr_torch.models import ESMM, basemodel
        self.model_type, self.basemodel = ESMM, basemodel
        self.options = {} if penalties == "default" else {"l2_reg_embedding": 0}
        self.columns = [SparseFeat(f"f{n}", size, embedding_dim=DIMENSION) for n, size in enumerate(sizes)]
        self.folder, self.device = folder, "cuda:0" if device == "cuda" else device
        train, self.truth = read(folder, "train"), read(folder, "test")
        self.x, self.y = self._input(train), self._labels(train)
        self.fresh(0)
        self.parts = cycle(range(0, len(train) - BATCH + 1, BATCH))

    def fresh(self, seed: int) -> None:
        self.model = self.model_type(
            self.columns, tower_dnn_hidden_units=HIDDEN, seed=1024 + seed, device=self.device, **self.options
        )
        adam = torch.optim.Adam(self.model.parameters(), lr=LEARNING_RATES["deepctr"])
        self.model.compile(adam, loss=["binary_crossentropy", "binary_crossentropy"], metrics=["auc"])

    @staticmethod
    def _input(found: Impressions) -> dict[str, NDArray[Any]]:
        # As float32, which `fit` would make of it: it keeps all features of a batch in one tensor.
        return {f"f{n}": found.ids[:, n].astype(np.float32) for n in range(found.ids.shape[1])}

    @staticmethod
    def _labels(found: Impressions) -> NDArray[np.float32]:
        return np.stack([found.click, found.conversion], 1)

    def steps(self, count: int) -> int:
        """One call of `fit` over so many batches."""
        starts = list(islice(self.parts, count))
        x = {name: np.concatenate([column[at : at + BATCH] for at in starts]) for name, column in self.x.items()}
        y = np.concatenate([self.y[at : at + BATCH] for at in starts])
        self.model.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        return count * BATCH

    def ready_steps(self, count: int) -> int:
        with mock.patch.object(self.basemodel, "DataLoader", Batches):
            return self.steps(count)

    def learn(self, seed: int) -> float:
        """One pass of a fresh model; its seconds."""
        self.fresh(seed)
        started = time.perf_counter()
        self.model.fit(dict(self.x), self.y, batch_size=BATCH, epochs=1, verbose=0)
        return time.perf_counter() - started

    def predictions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        found = self.model.predict(self._input(self.truth), BATCH)
        return found[:, 0], found[:, 1]

    def epoch(self) -> float:
        started = time.perf_counter()
        train, test = read(self.folder, "train"), read(self.folder, "test")
        self.fresh(0)
        valid = (self._input(test), self._labels(test))
        self.model.fit(self._input(train), self._labels(train), BATCH, 1, verbose=0, validation_data=valid)
        return time.perf_counter() - started


class Rechub:
    """torch-rechub's ESMM. Its first tower is CVR's."""

    def __init__(self, folder: Path, sizes: tuple[int, ...], device: str) -> None:
        from torch_rechub.basic.features import SparseFeature
        from torch_rechub.models.multi_task import ESMM
        from torch_rechub.trainers import MTLTrainer
        from torch_rechub.utils.data import TorchDataset

        self.model_type, self.trainer_type, self.feature_type = ESMM, MTLTrainer, SparseFeature
        self.dataset_type = TorchDataset
        self.sizes, self.device = sizes, "cuda:0" if device == "cuda" else device
        train, self.truth = read(folder, "train"), read(folder, "test")
        self.columns = [torch.from_numpy(np.ascontiguousarray(train.ids[:, n])) for n in range(len(sizes))]
        # Conversion given a click, click, and both. Of the first it computes a loss and leaves it out of the sum.
        self.labels = torch.from_numpy(np.stack([train.conversion, train.click, train.conversion], 1))
        self.fresh(0)
        self.parts = cycle(torch.split(torch.arange(len(train)), BATCH))

    def fresh(self, seed: int) -> None:
        torch.manual_seed(seed)
        features = [self.feature_type(f"f{n}", size, embed_dim=DIMENSION) for n, size in enumerate(self.sizes)]
        tower = {"dims": list(HIDDEN)}
        model = self.model_type(features[:1], features[1:], dict(tower), dict(tower))
        self.trainer = self.trainer_type(
            model,
            ["classification"] * 3,
            optimizer_params={"lr": LEARNING_RATES["rechub"], "weight_decay": 0},
            n_epoch=1,
            device=self.device,
        )

    def _rows(self, rows: torch.Tensor) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
        return {f"f{n}": column[rows] for n, column in enumerate(self.columns)}, self.labels[rows]

    def _train(self, rows: torch.Tensor) -> None:
        loader = DataLoader(self.dataset_type(*self._rows(rows)), batch_size=BATCH, shuffle=True)
        self.trainer.train_one_epoch(loader)

    def steps(self, count: int) -> int:
        """One call of `train_one_epoch` over so many batches."""
        rows = torch.cat(list(islice(self.parts, count)))
        self._train(rows)
        return len(rows)

    def ready_steps(self, count: int) -> int:
        parts = list(islice(self.parts, count))
        self.trainer.train_one_epoch(map(self._rows, parts))
        return sum(map(len, parts))

    def learn(self, seed: int) -> float:
        """One pass of a fresh model; its seconds."""
        self.fresh(seed)
        started = time.perf_counter()
        self._train(torch.arange(len(self.labels)))
        return time.perf_counter() - started

    def predictions(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        model = self.trainer.model
        model.eval()
        found = []
        with torch.no_grad():
            for ids in np.array_split(self.truth.ids, max(1, len(self.truth) // BATCH)):
                columns = {f"f{n}": torch.from_numpy(ids[:, n]).to(self.device) for n in range(ids.shape[1])}
                found.append(model(columns).cpu().double().numpy())
        whole = np.concatenate(found)
        return whole[:, 1], whole[:, 2]
