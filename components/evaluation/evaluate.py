"""The evaluate stage: score the candidates, choose on validation, gate the winner once on test, write the verdict."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from components.contracts.artifacts import EVALUATION_JSON, Ranges, Rows, model_identity
from components.contracts.config import Config
from components.contracts.dataset import INFO, DatasetInfo
from components.contracts.decision import Candidate, ChampionRef, Decision, Evaluation
from components.contracts.errors import DataError
from components.contracts.files import read_manifest, write_json, write_manifest, write_text
from components.contracts.quality import QUALITY, Quality
from components.evaluation import report as pages
from components.evaluation.comparison import Scored, compare
from components.evaluation.entrants import (
    Entrant,
    Judged,
    Load,
    choose,
    history,
    ineligible,
    judge,
    judge_champion,
    load_scorer,
    parity_evidence,
    read_entrant,
    reliability_points,
)
from components.evaluation.evidence import ChampionEvidence, Evidence
from components.evaluation.gates import EvaluationConfig, decide
from components.evaluation.metrics import headline
from components.evaluation.model_card import model_card
from components.evaluation.scored import NotProbabilities, Split, load_split
from components.evaluation.truth import load_truth, oracle

DECISION_JSON = "decision.json"
MODEL_CARD = "model_card.md"
FEW_CONVERSIONS = 300


class EvaluateConfig(Config):
    """`data` and `truth_fingerprint` lead to the simulator's truth, which no other stage reads."""

    evaluation: EvaluationConfig = EvaluationConfig()
    champion: ChampionRef | None = None
    data: str
    truth_fingerprint: str = ""
    as_of: str
    dataset: str
    code: str = ""


def run(
    config: EvaluateConfig,
    models: list[Path],
    dataset: Path,
    winner: Path,
    evaluation: Path,
    report: Path,
    load: Load = load_scorer,
) -> dict[str, Any]:
    """Evaluates a run's candidates.

    Args:
        models: model folders, one a candidate.
        dataset: the retrieve stage's artifact (valid and test splits with raw features).
        winner: where the chosen model folder is copied; without an eligible candidate, a sealed folder with a note.
        evaluation: where evaluation.json, decision.json and model_card.md go.
        report: the HTML file.
        load: opens a model folder for scoring.

    Returns:
        Facts for the run record; `promote` says whether every gate that applies is open.

    Raises:
        DataError: no candidates, an empty split, truth that changed; CorruptArtifact: an artifact that did.
    """
    if not models:
        raise DataError("evaluate was given no model: the recipe needs at least one candidate")
    manifest = read_manifest(dataset)
    entrants = [read_entrant(folder) for folder in models]
    valid, test = load_split(dataset, "valid"), load_split(dataset, "test")
    truth = load_truth(Path(config.data), config.truth_fingerprint, test)

    judged: list[Judged] = []
    candidates: list[Candidate] = []
    for entrant in entrants:
        if not entrant.eligible:
            candidates.append(ineligible(entrant))
            continue
        try:
            judged.append(judge(entrant, load(entrant.folder), valid, test, truth))
            candidates.append(judged[-1].candidate)
        except NotProbabilities as error:
            candidates.append(ineligible(entrant, str(error)))

    champion: tuple[ChampionEvidence, Candidate, Scored | None] | None = None
    if config.champion is not None:
        champion = judge_champion(config.champion, load, test, truth)
    ranges = Ranges.parse(manifest["ranges"]) if "ranges" in manifest else entrants[0].info.ranges
    plots: dict[str, Any] = {
        "limits": config.evaluation.model_dump(mode="json"),
        "history": {entrant.name: history(entrant) for entrant in entrants},
        "reliability": {j.candidate.name: reliability_points(j.scored, test) for j in judged},
    }
    if judged:
        chosen = choose(judged)
        decision = decide(_evidence(config, chosen, champion, ranges, test), config.evaluation)
    else:
        chosen, decision = None, _nobody(config, candidates)

    result = Evaluation(
        decision=decision,
        candidates=tuple(candidates),
        champion=champion[1] if champion else None,
        oracle=oracle(truth, test.outcome) if truth else {},
        rows=Rows.parse(manifest.get("rows", {})),
        ranges=ranges,
        as_of=config.as_of,
        dataset=config.dataset,
        notes=_notes(config, ranges, test, entrants),
        quality=Quality.parse(manifest.get(QUALITY, {}), where=f"quality of {dataset}"),
        plots=plots,
    )
    _write_winner(winner, chosen, decision)
    _write_evaluation(evaluation, result, chosen)
    write_text(report, pages.render(result))
    return _facts(result, winner)


def _evidence(
    config: EvaluateConfig,
    chosen: Judged,
    champion: tuple[ChampionEvidence, Candidate, Scored | None] | None,
    ranges: Ranges,
    test: Split,
) -> Evidence:
    limits, comparison = config.evaluation, None
    if champion is not None and champion[2] is not None:
        comparison = compare(
            chosen.scored,
            champion[2],
            test.outcome,
            test.users,
            replicates=limits.bootstrap_replicates,
            auc_replicates=limits.auc_replicates,
            confidence=limits.confidence,
            seed=limits.seed,
        )
    return Evidence(
        winner=chosen.candidate.name,
        as_of=config.as_of,
        ranges=ranges,
        identity=model_identity(chosen.entrant.folder),
        reference=chosen.candidate.test,
        logged=chosen.candidate.test_logged,
        parity=parity_evidence(chosen),
        champion=champion[0] if champion else None,
        comparison=comparison,
    )


def _nobody(config: EvaluateConfig, candidates: list[Candidate]) -> Decision:
    """No eligible candidate: refused, which is a normal end."""
    reasons = tuple(f"{candidate.name} is not eligible: {candidate.reason}" for candidate in candidates)
    version = config.champion.version if config.champion else None
    return Decision(promote=False, winner=None, champion_version=version, reasons=reasons, gates=())


def _notes(config: EvaluateConfig, ranges: Ranges, test: Split, entrants: list[Entrant]) -> tuple[str, ...]:
    """What a reader has to know before believing the numbers."""
    notes = []
    if ranges.kind == "hash":
        notes.append(
            f"The splits are by a seeded hash of the user (seed {ranges.seed}), not in time: the data's times are "
            "synthetic."
        )
    if ranges.kind == "published":
        notes.append(
            "The test split is as the data's publisher cut it, and validation is a share of the earlier users by a "
            f"seeded hash (seed {ranges.seed}): the data's times are synthetic, so nothing here is known to be later."
        )
    info = Path(config.data) / INFO
    if info.is_file() and DatasetInfo.parse(info.read_bytes(), where=str(info)).label_window_seconds == 0:
        notes.append("The log has no label times: labels are taken as final.")
    if all(entrant.info.spec.named("position") is None for entrant in entrants):
        notes.append("The log has no position: scores at the reference and at the logged position are the same.")
    conversions = int(test.outcome.conversion.sum())
    if conversions < FEW_CONVERSIONS:
        notes.append(f"Only {conversions} conversions in the test split: CVR and CTCVR figures are uncertain.")
    return tuple(notes)


def _write_winner(folder: Path, chosen: Judged | None, decision: Decision) -> None:
    if chosen is not None:
        shutil.copytree(chosen.entrant.folder, folder, dirs_exist_ok=True)
        read_manifest(folder, verify=True)
        return
    write_text(folder / "no-winner.txt", "\n".join(("No candidate was eligible.", *decision.reasons)) + "\n")
    write_manifest(folder, eligible=False)


def _write_evaluation(folder: Path, result: Evaluation, chosen: Judged | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / EVALUATION_JSON, result.model_dump(mode="json"))
    write_json(folder / DECISION_JSON, result.decision.model_dump(mode="json"))
    write_text(folder / MODEL_CARD, model_card(result, chosen.entrant.info if chosen else None))
    write_manifest(folder, rows=result.rows.model_dump(), winner=result.decision.winner)


def _facts(result: Evaluation, winner: Path) -> dict[str, Any]:
    """For the run record. `metrics` are the winner's: AUCs at the reference position, the rest at the logged one."""
    best = next((c for c in result.candidates if c.name == result.decision.winner), None)
    return {
        "promote": result.decision.promote,
        "winner": result.decision.winner,
        "champion": result.decision.champion_version,
        "reasons": list(result.decision.reasons),
        "rows": result.rows.model_dump(),
        "winner_fingerprint": read_manifest(winner, verify=False)["fingerprint"],
        "metrics": headline(best) if best else {},
    }
