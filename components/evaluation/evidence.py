"""What the gates decide on: nothing else reaches them, so a gate can be tried with a handful of numbers."""

from __future__ import annotations

from dataclasses import dataclass

from components.contracts.artifacts import ModelInfo, Ranges
from components.contracts.decision import Metrics
from components.evaluation.comparison import Comparison


@dataclass(frozen=True)
class Parity:
    """ONNX graph against the eager model it was exported from.

    `recorded`: largest difference of a probability, measured by training on export and written to metrics.json.
    `eager_log_loss`: CTCVR log loss on validation as training measured it, eager. `onnx_log_loss`: the same, measured
    here through the ONNX graph, the encoder and the raw rows, which is what serving will run.
    """

    recorded: float | None = None
    eager_log_loss: float | None = None
    onnx_log_loss: float | None = None


@dataclass(frozen=True)
class ChampionEvidence:
    """The champion the run was planned against. `error` says why it could not be read or scored, "" if it could."""

    version: int
    info: ModelInfo | None = None
    identity: str | None = None
    error: str = ""


@dataclass(frozen=True)
class Evidence:
    """Everything known about the winner on the test split. None means: not known, and a gate that needs it closes."""

    winner: str
    as_of: str
    ranges: Ranges | None = None
    identity: str | None = None
    reference: Metrics | None = None
    """Test split, reference position."""
    logged: Metrics | None = None
    """Test split, logged position."""
    parity: Parity | None = None
    champion: ChampionEvidence | None = None
    """None on a first run."""
    comparison: Comparison | None = None
