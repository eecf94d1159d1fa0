"""Trainings in processes that end for good, SIGKILL: of themselves at a named call, or whenever they are told to.

The processes are forked from one that has imported torch and used nothing of it, so that each starts at once.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import signal
import sys
from multiprocessing.process import BaseProcess
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["components.training.train"])


def start(
    candidate: str, config: str, encoded: Path, model: Path, home: Path, dies: tuple[str, int] | None = None
) -> BaseProcess:
    """Starts the train stage; what it prints comes to `model` + ".txt".

    Args:
        dies: "module:function" or "module:Class.method" below components, and after how many calls of it the process
            kills itself, just before the next one.
    """
    process = CONTEXT.Process(target=_train, args=(candidate, config, encoded, model, home, dies))
    process.start()
    return process


def ended(process: BaseProcess, seconds: float = 120) -> int:
    """Its exit code, -9 if it was killed."""
    process.join(seconds)
    code = process.exitcode
    assert code is not None, "still running"
    process.close()
    return code


def _train(candidate: str, config: str, encoded: Path, model: Path, home: Path, dies: tuple[str, int] | None) -> None:
    os.environ["ESMM_HOME"] = str(home)
    said = os.open(f"{model}.txt", os.O_WRONLY | os.O_CREAT, 0o644)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.stderr = os.fdopen(2, "w", buffering=1, closefd=False)
    if dies:
        _kill_at(*dies)
    from components.training.train import TrainConfig, run

    run(candidate, TrainConfig.parse(config), encoded, model)


def _kill_at(call: str, times: int) -> None:
    name, _, function = call.partition(":")
    owner = importlib.import_module(f"components.{name}")
    *classes, attribute = function.split(".")
    for part in classes:
        owner = getattr(owner, part)
    real, left = getattr(owner, attribute), [times]

    def dying(*args: object, **options: object) -> object:
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left[0] -= 1
        return real(*args, **options)

    setattr(owner, attribute, dying)
