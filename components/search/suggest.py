"""The trainings of a round: the trials that go on, and new configs from Optuna."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from components.contracts.files import sha256_json, write_manifest
from components.contracts.trial import Asked
from components.search import study as studies
from components.search.config import SearchConfig
from components.search.halving import going_on
from components.search.space import distributions

REDRAWS = 50
"""Of a config that was tried already, which a space of few values will draw again and again."""


def begin(study: Path, states: Path) -> None:
    """Writes what the first round starts from: a study without trials and no states."""
    studies.write(study, [])
    states.mkdir(parents=True, exist_ok=True)
    write_manifest(states)


def suggest(config: SearchConfig, number: int, study: Path) -> list[Asked]:
    """What round `number` (from 0) trains, never nothing; equal arguments give an equal list.

    Raises:
        CorruptArtifact, DataError: if `study` is not what it claims to be.
    """
    trials = studies.read(study)
    sweep = config.sweep
    fresh = sweep.fresh(number)
    going = going_on(trials, sweep, idle=not fresh, always=config.always)
    # KFP's loops must not be empty. Where no trial can go on, since too many diverged, another config is tried.
    new = draw(config, number, trials, max(fresh, int(not going)))
    known = {trial.number: trial.params for trial in trials}
    asked = [(trial, rung, known[trial]) for trial, rung in going]
    asked += [(len(trials) + place, 0, params) for place, params in enumerate(new)]
    return [_asked(config, *one) for one in asked]


def draw(config: SearchConfig, number: int, trials: Sequence[FrozenTrial], count: int) -> list[dict[str, Any]]:
    """`count` new configs, as Optuna has them: by TPE from what the trials so far came to.

    Tree-structured Parzen estimators, multivariate (Bergstra et al., "Algorithms for hyper-parameter optimization",
    NeurIPS 2011; Falkner et al., "BOHB", ICML 2018, for trials at several budgets: those at higher rungs count first).
    The first round is drawn at random, but for its first config, which is the recipe's own where the space holds it.
    """
    sweep, wanted = config.sweep, distributions(config.sweep.space)
    sampler = optuna.samplers.TPESampler(
        seed=int(sha256_json([sweep.seed, number])[:8], 16), n_startup_trials=sweep.fresh(0)
    )
    with studies.quiet():
        view = optuna.create_study(sampler=sampler, direction="minimize")
        view.add_trials(trials)
        own = config.own() if not trials else None
        if own is not None and count:
            view.enqueue_trial({key: sweep.space[key].to_optuna(value) for key, value in own.items()})
        tried = [trial.params for trial in trials]
        new: list[dict[str, Any]] = []
        for _ in range(count):
            for _ in range(REDRAWS):
                params = dict(view.ask(wanted).params)
                if params not in tried:
                    break
            tried.append(params)
            new.append(params)
        return new


def _asked(config: SearchConfig, trial: int, rung: int, params: dict[str, Any]) -> Asked:
    values = config.values(params)
    candidate, training = config.training(values)
    return Asked(
        trial=trial,
        rung=rung,
        share=config.sweep.share(rung),
        candidate=candidate,
        params=json.dumps(params, sort_keys=True),
        config=training,
    )
