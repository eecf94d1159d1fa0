"""Exact versions of everything the service imports, for the Bento's image."""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

from packaging.markers import Marker
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

DIRECT = (
    *("bentoml", "feast", "mmh3", "numpy", "onnxruntime", "pydantic", "sqlalchemy", "starlette"),
    *("hiredis", "redis", "psycopg", "psycopg-binary"),
)
"""What `serving` and `components/scoring` import; their own requirements follow from the installed metadata.

The last line is what the profile production needs: a Bento serves in every profile.
"""


def pins(lock: Path) -> list[str]:
    """`name==version` of `DIRECT` and all they need, sorted; BentoML adds its own pin, so it is left out.

    The version is the lock's if there is a lock file and it names the package for this Python, otherwise the
    installed one.
    """
    locked = read_lock(lock) if lock.is_file() else {}
    return sorted(
        f"{name}=={locked.get(name) or metadata.version(name)}" for name in closure(DIRECT) if name != "bentoml"
    )


def read_lock(path: Path) -> dict[str, str]:
    """Canonical name to version, of the lines whose marker holds here."""
    found: dict[str, str] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        match = re.match(r"\s*([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;]+)\s*(?:;\s*(.+?))?\s*(?:#.*)?$", line)
        if match and (match[3] is None or Marker(match[3]).evaluate()):
            found[canonicalize_name(match[1])] = match[2]
    return found


def closure(names: tuple[str, ...]) -> set[str]:
    """Canonical names of the given distributions and of everything they require on this platform, as installed."""
    found: set[str] = set()
    todo = [(name, frozenset[str]()) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while todo:
        name, extras = todo.pop()
        key = canonicalize_name(name)
        if (key, extras) in seen:
            continue
        seen.add((key, extras))
        try:
            lines = metadata.requires(key) or []
        except metadata.PackageNotFoundError:
            continue  # required for an extra or a platform that this environment does not have
        found.add(key)
        for line in lines:
            try:
                requirement = Requirement(line)
            except InvalidRequirement:
                continue
            marker = requirement.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
                todo.append((requirement.name, frozenset(requirement.extras)))
    return found
