"""Feast is loaded without what costs most, and nothing else notices."""

import subprocess
import sys

import pytest

CHECK = """
import sys
import typeguard
checked = typeguard.typechecked
{first}
import components
import feast
assert typeguard.typechecked is checked
assert ("torch" in sys.modules) == {with_torch}
assert "typeguard" not in feast.FeatureView.__init__.__code__.co_names
import torch
assert torch.ones(1).sum() == 1
assert feast.__spec__.loader.get_filename("feast").endswith("__init__.py")
assert not any(type(finder).__name__ == "LeanFinder" for finder in sys.meta_path)
print("whole")
"""


def run(script: str) -> str:
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("with_torch", [False, True])
def test_feast_without_checks_or_torch_and_both_whole_afterwards(with_torch: bool) -> None:
    first = "import torch" if with_torch else ""
    assert run(CHECK.format(first=first, with_torch=with_torch)) == "whole\n"


def test_feast_loaded_before_is_left_as_it_is() -> None:
    loaded = "import sys, feast, components; print(any('Lean' in type(f).__name__ for f in sys.meta_path))"
    assert run(loaded) == "False\n"


def test_installed_twice_it_is_there_once() -> None:
    twice = "import sys, components, serving; print(sum('Lean' in type(f).__name__ for f in sys.meta_path))"
    assert run(twice) == "1\n"


def test_what_it_leaves_out_is_there_otherwise() -> None:
    """Else there would be nothing to leave out, and this module should go."""
    said = run("import sys, feast; print('torch' in sys.modules, feast.FeatureView.__init__.__code__.co_names)")
    assert said.startswith("True")
    assert "typeguard" in said


def test_a_run_is_planned_without_torch() -> None:
    assert run("import sys, pipelines.planning; print('torch' in sys.modules)") == "False\n"
