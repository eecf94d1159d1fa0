"""The report's section on the data: every figure of it, and nothing where nothing is known."""

from __future__ import annotations

import pytest

from components.contracts.dataset import Imported
from components.contracts.quality import DayQuality, Drift, Maturity, MaturityDay, Quality
from components.evaluation import data_plots
from components.evaluation.data_section import data_section, span

DAYS = (
    DayQuality(day="2026-01-06", rows=1000, bad=30, reasons={"FUNNEL": 20, "NULL_ID": 15}),
    DayQuality(day="2026-01-07", rows=1000, bad=0),
    DayQuality(day="2026-01-08", rows=2000, bad=10, reasons={"FUNNEL": 10}),
)
MATURITY = Maturity(
    days=(
        MaturityDay(day="2026-01-06", impressions=1000, immature=0, clicks=100, conversions=30, to_come=0.0),
        MaturityDay(day="2026-01-07", impressions=1000, immature=900, clicks=90, conversions=10, to_come=10.0),
    ),
    delay_median=9000.0, delay_p90=172800.0, late_clicks=3, late_conversions=4, share_to_come=0.2,
    basis="of 1,100 mature impressions 10.00% were clicked",
)  # fmt: skip


def measure(name: str, observed: float | None, passed: bool = True, column: str = "device") -> Drift:
    return Drift(
        table="log", column=column, measure=name, reference=0.0, observed=observed, limit=0.2, passed=passed,
        says=f"{name} of log.{column} moved",
    )  # fmt: skip


DRIFT = (measure("category shares", 0.05), measure("null share", 0.3, passed=False), measure("quantiles", 0.1))
QUALITY = Quality(
    days=DAYS,
    drift=DRIFT,
    reference="held against the profile of run r1: 1 of 3 measures is beyond the limit",
    maturity=MATURITY,
    imported=Imported(lines=1010, refused={"WEIGHT": 7, "EMPTY": 3}, truncated=("a.csv.gz",), notes=("No times.",)),
)


def parts(quality: Quality) -> dict[str, dict[str, object]]:
    return {part["title"]: part for part in data_section(quality)}


def test_nothing_known_is_nothing_shown() -> None:
    assert data_section(Quality()) == []


def test_quarantine_counts_rows_and_reasons() -> None:
    part = parts(QUALITY)["Quarantine"]
    assert part["sentences"] == [
        "40 of 4,000 rows (1.00%) were set aside before anything was learnt from them; at worst 3.00% of a day, on "
        "2026-01-06."
    ]
    assert part["rows"] == [["FUNNEL", "30", "0.750%"], ["NULL_ID", "15", "0.375%"]]


def test_a_clean_log_says_so() -> None:
    part = parts(Quality(days=DAYS[1:2]))["Quarantine"]
    assert part["sentences"] == ["None of 1,000 rows was set aside."]
    assert part["svg"] == ""


def test_maturity_says_what_is_known_and_what_is_to_come() -> None:
    assert parts(QUALITY)["Label maturity"]["sentences"] == [
        "40 conversions are known at as-of, and an estimated 10 more (20.0% of all) are still to come.",
        "Half of the conversions come within 2.5 hours of their click, nine in ten within 2.0 days.",
        "3 clicks and 4 conversions came after their windows and count as none.",
        "Of 1,100 mature impressions 10.00% were clicked.",
    ]
    assert "900 impressions" in str(parts(QUALITY)["Label maturity"]["caption"])


def test_final_labels_have_a_sentence_and_no_figure() -> None:
    part = parts(Quality(maturity=Maturity(basis="labels are final")))["Label maturity"]
    assert (part["sentences"], part["svg"]) == (["Labels are final."], "")


def test_drift_is_listed_worst_first_and_what_failed_is_told() -> None:
    part = parts(QUALITY)["Drift"]
    assert part["sentences"] == [
        "Held against the profile of run r1: 1 of 3 measures is beyond the limit.",
        "Beyond its limit: null share of log.device moved.",
    ]
    assert [row[0] for row in part["rows"]] == [  # type: ignore[attr-defined]
        "null share of log.device", "quantiles of log.device", "category shares of log.device",
    ]  # fmt: skip


def test_drift_that_was_not_judged_says_why() -> None:
    part = parts(Quality(reference="drift was not judged, for want of a reference"))["Drift"]
    assert part["sentences"] == ["Drift was not judged, for want of a reference."]
    assert (part["svg"], part["rows"]) == ("", [])


def test_the_import_tells_what_it_could_not_read() -> None:
    part = parts(QUALITY)["Import"]
    assert part["sentences"] == [
        "10 of the source's 1,010 lines (0.99%) could not be read.",
        "Ended before their end, so that nobody knows what is lost: a.csv.gz.",
        "No times.",
    ]
    assert part["rows"] == [["WEIGHT", "7"], ["EMPTY", "3"]]
    assert parts(Quality(imported=Imported(lines=5)))["Import"]["sentences"] == ["All 5 lines of the source were read."]


def test_the_rarest_reasons_are_drawn_together() -> None:
    reasons = {f"R{n}": 20 - n for n in range(9)}
    svg = data_plots.quarantine((DayQuality(day="2026-01-06", rows=1000, bad=99, reasons=reasons),))
    assert "R5" in svg
    assert "R6" not in svg
    assert "3 others" in svg


def test_maturity_shows_known_and_to_come() -> None:
    svg = data_plots.maturity(MATURITY.days)
    for words in ("known at as-of", "still to come (estimate)", "01-07"):
        assert words in svg


def test_drift_draws_the_worst_in_order_with_their_limit() -> None:
    svg = data_plots.drift([*DRIFT, *(measure("quantiles", 0.001 * n, column=f"c{n}") for n in range(40))])
    assert svg.index("null share of log.device") > svg.index("category shares of log.device")  # drawn from below
    assert "c39" in svg
    assert "c3<" not in svg


@pytest.mark.parametrize("observed", [0.0, -5.0, 1e9, None])
def test_any_figure_can_be_drawn(observed: float | None) -> None:
    assert 'data-plot="drift"' in data_plots.drift([measure("null share", observed, passed=False)])


def test_names_from_the_data_are_neither_formulas_nor_markup() -> None:
    svg = data_plots.drift([measure("null share", 0.1, column="<b>$x^2$")])
    assert "&lt;b&gt;$x^2$" in svg


def test_the_same_figures_give_the_same_drawing() -> None:
    assert data_section(QUALITY) == data_section(Quality.parse(QUALITY.model_dump_json()))


def test_figures_of_nothing_are_empty() -> None:
    assert data_plots.quarantine(()) == data_plots.maturity(()) == data_plots.drift(()) == ""


def test_the_way_to_the_limit() -> None:
    assert measure("a", 0.1).relative == 0.5
    lower = Drift(
        table="log", column="", measure="click rate", reference=0.1, observed=0.05, limit=0.05, passed=True, says=""
    )
    assert lower.relative == 1.0
    assert lower.model_copy(update={"observed": 0.12}).relative < 0
    assert measure("a", None, passed=False).relative == float("inf")


def test_span() -> None:
    assert [span(s) for s in (5, 90, 7200, 86400 * 2.5)] == ["5 seconds", "1.5 minutes", "2.0 hours", "2.5 days"]
