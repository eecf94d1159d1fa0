"""From a dataset, a recipe, an as-of time and the registry's state to one JSON config a stage.

Pure but for what it reads: the dataset's files, the registry, the package's own sources.
"""

from __future__ import annotations

import json
import subprocess
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import dataset as ds
from components.contracts.artifacts import read_model
from components.contracts.config import Config
from components.contracts.decision import ChampionRef
from components.contracts.errors import UsageError
from components.contracts.paths import Home, run_dir
from components.contracts.times import parse_utc
from components.evaluation.evaluate import EvaluateConfig
from components.features.encode import EncodeConfig
from components.features.materialize import MaterializeConfig
from components.features.parity.stage import ParityConfig
from components.features.retrieve import RetrieveConfig
from components.ingestion.ingest import IngestConfig
from components.packaging import registry
from components.packaging.bento import PackageConfig
from components.packaging.promote import PromoteConfig
from components.packaging.smoke_test import SmokeTestConfig
from components.training.config import TrainConfig
from components.validation.profile import CATEGORIES
from components.validation.validate import ValidateConfig
from pipelines.code_version import code_version
from pipelines.feature_spec import check_in_use, feature_spec
from pipelines.request import reference_of, request_of

LARGEST_ARGUMENT = 100_000
"""Bytes of a stage's config, quoted: Linux hands a process no single argument of 128 KiB or more."""


@dataclass(frozen=True)
class Planned:
    as_of: str
    candidates: list[str]
    configs: dict[str, Config]
    facts: dict[str, Any]

    def outputs(self) -> Any:
        """As the named tuple that the plan component declares in its signature."""
        fields = {"as_of": self.as_of, "candidates": self.candidates}
        fields |= {name: config.to_json() for name, config in self.configs.items()}
        return namedtuple("Plan", fields)(**fields)


def make_plan(data: Path, recipe_name: str, overrides: str, as_of: str, home: Home) -> Planned:
    """Plans a run.

    Raises:
        DataError: no dataset at `data`.
        UsageError: unknown recipe or key, as-of that is no time or not after the data begins, a reference that is no
            profile of this dataset or too large.
        FeatureSpecError: a feature that leaks by name, or was removed while a model in use needs it.
    """
    info, recipe, until = request_of(data, recipe_name, overrides, as_of)
    spec = feature_spec(info, ds.view_names(data))
    champion = registry.champion(home, info.name)
    previous = registry.previous(home, info.name)
    in_use = [read_model(Path(v.source), verify=False).spec for v in (champion, previous) if v is not None]
    both = check_in_use(spec, in_use)
    fingerprint = ds.data_fingerprint(data, parse_utc(until))
    champion_ref = ChampionRef(version=champion.version, source=champion.source, run=champion.run) if champion else None

    configs: dict[str, Config] = {
        "ingest": IngestConfig(
            data=str(data),
            fingerprint=fingerprint,
            as_of=until,
            split=recipe.split or info.split,
            code=code_version("ingest"),
        ),
        "validate": with_reference(
            ValidateConfig(
                spec=spec,
                info=info,
                limits=recipe.validation,
                reference=reference_of(recipe, info),
                data_fingerprint=fingerprint,
                code=code_version("validate"),
            )
        ),
        "retrieve": RetrieveConfig(dataset=info.name, spec=both, code=code_version("retrieve")),
        "encode": EncodeConfig(spec=spec, code=code_version("encode")),
        "train": TrainConfig(
            training=recipe.training,
            dataset=info.name,
            as_of=until,
            data_fingerprint=fingerprint,
            code=code_version("train"),
        ),
        "evaluate": EvaluateConfig(
            evaluation=recipe.evaluation,
            champion=champion_ref,
            data=str(data),
            truth_fingerprint=ds.truth_fingerprint(data),
            as_of=until,
            dataset=info.name,
            code=code_version("evaluate"),
        ),
        "parity": ParityConfig(dataset=info.name, parity=recipe.parity, code=code_version("parity")),
        "package": PackageConfig(dataset=info.name, clock=info.clock, code=code_version("package")),
        "materialize": MaterializeConfig(
            dataset=info.name, as_of=until, spec=both, clock=info.clock, code=code_version("materialize")
        ),
        "smoke_test": SmokeTestConfig(dataset=info.name, code=code_version("smoke_test")),
        "promote": PromoteConfig(
            dataset=info.name,
            champion_version=champion.version if champion else None,
            as_of=until,
            code=code_version("promote"),
        ),
    }
    candidates = list(recipe.candidates)
    folder = run_dir()
    facts = {
        "run": folder.name if folder else "",
        "dataset": info.name,
        "data": str(data),
        "as_of": until,
        "recipe": recipe_name or info.recipe,
        "config": recipe.model_dump(mode="json"),
        "data_fingerprint": fingerprint,
        "commit": git_commit(),
        "code": {name: getattr(config, "code", "") for name, config in configs.items()},
        "champion": champion.version if champion else None,
        "candidates": candidates,
        "features": [feature.name for feature in spec.features],
        "stages": stage_names(candidates),
    }
    return Planned(as_of=until, candidates=candidates, configs=configs, facts=facts)


def with_reference(config: ValidateConfig) -> ValidateConfig:
    """The config with as many of the reference's categories as fit into an argument; the rest count as unnamed.

    Raises:
        UsageError: if even without categories the reference does not fit.
    """
    reference = config.reference
    for categories in (CATEGORIES, 20, 10, 5, 2, 0):
        if len(json.dumps(config.to_json())) <= LARGEST_ARGUMENT:
            return config
        if reference is not None:
            config = config.model_copy(update={"reference": reference.largest(categories)})
    if reference is None:
        return config
    raise UsageError(
        f"the reference profile of run {reference.run or '(unknown)'} is too large to be handed to a stage "
        f"({len(reference.days):,} days, {sum(len(t.columns) for t in reference.tables.values()):,} columns): "
        "accept the profile of a run over fewer days"
    )


def stage_names(candidates: list[str]) -> list[str]:
    """Every stage of a run, in order, by the names they have in the run record."""
    return [
        *("plan", "ingest", "validate", "retrieve", "encode"),
        *(f"train-{name}" for name in candidates),
        *("evaluate", "collect", "parity", "package", "materialize", "smoke_test", "promote"),
    ]


def git_commit() -> str:
    """Commit of the checkout the code runs from, "" where there is none (an installed package, an image)."""
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
