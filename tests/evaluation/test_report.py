"""The report: self-contained, escaped, complete, and the same text for the same input."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest

from components.contracts.artifacts import Ranges, Rows
from components.contracts.dataset import Imported
from components.contracts.decision import Candidate, Evaluation, GateResult, Metrics
from components.contracts.quality import DayQuality, Drift, Maturity, MaturityDay, Quality
from components.evaluation import plots
from components.evaluation.evidence import Evidence
from components.evaluation.gates import EvaluationConfig, decide
from components.evaluation.report import render, verdict

PLOTS = {"aucs", "non-inferiority", "reliability", "training-curves", "quarantine", "maturity", "drift"}
QUALITY = Quality(
    days=(
        DayQuality(day="2026-01-06", rows=30_000, bad=120, reasons={"FUNNEL": 100, "NULL_ID": 20}),
        DayQuality(day="2026-01-07", rows=31_000, bad=9_680, reasons={"FUNNEL": 9_680}),
    ),
    drift=(
        Drift(
            table="log", column="device", measure="null share", reference=0.0, observed=0.02, limit=0.05, passed=True,
            says="the null share of log.device moved from 0.0 % to 2.0 %",
        ),
    ),
    reference="held against the profile of run r1: all 1 measures are within their limits",
    maturity=Maturity(
        days=(
            MaturityDay(day="2026-01-16", impressions=9, immature=9, clicks=3, conversions=2, to_come=1.5),
        ),
        share_to_come=0.4,
        basis="of 574,000 mature impressions 5.00% were clicked",
    ),
    imported=Imported(lines=612_100, refused={"WEIGHT": 100}),
)  # fmt: skip


def metrics(base: Metrics, lift: float, logged: bool = False) -> Metrics:
    changes = {
        "ctr_auc": 0.68 + lift,
        "cvr_auc_clicked": 0.63 + lift,
        "ctcvr_auc": 0.76 + lift,
        "ctr_log_loss": 0.19 - lift / 3,
        "ctcvr_log_loss": 0.047 - lift / 10,
        "ctr_calibration": 1.02 if logged else 1.94,
    }
    return base.model_copy(update=changes)


def curve(start: float, end: float) -> list[dict[str, float]]:
    rows = np.linspace(40_000, 400_000, 10)
    fall = np.exp(-np.arange(10) / 2.5)
    return [
        {"rows": float(r), "ctr_log_loss": 4 * (end + (start - end) * f), "ctcvr_log_loss": end + (start - end) * f}
        for r, f in zip(rows, fall, strict=True)
    ]


def bins(scale: float, tilt: float, rows: float = 9000, count: int = 12) -> list[dict[str, float]]:
    predicted = scale * np.exp(np.linspace(-2.5, 1.5, count))
    wobble = np.exp(0.1 * np.sin(np.arange(count) * 2.1))
    return [
        {"predicted": float(p), "observed": float(p * tilt * w), "rows": rows}
        for p, w in zip(predicted, wobble, strict=True)
    ]


@pytest.fixture
def full(against: Evidence) -> Evaluation:
    """A run on the simulated shop with three candidates, one of them ineligible, a champion and the truth."""
    base = against.logged
    assert base is not None
    truth = {
        "entire_space_cvr_auc": 0.71,
        "entire_space_cvr_log_loss": 0.31,
        "entire_space_cvr_excess": 0.012,
        "entire_space_cvr_ratio": 1.08,
    }
    candidates = tuple(
        Candidate(
            name=name,
            eligible=True,
            validation=metrics(base, lift),
            test=metrics(base, lift),
            test_logged=metrics(base, lift, logged=True),
            truth=truth,
        )
        for name, lift in (("esmm", 0.02), ("esmm-ns", 0.013), ("base", 0.0))
    )
    diverged = Candidate(name="wild", eligible=False, reason="the loss was not finite at step 12")
    old = candidates[2].model_copy(update={"name": "champion v3", "validation": None})
    scale = {"ctr": 0.05, "cvr_clicked": 0.15, "ctcvr": 0.006}
    reliability = {
        name: {head: bins(value, tilt, 9000 if head != "cvr_clicked" else 700) for head, value in scale.items()}
        for name, tilt in (("esmm", 1.0), ("esmm-ns", 1.15), ("base", 0.8))
    }
    reliability["base"]["ctcvr"][0]["observed"] = 0.0
    return Evaluation(
        decision=decide(against, EvaluationConfig()),
        candidates=(*candidates, diverged),
        champion=old,
        oracle={"ctr_auc": 0.77, "cvr_auc_clicked": 0.74, "ctcvr_auc": 0.88, "ctr_auc_logged": 0.79} | truth,
        rows=Rows(
            total=612_000,
            invisible=1200,
            immature=38_000,
            quarantined=9_800,
            gap=40_000,
            train=365_000,
            valid=62_000,
            test=96_000,
        ),
        ranges=against.ranges or Ranges(kind="time", train=("", ""), valid=("", ""), test=("", "")),
        as_of="2026-01-17T00:00:00Z",
        dataset="shop",
        quality=QUALITY,
        notes=("Only 212 conversions in the test split: CVR and CTCVR figures are uncertain.",),
        plots={
            "limits": EvaluationConfig().model_dump(mode="json"),
            "history": {"esmm": curve(0.07, 0.045), "esmm-ns": curve(0.071, 0.0462), "base": curve(0.069, 0.048)},
            "reliability": reliability,
        },
    )


class Page(HTMLParser):
    """Collects what could reach outside, and checks that tags are closed."""

    void = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [
            value or "" for name, value in attrs if name in ("src", "href", "xlink:href", "action", "srcset")
        ]
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_report_needs_nothing_else(full: Evaluation) -> None:
    text = render(full)
    page = Page(text)
    assert all(link.startswith("#") for link in page.links)
    assert page.tags.isdisjoint({"script", "link", "iframe", "img", "object", "embed"})
    assert "@import" not in text
    outside = set(re.findall(r"""(?:https?:)?//[a-z0-9.]+[^\s"'<)]*""", text))
    assert outside <= {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names of vocabularies, not links
    assert all(url.startswith("#") for url in re.findall(r"url\(([^)]*)\)", text))


def test_every_plot_is_drawn_with_text_as_text(full: Evaluation) -> None:
    text = render(full)
    assert set(re.findall(r'data-plot="([^"]+)"', text)) == PLOTS
    for words in ("margin 1.0%", "oracle (the truth)", "training rows seen", "pCVR, clicked only"):
        assert words in text


def test_ids_are_unique_so_that_figures_do_not_clip_each_other(full: Evaluation) -> None:
    ids = re.findall(r'\bid="([^"]+)"', render(full))
    assert len(ids) == len(set(ids))


def test_the_same_input_gives_the_same_text(full: Evaluation) -> None:
    assert render(full) == render(Evaluation.parse(full.model_dump_json()))


def test_names_and_reasons_are_escaped(full: Evaluation) -> None:
    nasty = '<script>alert("x")</script>&'
    first = full.candidates[0].model_copy(update={"name": nasty})
    decision = full.decision.model_copy(
        update={"winner": nasty, "gates": (GateResult(gate=nasty, passed=False, reason=nasty),), "promote": False}
    )
    plot = {
        kind: {nasty if k == "esmm" else k: v for k, v in full.plots[kind].items()}
        for kind in ("history", "reliability")
    }
    bad = full.model_copy(
        update={
            "candidates": (first, *full.candidates[1:]),
            "decision": decision,
            "dataset": nasty,
            "notes": (nasty,),
            "quality": QUALITY.model_copy(
                update={
                    "days": (DayQuality(day=nasty, rows=2, bad=1, reasons={nasty: 1}),),
                    "drift": (QUALITY.drift[0].model_copy(update={"column": nasty, "passed": False, "says": nasty}),),
                    "reference": nasty,
                    "imported": Imported(lines=2, refused={nasty: 1}, truncated=(nasty,), notes=(nasty,)),
                }
            ),
            "plots": full.plots | plot,
        }
    )
    text = render(
        bad,
        {
            "run": nasty,
            "status": "refused",
            "promoted": False,
            "commit": nasty,
            "stages": {nasty: {"message": nasty, "status": nasty}},
        },
    )
    assert "<script" not in text
    assert "alert" in text
    Page(text)


def test_it_shows_candidates_gates_oracle_share_and_rows(full: Evaluation) -> None:
    text = " ".join(" ".join(Page(render(full)).text).split())
    for words in (
        "esmm passed every gate in comparison with champion version 3",
        "champion v3",
        "0.7000",  # CTR AUC of esmm
        "74%",  # its share of the oracle's: .20 / .27
        "1.940",  # calibration at the reference position
        "the loss was not finite at step 12",
        "quarantined (bad rows)",
        "9,800",
        "612,000",
        "Only 212 conversions",
        "9,800 of 61,000 rows (16.07%) were set aside",
        "an estimated 2 more (40.0% of all) are still to come",
        "Held against the profile of run r1",
        "100 of the source's 612,100 lines (0.02%) could not be read",
    ):
        assert words in text, words


def test_later_stages_show_the_bento_gate_and_what_became_of_it(full: Evaluation) -> None:
    gate = GateResult(
        gate="bento", passed=False, reason="the Bento's pctcvr of 12 pairs differs by 3.1e-02 (limit 1e-05)"
    )
    decision = full.decision.model_copy(update={"promote": False, "gates": (*full.decision.gates, gate)})
    run: dict[str, Any] = {
        "run": "20260117T000000-ab12",
        "status": "refused",
        "promoted": False,
        "commit": "0123456789abcdef",
        "stages": {
            "ingest": {"status": "cached", "cached": True, "seconds": None},
            "package": {"status": "succeeded", "seconds": 8.21},
            "promote": {"status": "skipped", "seconds": None},
        },
    }
    text = render(full.model_copy(update={"decision": decision}), run)
    assert "not promoted, closed gate: Bento answers like the model; champion version 3 keeps serving" in text
    assert "differs by 3.1e-02" in text
    assert "commit 0123456789ab" in text
    assert "8.2 s" in text
    assert "reused" in text


@pytest.mark.parametrize(
    ("run", "state", "words"),
    [
        ({"status": "promoted", "promoted": True, "version": 4}, "good", "champion version 4 in place of version 3"),
        (
            {"status": "failed", "promoted": False, "reasons": ["package: no disk"]},
            "bad",
            "The run failed: package: no disk",
        ),
        (None, "open", "features online and the Bento are tested next"),
    ],
)
def test_the_verdict_is_one_sentence(full: Evaluation, run: dict[str, Any] | None, state: str, words: str) -> None:
    found = verdict(full, run)
    assert found["state"] == state
    assert words in found["sentence"]


def test_a_first_run_renders_without_champion_and_truth(full: Evaluation, first: Evidence) -> None:
    alone = full.model_copy(update={"champion": None, "oracle": {}, "decision": decide(first, EvaluationConfig())})
    text = render(alone)
    assert set(re.findall(r'data-plot="([^"]+)"', text)) == PLOTS - {"non-inferiority"}
    assert "there is no champion yet" in text
    assert "oracle" not in text.lower()


def test_missing_figures_render_as_dashes(full: Evaluation, first: Evidence) -> None:
    assert first.logged is not None
    poor = first.logged.model_copy(
        update={"ctcvr_auc": None, "cvr_auc_clicked": None, "cvr_log_loss_clicked": None, "ctcvr_calibration": None}
    )
    candidate = Candidate(name="esmm", eligible=True, validation=poor, test=poor, test_logged=poor)
    evidence = replace(first, reference=poor, logged=poor)
    text = render(
        full.model_copy(
            update={
                "candidates": (candidate,),
                "champion": None,
                "plots": {},
                "decision": decide(evidence, EvaluationConfig()),
            }
        )
    )
    assert "–" in text
    assert 'data-plot="aucs"' in text


def test_plots_of_nothing_are_empty() -> None:
    assert plots.training_curves({"a": []}) == ""
    assert plots.reliability({}, ["a"]) == ""
    assert plots.non_inferiority(None, {}) == ""
    assert plots.non_inferiority({"users": 3}, {}) == ""
    assert plots.auc_dots({"a": {}}, {}, {}) == ""
