"""The materialize stage: brings the live online store up to as-of, and says what the service must now see."""

from __future__ import annotations

import shutil
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from components.contracts.config import Config
from components.contracts.dataset import FEATURES, read_info, view_names
from components.contracts.errors import DataError
from components.contracts.files import read_manifest
from components.contracts.online import REGISTRY
from components.contracts.paths import Home
from components.contracts.spec import FeatureSpec, View
from components.contracts.times import format_utc, parse_utc
from components.features import expected as expectations
from components.features import tables


class MaterializeConfig(Config):
    """`spec` is the union of what the run, the champion and its predecessor need.

    `clock` says what the service measures a feature's age from: "frozen" from as-of, "wall" from the present.
    """

    dataset: str
    as_of: str
    spec: FeatureSpec
    clock: Literal["wall", "frozen"]
    sample_users: int = 8
    sample_items: int = 12
    code: str = ""


def run(config: MaterializeConfig, features: Path, dataset: Path, expected: Path) -> dict[str, Any]:
    """Materializes the artifact `features` into the home's store and writes the artifact `expected`.

    Without views there is nothing to materialize, which the facts say; `expected` then holds ids and context.
    Whatever fails, the values that were served before still are.

    Returns:
        Facts: entities by view in the online store, rows expected, seconds.

    Raises:
        DataError: as-of older than what is materialized (nothing is written), a table that lacks a declared column.
        Busy: another run is materializing this dataset.
    """
    as_of = parse_utc(config.as_of, "as-of")
    read_manifest(features)
    rows = expectations.sample(dataset, config.spec, config.sample_users, config.sample_items)
    shutil.rmtree(expected, ignore_errors=True)  # what an interrupted attempt left
    if not config.spec.views:
        count = expectations.write(rows, config.spec, None, as_of, format_utc(as_of), expected)
        return {"materialized": "nothing: the model reads no feature views", "expected": count}
    at = as_of if config.clock == "frozen" else max(as_of, datetime.now(UTC))

    def expect(offline: Path) -> int:
        return expectations.write(rows, config.spec, offline, at, format_utc(as_of), expected)

    live = Home.from_environment().feast(config.dataset)
    return _materialize(live, config.dataset, features, config.spec.views, as_of, expect)


def materialize_dataset(home: Home, data_dir: Path, as_of: str) -> dict[str, Any]:
    """Materializes a dataset's own feature tables up to `as_of` (UTC, exclusive), outside of a training run.

    Returns:
        Facts: as_of, entities by view, seconds.

    Raises:
        DataError: no dataset, no feature tables, or without one that the live store serves; as-of older than what is
            materialized. UsageError: as-of is no time. Busy: another run is materializing this dataset.
    """
    info = read_info(data_dir)
    until = parse_utc(as_of, "as-of")
    present = tuple(view.name for view in tables.declared(view_names(data_dir)))
    live = home.feast(info.name)
    served = _served(live, info.name)
    if not present and not served:
        raise DataError(
            f"{data_dir} brings no feature table of a view in feature_repo/views.py, so there is nothing to "
            "materialize: import some with `esmm import log --features VIEW=PATH`"
        )
    return _materialize(live, info.name, data_dir / FEATURES, served, until, lambda _: None)


def _materialize(
    live: Path, project: str, features: Path, needed: tuple[View, ...], as_of: datetime, expect: Any
) -> dict[str, Any]:
    # Feast takes seconds to import; a dataset without views does without.
    from components.features import publish
    from feature_repo import sources

    started = time.monotonic()
    brought = sources.present(str(features))
    tables.require(needed, brought, features)
    present = tuple(view.name for view in tables.declared(brought))
    with publish.writing(live, project):
        publish.refuse_older(live, as_of)
        offline, _ = publish.copy_offline(live, features, present, as_of)
        with publish.filled(live, project, offline, present, as_of) as scratch:
            count = expect(offline)
            done = publish.publish(scratch, live, as_of, project, present)
        publish.prune(live, offline)
    facts = {"as_of": done.as_of, "views": done.views, "seconds": round(time.monotonic() - started, 1)}
    return facts if count is None else {**facts, "expected": count}


def _served(live: Path, project: str) -> tuple[View, ...]:
    """The views and fields of the live registry: a model in service may read any of them."""
    if not (live / REGISTRY).exists():
        return ()
    from feature_repo.store import open_store

    return tuple(
        View(
            name=view.name,
            entity=view.entity_columns[0].name,
            ttl_seconds=view.ttl.total_seconds(),
            fields=tuple(field.name for field in view.features),
        )
        for view in open_store(project, live).list_feature_views()
    )
