"""The report on the data: what was set aside, how complete the labels are, drift, lines the import refused."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from components.contracts.dataset import Imported
from components.contracts.quality import DayQuality, Drift, Maturity, Quality
from components.evaluation import data_plots

UNITS = (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0))


def data_section(quality: Quality) -> list[dict[str, Any]]:
    """Parts of the section, each with title, sentences, figure, caption and a table; [] where nothing is known."""
    parts = [_quarantine(quality.days), _maturity(quality.maturity), _drift(quality), _imported(quality.imported)]
    return [part for part in parts if part]


def _part(title: str, sentences: list[str], svg: str = "", caption: str = "", **table: Any) -> dict[str, Any]:
    # The figure is our own SVG, whose text matplotlib has escaped; the sentences are escaped by jinja.
    empty: dict[str, Any] = {"header": [], "rows": [], "folded": ""}
    return {"title": title, "sentences": sentences, "svg": Markup(svg), "caption": caption, **empty, **table}


def _quarantine(days: tuple[DayQuality, ...]) -> dict[str, Any]:
    if not days:
        return {}
    rows, bad = sum(day.rows for day in days), sum(day.bad for day in days)
    if not bad:
        return _part("Quarantine", [f"None of {rows:,} rows was set aside."])
    reasons: dict[str, int] = {}
    for day in days:
        for reason, count in day.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + count
    worst = max(days, key=lambda day: day.bad / day.rows if day.rows else 0.0)
    ordered = sorted(reasons.items(), key=lambda item: (-item[1], item[0]))
    return _part(
        "Quarantine",
        [
            f"{bad:,} of {rows:,} rows ({bad / rows:.2%}) were set aside before anything was learnt from them; "
            f"at worst {worst.bad / worst.rows:.2%} of a day, on {worst.day}."
        ],
        data_plots.quarantine(days),
        "A row with two reasons is counted under both. The validation page says what each reason means.",
        header=["reason", "rows", "share"],
        rows=[[reason, f"{count:,}", f"{count / rows:.3%}"] for reason, count in ordered],
    )


def _maturity(maturity: Maturity | None) -> dict[str, Any]:
    if maturity is None:
        return {}
    sentences = []
    if maturity.share_to_come is not None:
        known = sum(day.conversions for day in maturity.days)
        coming = sum(day.to_come for day in maturity.days)
        sentences.append(
            f"{known:,} conversions are known at as-of, and an estimated {coming:,.0f} more "
            f"({maturity.share_to_come:.1%} of all) are still to come."
        )
    if maturity.delay_median is not None and maturity.delay_p90 is not None:
        sentences.append(
            f"Half of the conversions come within {span(maturity.delay_median)} of their click, nine in ten within "
            f"{span(maturity.delay_p90)}."
        )
    if maturity.late_clicks or maturity.late_conversions:
        sentences.append(
            f"{maturity.late_clicks:,} clicks and {maturity.late_conversions:,} conversions came after their windows "
            "and count as none."
        )
    if maturity.basis:
        sentences.append(f"{maturity.basis[0].upper()}{maturity.basis[1:].rstrip('.')}.")
    immature = sum(day.immature for day in maturity.days)
    caption = f"{immature:,} impressions whose windows are still open are in no split." if immature else ""
    return _part("Label maturity", sentences, data_plots.maturity(maturity.days), caption)


def _drift(quality: Quality) -> dict[str, Any]:
    if not (quality.reference or quality.drift):
        return {}
    said = quality.reference
    sentences = [f"{said[0].upper()}{said[1:].rstrip('.')}."] if said else []
    sentences += [f"Beyond its limit: {measure.says}." for measure in quality.drift if not measure.passed]
    ordered = sorted(quality.drift, key=lambda measure: -measure.relative)
    caption = "The worst first; the line is the limit." if ordered else ""
    return _part(
        "Drift",
        sentences,
        data_plots.drift(quality.drift),
        caption,
        header=["measure", "reference", "now", "limit"],
        rows=[_measure(measure) for measure in ordered],
        folded=f"All {len(ordered)} measures",
    )


def _measure(measure: Drift) -> list[str]:
    figures = (measure.reference, measure.observed, measure.limit)
    return [data_plots.named(measure), *("–" if value is None else f"{value:.4g}" for value in figures)]


def _imported(imported: Imported | None) -> dict[str, Any]:
    if imported is None:
        return {}
    refused = sum(imported.refused.values())
    if refused:
        share = refused / imported.lines if imported.lines else 1.0
        sentences = [f"{refused:,} of the source's {imported.lines:,} lines ({share:.2%}) could not be read."]
    else:
        sentences = [f"All {imported.lines:,} lines of the source were read."]
    if imported.truncated:
        sentences.append(f"Ended before their end, so that nobody knows what is lost: {', '.join(imported.truncated)}.")
    sentences += imported.notes
    ordered = sorted(imported.refused.items(), key=lambda item: (-item[1], item[0]))
    return _part(
        "Import",
        sentences,
        header=["reason", "lines"],
        rows=[[reason, f"{count:,}"] for reason, count in ordered],
    )


def span(seconds: float) -> str:
    """`3.2 hours`."""
    for unit, size in UNITS:
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"
