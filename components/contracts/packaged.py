"""What a Bento carries beside its code: the model folder and a note of where it comes from.

    <bento>/src/model/           the model artifact, sealed by its manifest
    <bento>/src/packaged.json    this file's `Packaged`

Packaging writes them, serving reads them; neither imports the other.
"""

from __future__ import annotations

from typing import Literal

from components.contracts.config import Config

MODEL_FOLDER = "model"
PACKAGED_JSON = "packaged.json"


class Packaged(Config):
    """`packaged.json`. `run` names the pipeline run (or the model's fingerprint outside a run)."""

    dataset: str
    run: str
    candidate: str
    as_of: str
    clock: Literal["wall", "frozen"]
