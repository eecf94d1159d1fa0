"""What a training can be told: the part of a recipe called `training`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from components.contracts.config import Config

CvrLoss = Literal[
    "clicked", "random_negatives", "oversampled", "unbiased", "division", "ctcvr", "ips", "doubly_robust", "dcmt"
]


class CandidateConfig(Config):
    """One candidate: what the towers share, and how the CVR tower is trained. The CTR tower's loss is the same in all.

    `losses.py` has each loss with its paper; `docs/candidates.md` says what they are for.
    """

    share_embeddings: bool
    cvr_loss: CvrLoss
    bottom: Literal["shared", "mmoe", "ple"] = "shared"
    """Between embeddings and towers: nothing, or experts and a gate a task (`bottoms.py`)."""
    experts: int = Field(4, gt=0)
    """Of MMoE in all; of PLE for each task, and as many common ones."""
    expert_width: int = Field(64, gt=0)
    negative_rate: float = Field(0.1, gt=0, le=1)
    """"random_negatives": share of impressions without a click that stand in as clicks without a conversion."""
    oversampling: int = Field(5, gt=1)
    """"oversampled": times that each conversion is seen."""
    click_floor: float = Field(0.05, gt=0, le=1)
    """"unbiased": clicks with a pCTR up to this are all kept, others with probability floor / pCTR."""
    propensity_floor: float = Field(0.02, gt=0, lt=1)
    """"ips", "doubly_robust", "dcmt": propensities are cut here (and at 1 - floor); the report says how many were."""
    counterfactual_weight: float = Field(1.0, ge=0)
    """Of the debiased CVR loss of "ips", "doubly_robust", "dcmt" beside that of CTR."""
    ctcvr_weight: float = Field(1.0, ge=0)
    """Of the CTCVR loss in the same."""
    prior_weight: float = Field(0.1, ge=0)
    """"dcmt": of the prior that factual and counterfactual conversion add up to one."""

    @model_validator(mode="after")
    def _experts_are_between_shared_tables_and_towers(self) -> Self:
        if self.bottom != "shared" and not self.share_embeddings:
            raise ValueError(f"bottom {self.bottom!r} mixes what both tasks read, so share_embeddings has to be true")
        return self

    @property
    def has_auxiliary(self) -> bool:
        """Whether the loss wants a third tower: DIVISION's second pCTR, an imputed error, a counterfactual pCVR."""
        return self.cvr_loss in ("division", "doubly_robust", "dcmt")


CANDIDATES = {
    "base": CandidateConfig(share_embeddings=False, cvr_loss="clicked"),
    "aman": CandidateConfig(share_embeddings=False, cvr_loss="random_negatives"),
    "oversampling": CandidateConfig(share_embeddings=False, cvr_loss="oversampled"),
    "unbias": CandidateConfig(share_embeddings=False, cvr_loss="unbiased"),
    "division": CandidateConfig(share_embeddings=False, cvr_loss="division"),
    "esmm-ns": CandidateConfig(share_embeddings=False, cvr_loss="ctcvr"),
    "esmm": CandidateConfig(share_embeddings=True, cvr_loss="ctcvr"),
    "base-shared": CandidateConfig(share_embeddings=True, cvr_loss="clicked"),
    "escm2-ips": CandidateConfig(share_embeddings=True, cvr_loss="ips"),
    "escm2-dr": CandidateConfig(share_embeddings=True, cvr_loss="doubly_robust"),
    "dcmt": CandidateConfig(share_embeddings=True, cvr_loss="dcmt"),
    "esmm-mmoe": CandidateConfig(share_embeddings=True, cvr_loss="ctcvr", bottom="mmoe"),
    "esmm-ple": CandidateConfig(share_embeddings=True, cvr_loss="ctcvr", bottom="ple"),
}
"""The rows of table 2 of Ma et al., SIGIR 2018, in its order, then what came after. BASE to ESMM-NS share nothing."""


INDIFFERENT = ("candidates", "data", "data_bytes", "device", "tables", "checkpoint_seconds", "checkpoint_steps")
"""Of a training: where its rows and tables lie, how often it is saved, which other candidates there are."""


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
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Of matrix products in training; weights, tables, last layers, losses, evaluation and export are float32 anyway.
    "auto": bfloat16 on a GPU. A CPU that multiplies bfloat16 is faster with it, too, but what a recipe learns should
    not depend on which CPU that is."""
    compile: bool = False
    """Compile what lies between the tables and the loss: seconds to minutes at first, and a C++ compiler where there is
    no GPU."""
    calibration: Literal["auto", "platt", "isotonic", "none"] = "auto"
    """Of pCVR, on clicked validation impressions (`calibration.py`): Platt scaling, or isotonic regression, which takes
    more than 1,000 conversions; "auto": isotonic only where it is measurably better."""
    data: Literal["auto", "resident", "streamed"] = "auto"
    """Training and validation rows on the device, or read from files again and again; "auto": resident if they fit.
    The weights are the same."""
    data_bytes: int | None = Field(None, ge=0)
    """Up to so many bytes "auto" holds resident; None: half of a GPU's free memory, a quarter of the machine's."""
    tables: Literal["whole", "sharded"] = "whole"
    """Of several processes (docs/scale-out.md): each holds all embedding tables, or a share of the rows of each, for
    tables larger than one device. The weights are the same."""
    shuffle_block: int = Field(1024, gt=0)
    """Consecutive rows that stay together in the order of blocks."""
    shuffle_window: int = Field(524_288, gt=0)
    """Rows that are mixed at a time, whole blocks of them; a smaller set is permuted as a whole (`sampler.py`)."""
    checkpoint_seconds: float = Field(60.0, gt=0)
    """A checkpoint so long after the last one, later where writing one takes more than a twentieth of that."""
    checkpoint_steps: int | None = Field(None, gt=0)
    """And one every so many steps, however long they take."""
    candidates: dict[str, CandidateConfig] = CANDIDATES

    def determines_result(self) -> dict[str, Any]:
        """All but what changes neither weights nor metrics, as JSON values."""
        return self.model_dump(mode="json", exclude=set(INDIFFERENT))

    def products(self, device: str) -> Literal["fp32", "bf16"]:
        """What `precision` means on a device of type "cpu" or "cuda"."""
        if self.precision == "auto":
            return "bf16" if device == "cuda" else "fp32"
        return self.precision

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
