"""Runs the training pipeline on this machine: the same components, the same DAG, by kfp.local.

The run happens in a child process in a group of its own, with its output in `<run>/kfp.log`: kfp prints
to stdout, and an interrupted run must leave nothing behind. The parent watches the run folder.
"""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from components.contracts.files import read_json
from components.contracts.locks import exclusive
from components.contracts.paths import HOME_VARIABLE, RUN_DIR_VARIABLE, Home
from components.contracts.quiet import QUIET


@dataclass(frozen=True)
class Request:
    """What to run. `pipeline`: a compiled IR file, or "" for the DAG in `training.py`; with `rounds`, in `sweep.py`."""

    data: str
    recipe: str = ""
    overrides: str = "{}"
    as_of: str = ""
    pipeline: str = ""
    rounds: int = 0

    @property
    def arguments(self) -> dict[str, str]:
        return {"data": self.data, "recipe": self.recipe, "overrides": self.overrides, "as_of": self.as_of}


def run(home: Home, request: Request, watch: Callable[[Path], None] = lambda _: None) -> dict[str, Any]:
    """Runs the pipeline to its end and returns the run record (record.json), whatever the outcome.

    `watch` is called a few times a second with the run folder.

    Raises:
        Busy: if another run holds this home.
    """
    with exclusive(home.lock, f"a run on {home.root}") as lock:
        folder = new_run_folder(home)
        environment = {**os.environ, **QUIET, HOME_VARIABLE: str(home.root), RUN_DIR_VARIABLE: str(folder)}
        # Two trainings share the cores: a thread that waits must not burn one.
        environment.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        with (folder / "kfp.log").open("w") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "pipelines.local", json.dumps(request.__dict__)],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                pass_fds=(lock,),
            )
            try:
                while child.poll() is None:
                    watch(folder)
                    time.sleep(0.2)
            finally:
                end_group(child)
                if not (folder / "record.json").is_file():
                    # The child ended before its exit handler ran: the record is still owed.
                    from components.evaluation.record import finish

                    finish(folder, "INTERRUPTED")
        watch(folder)
        record: dict[str, Any] = read_json(folder / "record.json")
        return record


def end_group(child: subprocess.Popen[bytes], grace_seconds: float = 20.0) -> None:
    """Interrupts what is left of the child's process group (so that `finally` blocks run), then kills it."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def new_run_folder(home: Home) -> Path:
    """`runs/<UTC time>-<4 hex>`: sorts by time, never reused."""
    folder = home.runs / f"{datetime.now(UTC):%Y%m%dT%H%M%S}-{secrets.token_hex(2)}"
    folder.mkdir(parents=True)
    return folder


def execute(home: Home, request: Request) -> None:
    """In the child: the pipeline itself."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    from kfp import components, local

    local.init(
        runner=local.SubprocessRunner(use_venv=False),
        pipeline_root=str(home.pipeline_root),
        enable_caching=True,
        cache_root=str(home.cache),
    )
    if request.pipeline:
        pipeline = components.load_component_from_file(request.pipeline)
    elif request.rounds:
        from pipelines.sweep import sweep_with

        pipeline = sweep_with(request.rounds)
    else:
        from pipelines.training import training as pipeline
    pipeline(**request.arguments)


if __name__ == "__main__":
    execute(Home.from_environment(), Request(**json.loads(sys.argv[1])))
