"""Scores raw rows with a model folder: numpy and onnxruntime, nothing of training.

Evaluation and the service both score through here, so that what was evaluated is what is served.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from components.contracts.artifacts import ONNX, ModelInfo, read_model
from components.contracts.errors import CorruptArtifact, DataError
from components.scoring.encoder import Encoded, Encoder
from components.scoring.raw import Columns

Position = Literal["reference", "logged"]


@dataclass(frozen=True)
class Scores:
    """Probabilities, float64 [B]. P(click), P(conversion | click) and their product, exactly `pctr * pcvr`."""

    pctr: NDArray[np.float64]
    pcvr: NDArray[np.float64]

    @property
    def pctcvr(self) -> NDArray[np.float64]:
        return self.pctr * self.pcvr


class Scorer:
    """A model, loaded and checked.

    Args:
        model_dir: a model artifact.
        threads: threads of one call; 1 is fastest for the few hundred rows of a request.

    Raises:
        DataError: if the folder is no model artifact, or one without a graph (its training diverged).
        CorruptArtifact: if a file is not the one the manifest promises.
    """

    def __init__(self, model_dir: Path, threads: int = 1) -> None:
        self.info: ModelInfo = read_model(model_dir)
        self.encoder: Encoder = Encoder.load(model_dir)
        if self.encoder.spec != self.info.spec:
            raise CorruptArtifact(f"{model_dir}: the encoder is of another feature spec than the model: train it again")
        self._session = _session(model_dir / ONNX, threads)
        self._inputs = [node.name for node in self._session.get_inputs()]

    def score(self, columns: Columns, position: Position = "reference") -> Scores:
        """Scores raw rows, [B] each.

        Args:
            position: "reference" assumes the model's reference position for every row, as serving does, and needs no
                position column; "logged" reads the column.

        Raises:
            DataError: naming the columns that are missing, or the one that holds what its feature cannot have.
        """
        assumed = self.info.spec.reference_position if position == "reference" else None
        return self.score_encoded(self.encoder.transform(columns, position=assumed))

    def score_encoded(self, encoded: Encoded) -> Scores:
        """As `score`, for rows that are encoded already."""
        feed = {"ids": encoded.ids, "dense": encoded.dense, "weights": encoded.weights}
        # The exporter leaves an input out of the graph that the model does not read.
        pctr, pcvr = self._session.run(["pctr", "pcvr"], {name: feed[name] for name in self._inputs})
        return Scores(pctr.reshape(-1).astype(np.float64), pcvr.reshape(-1).astype(np.float64))


def _session(path: Path, threads: int) -> ort.InferenceSession:
    if not path.is_file():
        raise DataError(f"{path} does not exist: the candidate was not eligible (see its metrics.json)")
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
