"""Telemetry of the libraries, off: names from the libraries' own docs, and from watching what a run connects to."""

from __future__ import annotations

import os

QUIET = {
    "ORT_DISABLE_TELEMETRY": "1",  # onnxruntime's official wheels report by default; read when the library is loaded
    "GX_ANALYTICS_ENABLED": "false",
    "BENTOML_DO_NOT_TRACK": "True",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "FEAST_USAGE": "False",
    "DO_NOT_TRACK": "1",
}


def silence() -> None:
    """Sets the variables for this process and those it starts. Nothing is reported to anybody at run time."""
    os.environ.update(QUIET)
