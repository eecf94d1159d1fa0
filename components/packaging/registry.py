"""Who is champion: MLflow's model registry on SQLite, one registered model `esmm-<dataset>` a dataset.

The alias `champion` is the one thing that decides. Moving it is the last step of a promotion, so a process killed
before leaves the old champion serving, and at most an unused version behind. Every change holds the promotion lock
(MLflow's alias moves are atomic, but the last writer wins).

`previous` (a tag) is the version that was champion before. Rollback follows it and changes no tag: rolling back
twice goes back two versions, until one has no predecessor, which is an error. To go forward again, promote the
version by hand; the version it replaces becomes its predecessor.
"""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from components.contracts.artifacts import read_model
from components.contracts.errors import RegistryError
from components.contracts.files import new_folder, read_manifest
from components.contracts.locks import exclusive
from components.contracts.paths import Home
from components.contracts.times import format_utc, parse_utc
from components.packaging.process import bento_path

CHAMPION = "champion"
PREFIX = "esmm-"
RUN, AS_OF, BENTO, METRICS, PREVIOUS = "run", "as_of", "bento", "metrics", "previous"


@dataclass(frozen=True)
class Version:
    """A registered version. `source`: its model folder. `previous`: the champion it replaced, None for the first."""

    version: int
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    bento: str
    created: str
    run: str
    as_of: str
    source: str
    previous: int | None


def datasets(home: Home) -> list[str]:
    """Names of the datasets that have a registered model, sorted."""
    if not database(home).is_file():
        return []
    found = _client(home).search_registered_models(max_results=1000)
    return sorted(m.name.removeprefix(PREFIX) for m in found if m.name.startswith(PREFIX))


def versions(home: Home, dataset: str) -> list[Version]:
    """All versions of the dataset's model, newest first; empty if there is none."""
    if not database(home).is_file():
        return []
    client = _client(home)
    aliases = _aliases(client, dataset)
    found: list[Version] = []
    token = None
    while True:
        page = client.search_model_versions(f"name = '{PREFIX}{dataset}'", max_results=200, page_token=token)
        found += [_version(v, aliases) for v in page]
        token = page.token
        if not token:
            return sorted(found, key=lambda v: -v.version)


def champion(home: Home, dataset: str) -> Version | None:
    """The version with the alias `champion`, or None."""
    if not database(home).is_file():
        return None
    client = _client(home)
    aliases = _aliases(client, dataset)
    number = next((number for number, names in aliases.items() if CHAMPION in names), None)
    return None if number is None else _get(client, dataset, number, aliases)


def previous(home: Home, dataset: str) -> Version | None:
    """The champion's predecessor: where a rollback would go."""
    now = champion(home, dataset)
    return None if now is None or now.previous is None else version(home, dataset, now.previous)


def version(home: Home, dataset: str, number: int) -> Version:
    """Raises RegistryError if there is no such version."""
    if not database(home).is_file():
        raise RegistryError(f"{home.root} holds no registered model yet: run `esmm run` until one is promoted")
    client = _client(home)
    return _get(client, dataset, number, _aliases(client, dataset))


def promote(
    home: Home,
    dataset: str,
    winner: Path,
    *,
    bento: str,
    metrics: Mapping[str, float],
    expected_champion: int | None,
    as_of: str,
    run: str,
) -> Version:
    """Registers the model folder `winner` and makes it champion; returns its version.

    A run that is tried again after it was killed takes up the version it had made.

    Raises:
        RegistryError: the champion is no longer the one the run was compared with, or its data is newer; nothing
            is registered then.
        CorruptArtifact: `winner` is not what its manifest says.
    """
    read_model(winner)
    with exclusive(home.promotion_lock, "a promotion", wait=True):
        now = champion(home, dataset)
        if (now.version if now else None) != expected_champion:
            raise RegistryError(
                f"the champion of {dataset!r} is {_say(now.version if now else None)}, but this run was compared with "
                f"{_say(expected_champion)}: run again to be compared with the present one"
            )
        if now is not None and parse_utc(as_of) < parse_utc(now.as_of):
            raise RegistryError(
                f"this run's data ends at {as_of}, before that of champion version {now.version} ({now.as_of}): "
                "an older run is not promoted; run with a later --as-of"
            )
        folder = _keep_model(home, dataset, winner, run)
        client = _client(home)
        number = next((v.version for v in versions(home, dataset) if v.source == str(folder)), None)
        if number is None:
            name = f"{PREFIX}{dataset}"
            if not client.search_registered_models(f"name = '{name}'"):
                client.create_registered_model(name, tags={"dataset": dataset})
            tags = {RUN: run, AS_OF: as_of, BENTO: bento, METRICS: json.dumps(dict(metrics), allow_nan=False)}
            number = int(client.create_model_version(name, source=str(folder), tags=tags).version)
        return _make_champion(client, dataset, number, before=now, bento=bento)


def promote_version(home: Home, dataset: str, number: int) -> Version:
    """Makes a registered version champion by hand; gates are not asked again.

    Raises:
        RegistryError: there is no such version, or it is champion already.
        ServiceError: its Bento no longer exists.
    """
    with exclusive(home.promotion_lock, "a promotion", wait=True):
        chosen = version(home, dataset, number)
        now = champion(home, dataset)
        if now is not None and now.version == number:
            raise RegistryError(f"version {number} of {dataset!r} is champion already: there is nothing to do")
        bento_path(home, chosen.bento)
        return _make_champion(_client(home), dataset, number, before=now, bento=chosen.bento)


def rollback(home: Home, dataset: str) -> Version:
    """Makes the champion's predecessor champion again.

    Raises:
        RegistryError: there is no champion, or it has no predecessor.
        ServiceError: the predecessor's Bento no longer exists.
    """
    with exclusive(home.promotion_lock, "a promotion", wait=True):
        now = champion(home, dataset)
        if now is None:
            raise RegistryError(f"{dataset!r} has no champion, so there is nothing to roll back: run `esmm run` first")
        if now.previous is None:
            raise RegistryError(
                f"champion version {now.version} of {dataset!r} has no predecessor to roll back to: "
                "see `esmm models list`, and choose one with `esmm models promote VERSION`"
            )
        before = version(home, dataset, now.previous)
        bento_path(home, before.bento)
        _client(home).set_registered_model_alias(f"{PREFIX}{dataset}", CHAMPION, str(before.version))
        return version(home, dataset, before.version)


def database(home: Home) -> Path:
    return Path(home.mlflow_uri.removeprefix("sqlite:///"))


def _make_champion(client: Any, dataset: str, number: int, before: Version | None, bento: str) -> Version:
    name = f"{PREFIX}{dataset}"
    client.set_model_version_tag(name, str(number), BENTO, bento)
    if before is not None and before.version != number:
        client.set_model_version_tag(name, str(number), PREVIOUS, str(before.version))
    client.set_registered_model_alias(name, CHAMPION, str(number))
    return _get(client, dataset, number, _aliases(client, dataset))


def _keep_model(home: Home, dataset: str, winner: Path, run: str) -> Path:
    """Copies the model to `<home>/models/<dataset>/<run>`, where pruning artifacts does not reach it."""
    folder = home.models / dataset / run
    if folder.is_dir() and any(folder.iterdir()):
        kept, new = (read_manifest(path, verify=False)["fingerprint"] for path in (folder, winner))
        if kept != new:
            raise RegistryError(f"{folder} holds another model of the same run: remove it, or run again")
        return folder
    with new_folder(folder) as aside:
        shutil.copytree(winner, aside, dirs_exist_ok=True)
        read_model(aside)
    return folder


def _client(home: Home) -> Any:
    # A home never moves within a process, and opening the store costs half a second.
    return _open(home.mlflow_uri, home.root)


@cache
def _open(uri: str, root: Path) -> Any:
    logging.getLogger("alembic").setLevel(logging.WARNING)
    from mlflow.tracking import MlflowClient
    from sqlalchemy.exc import SADeprecationWarning

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    # The first one to come creates the tables: two at once would both try.
    with exclusive(root / "mlflow.lock", "creating the registry", wait=True), warnings.catch_warnings():
        # Of SQLAlchemy, about MLflow's own code: nobody here can act on it.
        warnings.simplefilter("ignore", SADeprecationWarning)
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_registered_models(max_results=1)
    return client


def _aliases(client: Any, dataset: str) -> dict[int, tuple[str, ...]]:
    found: dict[int, list[str]] = {}
    for model in client.search_registered_models(f"name = '{PREFIX}{dataset}'"):
        for alias, number in model.aliases.items():
            found.setdefault(int(number), []).append(alias)
    return {number: tuple(sorted(names)) for number, names in found.items()}


def _get(client: Any, dataset: str, number: int, aliases: Mapping[int, tuple[str, ...]]) -> Version:
    from mlflow.exceptions import MlflowException

    try:
        return _version(client.get_model_version(f"{PREFIX}{dataset}", str(number)), aliases)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        raise RegistryError(f"{dataset!r} has no version {number}: see `esmm models list`") from None


def _version(found: Any, aliases: Mapping[int, tuple[str, ...]]) -> Version:
    number, tags = int(found.version), found.tags
    return Version(
        version=number,
        aliases=aliases.get(number, ()),
        metrics=json.loads(tags.get(METRICS, "{}")),
        bento=tags.get(BENTO, ""),
        created=format_utc(datetime.fromtimestamp(found.creation_timestamp / 1000, UTC)),
        run=tags.get(RUN, ""),
        as_of=tags.get(AS_OF, ""),
        source=found.source,
        previous=int(tags[PREVIOUS]) if PREVIOUS in tags else None,
    )


def _say(number: int | None) -> str:
    return "none" if number is None else f"version {number}"
