"""The stage: check the ingested tables, set bad rows aside, write the page that shows it, open or close the gate."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.artifacts import Rows
from components.contracts.config import Config
from components.contracts.dataset import DatasetInfo, Imported
from components.contracts.errors import DataError, DataGateClosed
from components.contracts.files import facts_of, new_folder, read_manifest, write_json, write_manifest, write_text
from components.contracts.paths import run_dir
from components.contracts.quality import MATURITY, QUALITY, DayQuality, Maturity, Quality
from components.contracts.spec import FeatureSpec
from components.validation import tables
from components.validation.check import Findings, check
from components.validation.docs import Page, render
from components.validation.gate import Day, Evidence, ValidationLimits, Verdict, decide
from components.validation.profile import PROFILE_JSON, Profile
from components.validation.scan import Scan
from components.validation.suite import FUNNEL, SET

__all__ = ["ValidateConfig", "ValidationLimits", "run"]

RESULTS = "results.json"
GX_PAGES = "great_expectations"
"""Folder of Great Expectations' own pages, beside the results they show."""
DOCS_NAME = "validation.html"
IMPORTED = "imported"
"""Where ingestion's manifest holds what the importer said of its source."""


class ValidateConfig(Config):
    """What `plan` hands to this stage. `code` is the code version: unused here, part of the cache key.

    `reference` is the profile that drift is judged against; `data_fingerprint` is what this run's own profile says it
    was measured on.
    """

    spec: FeatureSpec
    info: DatasetInfo
    limits: ValidationLimits = ValidationLimits()
    reference: Profile | None = None
    data_fingerprint: str = ""
    code: str = ""


@dataclass(frozen=True)
class Ingested:
    """What ingestion's manifest says of the log."""

    facts: dict[str, Any]
    as_of: str
    rows: Rows
    dated: bool
    """The log is split by its own time, so that a date without rows is one that is missing."""
    maturity: Maturity | None
    imported: Imported | None

    @classmethod
    def read(cls, impressions: Path, info: DatasetInfo) -> Ingested:
        """Raises DataError or CorruptArtifact if the artifact is not what its manifest says."""
        manifest = read_manifest(impressions)
        where = f"the manifest of {impressions}"
        if not manifest.get("as_of"):
            raise DataError(f"{impressions} does not say its as-of in its manifest: run ingestion again")
        maturity, imported = manifest.get(MATURITY), manifest.get(IMPORTED)
        return cls(
            facts=facts_of(manifest),
            as_of=str(manifest["as_of"]),
            rows=Rows.parse(manifest.get("rows", {}), where=where),
            dated=info.split.kind == "time" and manifest.get("ranges", {}).get("kind") == "time",
            maturity=Maturity.parse(maturity, where=where) if maturity else None,
            imported=Imported.parse(imported, where=where) if imported else None,
        )


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
    ingested = Ingested.read(impressions, config.info)
    read_manifest(features)
    with new_folder(clean) as kept:
        with new_folder(quarantine) as aside:
            with duck.connect(threads=None, trust_statistics=False) as db:
                found = check(db, config, ingested, impressions, features, kept, aside)
            evidence = gather(found)
            verdict = decide(evidence, config.limits)
            quality = quality_of(found, ingested)
            write_results(found, aside)
            write_manifest(
                aside, rows=evidence.bad, reasons=found.log.reasons, days=[day.model_dump() for day in evidence.days],
                verdict=verdict.model_dump(mode="json"), as_of=ingested.as_of, dataset=config.info.name,
                **{QUALITY: quality.model_dump(mode="json")},
            )  # fmt: skip
        page = Page(
            dataset=config.info.name, as_of=ingested.as_of, source=config.info.source, verdict=verdict,
            evidence=evidence, limits=config.limits, reasons=found.log.reasons, quality=quality,
            outcomes=tuple(found.outcomes),
        )  # fmt: skip
        shown = publish(render(page), docs, found.profile)
        if not verdict.open:
            raise DataGateClosed(closed(verdict, quarantine, shown, drifted=not all(d.passed for d in found.drift)))
        for file in found.log.whole:
            tables.copy(file, kept)
        rows = after(ingested.rows, found.log)
        write_manifest(kept, **{**ingested.facts, "rows": rows.model_dump(), QUALITY: quality.model_dump(mode="json")})
    return {
        "rows": evidence.rows, "quarantined": evidence.bad, "reasons": found.log.reasons, "gate": "open",
        "expectations": len(found.outcomes), "click_rate": found.click_rate,
    }  # fmt: skip


def write_results(found: Findings, folder: Path) -> None:
    """Great Expectations' own results and pages, and the profile of the usable rows where there is one."""
    write_json(folder / RESULTS, [checked.native for checked in found.checked if checked.native])
    for number, checked in enumerate(found.checked):
        if checked.page:
            write_text(folder / GX_PAGES / f"{number:02}.html", checked.page)
    if found.profile is not None:
        write_text(folder / PROFILE_JSON, found.profile.to_text())


def publish(html: str, docs: Path, profile: Profile | None = None) -> Path:
    """Writes the page, and a copy of page and profile where a person looks first. Returns the page's path to tell."""
    write_text(docs, html)
    folder = run_dir()
    if folder is None:
        return docs
    write_text(folder / DOCS_NAME, html)
    if profile is not None:
        write_text(folder / PROFILE_JSON, profile.to_text())
    return folder / DOCS_NAME


def closed(verdict: Verdict, quarantine: Path, docs: Path, drifted: bool = False) -> str:
    new = ", or accept it as the new reference (`esmm profile accept --force --out FILE`)" if drifted else ""
    return (
        f"the data gate is closed: {'; '.join(verdict.reasons)}. "
        f"See {docs} for every rule and {quarantine} for the bad rows with their reasons; "
        "then mend the source and import it again, or, if the data is right, change the limits "
        f"(`--set validation.max_day_bad_share=...` and the like){new}"
    )


def gather(found: Findings) -> Evidence:
    """What the gate decides on: counts a day, and a sentence for each failed set-wide rule or rule in error."""
    outcomes = found.outcomes
    failures = [
        outcome.problem
        for outcome in outcomes
        if outcome.status == "error" or (outcome.scope == SET and outcome.status == "failed")
    ]
    days = []
    for day, count in sorted(found.log.days.items()):
        mostly = max(count.reasons, key=lambda code: count.reasons[code], default="")
        days.append(Day(day=day, rows=count.rows, bad=count.bad, funnel=count.reasons[FUNNEL], mostly=mostly))
    return Evidence(
        days=tuple(days),
        set_checks=sum(o.scope == SET and o.status in ("passed", "failed") for o in outcomes),
        failures=tuple(dict.fromkeys(failures)),
    )


def quality_of(found: Findings, ingested: Ingested) -> Quality:
    """What later stages are told of the data."""
    days = tuple(
        DayQuality(day=day, rows=count.rows, bad=count.bad, reasons=dict(sorted(count.reasons.items())))
        for day, count in sorted(found.log.days.items())
    )
    return Quality(
        days=days, drift=found.drift, reference=found.reference, maturity=ingested.maturity, imported=ingested.imported
    )


def after(before: Rows, found: Scan) -> Rows:
    """The row account after quarantine: splits as counted, and the quarantined rows in a column of their own.

    Ingestion leaves the gap's rows out of the log (or in it, as a split of their own): those not in it stay counted.
    """
    return before.model_copy(
        update={
            "quarantined": before.quarantined + found.bad,
            "gap": before.gap - found.all_splits[c.GAP] + found.splits[c.GAP],
            **{name: found.splits[name] for name in c.SPLITS},
        }
    )
