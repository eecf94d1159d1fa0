"""Shared by all tests: no telemetry, no home of the user's, no network."""

import os

os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("FEAST_USAGE", "False")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("ESMM_HOME", None)
os.environ.pop("ESMM_RUN_DIR", None)
