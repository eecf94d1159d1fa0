"""What `esmm features` prints for a person, from the records of features.py."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from components.contracts.spec import CONTEXT_SOURCE, ID_SOURCE, ITEM_CONTEXT_SOURCE
from components.features import catalog, stats
from components.validation.shares import percent
from pipelines.features import Feature, Listed, Looked, Shown, Use, View
from serving.online.cells import Cell

TITLES = {
    ID_SOURCE: "ids",
    CONTEXT_SOURCE: "context of the request: logged, and sent when ranking",
    ITEM_CONTEXT_SOURCE: "context of an item in the request: logged, and sent when ranking",
}
KINDS = {ID_SOURCE: "id", CONTEXT_SOURCE: "context of the request or an item"}
BROUGHT = {True: "yes", False: "no", None: "-"}
LONGEST_VALUE = 40
STATUS = {
    "fresh": "fresh",
    "expired": "expired, so missing",
    "future": "ahead of the clock, so missing",
    "null": "null",
    "unknown": "unknown",
}


def aligned(header: Sequence[str], rows: Iterable[Sequence[str]], indent: str = "  ") -> list[str]:
    """Columns as wide as their widest cell, the last one free."""
    lines = [tuple(header), *(tuple(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(header))]
    return [
        (indent + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))).rstrip()
        for line in lines
    ]


def list_lines(found: Sequence[Listed], undeclared: Sequence[str], brought: str = "brought") -> list[str]:
    """A block a source; the column `brought`, under that heading, only where it is known of any feature."""
    views = {view.name: view for view in catalog.view_entries()}
    known = any(entry.brought is not None for entry in found)
    lines: list[str] = []
    for source in dict.fromkeys(entry.source for entry in found):
        view = views.get(source)
        title = TITLES.get(source, source)
        if view is not None:
            title += f": by {view.entity}, lives {catalog.duration(view.ttl_seconds)}. {view.description}"
        header = ("feature", "type", "encoding", *((brought,) if known else ()), "description")
        rows = [
            (e.name, e.type, e.encoding, *((BROUGHT[e.brought],) if known else ()), e.description)
            for e in found
            if e.source == source
        ]
        lines += [title, *aligned(header, rows), ""]
    for name in undeclared:
        lines.append(f"view {name} is brought, but not declared in feature_repo/views.py: no model reads it")
    return lines if undeclared else lines[:-1]


def show_lines(shown: Shown) -> list[str]:
    lines: list[str] = []
    for feature in shown.features:
        lines += [*_feature(feature), ""]
    for view in shown.views:
        lines += [*_view(view), ""]
    return lines[:-1]


def _feature(feature: Feature) -> list[str]:
    kind = f"feature of view {feature.source}" if feature.entity else KINDS[feature.source]
    defaults = [f"{key} {value}" for key, value in feature.effective.items() if key not in feature.settings]
    facts = [("type", feature.type), ("encoding", feature.encoding)]
    if defaults:
        facts.append(("defaults", ", ".join(defaults)))
    if feature.weights:
        facts.append(("weights", feature.weights))
    if feature.entity and feature.ttl_seconds is not None:
        facts += [("looked up by", feature.entity), ("lives", catalog.duration(feature.ttl_seconds))]
    facts.append(("read by", _uses(feature.used_by)))
    return [f"{feature.name}, {kind}: {feature.description}", *_facts(facts)]


def _view(view: View) -> list[str]:
    facts = [
        ("features", ", ".join(view.features)),
        ("looked up by", view.entity),
        ("lives", catalog.duration(view.ttl_seconds)),
        ("table", f"<dataset>/{view.pattern}"),
        ("pushes", f"to {view.push_source}" if view.push_source else "none"),
        ("read by", _uses(view.used_by)),
    ]
    lines = [f"{view.name}, view: {view.description}", *_facts(facts)]
    if not view.materialized:
        return [*lines, *_facts([("materialized", "nothing: run `esmm materialize`, or `esmm run`")])]
    rows = [
        (
            stored.dataset,
            f"{stored.rows:,}",
            stored.as_of,
            stored.newest_event or "?",
            age(stored.lag_seconds) if stored.lag_seconds is not None else "?",
        )
        for stored in view.materialized
    ]
    header = ("dataset", "entities", "up to (watermark)", "newest event", "lag")
    return [*lines, "  materialized", *aligned(header, rows, "    ")]


def _facts(facts: Iterable[tuple[str, str]]) -> list[str]:
    return [f"  {name:<12}  {value}" for name, value in facts]


def _uses(uses: Sequence[Use]) -> str:
    return ", ".join(f"{use.role} version {use.version} of {use.dataset}" for use in uses) or "no model in use"


def stats_lines(as_of: str, found: Sequence[stats.ViewStats]) -> list[str]:
    lines = [f"as known at {as_of}", ""]
    for view in found:
        mean, most = view.versions
        lines.append(
            f"{view.name}: {view.rows:,} rows of {view.entities:,} entities ({view.entity}), {mean:.1f} versions each "
            f"(most {most:,}), newest {view.newest_event or 'none'}; {percent(view.expired)} of the entities older "
            f"than {catalog.duration(view.ttl_seconds)} by then"
        )
        header = ("feature", "missing", "distinct", "newest value", "values")
        rows = [
            (f.name, percent(f.missing), f"{f.distinct:,}", f.newest_event or "none", _values(f)) for f in view.features
        ]
        lines += [*aligned(header, rows), ""]
    return lines[:-1]


def _values(feature: stats.FeatureStats) -> str:
    if feature.numbers is not None:
        return _numbers(feature.numbers)
    parts = [f"{_short(value.value)} ({percent(value.share)})" for value in feature.top]
    if feature.a_row is not None:
        parts.append(f"{feature.a_row[0]:.1f} values a row (most {feature.a_row[1]})")
    if feature.weights is not None:
        parts.append(f"weights: {_numbers(feature.weights)}")
    return ", ".join(parts) or "none"


def _numbers(numbers: stats.Numbers) -> str:
    shares = zip(stats.QUANTILES, numbers.quantiles, strict=True)
    middle = "  ".join(f"{100 * share:g}% {value:.6g}" for share, value in shares)
    return f"min {numbers.minimum:.6g}  {middle}  max {numbers.maximum:.6g}  mean {numbers.mean:.6g}"


def lookup_lines(looked: Looked) -> list[str]:
    """A block an entity asked for: what the service would take as its features, and what it would not."""
    reads = f"champion version {looked.model}" if looked.model is not None else "no champion, so every view"
    since = f"{looked.as_of}, the materialization (frozen clock)" if looked.clock == "frozen" else "now (wall clock)"
    lines = [f"dataset {looked.dataset}: {reads}; materialized up to {looked.as_of}; ages measured from {since}"]
    cells: dict[tuple[str, str], list[Cell]] = {}
    for cell in looked.cells:
        cells.setdefault((cell.entity, cell.key), []).append(cell)
    for (entity, key), found in cells.items():
        unknown = all(cell.status == "unknown" for cell in found)
        lines += ["", f"{entity} {key}" + (": unknown, nothing is stored of it" if unknown else "")]
        if not unknown:
            header = ("view", "feature", "value", "status", "age", "event time", "source")
            lines += aligned(header, [_cell(cell) for cell in found])
    if looked.no_group:
        lines += ["", "no --group was given, so what is kept by group is missing"]
    return lines


def _cell(cell: Cell) -> tuple[str, ...]:
    return (
        cell.view,
        cell.feature,
        _short(_said(cell.value)),
        STATUS[cell.status],
        "-" if cell.age_seconds is None else age(cell.age_seconds),
        "-" if cell.event_time is None else f"{cell.event_time:%Y-%m-%d %H:%M:%S}",
        cell.source,
    )


def _said(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def age(seconds: float) -> str:
    """`2.5 d`, `3.0 h`, `4.2 min`, `12 s`; negative for an event after the time ages are measured from."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if abs(seconds) >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
