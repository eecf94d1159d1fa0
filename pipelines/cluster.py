"""Compiling the pipeline for a Kubeflow cluster. The compiled file is what a cluster runs; tests run it locally.

Nothing here was run on a cluster: the IR is compiled, its schema checked by KFP's own loader and run by kfp.local.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml

from components.contracts.files import write_text
from components.contracts.image import IMAGE


def compile_training(out: Path, image: str = "") -> None:
    """Writes the training pipeline's IR to `out` (YAML), every component on `image`.

    Byte-deterministic for one version of KFP and of the sources.
    """
    from kfp import compiler

    from pipelines.training import training

    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(training, str(aside))
        text = aside.read_text()
    if image:
        documents = list(yaml.safe_load_all(text))
        for executor in executors(documents[0]):
            if executor["container"]["image"] == IMAGE:
                executor["container"]["image"] = image
        text = yaml.safe_dump_all(documents, sort_keys=True)
    write_text(out, text)


def executors(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The container executors of a pipeline spec."""
    return [e for e in spec["deploymentSpec"]["executors"].values() if "container" in e]
