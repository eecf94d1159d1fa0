"""What a recipe may say of the parity gate. Apart from its code, which needs Feast: recipes are read before a run."""

from __future__ import annotations

from pydantic import Field

from components.contracts.config import Config


class ParitySettings(Config):
    """`sample`: impressions of the test split that are compared. `seed` draws them.

    `tolerance`: largest difference of two numbers that counts as none; both stores keep numbers exactly, so it is 0.
    `score_tolerance`: the same for the probabilities of one float32 graph.
    """

    sample: int = Field(200, gt=0)
    seed: int = 20260101
    tolerance: float = Field(0.0, ge=0)
    score_tolerance: float = Field(1e-7, ge=0)
