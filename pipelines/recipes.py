"""Named typed configs of a whole run. A recipe is a function; a dataset names its default one.

`--set training.batch_size=512` and `--config FILE.json` change single values; the result is validated as a
whole, so a misspelt key or a value of the wrong type is an error, never ignored.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Self

from pydantic import model_validator

from components.contracts.config import Config, merge, nested
from components.contracts.dataset import SplitConfig
from components.contracts.errors import UsageError
from components.evaluation.gates import EvaluationConfig
from components.features.parity.settings import ParitySettings
from components.search.config import SweepConfig
from components.search.space import Choices, Range
from components.training.config import TrainingConfig
from components.validation.validate import ValidationLimits


class Recipe(Config):
    """What a run does with a dataset. `split` None: as the dataset says. `reference` is the file of an accepted profile
    that drift is judged against (docs/drift.md); "": drift is not judged."""

    candidates: tuple[str, ...] = ("esmm", "esmm-ns", "base")
    split: SplitConfig | None = None
    reference: str = ""
    validation: ValidationLimits = ValidationLimits()
    training: TrainingConfig = TrainingConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    parity: ParitySettings = ParitySettings()
    sweep: SweepConfig = SweepConfig()
    """Only `esmm run --sweep` reads it."""

    @model_validator(mode="after")
    def _candidates_are_known(self) -> Self:
        if not self.candidates or len(set(self.candidates)) < len(self.candidates):
            raise ValueError("candidates: name at least one, each once")
        unknown = [name for name in self.candidates if name not in self.training.candidates]
        if unknown:
            known = ", ".join(sorted(self.training.candidates))
            raise ValueError(f"candidates: {', '.join(unknown)} unknown, there are {known}")
        return self


def nightly() -> Recipe:
    """The default: three candidates, one pass over the training split."""
    return Recipe()


def own() -> Recipe:
    """For one's own logs: as nightly, with vocabulary and gates left at their defaults."""
    return Recipe()


def hillstrom() -> Recipe:
    """The e-mail challenge: 64,000 rows and 578 conversions, so small batches and gates that noise cannot trip."""
    return Recipe(
        training=TrainingConfig(
            batch_size=256, dimension=8, hidden=(16,), embedding_lr=0.03, lr=1e-3, epochs=5, patience=10
        ),
        evaluation=EvaluationConfig(ctr_auc_min=0.58, ctcvr_auc_min=0.5, ctcvr_gain_min=0.0),
        sweep=SweepConfig(
            space={
                "candidate": Choices(("esmm", "esmm-ns", "base")),
                "training.lr": Range(low=3e-4, high=1e-2, log=True),
                "training.embedding_lr": Range(low=3e-3, high=0.1, log=True),
                "training.dimension": Choices((4, 8, 16)),
                "training.hidden": Choices(([16], [32, 16], [64])),
                "training.batch_size": Choices((128, 256, 512)),
            }
        ),
    )


def ali_ccp() -> Recipe:
    """Ali-CCP, raw: batches that shrink with the set, one pass, gates for few conversions and no real times."""
    return Recipe(
        training=TrainingConfig(min_steps=200, dimension=8, hidden=(64, 32), embedding_lr=0.02, lr=1e-3),
        evaluation=EvaluationConfig(min_test_conversions=30, ctcvr_auc_min=0.5, ctcvr_gain_min=0.0),
        sweep=SweepConfig(
            space={
                "candidate": Choices(("esmm", "esmm-ns", "base")),
                "training.lr": Range(low=3e-4, high=1e-2, log=True),
                "training.embedding_lr": Range(low=3e-3, high=0.1, log=True),
                "training.dimension": Choices((8, 18)),
                "training.hidden": Choices(([64, 32], [200, 80])),
                "training.batch_size": Choices((1024, 4096)),
            }
        ),
    )


def smoke() -> Recipe:
    """A small simulated shop in a minute: small batches, gates for some hundred conversions."""
    return Recipe(training=TrainingConfig(batch_size=256, lr=1e-3, embedding_lr=0.05))


RECIPES: dict[str, Callable[[], Recipe]] = {
    "nightly": nightly,
    "own": own,
    "hillstrom": hillstrom,
    "ali_ccp": ali_ccp,
    "smoke": smoke,
}


def load(name: str, overrides: str = "{}") -> Recipe:
    """The named recipe with `overrides` (JSON of nested keys) merged into it.

    Raises:
        UsageError: unknown recipe (listing those that exist), unknown key, wrong type.
    """
    if name not in RECIPES:
        raise UsageError(f"unknown recipe {name!r}: choose one of {', '.join(sorted(RECIPES))}")
    recipe = RECIPES[name]()
    changes = json.loads(overrides or "{}")
    return Recipe.parse(merge(recipe.model_dump(), changes), where=f"recipe {name}") if changes else recipe


def parse_sets(sets: tuple[str, ...]) -> dict[str, Any]:
    """`("training.lr=1e-3",)` -> `{"training": {"lr": 0.001}}`; values are JSON, or else text.

    Raises:
        UsageError: for an item without `=`.
    """
    changes: dict[str, Any] = {}
    for item in sets:
        path, equals, text = item.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {item!r} is not KEY=VALUE, like training.batch_size=512")
        try:
            value = json.loads(text)
        except json.JSONDecodeError:
            value = text
        changes = merge(changes, nested(path, value))
    return changes
