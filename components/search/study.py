"""The study between two rounds: one file, an Optuna journal, that is written whole and never changed.

Optuna's journal is appended to under a lock beside it, and a told trial can never be asked again: neither fits an
artifact, or a trial that is promoted. So each round writes the study anew, with every trial as it now stands:
COMPLETE at the last rung, PRUNED at one below (it may still go on), FAIL if it diverged. `intermediate_values` are by
rung. Any tool of Optuna's reads the file.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from components.contracts.errors import DataError
from components.contracts.files import new_folder, read_manifest, write_manifest
from components.contracts.times import parse_utc
from components.contracts.trial import STUDY_LOG, Result

NAME = "esmm-sweep"
REASON, STEPS, BEST_STEP, ROWS = "reason", "steps", "best_step", "rows"


def write(folder: Path, trials: Iterable[FrozenTrial]) -> None:
    """Writes a study artifact. `trials` in the order of their numbers, from 0."""
    with quiet(), new_folder(folder) as aside:
        log = aside / STUDY_LOG
        study = optuna.create_study(
            storage=optuna.storages.JournalStorage(JournalFileBackend(str(log))), study_name=NAME, direction="minimize"
        )
        for number, trial in enumerate(trials):
            assert trial.number == number, "trials are numbered by their order in the study"
            study.add_trial(trial)
        write_manifest(aside, trials=len(study.trials))


def read(folder: Path) -> list[FrozenTrial]:
    """The trials of a study artifact, by number.

    Raises:
        CorruptArtifact, DataError: if the folder is not exactly what its manifest says.
    """
    read_manifest(folder)
    # Optuna opens a journal with a lock file beside it, and an input artifact may not be written to.
    with quiet(), tempfile.TemporaryDirectory() as scratch:
        log = shutil.copyfile(folder / STUDY_LOG, Path(scratch) / STUDY_LOG)
        try:
            storage = optuna.storages.JournalStorage(JournalFileBackend(str(log)))
            return optuna.load_study(study_name=NAME, storage=storage).trials
        except (KeyError, ValueError) as error:
            raise DataError(f"{folder / STUDY_LOG} is no study of a sweep ({error}): run the sweep again") from None


def new(number: int, params: dict[str, Any], distributions: dict[str, BaseDistribution]) -> FrozenTrial:
    """A trial that has come to nothing yet."""
    return FrozenTrial(
        number=number,
        trial_id=number,
        state=TrialState.WAITING,
        value=None,
        datetime_start=None,
        datetime_complete=None,
        params=params,
        distributions=distributions,
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def standing(trial: FrozenTrial, result: Result, last_rung: int) -> FrozenTrial:
    """The trial after `result`: a new one, `trial` stays as it was."""
    values = dict(trial.intermediate_values)
    if result.value is None:
        state = TrialState.FAIL
    else:
        values[result.rung] = result.value
        state = TrialState.COMPLETE if result.rung == last_rung else TrialState.PRUNED
    facts = {REASON: result.reason, STEPS: result.steps, BEST_STEP: result.best_step, ROWS: result.rows}
    return FrozenTrial(
        number=trial.number,
        trial_id=trial.number,
        state=state,
        value=result.value if state == TrialState.COMPLETE else None,
        datetime_start=trial.datetime_start or _time(result.started),
        datetime_complete=_time(result.ended),
        params=trial.params,
        distributions=trial.distributions,
        user_attrs={**trial.user_attrs, **facts},
        system_attrs={},
        intermediate_values=values,
    )


def _time(text: str) -> datetime:
    """Optuna's times have no zone; these are UTC."""
    return parse_utc(text).replace(tzinfo=None)


def rung_of(trial: FrozenTrial) -> int:
    """The highest rung that the trial has a value at, -1 if none."""
    return max(trial.intermediate_values, default=-1)


def failed(trial: FrozenTrial) -> bool:
    return trial.state == TrialState.FAIL


def value_of(trial: FrozenTrial) -> float:
    """Its value at the highest rung it has one at."""
    return trial.intermediate_values[rung_of(trial)]


@contextmanager
def quiet() -> Iterator[None]:
    """Optuna logs a line for every trial that is added; the stage says itself what there is to say."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
