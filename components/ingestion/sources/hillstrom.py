"""The MineThatData e-mail challenge (Kevin Hillstrom, 2008) as a dataset: a real funnel of 64,000 customers.

A third got an e-mail about men's goods, a third about women's, a third none: that is the item. A visit of the site in
the two weeks after is the click, a purchase in them the conversion; `spend` is an outcome and stays out. Customers
occur once, so user_id is the row's number and no feature. The file has no times: rows are spread evenly, in their
order, over one made-up day, labels are final, and the split is by hash.
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts.dataset import LOG, DatasetInfo, SplitConfig, write_info
from components.contracts.errors import DataError
from components.contracts.files import new_folder
from components.contracts.spec import Dtype

NAME = "hillstrom"
DAY = "2008-03-20"
CONTEXT: dict[str, Dtype] = {
    "recency": "int",
    "history_segment": "string",
    "history": "float",
    "mens": "int",
    "womens": "int",
    "zip_code": "string",
    "newbie": "int",
    "channel": "string",
}
HEADER = (*CONTEXT, "segment", "visit", "conversion", "spend")
SEGMENTS = ("Mens E-Mail", "Womens E-Mail", "No E-Mail")
_FLAGS = ("mens", "womens", "newbie", "visit", "conversion")


def import_hillstrom(csv_file: Path, out: Path) -> dict[str, Any]:
    """Writes a dataset folder to `out`, all or nothing. Returns rows, clicks and conversions.

    Raises:
        DataError: if the file is absent, has another header, or a value that cannot be (naming the line), or if
            `out` exists and is not empty.
    """
    columns = _read(csv_file)
    count = len(columns["visit"])
    midnight = int(datetime.fromisoformat(DAY).replace(tzinfo=UTC).timestamp()) * 1_000_000
    stamps = [midnight + row * 86_400_000_000 // count for row in range(count)]
    table = pa.table(
        {
            c.IMPRESSION_ID: [f"h{row}" for row in range(1, count + 1)],
            c.USER_ID: [str(row) for row in range(1, count + 1)],
            c.ITEM_ID: columns["segment"],
            c.EVENT_TIMESTAMP: pa.array(stamps, pa.timestamp("us", tz="UTC")),
            **{name: columns[name] for name in CONTEXT},
            c.CLICK: columns["visit"],
            c.CONVERSION: columns["conversion"],
        }
    )
    info = DatasetInfo(
        name=NAME,
        source="MineThatData E-Mail Analytics challenge (2008); times are synthetic, the file has none",
        context=CONTEXT,
        split=SplitConfig(kind="hash"),
        id_features=(c.ITEM_ID,),
        recipe=NAME,
        clock="frozen",
    )
    with new_folder(out) as folder:
        part = folder / LOG / f"{c.PARTITION}={DAY}"
        part.mkdir(parents=True)
        pq.write_table(table, part / "part-0.parquet")
        write_info(folder, info)
    return {"rows": count, "clicks": sum(columns["visit"]), "conversions": sum(columns["conversion"])}


def _read(csv_file: Path) -> dict[str, list[Any]]:
    """Columns with checked, typed values."""
    if not csv_file.is_file():
        raise DataError(f"{csv_file} does not exist: give the challenge's CSV file (its header begins with recency)")
    parsers: dict[str, Callable[[str], Any]] = dict.fromkeys(("history_segment", "zip_code", "channel"), str)
    parsers |= {"recency": _recency, "history": _amount, "segment": _segment} | dict.fromkeys(_FLAGS, _flag)
    columns: dict[str, list[Any]] = {name: [] for name in parsers}
    try:
        with csv_file.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != HEADER:
                raise DataError(
                    f"{csv_file} has the header {','.join(reader.fieldnames or ())!r}, not {','.join(HEADER)!r}: "
                    "is it the challenge's file?"
                )
            for row in reader:
                for name, parse in parsers.items():
                    try:
                        columns[name].append(parse(row[name]))
                    except (TypeError, ValueError) as error:
                        where = f"{csv_file} line {reader.line_num}"
                        raise DataError(f"{where}: {name} is {row[name]!r}, not {error}: is the file whole?") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{csv_file} is no CSV text ({error}): give the challenge's CSV file") from None
    if not columns["visit"]:
        raise DataError(f"{csv_file} has a header and no rows: is the file whole?")
    return columns


def _recency(value: str) -> int:
    if not (value.isdecimal() and 1 <= int(value) <= 12):
        raise ValueError("a number of months from 1 to 12")
    return int(value)


def _amount(value: str) -> float:
    try:
        amount = float(value)
    except ValueError:
        amount = -1.0
    if not 0 <= amount < 1e9:
        raise ValueError("an amount of money")
    return amount


def _segment(value: str) -> str:
    if value not in SEGMENTS:
        raise ValueError(f"one of {', '.join(SEGMENTS)}")
    return value


def _flag(value: str) -> int:
    if value not in ("0", "1"):
        raise ValueError("0 or 1")
    return int(value)
