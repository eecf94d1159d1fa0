"""All checks in their order: columns, rows, the log as a whole, feature tables, drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.quality import Drift
from components.contracts.spec import View
from components.validation import drift, frames, suite, tables
from components.validation.profile import Profile, measure
from components.validation.rules import read_as, row_rules
from components.validation.runner import Checked, Outcome, Runner
from components.validation.scan import Columns, Scan, scan
from components.validation.views import ViewFigures, figures

if TYPE_CHECKING:
    from components.validation.validate import Ingested, ValidateConfig

LOG_PATTERN = f"{c.PARTITION}=*/*.parquet"
NOT_MEASURED = "drift was not judged: the data could not be measured, since {why}"


@dataclass
class Findings:
    """All that was found."""

    log: Scan
    checked: list[Checked] = field(default_factory=list)
    profile: Profile | None = None
    drift: tuple[Drift, ...] = ()
    reference: str = ""
    """Which profile drift was judged against, or why none was."""

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for checked in self.checked for outcome in checked.outcomes]

    @property
    def click_rate(self) -> float | None:
        """Of the usable rows."""
        good = self.log.rows - self.log.bad
        return self.log.clicks / good if good else None


def check(
    db: Any, config: ValidateConfig, ingested: Ingested, impressions: Path, features: Path, kept: Path, aside: Path
) -> Findings:
    """Runs everything; soiled files are written apart into `kept` (their good rows) and `aside` (their bad ones).

    Rules whose columns are missing or of a wrong type are reported as not run.

    Raises:
        DataError: if a table cannot be read as what it claims to be.
    """
    runner = Runner()
    info, spec, limits = config.info, config.spec, config.limits
    files = tables.files_below(impressions, LOG_PATTERN)
    types = suite.log_types(info, spec)
    of_columns, healthy = _columns(runner, "the log", files, types, "COLUMN_MISSING", "COLUMN_TYPE")
    context = tuple(name for name in suite.context_types(info, spec) if name in healthy)
    reads = {name: read_as(name, info, spec) for name in types if name in healthy}
    rules = row_rules(info, spec, limits, ingested.as_of)
    log = scan(db, files, rules, Columns(reads, context), kept, aside)
    found = Findings(log, [of_columns, Checked(log.outcomes)])

    imported = ingested.imported
    whole = frames.whole(log, healthy, imported, limits)
    judged = [
        ("log as a whole", whole, suite.whole_suite(limits, ingested.dated, imported is not None)),
        ("log by day", frames.days(log), suite.day_suite()),
        ("log by split", frames.splits(log, healthy, limits), suite.split_suite()),
        ("log context", frames.context(log, context), suite.context_suite()),
    ]
    found.checked += [runner.check(name, frame, rules, frames.filled(frame)) for name, frame, rules in judged]
    views = _Views(db, runner, config, ingested.as_of, features)
    found.checked += views.check()
    _drift(db, runner, config, ingested, found, views)
    return found


def _columns(
    runner: Runner, name: str, files: Sequence[tables.File], types: dict[str, tuple[str, ...]], missing: str, wrong: str
) -> tuple[Checked, frozenset[str]]:
    """Existence and types. Returns also the columns that passed both. Without files nothing is run."""
    frame = frames.columns(name, files, types)
    checked = runner.check(
        f"{name.removeprefix('the ')} columns", frame, suite.column_suite(missing, wrong),
        set(frame.columns) if files else set(),
    )  # fmt: skip
    faulty = {frame["column"][line] for lines in checked.bad.values() for line in lines}
    healthy = frozenset(types) - faulty if files and _ran(checked) else frozenset()
    return checked, healthy


def _ran(checked: Checked) -> bool:
    return all(outcome.status in ("passed", "failed") for outcome in checked.outcomes)


class _Views:
    """The feature tables of a run."""

    def __init__(self, db: Any, runner: Runner, config: ValidateConfig, as_of: str, features: Path) -> None:
        self.db, self.runner, self.config, self.as_of, self.features = db, runner, config, as_of, features
        self.relations: dict[str, str] = {}
        """SQL of each table that is what it should be and has rows."""

    def check(self) -> list[Checked]:
        checked: list[Checked] = []
        found: list[ViewFigures] = []
        for view in self.config.spec.views:
            of_columns, mine = self._figures(view)
            checked.append(of_columns)
            found.append(mine)
        if not found:
            return []
        limits = self.config.limits
        lines = frames.tables(found)
        checked.append(
            self.runner.check("feature tables", lines, suite.view_suite(limits, self.as_of), frames.filled(lines))
        )
        lines = frames.fields(found)
        usable = frames.filled(lines)  # what no field has, such as numbers where all are strings, is no rule's matter
        rules = [rule for rule in suite.field_suite(limits) if set(rule.meta["needs"]) <= usable]
        checked.append(self.runner.check("feature table fields", lines, rules, usable))
        return checked

    def _figures(self, view: View) -> tuple[Checked, ViewFigures]:
        files = tables.files_below(self.features, f"{view.name}/*.parquet")
        types = suite.view_types(view, self.config.spec)
        name = f"feature table {view.name}"
        checked, healthy = _columns(self.runner, name, files, types, "VIEW_COLUMN", "VIEW_TYPE")
        found = figures(self.db, view, self.config.spec, files, healthy, self.as_of)
        if found.table["rows"] and healthy == frozenset(types):
            self.relations[view.name] = duck.parquet([file.path for file in files])
        return checked, found


def _drift(db: Any, runner: Runner, config: ValidateConfig, ingested: Ingested, found: Findings, views: _Views) -> None:
    """Measures the usable rows and holds them against the reference, if the columns are what they should be."""
    log, limits = found.log, config.limits
    if any(outcome.status != "passed" for outcome in found.checked[0].outcomes):
        found.reference = NOT_MEASURED.format(why="a column is missing or has a wrong type")
        return
    if not log.good:
        found.reference = NOT_MEASURED.format(why="no row is usable")
        return
    volume = {day.day: day.impressions for day in ingested.maturity.days} if ingested.maturity else None
    found.profile = measure(
        db, duck.parquet(log.good, partitioned=True), config.info, config.spec, views.relations, ingested.as_of,
        config.data_fingerprint, volume or None,
    )  # fmt: skip
    checked, found.drift, found.reference = drift.check(runner, found.profile, config.reference, limits.drift)
    found.checked += checked
