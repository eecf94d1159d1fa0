"""Shared by all tests: no telemetry, no home of the user's, no network."""

import os

from components.contracts.quiet import silence

silence()
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("ESMM_HOME", None)
os.environ.pop("ESMM_RUN_DIR", None)
