"""The command teaches: every command and option says what it is for, and help needs no heavy import."""

import subprocess
import sys

import click
import pytest

from components.contracts.errors import UsageError
from pipelines.cli import main
from pipelines.commands.arguments import pairs


def leaves(group=main, path=()):
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_the_commands_of_the_design_exist():
    names = {name for name, _ in leaves()}
    assert names >= {
        *(
            "simulate",
            "import log",
            "import events",
            "import ali-ccp",
            "import hillstrom",
            "run",
            "compile",
            "materialize",
            "models list",
        ),
        *("models promote", "models rollback", "serve", "rank", "report", "prune"),
        *("features list", "features show", "features stats", "features lookup"),
    }


@pytest.mark.parametrize(("name", "command"), list(leaves()), ids=lambda value: value if isinstance(value, str) else "")
def test_every_command_has_help(name, command):
    assert command.help, name
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help or parameter.name in ("seed", "impressions", "users", "items", "port", "host", "url")


def test_help_imports_nothing_heavy():
    script = "import sys; from pipelines.cli import main; print([m for m in ('torch', 'kfp', 'feast', 'mlflow', 'great_expectations', 'duckdb') if m in sys.modules])"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_pairs():
    assert pairs(("a=b", "c=d=e"), "--map") == {"a": "b", "c": "d=e"}
    for bad in (("a",), ("=b",), ("a=",), ("a=b", "a=c")):
        with pytest.raises(UsageError, match="--map"):
            pairs(bad, "--map")
