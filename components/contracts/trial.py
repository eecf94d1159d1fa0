"""What the search hands to a training and gets back: a trial's rung, and what it came to.

A trial is one config. It trains to the share of the whole that its rung allows, is compared, and goes on from where it
stopped if it is promoted. Between rounds its state travels in artifacts:

    state (train_trial)     trial.json and, unless it diverged, what training needs to go on
    study (tell)            study.log: an Optuna journal, every trial with its values so far
    states (tell)           trial-<number>/: the state of each trial that may still go on
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from components.contracts.config import Config
from components.contracts.files import read_manifest

TRIAL_JSON = "trial.json"
STUDY_LOG = "study.log"


class Asked(Config):
    """One training of one round. `params` are the values chosen, `config` the whole TrainConfig as JSON."""

    trial: int = Field(ge=0)
    rung: int = Field(ge=0)
    share: float = Field(gt=0, le=1)
    """Of the whole training that this rung goes to."""
    candidate: str
    params: str
    config: str

    def item(self) -> dict[str, str]:
        """As an item of a KFP loop, which holds texts."""
        return {"trial": str(self.trial), "asked": self.to_json()}


class Result(Config):
    """trial.json: what a trial has come to at a rung. `value`: CTCVR log loss on validation in nats, as a run compares
    its candidates; None if it diverged, and `reason` says how."""

    trial: int
    rung: int
    share: float
    value: float | None
    reason: str = ""
    began_at: int = 0
    """The step it went on from; 0: from the start."""
    steps: int
    """Steps done since the start of the training."""
    best_step: int
    rows: int
    """Rows seen since the start."""
    weights: str = ""
    """sha256 of the weights, as the manifest of a model artifact with the same ones has it."""
    started: str
    ended: str


def folder_of(states: Path, trial: int) -> Path:
    """Where a trial's state lies within a `states` artifact."""
    return states / f"trial-{trial}"


def read_result(state: Path) -> Result:
    """Raises CorruptArtifact or DataError if the folder is not exactly what its manifest says."""
    read_manifest(state)
    return Result.parse((state / TRIAL_JSON).read_bytes(), where=str(state / TRIAL_JSON))
