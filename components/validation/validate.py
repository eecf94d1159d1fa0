"""The stage: check the ingested tables, set bad rows aside, write the page that shows it, open or close the gate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from components.contracts import columns as c
from components.contracts.artifacts import Rows
from components.contracts.config import Config
from components.contracts.dataset import DatasetInfo
from components.contracts.errors import DataError, DataGateClosed
from components.contracts.files import facts_of, new_folder, read_manifest, write_json, write_manifest, write_text
from components.contracts.paths import run_dir
from components.contracts.spec import FeatureSpec, View
from components.validation import suite, tables
from components.validation.docs import Page, render
from components.validation.gate import Day, Evidence, ValidationLimits, Verdict, decide
from components.validation.runner import Checked, Outcome, Runner

__all__ = ["ValidateConfig", "ValidationLimits", "run"]

RESULTS = "results.json"
GX_PAGES = "great_expectations"
"""Folder of Great Expectations' own pages, beside the results they show."""
DOCS_NAME = "validation.html"
LOG_PATTERN = f"{c.PARTITION}=*/*.parquet"


class ValidateConfig(Config):
    """What `plan` hands to this stage. `code` is the code version: unused here, part of the cache key."""

    spec: FeatureSpec
    info: DatasetInfo
    limits: ValidationLimits = ValidationLimits()
    code: str = ""


@dataclass
class Findings:
    """All that was found. `codes` [rows] has one bit set for each reason a row is bad for; 0 is a good row."""

    files: list[tables.File]
    codes: NDArray[np.int64]
    splits: Any = None
    """pandas column of each row's split, or None where the log has no such column."""
    checked: list[Checked] = field(default_factory=list)

    @property
    def outcomes(self) -> list[Outcome]:
        return [outcome for checked in self.checked for outcome in checked.outcomes]

    @property
    def good(self) -> NDArray[np.bool_]:
        good: NDArray[np.bool_] = self.codes == 0
        return good


ROW_CODES = tuple(code for code, (scope, _) in suite.REASONS.items() if scope == suite.ROW)
BIT = {code: 1 << number for number, code in enumerate(ROW_CODES)}


def reasons_of(code: int) -> tuple[str, ...]:
    """The reason codes in a row's bits, the first of them first."""
    return tuple(name for name in ROW_CODES if code & BIT[name])


def run(
    config: ValidateConfig, impressions: Path, features: Path, clean: Path, quarantine: Path, docs: Path
) -> dict[str, Any]:
    """Checks `impressions` and `features`; writes `quarantine` and `docs` always, `clean` if the gate opens.

    `impressions` and `features` are sealed artifacts of ingestion; `clean` and `quarantine` are folders to be made
    (or empty ones), `docs` is the path of an HTML file. In a run the page is also put into the run's folder.

    Returns:
        Facts for the run record: rows in and quarantined, rows by reason, number of expectations.

    Raises:
        DataGateClosed: with every reason; `clean` is then not written.
        DataError, CorruptArtifact: if an artifact cannot be read as what it claims to be.
    """
    manifest = read_manifest(impressions)
    as_of = manifest.get("as_of")
    if not as_of:
        raise DataError(f"{impressions} does not say its as-of in its manifest: run ingestion again")
    read_manifest(features)
    findings = check(config, impressions, features, str(as_of))
    evidence = gather(findings)
    verdict = decide(evidence, config.limits)

    by_reason = count_reasons(findings.codes)
    by_split = split_counts(findings)
    before = Rows.parse(manifest.get("rows", {}), where=f"rows of {impressions}")
    rows = after(before, findings, by_split)
    with new_folder(quarantine) as folder:
        known = {int(code): reasons_of(int(code)) for code in np.unique(findings.codes)}
        tables.write_quarantine(findings.files, known, findings.codes, folder)
        write_json(folder / RESULTS, [checked.native for checked in findings.checked if checked.native])
        for number, checked in enumerate(findings.checked):
            if checked.page:
                write_text(folder / GX_PAGES / f"{number:02}.html", checked.page)
        write_manifest(
            folder, rows=evidence.bad, reasons=by_reason, days=[day.model_dump() for day in evidence.days],
            verdict=verdict.model_dump(mode="json"), as_of=as_of, dataset=config.info.name,
        )  # fmt: skip
    page = Page(
        dataset=config.info.name, as_of=str(as_of), source=config.info.source, verdict=verdict, evidence=evidence,
        limits=config.limits, reasons=by_reason, outcomes=tuple(findings.outcomes),
    )  # fmt: skip
    shown = publish(render(page), docs)
    if not verdict.open:
        raise DataGateClosed(closed(verdict, quarantine, shown))
    with new_folder(clean) as folder:
        tables.write_clean(findings.files, findings.good, folder)
        write_manifest(folder, **{**facts_of(manifest), "rows": rows.model_dump()})
    return {
        "rows": evidence.rows, "quarantined": evidence.bad, "reasons": by_reason, "gate": "open",
        "expectations": len(findings.outcomes), "click_rate": observed(findings.outcomes, "CLICK_RATE"),
    }  # fmt: skip


def publish(html: str, docs: Path) -> Path:
    """Writes the page, and a copy where a person looks first. Returns the path to tell."""
    write_text(docs, html)
    folder = run_dir()
    if folder is None:
        return docs
    write_text(folder / DOCS_NAME, html)
    return folder / DOCS_NAME


def closed(verdict: Verdict, quarantine: Path, docs: Path) -> str:
    return (
        f"the data gate is closed: {'; '.join(verdict.reasons)}. "
        f"See {docs} for every rule and {quarantine} for the bad rows with their reasons; "
        "then mend the source and import it again, or, if the data is right, change the limits "
        "(`--set validation.max_day_bad_share=...` and the like)"
    )


def check(config: ValidateConfig, impressions: Path, features: Path, as_of: str) -> Findings:
    """Runs all suites. Rules whose columns are missing or of a wrong type are reported as not run."""
    runner = Runner()
    files = tables.files_below(impressions, LOG_PATTERN)
    types = suite.log_types(config.info, config.spec)
    columns, healthy = _check_columns(runner, "log columns", files, types, "COLUMN_MISSING", "COLUMN_TYPE", "the log")
    total = sum(file.rows for file in files)
    findings = Findings(files, np.zeros(total, dtype=np.int64), checked=columns)

    frame = tables.read_frame(files, sorted(healthy))
    findings.splits = frame[c.SPLIT] if c.SPLIT in healthy else None
    usable = healthy | {c.PARTITION} | tables.derive(frame, config.info, healthy) if total else set()
    rules = suite.row_suite(config.info, config.spec, config.limits, as_of)
    rows = runner.check("log rows", frame, rules, usable)
    for number, positions in rows.bad.items():
        findings.codes[positions] |= BIT[rows.outcomes[number].code]

    rules = suite.count_suite("NO_ROWS", "the log, bad rows left out,")
    rules += suite.whole_suite(config.info, config.spec, config.limits)
    needed = {name for expectation in rules for name in expectation.meta["needs"]}
    whole = frame.loc[findings.good, sorted(needed & healthy)]  # narrow: the library hashes what it is given
    findings.checked += [rows, runner.check("log as a whole", whole, rules, usable if len(whole) else set())]
    for view in config.spec.views:
        findings.checked += _check_view(runner, config.spec, view, features, as_of)
    return findings


def _check_columns(
    runner: Runner, name: str, files: Sequence[tables.File], types: dict[str, tuple[str, ...]],
    missing: str, wrong: str, where: str,
) -> tuple[list[Checked], set[str]]:  # fmt: skip
    """Existence and types. Returns also the columns that passed both. Without files nothing is run."""
    frame = tables.type_frame(list(files))
    present = set(frame.columns)
    exist = runner.check(
        f"{name}: existence", frame, suite.exist_suite(types, missing, where), set(types) if files else set()
    )
    typed = runner.check(f"{name}: types", frame, suite.type_suite(types, wrong, where), present)
    healthy = {outcome.needs[0] for outcome in typed.outcomes if outcome.status == "passed"}
    return [exist, typed], healthy


def _check_view(runner: Runner, spec: FeatureSpec, view: View, features: Path, as_of: str) -> list[Checked]:
    files = tables.files_below(features, f"{view.name}/*.parquet")
    name = f"feature table {view.name}"
    types = suite.view_types(view, spec)
    columns, healthy = _check_columns(runner, name, files, types, "VIEW_COLUMN", "VIEW_TYPE", name)
    frame = tables.read_frame(files, sorted(healthy))
    rules = suite.count_suite("VIEW_EMPTY", name) + suite.view_suite(view, spec, as_of)
    return [*columns, runner.check(name, frame, rules, healthy if len(frame) else set())]


def gather(findings: Findings) -> Evidence:
    """What the gate decides on: counts a day, and a sentence for each failed set-wide rule or rule in error."""
    names = sorted({file.day for file in findings.files})
    number = {day: index for index, day in enumerate(names)}
    where = np.concatenate(
        [np.full(file.rows, number[file.day]) for file in findings.files] or [np.zeros(0, dtype=np.int64)]
    )
    size = len(names)
    rows = np.bincount(where, minlength=size)
    bad = np.bincount(where[~findings.good], minlength=size)
    funnel = np.bincount(where[(findings.codes & BIT[suite.FUNNEL]) != 0], minlength=size)
    outcomes = findings.outcomes
    failures = [
        outcome.problem
        for outcome in outcomes
        if outcome.status == "error" or (outcome.scope == suite.SET and outcome.status == "failed")
    ]
    return Evidence(
        days=tuple(
            Day(
                day=day, rows=int(rows[i]), bad=int(bad[i]), funnel=int(funnel[i]), mostly=_mostly(findings, where == i)
            )
            for day, i in number.items()
        ),
        set_checks=sum(o.scope == suite.SET and o.status in ("passed", "failed") for o in outcomes),
        failures=tuple(dict.fromkeys(failures)),
    )


def _mostly(findings: Findings, rows: NDArray[np.bool_]) -> str:
    """The most frequent reason among some rows; empty if none is bad."""
    counts = count_reasons(findings.codes[rows])
    return max(counts, key=lambda name: counts[name], default="")


def count_reasons(codes: NDArray[np.int64]) -> dict[str, int]:
    """Rows by reason; a row with two reasons counts under both."""
    counts = {name: int(np.count_nonzero(codes & BIT[name])) for name in ROW_CODES}
    return {name: count for name, count in counts.items() if count}


def split_counts(findings: Findings) -> dict[str, int]:
    """Good rows by split."""
    return {} if findings.splits is None else tables.count_by(findings.splits[findings.good])


def after(before: Rows, findings: Findings, by_split: dict[str, int]) -> Rows:
    """The row account after quarantine: splits as counted, and the quarantined rows in a column of their own.

    Ingestion leaves the gap's rows out of the log (or in it, as a split of their own): those not in it stay counted.
    """
    all_rows = {} if findings.splits is None else tables.count_by(findings.splits)
    return before.model_copy(
        update={
            "quarantined": before.quarantined + int(np.count_nonzero(~findings.good)),
            "gap": before.gap - all_rows.get(c.GAP, 0) + by_split.get(c.GAP, 0),
            **{name: by_split.get(name, 0) for name in c.SPLITS},
        }
    )


def observed(outcomes: Sequence[Outcome], code: str) -> float | None:
    texts = [outcome.observed for outcome in outcomes if outcome.code == code and outcome.observed]
    return float(texts[0]) if texts else None
