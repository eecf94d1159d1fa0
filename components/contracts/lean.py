"""Feast's import in a fifth of its time, which tasks of a run, the command and every worker of the service pay each.

Feast 0.67 has typeguard check the arguments of its classes, for which typeguard parses a whole module for every
function in it, and loads PyTorch where that is installed, for conversions that are not used here. Neither happens
below. Feast's own commands, and so the test that applies the repository with them, still check what is declared.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

LIBRARY = "feast"


class LeanFinder(MetaPathFinder):
    """Finds Feast where it is, and has it executed leanly. Once."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != LIBRARY:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(LIBRARY)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            with _unchecked(), _without_torch():
                execute(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def install() -> None:
    """For this process, unless Feast is loaded already."""
    if LIBRARY not in sys.modules and not any(isinstance(finder, LeanFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LeanFinder())


@contextmanager
def _unchecked() -> Iterator[None]:
    import typeguard

    def as_it_is(target: Any = None, **options: Any) -> Any:
        return (lambda given: given) if target is None else target

    checked = typeguard.typechecked
    typeguard.typechecked = as_it_is
    try:
        yield
    finally:
        typeguard.typechecked = checked


@contextmanager
def _without_torch() -> Iterator[None]:
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]
