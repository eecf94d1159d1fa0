"""Winner to Bento: model, scoring code and service in one folder that needs nothing else of the project.

Built without network (`lock_packages=False`): the pins come from `requirements.lock`, or from what is installed
where there is no lock. Built aside and renamed, so that a Bento is whole or absent. Its version ends in a hash
of its content: building the same again finds what is there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

from components.contracts.artifacts import ModelInfo, model_identity, read_model
from components.contracts.config import Config
from components.contracts.errors import ServiceError
from components.contracts.files import listing, sha256_file, sha256_json, write_text
from components.contracts.packaged import MODEL_FOLDER, PACKAGED_JSON, Packaged
from components.contracts.paths import Home, run_dir
from components.packaging.pins import pins

SERVICE = "serving.service:Ranker"
ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("components/__init__.py", "components/contracts", "components/scoring", "serving")
ASIDE = ".building-"
BUILD_SECONDS = 300

# In a process of its own: BentoML imports the service from the build context, and this process has already
# imported other modules under the same names.
BUILD = "import json, sys, bentoml; bentoml.build(**json.load(sys.stdin))"


class PackageConfig(Config):
    """`clock` says against what the service measures a feature's age (see DatasetInfo)."""

    dataset: str
    clock: Literal["wall", "frozen"] = "wall"
    code: str = ""


def run(config: PackageConfig, winner: Path) -> dict[str, Any]:
    """Packages the model folder `winner`; facts: `bento` (its tag), `bytes`, `reused`.

    Raises:
        CorruptArtifact, DataError: if the model folder is not what its manifest says.
        ServiceError: if BentoML does not build it (the message ends with what it printed).
    """
    home = Home.from_environment()
    tag, reused = build(home, config, winner, run_name(winner))
    path = home.bentoml / "bentos" / tag.replace(":", "/")
    return {"bento": tag, "bytes": sum((path / name).stat().st_size for name in listing(path)), "reused": reused}


def run_name(winner: Path) -> str:
    """The pipeline run's id; outside a run, a name from what makes the model's predictions."""
    folder = run_dir()
    return folder.name if folder is not None else f"model-{model_identity(winner)[:12]}"


def bento_name(dataset: str) -> str:
    """`esmm-<dataset>`; a name that BentoML would not take is reduced and told apart by a hash.

    BentoML tags: at most 63 of a-z, 0-9, dash, underscore and dot.
    """
    reduced = re.sub(r"[^a-z0-9]+", "-", dataset.lower()).strip("-")[:40]
    return f"esmm-{dataset}" if reduced == dataset else f"esmm-{reduced}-{sha256_json(dataset)[:8]}"


def bento_version_of(run: str) -> str:
    """A run's name as a Bento's version spells it (BentoML tags are lower case); the content's hash follows it."""
    return re.sub(r"[^a-z0-9]+", "-", run.lower()).strip("-")


def build(home: Home, config: PackageConfig, winner: Path, run: str) -> tuple[str, bool]:
    """Tag of the Bento, and whether it was there already. See `run` for the errors."""
    info = read_model(winner)
    home.bentoml.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=ASIDE, dir=home.bentoml))
    try:
        context = aside / "context"
        _fill(context, winner, info, config, run)
        packages = pins(ROOT / "requirements.lock")
        content = {name: sha256_file(context / name) for name in _files(context)}
        version = f"{bento_version_of(run)}-{sha256_json([content, packages])[:8]}"
        name = bento_name(config.dataset)
        final = home.bentoml / "bentos" / name / version
        if final.is_dir():
            return f"{name}:{version}", True
        labels = {"dataset": config.dataset, "run": run, "candidate": info.candidate, "as_of": info.as_of}
        options = {
            "service": SERVICE,
            "name": name,
            "version": version,
            "build_ctx": str(context),
            "labels": labels,
            "description": f"Ranks items by pCTCVR: model {info.candidate} of run {run}, data up to {info.as_of}.",
            "include": ["**"],
            "python": {"packages": packages, "lock_packages": False},
        }
        _bentoml_build(options, aside / "bentoml", context)
        final.parent.mkdir(parents=True, exist_ok=True)
        try:
            (aside / "bentoml" / "bentos" / name / version).replace(final)
        except OSError:
            if not final.is_dir():  # another process packaging the same content came first, and that is as good
                raise
        return f"{name}:{version}", False
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _fill(context: Path, winner: Path, info: ModelInfo, config: PackageConfig, run: str) -> None:
    for source in SOURCES:
        target = context / source
        target.parent.mkdir(parents=True, exist_ok=True)
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, target, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy2(ROOT / source, target)
    shutil.copytree(winner, context / MODEL_FOLDER)
    read_model(context / MODEL_FOLDER)  # the copy is what will serve
    packaged = Packaged(dataset=config.dataset, run=run, candidate=info.candidate, as_of=info.as_of, clock=config.clock)
    write_text(context / PACKAGED_JSON, packaged.to_json() + "\n")


def _files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _bentoml_build(options: dict[str, Any], bentoml_home: Path, context: Path) -> None:
    environment = {**os.environ, "BENTOML_HOME": str(bentoml_home)}
    # The context must be enough by itself: no other copy of the project may stand in for a missing module.
    environment |= {"PYTHONPATH": str(context), "PYTHONSAFEPATH": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", BUILD],
            input=json.dumps(options),
            env=environment,
            cwd=context,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise ServiceError(
            f"BentoML did not build {options['name']} within {BUILD_SECONDS} s: run the pipeline again"
        ) from None
    if done.returncode != 0:
        last = "\n".join((done.stdout + done.stderr).strip().splitlines()[-15:])
        raise ServiceError(f"BentoML could not build {options['name']}:{options['version']}:\n{last}")
