"""Writing so that a reader never meets half a file, and reading so that a changed file is noticed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from components.contracts.errors import CorruptArtifact, DataError

MANIFEST = "manifest.json"


def sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_json(value: Any) -> str:
    """Hash of a JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def write_text(path: Path, text: str) -> None:
    """Writes aside, then renames: a reader sees the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, aside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(aside).chmod(0o644)
        Path(aside).replace(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Any) -> None:
    """As `write_text`; NaN and infinity are refused, since they are no JSON."""
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises DataError if the file is absent or no JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(f"{path} does not exist") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not valid JSON ({error})") from None


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a folder beside `path` to fill; renamed to `path` on success, removed on failure.

    Raises:
        DataError: if `path` exists and is not an empty folder (nothing good is overwritten).
    """
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise DataError(f"{path} already exists and is not empty: choose another folder or remove it first")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    aside.chmod(0o755)
    try:
        yield aside
        if path.exists():
            path.rmdir()
        aside.replace(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def sync(path: Path) -> None:
    """Has the disk hold what was written to a file; of a folder, the names in it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def listing(folder: Path) -> list[str]:
    """Relative POSIX paths of all files under `folder`, sorted, without manifest and hidden files."""
    return sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.name != MANIFEST and not path.name.startswith(".")
    )


def write_manifest(folder: Path, **facts: Any) -> dict[str, Any]:
    """Seals an artifact: `manifest.json` with the given facts and the sha256 of every file.

    Written last, so an artifact without one is unfinished. Returns what was written.
    """
    files = {name: sha256_file(folder / name) for name in listing(folder)}
    manifest = {**facts, "files": files, "fingerprint": sha256_json(files)}
    write_json(folder / MANIFEST, manifest)
    return manifest


def read_manifest(folder: Path, verify: bool = True) -> dict[str, Any]:
    """Reads the manifest and, unless told otherwise, checks every file against it.

    Raises:
        DataError: if there is no manifest (the artifact is unfinished or not one of ours).
        CorruptArtifact: naming the first file that is missing or differs from its hash.
    """
    manifest: dict[str, Any] = read_json(folder / MANIFEST)
    if verify:
        for name, expected in manifest["files"].items():
            path = folder / name
            if not path.is_file():
                raise CorruptArtifact(f"{path} is listed in the manifest but missing: run the stage that made it again")
            if sha256_file(path) != expected:
                raise CorruptArtifact(
                    f"{path} is not the file its manifest describes (sha256 differs): run the stage that made it again"
                )
    return manifest


def facts_of(manifest: dict[str, Any]) -> dict[str, Any]:
    """What the writer of an artifact stated, without what sealing added: to be carried on into another manifest."""
    return {key: value for key, value in manifest.items() if key not in ("files", "fingerprint")}


def folder_fingerprint(folder: Path, below: tuple[str, ...], counts: Callable[[str], bool] = lambda _: True) -> str:
    """Hash of the names and contents of all files under the given sub-paths of `folder`, of those that `counts`."""
    inside = [name for name in listing(folder) if any(name == top or name.startswith(f"{top}/") for top in below)]
    names = [name for name in inside if counts(name)]
    return sha256_json({name: sha256_file(folder / name) for name in names})
