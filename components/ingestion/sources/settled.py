"""A user's file with its columns found and converted: what the importers of logs and events select from."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.errors import DataError, UsageError
from components.contracts.spec import Dtype
from components.ingestion.sources import convert, reading
from components.ingestion.sources.convert import Converted, Role
from components.ingestion.sources.importing import Work
from components.ingestion.sources.reading import FILE, KEY, LINE, Source
from components.ingestion.sources.refused import SHOWN


@dataclass
class Settled:
    """`columns`: canonical or context name -> its conversion, in the order to write; `theirs`: -> the file's name."""

    source: Source
    relation: str
    theirs: dict[str, str]
    columns: dict[str, Converted] = field(default_factory=dict)
    context: dict[str, Dtype] = field(default_factory=dict)

    @property
    def rows(self) -> str:
        """SQL of the rows that could be read: the columns, and KEY."""
        selected = ", ".join(f"{column.sql} AS {duck.name(name)}" for name, column in self.columns.items())
        return f"(SELECT {selected}, {KEY} FROM {self.relation} WHERE NOT ({self._fails}))"

    @property
    def _fails(self) -> str:
        return " OR ".join(column.fails for column in self.columns.values())

    def refuse(self, work: Work) -> None:
        """Puts the rows that could not be read among the refused.

        Raises:
            DataError: if there is no other row.
        """
        good, bad = work.db.execute(
            f"SELECT count(*) FILTER (NOT ({self._fails})), count(*) FILTER ({self._fails}) FROM {self.relation}"
        ).fetchone()
        if bad:
            reason = " ".join(f"WHEN {column.fails} THEN '{column.reason}'" for column in self.columns.values())
            text = " ".join(
                f"WHEN {column.fails} THEN left({duck.text(self.theirs[name] + '=')} || "
                f"{duck.name(self.theirs[name])}::VARCHAR, {SHOWN})"
                for name, column in self.columns.items()
                if name in self.theirs
            )
            work.refused.add_rows(
                work.db,
                f"SELECT {FILE} AS file, {LINE} AS line, CASE {reason} END AS reason, CASE {text} END AS text "
                f"FROM {self.relation} WHERE {self._fails} ORDER BY {KEY}",
            )
        if not good:
            first = f" (first: {work.refused.example})" if work.refused.example else ""
            raise DataError(
                f"{self.source.what} {self.source.path} has no row that can be read{first}: check its values"
            )

    def bounds(self, work: Work) -> tuple[datetime, datetime, int]:
        """First and last event (UTC) and the number of rows.

        Raises:
            DataError: if no row has a time.
        """
        first, last, rows = work.db.execute(
            f"SELECT min({c.EVENT_TIMESTAMP}), max({c.EVENT_TIMESTAMP}), count(*) FROM {self.rows}"
        ).fetchone()
        if first is None:
            raise DataError(
                f"{self.source.what} {self.source.path}: no row has a {c.EVENT_TIMESTAMP}, so there is nothing to "
                "import"
            )
        return first.astimezone(UTC), last.astimezone(UTC), rows


def settle(
    work: Work,
    source: Source,
    roles: Mapping[str, Role],
    optional: Collection[str],
    mapping: Mapping[str, str],
    option: str,
) -> Settled:
    """Finds and converts the columns of `roles`, by `mapping` or under their own names, and reads CSV files.

    Args:
        optional: columns that may be absent, unless they are mapped.
        option: the command's option that maps, for messages.

    Raises:
        DataError: a column that is absent or of a type that cannot serve.
        UsageError: a context column that is a label or a label's time.
    """
    theirs: dict[str, str] = {}
    for column in roles:
        name = mapping.get(column, column)
        if name in source.types:
            theirs[column] = name
        elif column in mapping or column not in optional:
            raise DataError(
                f"{source.what} {source.path} has no column {name!r} for {column}: say which one it is with "
                f"{option} {column}=NAME (it has {', '.join(source.types)})"
            )
    labels = {theirs.get(column) for column in (*c.LABELS, *c.LABEL_TIMESTAMPS)}
    for column, role in roles.items():
        if role == "context" and theirs.get(column) in labels:
            raise UsageError(
                f"context column {column!r} is the log's {theirs[column]!r}, which is a label or its time: "
                "it would leak what is to be predicted; leave it out of --context"
            )
    staging = work.staging / f"text-{source.what.replace(' ', '-')}"
    wanted = tuple(dict.fromkeys(theirs.values()))
    relation, lines = reading.read(source, wanted, staging, work.refused, work.options.progress)
    work.lines += lines
    found = Settled(source, relation, theirs)

    def ask(select: str) -> tuple[Any, ...]:
        return tuple(work.db.execute(f"SELECT {select} FROM {relation}").fetchone())

    for column, name in theirs.items():
        sql, kind, where = duck.name(name), source.types[name], f"{source.path}: column {name!r}, mapped to {column},"
        role = roles[column]
        if role == "id":
            found.columns[column] = convert.identity(sql, kind, where, ask)
        elif role == "label":
            found.columns[column] = convert.label(sql, kind, where)
        elif role == "time":
            empty = column != c.EVENT_TIMESTAMP
            found.columns[column] = convert.time(sql, kind, where, work.clock, ask, may_be_empty=empty)
        else:
            wanted_type = work.options.context.get(column)
            found.columns[column], found.context[column] = convert.context(sql, column, kind, where, wanted_type, ask)
    convert.check_bags(found.context, str(source.path))
    if found.context.get(c.POSITION, "int") != "int":
        raise DataError(f"{source.path}: position is a {found.context[c.POSITION]}, it must be whole numbers from 1")
    found.refuse(work)
    return found
