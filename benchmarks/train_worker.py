"""One contender of `esmm bench train` in a process of its own: it holds model and data and works when told to.

A line of JSON in, {"do": a method, "with": its arguments}; a line out, {"result": ...}. So contenders of different
environments take turns, with the same threads, and none pays for another's imports or memory.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import benchmarks
from benchmarks.train_data import aucs

CONTENDERS: dict[str, tuple[str, str, dict[str, str | bool]]] = {
    "esmm_fp32": ("benchmarks.train_own", "Ours", {"precision": "fp32"}),
    "esmm_bf16": ("benchmarks.train_own", "Ours", {"precision": "bf16"}),
    "esmm_compiled": ("benchmarks.train_own", "Ours", {"precision": "bf16", "compiled": True}),
    "by_hand": ("benchmarks.train_own", "ByHand", {}),
    "products_fp32": ("benchmarks.train_own", "Products", {"precision": "fp32"}),
    "products_bf16": ("benchmarks.train_own", "Products", {"precision": "bf16"}),
    "deepctr": ("benchmarks.train_peers", "DeepCtr", {}),
    "default_deepctr": ("benchmarks.train_peers", "DeepCtr", {"penalties": "default"}),
    "rechub": ("benchmarks.train_peers", "Rechub", {}),
}
"""Module, class and what it is made with beside folder, sizes and device."""
PEERS = ("deepctr", "rechub")


def is_peer(name: str) -> bool:
    """Whether it runs in the peers' environment."""
    return CONTENDERS[name][0] == "benchmarks.train_peers"


class Worker:
    """A contender's process, as a context."""

    def __init__(
        self, name: str, python: Path, folder: Path, sizes: tuple[int, ...], device: str, threads: int
    ) -> None:
        self.name = name
        # How threads wait is left as it is by default: they spin for about a millisecond, which a step with many small
        # operations lives on, and sleep long before the next contender's turn has begun to count.
        environment = os.environ | {
            "OMP_NUM_THREADS": str(threads),
            "PYTHONPATH": str(Path(benchmarks.__file__).parent.parent),
        }
        arguments = json.dumps([name, str(folder), sizes, device, threads])
        self.process = subprocess.Popen(
            [str(python), "-m", "benchmarks.train_worker", arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )  # fmt: skip

    def __enter__(self) -> Worker:
        self._answer()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.communicate()

    def __call__(self, do: str, *arguments: object) -> Any:
        """What the contender's method `do` returns.

        Raises:
            SystemExit: it failed; with the last of what it said.
        """
        assert self.process.stdin is not None
        # If it has died, there is no answer either, and that says why.
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": do, "with": arguments}) + "\n")
            self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed: {self.process.stderr.read().strip()[-2000:]}")
        return json.loads(line)["result"]


def work(name: str, folder: Path, sizes: tuple[int, ...], device: str, threads: int) -> None:
    """Makes the contender, says so, and answers until there are no more lines."""
    answers = sys.stdout
    # Libraries print as they like; a line that is no answer would be taken for one.
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        with contextlib.redirect_stderr(nowhere):
            import torch

            torch.set_num_threads(threads)
            module, kind, options = CONTENDERS[name]
            contender = getattr(importlib.import_module(module), kind)(folder, sizes, device, **options)

        def answer(result: object) -> None:
            answers.write(json.dumps({"result": result}) + "\n")
            answers.flush()

        answer(name)
        for line in sys.stdin:
            asked = json.loads(line)
            with contextlib.redirect_stderr(nowhere):
                if asked["do"] == "aucs":
                    pctr, pctcvr = contender.predictions()
                    result: object = aucs(pctr, pctcvr, contender.truth)
                else:
                    result = getattr(contender, asked["do"])(*asked["with"])
            answer(result)


if __name__ == "__main__":
    found = json.loads(sys.argv[1])
    work(found[0], Path(found[1]), tuple(found[2]), found[3], found[4])
