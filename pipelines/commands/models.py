"""`esmm models list | promote | rollback`."""

from __future__ import annotations

import json

import click

from components.contracts.paths import Home
from pipelines.commands.serve import DATASET, chosen_dataset


@click.group()
def models() -> None:
    """The registered versions of a dataset's model, and which of them is the champion."""


@models.command("list")
@DATASET
@click.option("--json", "as_json", is_flag=True, help="A JSON list on stdout.")
@click.pass_obj
def list_(home: Home, dataset: str, as_json: bool) -> None:
    """Versions, newest first: aliases, metrics on test, Bento."""
    from components.packaging import registry

    versions = registry.versions(home, chosen_dataset(home, dataset))
    if as_json:
        keys = ("version", "aliases", "metrics", "bento", "created")
        click.echo(json.dumps([{key: getattr(v, key) for key in keys} for v in versions]))
        return
    for v in versions:
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in v.metrics.items() if "auc" in name)
        click.echo(f"{v.version:>4}  {','.join(v.aliases) or '-':10}  {v.created}  {v.bento}  {metrics}")


@models.command()
@click.argument("version", type=int)
@DATASET
@click.pass_obj
def promote(home: Home, version: int, dataset: str) -> None:
    """Make VERSION the champion by hand. Its Bento must still exist; gates are not asked again."""
    from components.packaging import registry

    done = registry.promote_version(home, chosen_dataset(home, dataset), version)
    click.echo(f"champion is now version {done.version} ({done.bento}); restart the service to use it: esmm serve")


@models.command()
@DATASET
@click.pass_obj
def rollback(home: Home, dataset: str) -> None:
    """Make the champion's predecessor the champion again."""
    from components.packaging import registry

    done = registry.rollback(home, chosen_dataset(home, dataset))
    click.echo(f"champion is now version {done.version} ({done.bento}); restart the service to use it: esmm serve")


COMMANDS = (models,)
