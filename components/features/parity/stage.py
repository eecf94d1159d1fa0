"""The parity stage: for sampled impressions of the test split, features as retrieved offline at the time of the
impression against what online serving had then, and the scores that follow from either.

Offline is the retrieved dataset, which the model was trained and tested on. Online is a scratch store, never the live
one, brought up to just after each impression by what materializes the live one, and read by the service's own lookup.
So a difference is a bug of one of the two paths: a time zone, a view that is no longer written, a renamed column, a
default in place of a null, a join that sees what was not yet known (docs/parity.md).
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.contracts.config import Config
from components.contracts.decision import GateResult
from components.contracts.errors import DataError, NoEvidence, ServiceError
from components.contracts.files import read_manifest
from components.contracts.parity import EVENT_TIME, GATE, SCORE, FeatureParity
from components.contracts.spec import FeatureSpec
from components.features.parity.lookup import Opener
from components.features.parity.settings import ParitySettings

NAMED = 3
"""Differing columns that the reason names; the table has all."""


class ParityConfig(Config):
    dataset: str
    parity: ParitySettings = ParitySettings()
    code: str = ""


class Parity(Config):
    """`features`: the table. `sampled` impressions were read at `moments` states of the scratch store."""

    gate: GateResult
    features: tuple[FeatureParity, ...] = ()
    sampled: int = 0
    moments: int = 0


def run(config: ParityConfig, features: Path, dataset: Path, model: Path, opened: Opener) -> dict[str, Any]:
    """Compares and judges; facts: `passed`, `gate`, `features` (the table), `sampled`, `moments`, `seconds`.

    Args:
        opened: opens the service's lookup; stages do not import the service.

    Raises:
        DataError: `features`, `dataset` or `model` is not a readable artifact.
    """
    read_manifest(features)
    spec = retrieved_spec(dataset)
    started = time.monotonic()
    found = measure(spec, config.parity, features, dataset, model, opened)
    facts = found.model_dump(mode="json")
    return {"passed": found.gate.passed, **facts, "seconds": round(time.monotonic() - started, 3)}


def retrieved_spec(dataset: Path, verify: bool = True) -> FeatureSpec:
    """What the retrieved dataset holds. Raises DataError if it is not a readable artifact."""
    return FeatureSpec.parse(read_manifest(dataset, verify=verify)["spec"], where=str(dataset))


def measure(
    spec: FeatureSpec, settings: ParitySettings, features: Path, dataset: Path, model: Path | None, opened: Opener
) -> Parity:
    """As `run`, for any feature tables, and without a model (then nothing is scored).

    An online side that cannot be brought up or read closes the gate; it does not raise.

    Raises:
        DataError: `model` is no readable artifact.
    """
    if not spec.views:
        reason = "does not apply: the model reads no feature views, so there is nothing to compare"
        return Parity(gate=GateResult(gate=GATE, passed=True, applies=False, reason=reason))
    # Feast takes seconds to import; a dataset without views does without.
    from components.features.parity import online as parity_online
    from components.features.parity import sample as parity_sample
    from components.features.parity.compare import compare
    from components.scoring.score import Scorer

    scorer = Scorer(model) if model is not None else None
    with tempfile.TemporaryDirectory(prefix="esmm-parity-tables-") as folder:
        try:
            sample = parity_sample.draw(dataset, features, spec, settings, Path(folder))
            online = parity_online.walk(sample, Path(folder), spec, opened)
        except NoEvidence as error:
            return Parity(gate=GateResult(gate=GATE, passed=False, reason=str(error)))
        except (DataError, ServiceError) as error:
            reason = f"the online store cannot be brought up from these tables: {error}"
            return Parity(gate=GateResult(gate=GATE, passed=False, reason=reason))
    table = compare(sample, online, spec, settings, scorer)
    return Parity(
        gate=judge(table, len(sample.rows), online.moments),
        features=tuple(table),
        sampled=len(sample.rows),
        moments=online.moments,
    )


def judge(table: Sequence[FeatureParity], sampled: int, moments: int) -> GateResult:
    """Open if nothing differs. Nothing compared closes it."""
    if not sampled or not table:
        return GateResult(gate=GATE, passed=False, reason="no evidence: nothing was compared, the gate stays closed")
    differing = [row for row in table if row.differing]
    at_expiry = sum(row.at_expiry for row in table if row.view != SCORE)
    evidence = {
        "sampled": sampled,
        "moments": moments,
        "values": sum(row.checked for row in table if row.view != SCORE),
        "at_expiry": at_expiry,
        "differing": [row.model_dump(mode="json") for row in differing],
    }
    if not differing:
        scored = ", and score the same" if any(row.view == SCORE for row in table) else ""
        excused = f"; {at_expiry} expired online within the last second of their time to live" if at_expiry else ""
        reason = (
            f"{evidence['values']:,} values of {sampled} impressions are online as offline, at {moments} states of the "
            f"store{scored}{excused}"
        )
        return GateResult(gate=GATE, passed=True, reason=reason, evidence=evidence)
    named = "; ".join(_says(row) for row in differing[:NAMED])
    more = f"; and {len(differing) - NAMED} more" if len(differing) > NAMED else ""
    return GateResult(gate=GATE, passed=False, reason=f"online is not as offline: {named}{more}", evidence=evidence)


def _says(row: FeatureParity) -> str:
    what = row.feature if row.view == SCORE else f"{_named(row)} of {row.view}"
    example = f", as in {row.example.says}" if row.example else ""
    return f"{what} in {row.differing} of {row.checked} impressions{example}"


def _named(row: FeatureParity) -> str:
    return "event time" if row.feature == EVENT_TIME else repr(row.feature)
