"""A process that ends for good, SIGKILL, just before a named step of `bring_up`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from components.contracts.online import Place
from components.contracts.times import format_utc

TESTS = Path(__file__).resolve().parents[1]
CODE = """
import json, os, signal, sys
sys.modules["torch"] = None  # Feast imports it where it is installed, which takes seconds
from pathlib import Path
from components.contracts.online import Place
from components.contracts.times import parse_utc
from feature_repo import views
from features import online_made
given = json.loads(sys.argv[1])
views.VIEWS = online_made.VIEWS
import importlib
from components.features.online import staging
from components.features.online.bring_up import bring_up
staging.BATCH_ENTITIES = given["batch"]
module = importlib.import_module(given["module"])
owner, _, name = given["step"].rpartition(".")
owner = getattr(module, owner) if owner else module
step, left = getattr(owner, name), [given["times"]]
def dying(*args, **kwargs):
    if left[0] == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    left[0] -= 1
    return step(*args, **kwargs)
setattr(owner, name, dying)
place = Place(**{**given["place"], "folder": Path(given["place"]["folder"])})
bring_up(place, Path(given["tables"]), tuple(given["present"]), parse_utc(given["as_of"]))
"""


def killed_at(place: Place, tables: Path, present, as_of, step: str, times: int = 0, batch: int = 5_000) -> bool:
    """Runs `bring_up` in a process that is killed when it calls `step` (module:function) after `times` calls of it.

    Returns:
        Whether it was killed; False if it came to its end before.
    """
    module, _, function = step.partition(":")
    given = {
        "place": {**vars(place), "folder": str(place.folder)}, "tables": str(tables), "present": list(present),
        "as_of": format_utc(as_of), "module": module, "step": function, "times": times, "batch": batch,
    }  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)])}
    done = subprocess.run(
        [sys.executable, "-c", CODE, json.dumps(given)], env=environment, capture_output=True, text=True
    )
    assert done.returncode in (0, -9), done.stderr
    return done.returncode == -9
