"""The join as SQL.

ASOF takes one inequality, but a version counts at time t only if it was stamped *and* created by then. So the join is
not on the event time but on the moment a version became known, `known = greatest(event, created)`, and versions that
were already outdated at that moment are left out: those with an earlier event than one known no later. What is left of
a key rises in `known` and in `event` alike, so the last one known by t is the newest of all known by t, which is what
was asked for. Only it can still be alive: it has the latest event, so if its time to live is over, so is that of all
others. Of versions known at one moment the last counts, by event, then created, then place in the file.

Keys are numbered first: integers sort and compare faster than strings, and keys that nobody asks for go no further.
Wide rows are kept out of all that; the join finds *where* a version lies (file and row), and values are fetched by
that at the end, slice by slice of the entity rows, since fetching loses their order and sorting wide rows takes memory.
"""

from __future__ import annotations

from collections.abc import Iterator

from components.contracts import duck
from feature_repo.asof.entities import RESERVED
from feature_repo.asof.plan import Plan, Versions

PLACE = "(file_index::BIGINT << 40) + file_row_number"
"""Of a row in its table's files."""
SAMPLE = 2_048
ROWS = f"{RESERVED}rows"
MATCHED = f"{RESERVED}matched"
ROW = f"{RESERVED}row"


def preparation(plan: Plan) -> Iterator[str]:
    """Statements that leave `asof_rows` (the entity rows, numbered) and `asof_matched` (of each, a place a view)."""
    entities = plan.entities
    if entities.file:
        yield f"CREATE TEMP VIEW {ROWS} AS SELECT file_row_number AS {ROW}, * FROM {entities.file}"
    else:
        yield f"CREATE TEMP TABLE {RESERVED}copied AS {entities.query}"
        yield f"CREATE TEMP VIEW {ROWS} AS SELECT rowid AS {ROW}, * FROM {RESERVED}copied"
    numbered = _numbered(plan)
    for keys, table in numbered.items():
        columns = ", ".join(map(duck.name, keys))
        whole = " AND ".join(f"{duck.name(key)} IS NOT NULL" for key in keys)
        yield (
            f"CREATE TEMP TABLE {table} AS SELECT {columns}, row_number() OVER () AS code "
            f"FROM (SELECT DISTINCT {columns} FROM {ROWS} WHERE {whole})"
        )
    for number, view in enumerate(plan.views):
        yield _known_versions(plan, number, view, numbered)
    yield _match(plan, numbered)
    for number in range(len(plan.views)):
        yield f"DROP TABLE {_versions_table(number)}"
    for table in numbered.values():
        yield f"DROP TABLE {table}"


def result(plan: Plan, first: int, end: int) -> str:
    """What is returned of entity rows `first` to `end` (exclusive), in order, once `preparation` has run."""
    columns = [f"e.{duck.name(name)}" for name in plan.entities.types]
    joins = []
    for number, view in enumerate(plan.views):
        fetched = ", ".join(f"{duck.name(column)} AS f{n}" for n, (column, _) in enumerate(view.features))
        joins.append(
            f"LEFT JOIN (SELECT {PLACE} AS place, {fetched} FROM {view.table}) AS v{number} "
            f"ON v{number}.place = m.place{number}"
        )
        columns += [f"v{number}.f{n} AS {duck.name(name)}" for n, (_, name) in enumerate(view.features)]
    # Said of both sides, so that neither is read whole.
    within = " AND ".join(f"{side}.{ROW} >= {first} AND {side}.{ROW} < {end}" for side in "em")
    return (
        f"SELECT {', '.join(columns)} FROM {ROWS} AS e JOIN {MATCHED} AS m ON m.{ROW} = e.{ROW} {' '.join(joins)} "
        f"WHERE {within} ORDER BY e.{ROW}"
    )


def row_bytes(plan: Plan) -> str:
    """A query for what a row of the result takes in memory, about: from the first rows of each table it comes from."""
    parts = [(ROWS, list(plan.entities.types))]
    parts += [(view.table, [column for column, _ in view.features]) for view in plan.views]
    found = []
    for table, columns in parts:
        written_out = " + ".join(f"8 + coalesce(strlen({duck.name(name)}::VARCHAR), 0)" for name in columns)
        found.append(f"coalesce((SELECT avg({written_out}) FROM (SELECT * FROM {table} LIMIT {SAMPLE})), 8)")
    return f"SELECT {' + '.join(found)}"


def _numbered(plan: Plan) -> dict[tuple[str, ...], str]:
    """A table of numbers for each set of entity columns that some view is keyed by."""
    sets = dict.fromkeys(tuple(column for _, column in view.keys) for view in plan.views if view.keys)
    return {keys: f"{RESERVED}keys{number}" for number, keys in enumerate(sets)}


def _versions_table(number: int) -> str:
    return f"{RESERVED}versions{number}"


def _known_versions(plan: Plan, number: int, view: Versions, numbered: dict[tuple[str, ...], str]) -> str:
    """Of each key the versions that count: code, known, until (last moment alive), place."""
    event = f"epoch_{plan.unit}(v.{duck.name(view.event)})"
    created = f"epoch_{plan.unit}(v.{duck.name(view.created)})" if view.created else "NULL::BIGINT"
    filtered = plan.known_only and view.created is not None
    ticks = 0 if view.ttl is None else round(view.ttl.total_seconds() * 1e6) * (1000 if plan.unit == "ns" else 1)
    code, join = "1", ""
    if view.keys:
        on = " AND ".join(f"v.{duck.name(key)} = k.{duck.name(column)}" for key, column in view.keys)
        code, join = "k.code", f"JOIN {numbered[tuple(column for _, column in view.keys)]} AS k ON {on}"
    return f"""
        CREATE TEMP TABLE {_versions_table(number)} AS
        WITH stamped AS (
            SELECT {code} AS code, {event} AS event, {created} AS created, v.place
            FROM (SELECT {PLACE} AS place, * FROM {view.table}) AS v {join}
        ), known AS (
            SELECT code, event, created, place, {"greatest(event, created)" if filtered else "event"} AS known
            FROM stamped WHERE event IS NOT NULL {"AND created IS NOT NULL" if filtered else ""}
        ), compared AS (
            SELECT code, event, known, place, lead(known) OVER timeline AS following,
                max(event) OVER (timeline ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS newest
            FROM known WINDOW timeline AS (PARTITION BY code ORDER BY known, event, created NULLS FIRST, place)
        )
        SELECT code, known, {f"event + {ticks}" if view.ttl else "NULL::BIGINT"} AS until, place
        FROM compared WHERE event = newest AND known IS DISTINCT FROM following
    """


def _match(plan: Plan, numbered: dict[tuple[str, ...], str]) -> str:
    """One ASOF join a view, over nothing but numbers."""
    codes = ", ".join(f"{table}.code AS {table}" for table in numbered.values())
    keys = " ".join(f"LEFT JOIN {table} ON {_equal(columns, table)}" for columns, table in numbered.items())
    found = (
        f"SELECT e.{ROW}, epoch_{plan.unit}(e.{duck.name(plan.entities.time)}) AS time{', ' + codes if codes else ''} "
        f"FROM {ROWS} AS e {keys}"
    )
    for number, view in enumerate(plan.views):
        code = f"x.{numbered[tuple(column for _, column in view.keys)]}" if view.keys else "1"
        alive = "v.place" if view.ttl is None else "CASE WHEN x.time <= v.until THEN v.place END"
        found = (
            f"SELECT x.*, {alive} AS place{number} FROM ({found}) AS x "
            f"ASOF LEFT JOIN {_versions_table(number)} AS v ON v.code = {code} AND v.known <= x.time"
        )
    places = "".join(f", place{number}" for number in range(len(plan.views)))
    return f"CREATE TEMP TABLE {MATCHED} AS SELECT {ROW}{places} FROM ({found})"


def _equal(columns: tuple[str, ...], table: str) -> str:
    return " AND ".join(f"e.{duck.name(column)} = {table}.{duck.name(column)}" for column in columns)
