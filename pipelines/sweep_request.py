"""A search's space held against the recipe, before anything starts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from components.contracts.config import merge, nested
from components.contracts.errors import DataError, UsageError
from components.contracts.files import read_json
from components.search.config import SweepConfig
from components.search.space import CANDIDATE, Range, Space
from components.training.config import INDIFFERENT
from pipelines.recipes import Recipe

PREFIX = "training."
SAME_FOR_ALL = {
    "seed": "the best of several seeds is luck, and gone on the next day",
    "epochs": "the rungs are shares of it",
    "max_steps": "the rungs are shares of it",
    "evaluations": "the rungs end where training is evaluated",
    "patience": "the rungs decide who goes on",
    "threads": "it decides how fast a training is, not how good",
    **dict.fromkeys(set(INDIFFERENT) - {"candidates"}, "it does not change what a training comes to"),
}
"""Keys of the training config that no trial may have of its own, and why."""


def changes_for(file: str | None, trials: int | None, rounds: int | None) -> dict[str, Any]:
    """What --sweep, --trials and --rounds change in a recipe. `file` None: no sweep; "": over the recipe's own space.

    Raises:
        UsageError: the file cannot be read or holds no JSON object; the other two without --sweep.
    """
    told = {name: value for name, value in (("trials", trials), ("rounds", rounds)) if value is not None}
    if file is None:
        if told:
            raise UsageError(f"--{next(iter(told))} belongs to a search: add --sweep")
        return {}
    changes: dict[str, Any] = {"sweep": told} if told else {}
    if file:
        try:
            space = read_json(Path(file))
        except DataError as error:
            raise UsageError(f"--sweep: {error}") from None
        if not isinstance(space, dict) or not space:
            raise UsageError(
                f"--sweep {file} declares no space: write it like "
                '{"training.lr": {"low": 0.0003, "high": 0.01, "log": true}}'
            )
        # As text it replaces the recipe's space, as a mapping it would be merged with it.
        changes = merge(changes, {"sweep": {"space": json.dumps(space, sort_keys=True)}})
    return changes


def checked(recipe: Recipe) -> SweepConfig:
    """The recipe's search, its space held against the recipe: every end of every range, and every value of every list.

    Raises:
        UsageError: a key that does not exist, or has to be the same for all trials; a value that the key cannot have.
    """
    _rungs_differ(recipe)
    space: Space = {}
    for key, dimension in recipe.sweep.space.items():
        if key != CANDIDATE:
            _may_vary(key)
        before = _value(recipe, key)
        if isinstance(dimension, Range) and isinstance(before, float):
            dimension = dimension.real()
        for value in dimension.ends:
            change = {"candidates": [value]} if key == CANDIDATE else nested(key, value)
            try:
                Recipe.parse(merge(recipe.model_dump(mode="json"), change), where=f"sweep.space, {key}")
            except UsageError as error:
                raise UsageError(f"{error} (a value of the space: {json.dumps(value)})") from None
        space[key] = dimension
    return recipe.sweep.model_copy(update={"space": space})


def _rungs_differ(recipe: Recipe) -> None:
    """A rung ends where training is evaluated anyway: an evaluation more would change which weights are kept."""
    sweep, evaluations = recipe.sweep, recipe.training.evaluations * recipe.training.epochs
    shares = [sweep.share(rung) for rung in range(sweep.rungs)]
    if len({max(1, round(share * evaluations)) for share in shares}) < sweep.rungs:
        needed = math.ceil(1 / (shares[0] * recipe.training.epochs))
        raise UsageError(
            f"{sweep.rungs} rungs end at {', '.join(f'{share:.3g}' for share in shares)} of a training, which "
            f"{evaluations} evaluations cannot tell apart: --set training.evaluations={needed}, or fewer sweep.rungs"
        )


def _may_vary(key: str) -> None:
    if not key.startswith(PREFIX):
        raise UsageError(
            f"sweep.space, {key}: a trial may differ in {CANDIDATE!r} and in keys of {PREFIX}* alone; "
            "what changes data or verdict would make trials incomparable"
        )
    reason = SAME_FOR_ALL.get(key.removeprefix(PREFIX))
    if reason is not None:
        raise UsageError(f"sweep.space, {key}: has to be the same for all trials ({reason}): use --set {key}=VALUE")


def _value(recipe: Recipe, key: str) -> Any:
    """What the recipe has at a dotted key."""
    if key == CANDIDATE:
        return recipe.candidates[0]
    value: Any = recipe.model_dump(mode="json")
    for step in key.split("."):
        if not isinstance(value, dict) or step not in value:
            near = ", ".join(sorted(value)) if isinstance(value, dict) else "nothing"
            raise UsageError(f"sweep.space, {key}: there is no {step!r}; there is {near}")
        value = value[step]
    return value
