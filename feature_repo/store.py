"""Opens a Feast store on a folder, and applies the repository to it."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml
from feast import FeatureStore, RepoConfig

from components.contracts.errors import UsageError
from feature_repo import entities, services, sources, views

FEATURES_DIR_VARIABLE = "ESMM_FEATURES_DIR"


def open_store(project: str, folder: Path) -> FeatureStore:
    """The store that feature_store.yaml describes, with registry.db and online.db in `folder` (made on first use).

    The yaml's variables are filled in from the arguments, not from the environment: two stores can be open at once.
    """
    text = resources.files("feature_repo").joinpath("feature_store.yaml").read_text(encoding="utf-8")
    filled = Template(text).substitute(ESMM_FEAST_PROJECT=project, ESMM_FEAST_DIR=folder)
    return FeatureStore(config=RepoConfig(repo_path=folder, **yaml.safe_load(filled)))


def objects(features_dir: str, present: tuple[str, ...] | None = None) -> list[Any]:
    """Everything to apply, over the views `present` (None: those that have files in `features_dir`)."""
    built = views.build(features_dir, sources.present(features_dir) if present is None else present)
    return [
        entities.USER,
        entities.ITEM,
        entities.GROUP,
        *(v.batch_source for v in built),
        *built,
        services.service(built),
    ]


def apply(store: FeatureStore, features_dir: Path, present: tuple[str, ...]) -> None:
    """Registers the present views over the files below `features_dir`, as `feast apply` would."""
    store.apply(objects(str(features_dir), present))


def environment_features_dir() -> str:
    """Raises UsageError if the variable is unset: Feast would freeze a path that leads nowhere into its registry."""
    value = os.environ.get(FEATURES_DIR_VARIABLE)
    if not value:
        raise UsageError(
            f"{FEATURES_DIR_VARIABLE} is not set: export the folder that holds the views' tables, for example "
            "var/data/shop/features"
        )
    return str(Path(value).resolve())
