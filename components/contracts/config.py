"""Typed, frozen configs, kept beside what they configure; strict, so that a misspelt key is an error."""

from __future__ import annotations

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from components.contracts.errors import UsageError


class Config(BaseModel):
    """Base of every config and of every JSON layout: immutable, unknown keys refused, NaN refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def parse(cls, data: str | bytes | dict[str, Any], where: str = "") -> Self:
        """Validates JSON text or a mapping.

        Raises:
            UsageError: naming each offending key, what it holds and what it should hold.
        """
        try:
            if isinstance(data, (str, bytes)):
                return cls.model_validate_json(data)
            return cls.model_validate(data)
        except ValidationError as error:
            raise UsageError(f"{where or cls.__name__}: {explain(error)}") from None

    def to_json(self) -> str:
        """Deterministic JSON: the text is a cache key, so equal configs must give equal text."""
        return self.model_dump_json()


def explain(error: ValidationError) -> str:
    """One line from a pydantic error: `key = value: what it should be; ...`."""
    parts = []
    for item in error.errors(include_url=False):
        key = ".".join(str(step) for step in item["loc"]) or "(whole)"
        if item["type"] == "extra_forbidden":
            parts.append(f"unknown key '{key}'")
        elif item["type"] == "missing":
            parts.append(f"missing key '{key}'")
        else:
            parts.append(f"{key} = {item['input']!r}: {item['msg'].lower()}")
    return "; ".join(parts)


def merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`changes` over `base`, key by key down the nested mappings; neither argument is modified."""
    merged = dict(base)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def nested(path: str, value: Any) -> dict[str, Any]:
    """`"training.lr", 0.001` -> `{"training": {"lr": 0.001}}`."""
    for key in reversed(path.split(".")):
        value = {key: value}
    changes: dict[str, Any] = value
    return changes
