"""Files of pushed rows beside a view's other tables: `push-20260124T101500000000Z-1f2e3d4c.parquet`.

The name says when the first of the rows was created: none of them was known before, so that a run whose as-of is not
later need not look at them.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from components.contracts.errors import DataError

PATTERN = "push-*.parquet"
_STAMP = "%Y%m%dT%H%M%S%fZ"
_NAME = re.compile(r"push-(\d{8}T\d{12}Z)-[0-9a-f]+\.parquet")


def name(first_created: datetime, tag: str) -> str:
    """`tag`: hexadecimal, tells files of one moment apart."""
    return f"push-{first_created.astimezone(UTC).strftime(_STAMP)}-{tag}.parquet"


def first_created(file_name: str) -> datetime | None:
    """None for a file that was not pushed. Raises DataError for one that only looks like it."""
    match = _NAME.fullmatch(file_name)
    try:
        return datetime.strptime(match[1], _STAMP).replace(tzinfo=UTC) if match else None
    except ValueError:
        raise DataError(
            f"{file_name} is named like a file of pushed rows, without a time: rename or remove it"
        ) from None
