"""What of a home may be deleted, and deleting it.

Kept runs are the newest N, the runs that made the champion and its predecessor and, while a run goes on, every run
without a record. What stays, and why:

- the run folders of kept runs;
- a folder of `pipeline/` that a kept run names anywhere in its records or its log (kfp.local prints every artifact a
  task reads or writes, so this covers what a run took from an older one through the stage cache);
- Bentos and model folders of kept runs, and those of champion and predecessor, whatever their run;
- a cache entry all of whose artifacts still exist afterwards;
- checkpoints of an interrupted training that were written since the oldest of the newest N runs began: it may be run
  again, and goes on from there.

All else goes. While a run goes on, no pipeline folder, cache entry, checkpoint or unfinished Bento goes at all: the run
may be about to reuse any of them. Registry rows stay: a pruned version is still listed, and says so when it is
promoted.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.contracts.errors import Busy, UsageError
from components.contracts.locks import exclusive, is_held
from components.contracts.paths import CHECKPOINT_LOCK, Home
from components.packaging import registry
from components.packaging.bento import ASIDE, bento_version_of

RECORD = "record.json"


@dataclass(frozen=True)
class Entry:
    """Something that may go. `kind`: run, pipeline, cache, bento, model, checkpoint or leftover."""

    kind: str
    path: Path
    bytes: int


@dataclass(frozen=True)
class PrunePlan:
    """What may go, and which runs stay. `live`: a run was going on when the plan was made."""

    root: Path
    entries: tuple[Entry, ...]
    kept_runs: tuple[str, ...]
    live: bool

    @property
    def bytes(self) -> int:
        return sum(entry.bytes for entry in self.entries)

    def lines(self) -> list[str]:
        """One line an entry with its size (cache entries in one), for a person to read."""
        kept = ", ".join(self.kept_runs) if self.kept_runs else "none"
        lines = [
            f"{e.kind:10} {_size(e.bytes)}  {e.path.relative_to(self.root)}" for e in self.entries if e.kind != "cache"
        ]
        cached = [entry for entry in self.entries if entry.kind == "cache"]
        if cached:
            lines.append(
                f"{'cache':10} {_size(sum(e.bytes for e in cached))}  {len(cached)} entries of deleted artifacts"
            )
        if self.live:
            lines.append("a run is going on: artifacts and cache entries stay until it has ended")
        return [*lines, f"kept runs: {kept}"]


def plan_prune(home: Home, keep: int) -> PrunePlan:
    """Lists what may go if the newest `keep` runs stay; changes nothing.

    Raises:
        UsageError: `keep` is below 1.
    """
    if keep < 1:
        raise UsageError(f"--keep {keep}: at least the newest run is kept")
    live = is_held(home.lock)
    runs = sorted(path for path in _folders(home.runs))
    used = [
        v for name in registry.datasets(home) for v in (registry.champion(home, name), registry.previous(home, name))
    ]
    in_use = [version for version in used if version is not None]
    kept = {path.name for path in runs[-keep:]} | {version.run for version in in_use}
    if live:
        kept |= {path.name for path in runs if not (path / RECORD).is_file()}

    entries = [_entry("run", path) for path in runs if path.name not in kept]
    entries += _bentos(home, kept, {version.bento for version in in_use}, live)
    entries += _models(home, kept, {version.source for version in in_use}, live)
    if not live:
        named = {name for path in runs if path.name in kept for name in _named(home, path)}
        folders = [path for path in _folders(home.pipeline_root) if path.name not in named]
        entries += [_entry("pipeline", path) for path in folders]
        entries += [_entry("cache", path) for path in _stale(home, folders)]
        if len(runs) >= keep:
            entries += [_entry("checkpoint", path) for path in _old_checkpoints(home, runs[-keep].name)]
    kept_runs = tuple(path.name for path in runs if path.name in kept)
    return PrunePlan(root=home.root, entries=tuple(entries), kept_runs=kept_runs, live=live)


def apply(home: Home, plan: PrunePlan) -> None:
    """Deletes what the plan lists. A run that wants to start meanwhile is told to wait.

    Raises:
        Busy: a run has started since the plan was made.
    """
    if plan.live and is_held(home.lock):
        _delete(plan)
        return
    try:
        with exclusive(home.lock, f"a run on {home.root}"):
            _delete(plan)
    except Busy:
        raise Busy("a run has started meanwhile: nothing was deleted, prune again when it has ended") from None


def _delete(plan: PrunePlan) -> None:
    # Cache entries first: an entry must not outlive the artifacts it names.
    for entry in sorted(plan.entries, key=lambda e: e.kind != "cache"):
        if entry.path.is_dir():
            shutil.rmtree(entry.path)
        else:
            entry.path.unlink(missing_ok=True)


def _bentos(home: Home, kept: set[str], tags: set[str], live: bool) -> Iterator[Entry]:
    versions = {bento_version_of(run) for run in kept}
    for name in _folders(home.bentoml / "bentos"):
        for path in _folders(name):
            # A Bento's version is its run and 8 hex digits of its content.
            if path.name.rsplit("-", 1)[0] not in versions and f"{name.name}:{path.name}" not in tags:
                yield _entry("bento", path)
    if not live:
        yield from (_entry("leftover", path) for path in sorted(home.bentoml.glob(f"{ASIDE}*")))


def _models(home: Home, kept: set[str], sources: set[str], live: bool) -> Iterator[Entry]:
    for dataset in _folders(home.models):
        for path in _folders(dataset):
            if path.name not in kept and str(path) not in sources:
                yield _entry("model", path)
        if not live:
            yield from (_entry("leftover", path) for path in sorted(dataset.glob(".*")))


def _named(home: Home, run: Path) -> set[str]:
    """Folders of the pipeline root that a run's files name."""
    pattern = re.compile(re.escape(str(home.pipeline_root)) + r"/([^/\s\"']+)")
    texts = (path.read_text(errors="replace") for path in run.iterdir() if path.suffix in (".json", ".log"))
    return {match for text in texts for match in pattern.findall(text)}


def _stale(home: Home, deleted: list[Path]) -> Iterator[Path]:
    """Cache entries with an artifact in a folder that goes, or that has gone already, and unreadable ones."""
    for path in sorted(home.cache.glob("*.json")):
        try:
            uris = list(_uris(json.loads(path.read_text())))
        except ValueError:
            yield path
            continue
        local = [Path(uri) for uri in uris if "://" not in uri]
        if any(not uri.exists() or any(folder in uri.parents for folder in deleted) for uri in local):
            yield path


def _old_checkpoints(home: Home, run: str) -> Iterator[Path]:
    """Of trainings last saved before the run of this name began; one that is going on without a run holds its lock."""
    for path in _folders(home.checkpoints):
        saved = max(inner.stat().st_mtime for inner in (path, *path.iterdir()))
        # A run's name begins with the time it began.
        if f"{datetime.fromtimestamp(saved, UTC):%Y%m%dT%H%M%S}" < run and not is_held(path / CHECKPOINT_LOCK):
            yield path


def _uris(value: Any) -> Iterator[str]:
    """Artifact URIs in a cache entry, however nested (kfp/local/cache.py marks artifacts and lists of them)."""
    if isinstance(value, dict):
        if value.get("__kfp_artifact__") and value.get("uri"):
            yield str(value["uri"])
        for inner in value.values():
            yield from _uris(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _uris(inner)


def _folders(parent: Path) -> list[Path]:
    if not parent.is_dir():
        return []
    return sorted(path for path in parent.iterdir() if path.is_dir() and not path.name.startswith("."))


def _entry(kind: str, path: Path) -> Entry:
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
    return Entry(kind=kind, path=path, bytes=sum(file.stat().st_size for file in files))


def _size(count: int) -> str:
    return f"{count / 1e6:9.1f} MB"
