"""Which code a stage would run: part of each stage's config, since KFP's cache key knows nothing of the library."""

from __future__ import annotations

import platform
from hashlib import sha256
from importlib import metadata, resources
from importlib.resources.abc import Traversable

from components.contracts.files import sha256_json

BELOW_ALL = ("components.contracts", "components.scoring")
PACKAGES = {
    "ingest": ("components.ingestion",),
    "validate": ("components.validation",),
    "retrieve": ("components.features", "feature_repo"),
    "encode": ("components.features",),
    "train": ("components.training",),
    "search": ("components.search",),
    "evaluate": ("components.evaluation",),
    "parity": ("components.features", "feature_repo", "serving"),
    "package": ("components.packaging", "serving"),
    "materialize": ("components.features", "feature_repo"),
    "smoke_test": ("components.packaging", "serving"),
    "promote": ("components.packaging",),
}
LIBRARIES = (
    "duckdb",
    "feast",
    "great_expectations",
    "numpy",
    "onnx",
    "onnxruntime",
    "optuna",
    "pandas",
    "pyarrow",
    "torch",
)
SUFFIXES = (".py", ".html", ".yaml")


def code_version(stage: str) -> str:
    """16 hex digits over the sources of the packages a stage runs and the versions of the libraries beneath."""
    hashes = {}
    for package in (*BELOW_ALL, *PACKAGES[stage]):
        for path, content in _sources(resources.files(package), package):
            hashes[path] = sha256(content).hexdigest()
    libraries = {name: metadata.version(name) for name in LIBRARIES}
    return sha256_json([hashes, libraries, platform.python_version()])[:16]


def _sources(folder: Traversable, prefix: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for entry in folder.iterdir():
        if entry.is_dir() and entry.name != "__pycache__":
            found += _sources(entry, f"{prefix}/{entry.name}")
        elif entry.name.endswith(SUFFIXES):
            found.append((f"{prefix}/{entry.name}", entry.read_bytes()))
    return found
