"""The materialize stage: brings the live online store up to as-of, and says what the service must now see."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from components.contracts.config import Config
from components.contracts.dataset import FEATURES, read_info, view_names
from components.contracts.errors import DataError
from components.contracts.files import read_manifest
from components.contracts.online import REGISTRY, Place
from components.contracts.paths import Home
from components.contracts.spec import FeatureSpec, View
from components.contracts.times import format_utc, parse_utc
from components.features import expected as expectations
from components.features import tables

if TYPE_CHECKING:
    from components.features.online.bring_up import Report


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
        Facts: entities by view in the online store, a report of each view, rows expected, seconds.

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
    # Feast takes seconds to import; a dataset without views does without.
    from components.features import expected_store

    at = as_of if config.clock == "frozen" else max(as_of, datetime.now(UTC))

    counted: list[int] = []
    sources: list[Path] = []

    def expect(copied: Path) -> None:
        counted.append(expectations.write(rows, config.spec, copied, at, format_utc(as_of), expected))
        sources.append(copied)

    place = Place.of(Home.from_environment().feast(config.dataset), config.dataset)
    report, seconds = _materialize(place, features, config.spec.views, as_of, staged=expect)
    facts = {**_facts(report), "seconds": seconds, "expected": counted[0]}
    if not expected_store.pushed_since(place, config.spec, rows, as_of):
        return facts
    expected_store.write(sources[0], config.dataset, config.spec, rows, as_of, expected)
    return {**facts, "asked_over": "a store as of as-of: rows were pushed since"}


def materialize_dataset(
    home: Home, data_dir: Path, as_of: str, full: bool = False, progress: Callable[[str, int, int], None] | None = None
) -> Report:
    """Materializes a dataset's own feature tables up to `as_of` (UTC, exclusive), outside of a training run.

    Args:
        full: all of every view, instead of what became known since the last time.
        progress: called with a view, its entities written so far, and how many there are to write.

    Raises:
        DataError: no dataset, no feature tables, or without one that the live store serves; as-of older than what is
            materialized. UsageError: as-of is no time. Busy: another run is materializing this dataset. ServiceError:
            Redis or the registry does not answer.
    """
    info = read_info(data_dir)
    until = parse_utc(as_of, "as-of")
    place = Place.of(home.feast(info.name), info.name)
    served = _served(place)
    if not tables.declared(view_names(data_dir)) and not served:
        raise DataError(
            f"{data_dir} brings no feature table of a view in feature_repo/views.py, so there is nothing to "
            "materialize: import some with `esmm import log --features VIEW=PATH`"
        )
    report, _ = _materialize(place, data_dir / FEATURES, served, until, full=full, progress=progress)
    return report


def _materialize(
    place: Place, features: Path, needed: tuple[View, ...], as_of: datetime, **how: Any
) -> tuple[Report, float]:
    """The report, and the seconds it took."""
    # Feast takes seconds to import; a dataset without views does without.
    from components.features.online.bring_up import bring_up
    from feature_repo import sources

    started = time.monotonic()
    brought = sources.present(str(features))
    tables.require(needed, brought, features)
    present = tuple(view.name for view in tables.declared(brought))
    report = bring_up(place, features, present, as_of, **how)
    return report, round(time.monotonic() - started, 1)


def _facts(report: Report) -> dict[str, Any]:
    return {
        "as_of": report.as_of,
        "views": {name: view.rows for name, view in report.views.items()},
        "report": {name: view.model_dump(exclude={"rows"}) for name, view in report.views.items()},
    }


def _served(place: Place) -> tuple[View, ...]:
    """The views and fields of the live registry: a model in service may read any of them."""
    if place.registry == f"sqlite:///{place.folder / REGISTRY}" and not (place.folder / REGISTRY).exists():
        return ()
    from components.features.online import registry

    with registry.opened(place) as store:
        return tuple(
            View(
                name=view.name,
                entity=view.entity_columns[0].name,
                ttl_seconds=view.ttl.total_seconds(),
                fields=tuple(field.name for field in view.features),
            )
            for view in store.list_feature_views()
        )
