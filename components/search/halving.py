"""Which trials go on: asynchronous successive halving, in rounds.

Li et al., "A System for Massively Parallel Hyperparameter Tuning" (ASHA), MLSys 2020, algorithm 2: a trial goes on as
soon as it is among the best 1/eta of those that have finished its rung, whenever they did. A trial that was passed over
in one round may go on in a later one, when worse ones have joined it. Here decisions fall once a round, for all rungs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from optuna.trial import FrozenTrial

from components.search.config import SweepConfig
from components.search.study import failed, rung_of


def going_on(
    trials: Sequence[FrozenTrial], sweep: SweepConfig, idle: bool = False, always: Collection[int] = ()
) -> list[tuple[int, int]]:
    """Trials that go on, with the rung each goes to; the highest rungs first, then the best.

    Of every rung at least one goes on, or a search of few trials would never end a training. Those that diverged count
    among those that finished, and never go on. With `idle` one trial goes on even where the rule would have it wait:
    the best of the highest rung, if there is any that can. Those in `always` go on whatever their place.
    """
    going: list[tuple[int, int]] = []
    waiting: list[tuple[int, int]] = []
    for rung in range(sweep.rungs - 2, -1, -1):
        ranked = ranking(trials, rung)
        finished = len(ranked) + sum(failed(trial) and rung_of(trial) == rung - 1 for trial in trials)
        for place, trial in enumerate(ranked):
            if rung_of(trial) > rung or failed(trial):
                continue
            chosen = going if place < max(1, finished // sweep.eta) or trial.number in always else waiting
            chosen.append((trial.number, rung + 1))
    return going or waiting[: int(idle)]


def may_go_on(trials: Sequence[FrozenTrial], sweep: SweepConfig, always: Collection[int] = ()) -> list[int]:
    """Numbers of the trials that could still go on, however those to come turn out: their state is kept.

    A trial's place at its rung only falls as others join it, and no more can join it than there will be trials.
    """
    most = max(len(trials), sweep.trials)
    kept: list[int] = []
    for rung in range(sweep.rungs - 1):
        for place, trial in enumerate(ranking(trials, rung)):
            there = rung_of(trial) == rung and not failed(trial)
            if there and (place < max(1, most // sweep.eta) or trial.number in always):
                kept.append(trial.number)
    return sorted(kept)


def ranking(trials: Sequence[FrozenTrial], rung: int) -> list[FrozenTrial]:
    """Trials with a value at `rung`, the lowest first; between equals the older."""
    there = [trial for trial in trials if rung in trial.intermediate_values]
    return sorted(there, key=lambda trial: (trial.intermediate_values[rung], trial.number))
