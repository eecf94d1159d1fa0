"""The end of a search: the best trial, as a config that `esmm run --config` takes, and a table of all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from components.contracts.config import Config, merge, nested
from components.contracts.errors import TrainingDiverged
from components.contracts.files import write_json
from components.contracts.trial import STUDY_LOG
from components.search import study as studies
from components.search.config import SearchConfig
from components.search.halving import ranking
from components.search.space import CANDIDATE

BEST_JSON, TRIALS_JSON = "best.json", "trials.json"
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "diverged"}


class ChooseConfig(Config):
    """`overrides`: what the sweep changed in its recipe (JSON); the best config changes the same, and more."""

    search: SearchConfig
    overrides: str = "{}"


def choose(config: ChooseConfig, study: Path, best: Path, run_dir: Path | None) -> dict[str, Any]:
    """Writes the best config, and into the run folder it, the table of trials and the study.

    The best trial is that of the lowest value at the highest rung that any has reached.

    Args:
        best: the JSON file to write. run_dir: None outside a run.

    Returns:
        Facts for the run record: number, rung and value of the best trial, and those of the recipe's own config.

    Raises:
        TrainingDiverged: if every trial did.
    """
    search = config.search
    trials = studies.read(study)
    found = winner(trials)
    if found is None:
        raise TrainingDiverged(
            f"all {len(trials)} trials diverged: narrow the space towards the recipe's own values. "
            f"The last one says: {trials[-1].user_attrs[studies.REASON]}"
        )
    values = search.values(found.params)
    chosen = best_config(search, json.loads(config.overrides), values)
    write_json(best, chosen)
    if run_dir is not None:
        write_json(run_dir / BEST_JSON, chosen)
        write_json(run_dir / TRIALS_JSON, table(search, trials))
        shutil.copyfile(study / STUDY_LOG, run_dir / STUDY_LOG)
    rung = studies.rung_of(found)
    return {
        "trials": len(trials),
        "best": found.number,
        "rung": rung,
        "last_rung": search.sweep.rungs - 1,
        "value": studies.value_of(found),
        "params": values,
        "recipe": _recipe(search, trials),
    }


def _recipe(search: SearchConfig, trials: Sequence[FrozenTrial]) -> dict[str, Any] | None:
    """Rung and value of the recipe's own config; None if it was not tried, or diverged."""
    tried = [trials[number] for number in search.always if not studies.failed(trials[number])]
    return {"rung": studies.rung_of(tried[0]), "value": studies.value_of(tried[0])} if tried else None


def winner(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """None if there is no value at all. One that diverged at a higher rung is out."""
    alive = [trial for trial in trials if not studies.failed(trial)]
    highest = max((studies.rung_of(trial) for trial in alive), default=-1)
    return ranking(alive, highest)[0] if highest >= 0 else None


def best_config(search: SearchConfig, overrides: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Changes to the recipe: those of the sweep's command line, the chosen values, and the one candidate."""
    config = {key: value for key, value in overrides.items() if key != "sweep"}
    for key, value in sorted(values.items()):
        if key != CANDIDATE:
            config = merge(config, nested(key, value))
    return config | {"candidates": [values.get(CANDIDATE, search.candidate)]}


def table(search: SearchConfig, trials: Sequence[FrozenTrial]) -> list[dict[str, Any]]:
    """A row a trial, by number; `values` by rung, from the first."""
    return [
        {
            "trial": trial.number,
            "state": STATES[trial.state.name],
            "rung": studies.rung_of(trial),
            "value": studies.value_of(trial) if trial.intermediate_values else None,
            "values": [value for _, value in sorted(trial.intermediate_values.items())],
            "params": search.values(trial.params),
            "steps": trial.user_attrs[studies.STEPS],
            "best_step": trial.user_attrs[studies.BEST_STEP],
            "rows": trial.user_attrs[studies.ROWS],
            "reason": trial.user_attrs[studies.REASON],
        }
        for trial in trials
    ]
