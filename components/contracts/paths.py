"""The home folder (`--home`, default ./var): every path of the project's own state is derived here.

The command line exports ESMM_HOME and its children inherit it; it is never a task parameter, so it enters no
cache key.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from components.contracts.errors import UsageError

HOME_VARIABLE = "ESMM_HOME"
RUN_DIR_VARIABLE = "ESMM_RUN_DIR"
CHECKPOINT_LOCK = "lock"
"""In each folder of `Home.checkpoints`, held by the training that writes there."""


@dataclass(frozen=True)
class Home:
    root: Path

    @staticmethod
    def from_environment() -> Home:
        """Raises UsageError if ESMM_HOME is not set."""
        value = os.environ.get(HOME_VARIABLE)
        if not value:
            raise UsageError(f"{HOME_VARIABLE} is not set: run through `esmm --home DIR`, or export it")
        return Home(Path(value).resolve())

    @staticmethod
    def if_set() -> Home | None:
        """None where ESMM_HOME is not set: a stage on its own, or on a cluster without shared storage."""
        return Home.from_environment() if os.environ.get(HOME_VARIABLE) else None

    @property
    def lock(self) -> Path:
        return self.root / "run.lock"

    @property
    def promotion_lock(self) -> Path:
        return self.root / "promotion.lock"

    @property
    def data(self) -> Path:
        return self.root / "data"

    @property
    def runs(self) -> Path:
        return self.root / "runs"

    @property
    def pipeline_root(self) -> Path:
        return self.root / "pipeline"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def models(self) -> Path:
        """Registered model versions' own files: <dataset>/<run>."""
        return self.root / "models"

    @property
    def checkpoints(self) -> Path:
        """Of trainings that have not ended: <key>/step-*."""
        return self.root / "checkpoints"

    @property
    def mlflow_uri(self) -> str:
        return f"sqlite:///{self.root / 'mlflow.db'}"

    @property
    def bentoml(self) -> Path:
        return self.root / "bentoml"

    def feast(self, dataset: str) -> Path:
        """Live feature store of a dataset: registry.db, online.db, offline/, materialized.json."""
        return self.root / "feast" / dataset


def run_dir() -> Path | None:
    """Folder of the current run's record, or None outside a run (and on a cluster without shared storage)."""
    value = os.environ.get(RUN_DIR_VARIABLE)
    return Path(value) if value else None
