"""What a round came to goes into the study; the states of trials that may go on are kept."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

from components.contracts.errors import DataError
from components.contracts.files import new_folder, write_manifest
from components.contracts.trial import Asked, Result, folder_of, read_result
from components.search import study as studies
from components.search.config import SearchConfig
from components.search.halving import may_go_on
from components.search.space import distributions


def tell(
    config: SearchConfig,
    asked: Sequence[Asked],
    reached: Sequence[Path],
    study: Path,
    states: Path,
    told: Path,
    kept: Path,
) -> dict[str, Any]:
    """Writes the study and the states that the next round starts from.

    Args:
        asked: the round's trainings; reached: the state artifact of each, in the same order.
        study, states: artifacts that the round started from. told, kept: those to write.

    Returns:
        Facts for the run record: how the round's trials did, and the best value so far.

    Raises:
        DataError: results that are not those of `asked`; CorruptArtifact: an artifact that changed.
    """
    results = [read_result(folder) for folder in reached]
    if [(result.trial, result.rung) for result in results] != [(one.trial, one.rung) for one in asked]:
        raise DataError(
            f"the round asked for trials {[one.trial for one in asked]} and got {[r.trial for r in results]}: "
            "run the sweep again"
        )
    trials = dict(enumerate(studies.read(study)))
    wanted = distributions(config.sweep.space)
    for one, result in zip(asked, results, strict=True):
        before = trials.get(one.trial) or studies.new(one.trial, json.loads(one.params), wanted)
        trials[one.trial] = studies.standing(before, result, config.sweep.rungs - 1)
    standing = [trials[number] for number in sorted(trials)]
    studies.write(told, standing)

    sources = {trial: folder_of(states, trial) for trial in trials}
    sources |= {result.trial: folder for result, folder in zip(results, reached, strict=True)}
    going = may_go_on(standing, config.sweep, config.always)
    with new_folder(kept) as aside:
        for trial in going:
            if sources[trial].is_dir():  # one that is not there would be trained from the start
                shutil.copytree(sources[trial], folder_of(aside, trial), copy_function=_link)
        write_manifest(aside, trials=going)
    return {
        "trials": {str(result.trial): _fact(result) for result in results},
        "best": min((studies.value_of(t) for t in standing if t.state == TrialState.COMPLETE), default=None),
        "kept": going,
    }


def _fact(result: Result) -> dict[str, Any]:
    return result.model_dump(include={"rung", "value", "reason", "steps"})


def _link(source: str, target: str) -> str:
    """A hard link where the file system has one: sealed files never change, and a table may hold gigabytes."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
    return target
