"""The promote stage: the winner, evaluated and smoke-tested, becomes champion if nobody was faster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from components.contracts.artifacts import EVALUATION_JSON
from components.contracts.config import Config
from components.contracts.decision import Evaluation
from components.contracts.errors import NoEvidence
from components.contracts.files import read_manifest
from components.contracts.paths import Home
from components.packaging import registry
from components.packaging.bento import run_name


class PromoteConfig(Config):
    """`champion_version`: the champion that `plan` saw and evaluation compared with, None if there was none."""

    dataset: str
    champion_version: int | None = None
    as_of: str
    code: str = ""


def run(config: PromoteConfig, bento: str, winner: Path, evaluation: Path) -> dict[str, Any]:
    """Registers and promotes the winner; facts: `version`, `previous`, `bento`, `model` (its kept folder).

    Raises:
        NoEvidence: the evaluation did not decide to promote, or has no metrics of the winner.
        RegistryError: the champion changed meanwhile, or its data is newer.
    """
    read_manifest(evaluation)
    path = evaluation / EVALUATION_JSON
    judged = Evaluation.parse(path.read_bytes(), where=str(path))
    found = next((c for c in judged.candidates if c.name == judged.decision.winner), None)
    if not judged.decision.promote or found is None or found.test is None:
        raise NoEvidence(f"{path} does not decide for a promotion: promote only what evaluation let through")
    metrics = {k: float(v) for k, v in found.test.model_dump().items() if isinstance(v, (int, float))}
    done = registry.promote(
        Home.from_environment(),
        config.dataset,
        winner,
        bento=bento,
        metrics=metrics,
        expected_champion=config.champion_version,
        as_of=config.as_of,
        run=run_name(winner),
    )
    return {"version": done.version, "previous": done.previous, "bento": done.bento, "model": done.source}
