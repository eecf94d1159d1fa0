"""No library is loaded before its telemetry is off."""

import os
import subprocess
import sys

import pytest

from components.contracts.quiet import QUIET

WATCH = """
import os, sys
from importlib.abc import MetaPathFinder
quiet = {quiet!r}
class Watch(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name in ("onnxruntime", "great_expectations", "bentoml", "mlflow", "feast"):
            assert all(os.environ.get(key) == value for key, value in quiet.items()), name
            print(name)
sys.meta_path.insert(0, Watch())
import {module}
"""


@pytest.mark.parametrize(
    ("module", "library"),
    [
        ("components.scoring.score", "onnxruntime"),
        ("components.training.export", "onnxruntime"),
        ("components.features.point_in_time", "feast"),
        ("serving.service", "bentoml"),
        ("pipelines.training", ""),
    ],
)
def test_telemetry_is_off_before_a_library_is_loaded(module, library, tmp_path):
    loud = {key: value for key, value in os.environ.items() if key not in QUIET}
    script = WATCH.format(quiet=QUIET, module=module)
    done = subprocess.run([sys.executable, "-c", script], env=loud, capture_output=True, text=True)
    assert "AssertionError" not in done.stderr, done.stderr
    if library != "bentoml":  # the service itself needs its Bento's files, after bentoml is loaded
        assert done.returncode == 0, done.stderr
    assert library in done.stdout.split() or not library
