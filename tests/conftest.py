"""Shared by all tests: no telemetry, no home of the user's, no network."""

import os

from hypothesis import settings

from components.contracts.quiet import silence

silence()
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.pop("ESMM_HOME", None)
os.environ.pop("ESMM_RUN_DIR", None)

# The same examples in every run, however slow the machine. To look further: --hypothesis-profile=default.
settings.register_profile("steady", deadline=None, derandomize=True)
settings.load_profile("steady")
