"""Whether files are whole, asked before any of them is used."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts.errors import DataError


def rows_of(files: Iterable[Path]) -> dict[Path, int]:
    """Rows of each Parquet file, from its footer. A Parquet file's footer is its end, so one cut short has none.

    Raises:
        DataError: naming the first file that is no whole Parquet file.
    """
    rows = {}
    for file in files:
        try:
            rows[file] = pq.read_metadata(file).num_rows
        except (pa.ArrowException, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{file} cannot be read as Parquet ({reason}): it was cut short, damaged or is no Parquet file; write "
                "it again"
            ) from None
    return rows
