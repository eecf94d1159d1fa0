"""Every declared feature as one record, for people: `esmm features` and docs/feature-reference.md are made from it."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Iterable
from typing import Any

from components.contracts import columns as c
from components.contracts.config import Config
from components.contracts.errors import UsageError
from components.contracts.spec import CONTEXT_SOURCE, ID_SOURCE, WEIGHTS_SUFFIX, Feature
from feature_repo import views as repo
from feature_repo.context import CONTEXT
from feature_repo.declare import Declared, dtype_of, shown
from feature_repo.entities import ITEM, USER

AS_LOGGED = "as logged"
"""Type of a context column: dataset.json says it, so it is another from dataset to dataset."""
EFFECTIVE = {
    "id": ("dimension", "min_count", "max_vocabulary"),
    "bucket": ("buckets", "dimension"),
    "numeric": (),
    "bag": ("combiner", "max_values", "dimension", "min_count", "max_vocabulary"),
}
"""Settings that matter to an encoding."""


class Entry(Config):
    """A feature as declared. `source` is "id", "context" or the name of a view; `entity` the key it is looked up by.

    `settings` are the declared tags; `ttl_seconds` None: it is not stored, so it has no age. `weights` names the column
    that holds a bag's weights.
    """

    name: str
    source: str
    entity: str | None
    type: str
    settings: dict[str, str]
    ttl_seconds: float | None
    description: str
    weights: str | None = None

    @property
    def encoding(self) -> str:
        """As in `bucket, minimum 0`."""
        return shown(self.settings)

    @property
    def with_defaults(self) -> dict[str, Any]:
        """The settings that matter to its encoding, declared or by default."""
        names = EFFECTIVE.get(self.settings.get("encoding", ""), ())
        return {name: self.settings.get(name, Feature.model_fields[name].default) for name in names}


class ViewEntry(Config):
    """A view as declared. `pattern`: its files, below a dataset's folder. `push_source`: None if nothing is pushed."""

    name: str
    entity: str
    ttl_seconds: float
    description: str
    features: tuple[str, ...]
    pattern: str
    push_source: str | None


def entries() -> tuple[Entry, ...]:
    """Ids, context, then each view's features, in order of declaration. A bag's weights are part of the bag."""
    ids = ((c.USER_ID, USER), (c.ITEM_ID, ITEM))
    return (
        *(_unstored(name, ID_SOURCE, {"encoding": "id"}, str(entity.description), "string") for name, entity in ids),
        *(_unstored(n, CONTEXT_SOURCE, column.settings, column.description) for n, column in CONTEXT.items()),
        *(entry for view in repo.VIEWS for entry in _stored(view)),
    )


def view_entries() -> tuple[ViewEntry, ...]:
    """The declared views, in order."""
    built = {view.name: view for view in repo.build("features", tuple(view.name for view in repo.VIEWS))}
    return tuple(
        ViewEntry(
            name=view.name,
            entity=view.entity.join_key,
            ttl_seconds=view.ttl.total_seconds(),
            description=view.description,
            features=tuple(entry.name for entry in _stored(view)),
            pattern=f"features/{view.name}/*.parquet",
            push_source=getattr(built[view.name].stream_source, "name", None),
        )
        for view in repo.VIEWS
    )


def find(name: str) -> tuple[list[Entry], list[ViewEntry]]:
    """Features (one name may be both context and stored) and views of that name.

    Raises:
        UsageError: there is neither; the nearest name is suggested.
    """
    features = [entry for entry in entries() if name in (entry.name, entry.weights)]
    views = [view for view in view_entries() if view.name == name]
    if not features and not views:
        known = {entry.name for entry in entries()} | {view.name for view in view_entries()}
        raise UsageError(f"there is no feature or view {name!r}{suggestion(name, known)}")
    return features, views


def suggestion(name: str, known: Collection[str]) -> str:
    """The end of a sentence: `: did you mean 'country'?`, or where all names are."""
    near = difflib.get_close_matches(name, sorted(known), n=1)
    hint = f": did you mean {near[0]!r}? " if near else ": "
    return hint + "`esmm features list` shows them all"


def duration(seconds: float) -> str:
    """`7 days`, `36 hours`, `90 seconds`: the largest unit that is whole; below a second as it is."""
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size and seconds % size == 0:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''}"
    return f"{seconds:g} seconds"


def reference(cells: Callable[[Iterable[str], Iterable[Iterable[object]]], str]) -> str:
    """docs/feature-reference.md below its head: a section a view, then context. `cells(header, rows)` makes a table."""
    header = ("feature", "type", "encoding", "what it is")
    parts = []
    for view in view_entries():
        pushed = f" Pushes go to `{view.push_source}`." if view.push_source else ""
        parts.append(
            f"### `{view.name}`\n\n{view.description}\n\n"
            f"Key `{view.entity}`; a value lives {duration(view.ttl_seconds)}; table `{view.pattern}`.{pushed}\n\n"
            + cells(header, _rows_of(view.name))
        )
    for source, title in ((CONTEXT_SOURCE, "Context"), (ID_SOURCE, "Ids")):
        parts.append(f"### {title}\n\n{cells(header, _rows_of(source))}")
    return "\n".join(parts)


def summary() -> list[tuple[str, str, str, str]]:
    """(feature, view, type, encoding) of everything a model can see beside the ids, for docs/features.md."""
    return [
        (f"`{entry.name}`", CONTEXT_SOURCE if entry.entity is None else f"`{entry.source}`", entry.type, entry.encoding)
        for entry in entries()
        if entry.source != ID_SOURCE
    ]


def _rows_of(source: str) -> list[tuple[str, str, str, str]]:
    return [_row(entry) for entry in entries() if entry.source == source]


def _row(entry: Entry) -> tuple[str, str, str, str]:
    return f"`{entry.name}`", entry.type, entry.encoding, entry.description


def _unstored(name: str, source: str, settings: dict[str, Any], description: str, kind: str = AS_LOGGED) -> Entry:
    return Entry(
        name=name,
        source=source,
        entity=None,
        type=kind,
        settings={key: str(value) for key, value in settings.items()},
        ttl_seconds=None,
        description=description,
    )


def _stored(view: Declared) -> list[Entry]:
    names = {field.name for field in view.fields}
    found = []
    for field in view.fields:
        dtype = dtype_of(field)
        if dtype == "floats":
            continue
        weights = field.name + WEIGHTS_SUFFIX if field.name + WEIGHTS_SUFFIX in names and dtype == "strings" else None
        kind = field.dtype.to_value_type().name.lower()
        if dtype == "strings":
            kind = "list of strings" + (", weighted" if weights else "")
        found.append(
            Entry(
                name=field.name,
                source=view.name,
                entity=view.entity.join_key,
                type=kind,
                settings=dict(field.tags),
                ttl_seconds=view.ttl.total_seconds(),
                description=field.description,
                weights=weights,
            )
        )
    return found
