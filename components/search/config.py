"""What a search can be told: the part of a recipe called `sweep`."""

from __future__ import annotations

import json
import math
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from components.contracts.config import Config, merge, nested
from components.search.space import CANDIDATE, Choices, Range, Space

DEFAULT_SPACE: Space = {
    "candidate": Choices(("esmm", "esmm-ns", "base")),
    "training.lr": Range(low=3e-4, high=1e-2, log=True),
    "training.embedding_lr": Range(low=1e-2, high=0.3, log=True),
    "training.embedding_accumulator": Choices((0.0, 0.1)),
    "training.hidden": Choices(([40, 20], [80, 40], [200, 80])),
    "training.batch_size": Choices((256, 1024, 4096)),
}


class SweepConfig(Config):
    """A search by successive halving, in rounds; what its numbers mean is in docs/sweep.md."""

    space: Space = Field(DEFAULT_SPACE, min_length=1)
    trials: int = Field(12, gt=0)
    """Configs that are tried in all."""
    rounds: int = Field(4, gt=0)
    """Of suggesting, training and telling. The pipeline has so many loops."""
    rungs: int = Field(3, gt=0)
    """Budgets that a config is compared at; the last is the whole training."""
    eta: int = Field(3, ge=2)
    """Of the trials at a rung the best 1/eta go on, to eta times the budget."""
    seed: int = Field(0, ge=0)
    """Of the suggestions. The trainings keep `training.seed`: a search must not look for lucky ones."""

    @field_validator("space", mode="before")
    @classmethod
    def _is_json_or_its_text(cls, space: Any) -> Any:
        """A space as text replaces another where configs are merged, as a mapping it would be merged with it."""
        if isinstance(space, str):
            try:
                return json.loads(space)
            except json.JSONDecodeError as error:
                raise ValueError(f"no JSON ({error})") from None
        return space

    @model_validator(mode="after")
    def _rounds_suffice(self) -> Self:
        if self.rungs > self.rounds:
            raise ValueError(f"{self.rungs} rungs take {self.rungs} rounds or more, not {self.rounds}")
        if self.trials < self.suggesting:
            raise ValueError(f"{self.trials} trials are too few: {self.suggesting} rounds suggest one or more each")
        size = math.prod(dimension.size for dimension in self.space.values())
        if self.trials > size:
            raise ValueError(f"{self.trials} trials are too many: the space holds {size:.0f} configs")
        return self

    @property
    def suggesting(self) -> int:
        """Rounds that suggest configs: those that leave rounds enough to reach the last rung."""
        return self.rounds - self.rungs + 1

    def fresh(self, number: int) -> int:
        """Configs that round `number` (from 0) suggests: evenly, the first rounds one more where it does not divide."""
        if number >= self.suggesting:
            return 0
        each, more = divmod(self.trials, self.suggesting)
        return each + (number < more)

    def share(self, rung: int) -> float:
        """Of the whole training that `rung` (from 0) goes to: eta^-(rungs - 1 - rung)."""
        return float(self.eta) ** (rung - self.rungs + 1)


class SearchConfig(Config):
    """All that suggest and tell read beside their artifacts."""

    sweep: SweepConfig
    candidate: str
    """Trained where the space does not name one."""
    train: str
    """The TrainConfig that a trial's values are merged into, as JSON."""
    code: str = ""

    def values(self, params: dict[str, Any]) -> dict[str, Any]:
        """What Optuna drew, as the config takes it."""
        return {key: self.sweep.space[key].from_optuna(value) for key, value in params.items()}

    def training(self, values: dict[str, Any]) -> tuple[str, str]:
        """Candidate and TrainConfig (JSON) of a trial; `values`: of the space's keys, as the config takes them.

        Of the candidates only the one that is trained is kept, so that a trial is not trained again because another
        changed.
        """
        config: dict[str, Any] = json.loads(self.train)
        candidate: str = values.get(CANDIDATE, self.candidate)
        for key, value in values.items():
            if key != CANDIDATE:
                config = merge(config, nested(key, value))
        shapes = config["training"]["candidates"]
        config["training"]["candidates"] = {candidate: shapes[candidate]}
        return candidate, json.dumps(config, sort_keys=True)

    @property
    def always(self) -> tuple[int, ...]:
        """Trials that go on whatever they come to: the recipe's own config, so that the end says what was gained."""
        return () if self.own() is None else (0,)

    def own(self) -> dict[str, Any] | None:
        """The space's keys as the config has them by itself; None where one lies outside of the space."""
        config: dict[str, Any] = {CANDIDATE: self.candidate, **json.loads(self.train)}
        found: dict[str, Any] = {}
        for key, dimension in self.sweep.space.items():
            value: Any = config
            for step in key.split("."):
                value = value[step]
            if not dimension.holds(value):
                return None
            found[key] = value
        return found
