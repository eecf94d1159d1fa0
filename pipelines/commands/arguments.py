"""What several commands read from their arguments."""

from __future__ import annotations

import re
from typing import Any, Literal

from components.contracts.errors import UsageError

TYPES = ("int", "float", "bool", "string")


def slug(name: str) -> str:
    """A dataset name from a folder's: lower case letters, digits and _, beginning with a letter."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return text if text[:1].isalpha() else f"d_{text}".rstrip("_")


def pairs(items: tuple[str, ...], option: str) -> dict[str, str]:
    """`("a=b",)` -> `{"a": "b"}`. Raises UsageError for an item without `=` and for one given twice."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UsageError(f"{option} {item!r} is not NAME=VALUE")
        if key in found:
            raise UsageError(f"{option} names {key!r} twice")
        found[key] = value
    return found


def typed(text: str, option: str) -> dict[str, Literal["int", "float", "bool", "string"] | None]:
    """`"hour,zip:string"` -> `{"hour": None, "zip": "string"}`. Raises UsageError for another type, or a name twice."""
    found: dict[str, Any] = {}
    for item in (part.strip() for part in text.split(",")):
        name, colon, dtype = item.partition(":")
        if not item:
            continue
        if not name or (colon and dtype not in TYPES):
            raise UsageError(f"{option} {item!r} is not NAME or NAME:TYPE with a type of {', '.join(TYPES)}")
        if name in found:
            raise UsageError(f"{option}: column {name!r} is given twice, name it once")
        found[name] = dtype or None
    return found
