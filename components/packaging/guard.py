"""A sitecustomize for the smoke test: the service must live on what its Bento holds.

The project is installed in the same environment (editable, even), so without it a Bento that lacks a module
would pass here and fail on the machine it is shipped to.
"""

from __future__ import annotations

from pathlib import Path

UNWANTED = ("torch", "kfp", "mlflow", "duckdb")
"""Libraries of training and of the pipeline: the service's image does not have them."""

OWN = ("components", "serving", "pipelines", "feature_repo")

ENTRY = "serving.service"
EVIDENCE = "loaded"

TEMPLATE = """\
import sys
from importlib.machinery import PathFinder

for name in {unwanted!r}:
    sys.modules[name] = None  # import raises ModuleNotFoundError, importlib.util.find_spec says None


class OnlyFromTheBento:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] not in {own!r}:
            return None
        spec = PathFinder.find_spec(name, [{source!r}] if path is None else path)
        if spec is None or not (spec.origin or "").startswith({source!r}):
            raise ModuleNotFoundError(f"module {{name}} is not in the Bento", name=name)
        if name == {entry!r}:
            with open({evidence!r}, "a") as file:
                print(spec.origin, file=file)
        return spec


sys.meta_path.insert(0, OnlyFromTheBento)
"""


def write_guard(folder: Path, bento: Path) -> Path:
    """Writes sitecustomize.py into `folder` (to be put on PYTHONPATH) and returns the file that proves it was active.

    Every Python process that starts with it cannot import `UNWANTED`, and finds modules of `OWN` only under
    `<bento>/src`. The service's own module leaves a line in the returned file when it is found there.
    """
    evidence = folder / EVIDENCE
    source = f"{bento.resolve() / 'src'}/"
    text = TEMPLATE.format(unwanted=UNWANTED, own=OWN, source=source, entry=ENTRY, evidence=str(evidence))
    (folder / "sitecustomize.py").write_text(text, encoding="utf-8")
    return evidence
