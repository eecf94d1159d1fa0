"""Opens a Feast store on a folder, and applies the repository to it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any

import yaml
from feast import FeatureStore, RepoConfig

from components.contracts.errors import UsageError
from components.contracts.online import PROFILE_VARIABLE, Place, Profile
from feature_repo import entities, services, sources, views

FEATURES_DIR_VARIABLE = "ESMM_FEATURES_DIR"
FILES: dict[Profile, str] = {
    "embedded": "feature_store.yaml",
    "production": "feature_store.production.yaml",
    "spark": "feature_store.spark.yaml",
}
SPARK = {
    "ESMM_SPARK_MASTER": "local[*]",
    "ESMM_SPARK_HOST": "127.0.0.1",
    "ESMM_SPARK_MEMORY": "2g",
    "ESMM_SPARK_PARTITIONS": "16",
}
"""Variables of the spark profile that need not be set, and what they are then."""


def open_store(project: str, folder: Path, place: Place | None = None) -> FeatureStore:
    """The store of project `project` at `place`; without one, where the environment's profile has it for `folder`.

    The variables of the profile's yaml are filled in from the arguments: two stores can be open at once. What lies in
    `folder` (registry.db and online.db, unless the profile has servers for them) is made on first use.

    Raises:
        UsageError: as `Place.of`; the spark profile without pyspark.
    """
    place = place or Place.of(folder, project)
    return FeatureStore(config=RepoConfig(repo_path=folder, **settings(place)))


def scratch(project: str, folder: Path) -> Place:
    """A place for a store of one's own in `folder`, thrown away afterwards: its registry and online store lie there
    whatever the profile, which says only what joins: Spark where that is the profile."""
    spark = os.environ.get(PROFILE_VARIABLE) == "spark"
    return Place.of(folder, project, {PROFILE_VARIABLE: "spark" if spark else "embedded"})


def settings(place: Place) -> dict[str, Any]:
    """The profile's yaml, filled in after it was read: a value may hold any character."""
    if place.profile == "spark":
        _require_pyspark()
    text = resources.files("feature_repo").joinpath(FILES[place.profile]).read_text(encoding="utf-8")
    values = {name: os.environ.get(name) or default for name, default in SPARK.items()}
    values |= {
        "ESMM_FEAST_PROJECT": place.project,
        "ESMM_FEAST_DIR": str(place.folder),
        "ESMM_REGISTRY": place.registry,
        "ESMM_REDIS": place.redis or "",
        "ESMM_REDIS_TYPE": place.redis_type,
    }
    filled = _filled(yaml.safe_load(text), values)
    assert isinstance(filled, dict)
    return filled


def _filled(value: Any, variables: Mapping[str, str]) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner, variables) for key, inner in value.items()}
    return Template(value).substitute(variables) if isinstance(value, str) else value


def _require_pyspark() -> None:
    try:
        import pyspark  # noqa: F401
    except ImportError:
        raise UsageError(
            f"{PROFILE_VARIABLE}=spark needs pyspark, which is not installed: pip install 'esmm-pipeline[spark]'"
        ) from None


def objects(features_dir: str, present: tuple[str, ...] | None = None, spark: bool | None = None) -> list[Any]:
    """Everything to apply, over the views `present` (None: those that have files in `features_dir`).

    `spark`: with sources that Feast's Spark store reads; None: if that is the environment's profile.
    """
    if spark is None:
        spark = os.environ.get(PROFILE_VARIABLE) == "spark"
    built = views.build(features_dir, sources.present(features_dir) if present is None else present, spark)
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
    store.apply(objects(str(features_dir), present, on_spark(store)))


def on_spark(store: FeatureStore) -> bool:
    return bool(store.config.offline_store.type == "feature_repo.spark.UtcSparkOfflineStore")


def environment_features_dir() -> str:
    """Raises UsageError if the variable is unset: Feast would freeze a path that leads nowhere into its registry."""
    value = os.environ.get(FEATURES_DIR_VARIABLE)
    if not value:
        raise UsageError(
            f"{FEATURES_DIR_VARIABLE} is not set: export the folder that holds the views' tables, for example "
            "var/data/shop/features"
        )
    return str(Path(value).resolve())
