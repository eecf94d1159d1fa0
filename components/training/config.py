"""What a training can be told: the part of a recipe called `training`."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from components.contracts.config import Config


class CandidateConfig(Config):
    """How one candidate's CVR tower is fed and trained.

    `cvr_loss` "ctcvr": over all impressions, through the product with pCTR (ESMM); "clicked": over clicked impressions
    only (the conventional model). The CTR tower is the same in all.
    """

    share_embeddings: bool
    cvr_loss: Literal["ctcvr", "clicked"]


CANDIDATES = {
    "esmm": CandidateConfig(share_embeddings=True, cvr_loss="ctcvr"),
    "esmm-ns": CandidateConfig(share_embeddings=False, cvr_loss="ctcvr"),
    "base": CandidateConfig(share_embeddings=False, cvr_loss="clicked"),
}
"""ESMM, ESMM-NS (no sharing) and BASE of Ma et al., SIGIR 2018."""


class TrainingConfig(Config):
    """Hyperparameters, the same for every candidate. One pass by default: id embeddings overfit in a second."""

    seed: int = 0
    batch_size: int = Field(1024, gt=0)
    """Rows a step, at most."""
    min_steps: int = Field(150, gt=0)
    """A set too small for so many steps a pass is cut into smaller batches, by halving."""
    epochs: int = Field(1, gt=0)
    max_steps: int | None = Field(None, gt=0)
    """Stop after so many steps, whatever `epochs` says."""
    hidden: tuple[int, ...] = (80, 40)
    dimension: int | None = Field(None, gt=0)
    """Width of every embedding; None: as each feature is declared."""
    lr: float = Field(2e-3, gt=0)
    """Adam, for the towers."""
    embedding_lr: float = Field(0.1, gt=0)
    """Row-wise Adagrad, for the tables."""
    embedding_deviation: float = Field(0.01, ge=0)
    """Standard deviation of fresh embeddings."""
    embedding_accumulator: float = Field(0.0, ge=0)
    """What Adagrad's sum of squares starts from."""
    evaluations: int = Field(10, gt=0)
    """Evaluations on validation within a pass, evenly spaced."""
    patience: int = Field(5, gt=0)
    """Stop after so many evaluations without a better CTCVR log loss. The best weights are kept in any case."""
    threads: int = Field(1, gt=0)
    """CPU threads. The same weights, byte for byte, are promised for the same number of threads."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    amp: bool = False
    """bfloat16 products on a GPU; last layers, losses and evaluation stay float32."""
    candidates: dict[str, CandidateConfig] = CANDIDATES

    def batch_for(self, rows: int) -> int:
        """Rows a step for a training split of `rows` rows; 32 at least, unless `batch_size` itself is less."""
        batch = self.batch_size
        while batch >= 64 and rows / batch < self.min_steps:
            batch //= 2
        return batch


class TrainConfig(Config):
    """All that the train stage reads beside its artifact."""

    training: TrainingConfig
    dataset: str
    as_of: str
    data_fingerprint: str
    code: str = ""
