"""Points in time: UTC everywhere, ISO-8601 in text, microseconds in files."""

from __future__ import annotations

from datetime import UTC, datetime

from components.contracts.errors import UsageError


def parse_utc(text: str, what: str = "time") -> datetime:
    """Reads ISO-8601; a text without zone is taken as UTC, any other zone is converted.

    Raises:
        UsageError: if the text is no ISO-8601 time.
    """
    try:
        value = datetime.fromisoformat(text.strip().replace("Z", "+00:00"))
    except ValueError:
        raise UsageError(f"{what} {text!r} is no ISO-8601 time: write it as 2026-01-31T00:00:00Z") from None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def format_utc(value: datetime) -> str:
    """`2026-01-31T00:00:00Z`, with microseconds only where they are not zero.

    Raises:
        ValueError: if the value carries no time zone (it would be a guess).
    """
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
