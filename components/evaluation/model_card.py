"""A short model card in Markdown: what the winner is, what it was judged on, and what to know before using it.

Sections follow Mitchell et al., "Model Cards for Model Reporting" (2019), as far as the pipeline knows the answers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from components.contracts.artifacts import ModelInfo
from components.contracts.decision import Evaluation
from components.contracts.spec import Feature
from components.evaluation.metrics import headline
from components.scoring.encoder import embedded


def model_card(evaluation: Evaluation, info: ModelInfo | None) -> str:
    """The card as text. `info` None: no candidate was eligible, and the card says only that."""
    decision, ranges = evaluation.decision, evaluation.ranges
    if info is None:
        return _join(f"# {evaluation.dataset}: no model", "No candidate was eligible.", _list(decision.reasons))
    winner = next(candidate for candidate in evaluation.candidates if candidate.name == decision.winner)
    verdict = "Passed every gate." if decision.promote else "Refused: do not serve it."
    gates = [
        f"{gate.gate}: {('open' if gate.passed else 'closed') if gate.applies else 'not applied'}. {gate.reason}"
        for gate in decision.gates
    ]
    return _join(
        f"# {evaluation.dataset}: {info.candidate}, as of {evaluation.as_of}",
        f"Predicts pCTR, pCVR and pCTCVR = pCTR x pCVR of every impression. {verdict}",
        "## Data",
        f"Split by {ranges.kind}: training [{', '.join(ranges.train)}), validation [{', '.join(ranges.valid)}), "
        f"test [{', '.join(ranges.test)}). Data fingerprint `{info.data_fingerprint}`, code `{info.code}`, "
        f"seed {info.seed}.",
        "## Features",
        _list(_feature(feature, info) for feature in info.spec.features),
        f"Served as if shown at position {info.spec.reference_position}.",
        "## Calibration",
        f"{info.calibration.says}. It holds for impressions like those that get clicked, the only ones on which a "
        "conversion can be observed; validation also stopped the training and chose the model. All figures below are "
        "of the calibrated model.",
        "## On test",
        "AUCs at the reference position; log losses (nats) and calibration at the logged one; CVR over clicked "
        "impressions only.",
        _table(headline(winner)),
        "Against the simulator's truth, over all impressions:" if winner.truth else "",
        _table(winner.truth),
        "## Gates",
        _list(gates),
        "## Know before use" if evaluation.notes else "",
        _list(evaluation.notes),
    )


def _feature(feature: Feature, info: ModelInfo) -> str:
    tower = ", CTR tower only" if feature.tower == "ctr" else ""
    bag = f": {_pooling(feature, info)}" if feature.encoding == "bag" else ""
    return f"`{feature.name}` ({feature.dtype} from {feature.source}, {feature.encoding}{bag}{tower})"


def _pooling(feature: Feature, info: ModelInfo) -> str:
    widths = info.architecture.get("widths")
    names = [f.name for f in embedded(info.spec)]
    # A model that records no widths (a made-up one) still has the limit of its declaration.
    width = widths[names.index(feature.name)] if isinstance(widths, list) else feature.max_values
    which = "heaviest" if feature.weighted else "first"
    weighted = "weighted " if feature.weighted else ""
    return f"{weighted}{feature.combiner} of at most {width} values, the {which}"


def _join(*paragraphs: str) -> str:
    return "\n\n".join(paragraph for paragraph in paragraphs if paragraph) + "\n"


def _list(items: Iterable[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(values: Mapping[str, float]) -> str:
    if not values:
        return ""
    return "\n".join(
        ("| metric | value |", "|---|---|", *(f"| {name} | {value:.5f} |" for name, value in values.items()))
    )
