"""The declared space of a search: for each key of the config a range or a list of values."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated, Any, Self

from pydantic import (
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    RootModel,
    StrictFloat,
    StrictInt,
    Tag,
    model_validator,
)

from components.contracts.config import Config

if TYPE_CHECKING:
    # Every run reads recipes, and so this file: it does without the quarter of a second that Optuna takes to import.
    from optuna.distributions import BaseDistribution

CANDIDATE = "candidate"
"""The one key that is not of the training config: which candidate is trained."""


class Range(Config):
    """Numbers from `low` to `high`, both included; whole ones where both bounds are."""

    low: StrictInt | StrictFloat
    high: StrictInt | StrictFloat
    log: bool = False
    """Drawn evenly in the logarithm, as learning rates should be."""

    @model_validator(mode="after")
    def _is_not_empty(self) -> Self:
        if not self.low < self.high:
            raise ValueError(f"an empty range, low {self.low:g} is not below high {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"a logarithmic range starts above 0, not at {self.low:g}")
        return self

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def ends(self) -> list[Any]:
        """The values that decide whether all of it is allowed."""
        return [self.low, self.high]

    @property
    def size(self) -> float:
        """Distinct values; infinite of real numbers."""
        return self.high - self.low + 1 if self.whole else math.inf

    def real(self) -> Range:
        """The same range of real numbers: what {"low": 1, "high": 10} means for a key that takes fractions."""
        return Range(low=float(self.low), high=float(self.high), log=self.log)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import FloatDistribution, IntDistribution

        if self.whole:
            return IntDistribution(int(self.low), int(self.high), log=self.log)
        return FloatDistribution(float(self.low), float(self.high), log=self.log)

    def holds(self, value: object) -> bool:
        """Whether a config's value lies in it."""
        return isinstance(value, (int, float)) and not isinstance(value, bool) and self.low <= value <= self.high

    def to_optuna(self, value: Any) -> Any:
        return value

    def from_optuna(self, value: Any) -> Any:
        return value


class Choices(RootModel[Annotated[tuple[JsonValue, ...], Field(min_length=2)]]):
    """Any JSON values, two or more. Optuna takes no lists, so to it each is its own JSON text."""

    model_config = ConfigDict(frozen=True)

    @model_validator(mode="after")
    def _are_distinct(self) -> Self:
        if len(set(self.texts)) < len(self.root):
            raise ValueError("a value is listed twice")
        return self

    @property
    def texts(self) -> list[str]:
        return [json.dumps(value) for value in self.root]

    @property
    def ends(self) -> list[Any]:
        """The values that decide whether all of it is allowed."""
        return list(self.root)

    @property
    def size(self) -> float:
        return len(self.root)

    def distribution(self) -> BaseDistribution:
        from optuna.distributions import CategoricalDistribution

        return CategoricalDistribution(self.texts)

    def holds(self, value: object) -> bool:
        """Whether a config's value, as JSON has it, is one of them."""
        return json.dumps(value) in self.texts

    def to_optuna(self, value: Any) -> str:
        return json.dumps(value)

    def from_optuna(self, value: Any) -> Any:
        return json.loads(value)


def _kind(value: object) -> str | None:
    if isinstance(value, (dict, Range)):
        return "range"
    return "list" if isinstance(value, (list, tuple, Choices)) else None


Dimension = Annotated[
    Annotated[Range, Tag("range")] | Annotated[Choices, Tag("list")],
    Discriminator(
        _kind,
        custom_error_type="dimension",
        custom_error_message='has to be a range, like {"low": 0.001, "high": 0.1, "log": true}, or a list of values',
    ),
]
Space = dict[str, Dimension]


def distributions(space: Space) -> dict[str, BaseDistribution]:
    """Optuna's own, by key, in the order of the names."""
    return {key: space[key].distribution() for key in sorted(space)}
