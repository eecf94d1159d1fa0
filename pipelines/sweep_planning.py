"""The plan of a search: that of a run up to the encoded data, then the space and what a trial trains by."""

from __future__ import annotations

import json
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts.config import Config
from components.contracts.errors import UsageError
from components.contracts.paths import Home
from components.contracts.trial import Asked
from components.search.choose import ChooseConfig
from components.search.config import SearchConfig
from pipelines.code_version import code_version
from pipelines.planning import LARGEST_ARGUMENT, make_plan
from pipelines.request import request_of
from pipelines.sweep_request import checked

SHARED = ("ingest", "validate", "retrieve", "encode")


@dataclass(frozen=True)
class SweepPlan:
    configs: dict[str, Config]
    facts: dict[str, Any]

    def outputs(self) -> Any:
        """As the named tuple that the component declares in its signature."""
        return namedtuple("SweepPlan", self.configs)(**{name: c.to_json() for name, c in self.configs.items()})


def make_sweep_plan(data: Path, recipe_name: str, overrides: str, as_of: str, rounds: int, home: Home) -> SweepPlan:
    """Plans a search.

    Raises:
        UsageError: a space that `checked` refuses, or a pipeline of another number of rounds than the recipe asks for;
            else as `make_plan`.
    """
    planned = make_plan(data, recipe_name, overrides, as_of, home)
    recipe = request_of(data, recipe_name, overrides, as_of)[1]
    sweep = checked(recipe)
    if sweep.rounds != rounds:
        raise UsageError(
            f"this pipeline has {rounds} rounds and the recipe asks for {sweep.rounds}: "
            f"give --rounds {rounds}, or compile it again with --rounds {sweep.rounds}"
        )
    search = SearchConfig(
        sweep=sweep,
        candidate=recipe.candidates[0],
        train=planned.configs["train"].to_json(),
        code=code_version("search"),
    )
    _fits_an_argument(search)
    configs: dict[str, Config] = {name: planned.configs[name] for name in SHARED}
    configs |= {"search": search, "choose": ChooseConfig(search=search, overrides=overrides)}
    facts = {
        **planned.facts,
        "sweep": sweep.model_dump(mode="json"),
        "stages": ["plan", *SHARED, "begin", *round_names(rounds), "choose"],
        "code": {name: getattr(config, "code", "") for name, config in planned.configs.items() if name in SHARED}
        | {"train": getattr(planned.configs["train"], "code", ""), "search": search.code},
    }
    return SweepPlan(configs=configs, facts=facts)


def _fits_an_argument(search: SearchConfig) -> None:
    """A round's trainings are one argument of `tell`, and Linux hands a process none of 128 KiB."""
    sweep = search.sweep
    candidate, config = search.training({})
    one = Asked(
        trial=0, rung=0, share=1.0, candidate=candidate, params=json.dumps(sweep.space, default=str), config=config
    )
    most = sweep.fresh(0) + sweep.trials // sweep.eta
    if most * len(json.dumps(json.dumps(one.item()))) > LARGEST_ARGUMENT:
        raise UsageError(
            f"{sweep.trials} trials in {sweep.rounds} rounds are up to {most} trainings a round, too many for one "
            "argument of a task: spread them over more rounds, --rounds"
        )


def round_names(rounds: int) -> list[str]:
    """The stages of all rounds, but for the trials, which are decided as the search goes."""
    return [f"{stage}-{number + 1}" for number in range(rounds) for stage in ("suggest", "tell")]
