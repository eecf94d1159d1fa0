"""`esmm features list | show | stats | lookup`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import click

from components.contracts.errors import UsageError
from components.contracts.paths import Home

DATASET = click.option("--dataset", default="", help="Name of a materialized dataset; needed if the home has several.")
JSON = click.option("--json", "as_json", is_flag=True, help="The same as JSON on stdout.")


@click.group()
def features() -> None:
    """What the model sees: every feature as declared, as the data bring it, and as the service gets it.

    \b
    esmm features list                                 every feature, with what it is
    esmm features show user_clicks_7d                  one feature or view: settings, models, what is materialized
    esmm features stats --data data/shop               counts, missing values, quantiles, how old
    esmm features lookup --user u1 --items i1,i2       what the service would see now, value by value

    Features are declared in feature_repo/views.py, a line each.
    """


@features.command("list")
@click.option("--data", type=click.Path(path_type=Path), help="Dataset folder: says what it brings.")
@DATASET
@JSON
@click.pass_obj
def list_(home: Home, data: Path | None, dataset: str, as_json: bool) -> None:
    """Every feature: type, encoding, entity, time to live, description.

    With --data also which of them the dataset brings; without, which are materialized at the home, if one dataset is.
    """
    from pipelines import features as known
    from pipelines import features_text as text

    found = known.listed(home, _folder(data), dataset)
    unread = known.undeclared(data) if data is not None else []
    if as_json:
        _print([{**entry.model_dump(), "encoding": entry.encoding} for entry in found])
        return
    _say(text.list_lines(found, unread, "brought" if data is not None else "materialized"))


@features.command()
@click.argument("name")
@JSON
@click.pass_obj
def show(home: Home, name: str, as_json: bool) -> None:
    """Show feature or view NAME: all that is declared, which models read it, what the online store holds of it."""
    from pipelines import features as known
    from pipelines import features_text as text

    shown = known.show(home, name)
    if as_json:
        _print(shown.model_dump())
        return
    _say(text.show_lines(shown))


@features.command()
@click.option("--data", type=click.Path(path_type=Path), help="Dataset folder; default: the simulated shop.")
@click.option("--feature", default="", metavar="NAME", help="One feature or view only.")
@click.option("--as-of", default="", help="UTC time, exclusive; default: just after the last logged event.")
@JSON
@click.pass_obj
def stats(home: Home, data: Path | None, feature: str, as_of: str, as_json: bool) -> None:
    """Measure a dataset's feature tables as they were known at AS-OF.

    Rows, entities and versions of an entity; of each feature the share that is missing, distinct values, quantiles or
    the most frequent values, its newest event; and how many entities are older than the view's time to live by then.
    """
    from pipelines import features as known
    from pipelines import features_text as text

    folder = _folder(data) or home.data / "shop"
    until, views = known.measured(folder, as_of, feature)
    if as_json:
        _print({"data": str(folder), "as_of": until, "views": [view.model_dump() for view in views]})
        return
    _say(text.stats_lines(until, views))


@features.command()
@click.option("--user", required=True, help="User id.")
@click.option("--items", required=True, help="Item ids, comma-separated.")
@click.option("--group", default=None, help="Group id, for features that are kept by group.")
@click.option("--data", type=click.Path(path_type=Path), help="Dataset folder, for its name and clock.")
@DATASET
@click.option(
    "--clock",
    type=click.Choice(["frozen", "wall"]),
    help="What ages are measured from: the last materialization, or now. Default: as the champion's service does.",
)
@JSON
@click.pass_obj
def lookup(
    home: Home,
    user: str,
    items: str,
    group: str | None,
    data: Path | None,
    dataset: str,
    clock: Literal["wall", "frozen"] | None,
    as_json: bool,
) -> None:
    """Show what the service would see of a user and items now: each value with its age and where it comes from.

    Read from the live online store, as the champion's service reads it. A value older than its view's time to live is
    expired, and the service takes it as missing; null is stored as such; unknown means that nothing is stored.
    """
    from pipelines import features as known
    from pipelines import features_text as text

    asked = list(dict.fromkeys(item.strip() for item in items.split(",") if item.strip()))
    if not asked:
        raise UsageError("--items names no item: give ids, as in --items i1,i2")
    looked = known.looked_up(home, _folder(data), dataset, clock, user, asked, group)
    if as_json:
        _print(known.as_json(looked))
        return
    _say(text.lookup_lines(looked))


def _folder(data: Path | None) -> Path | None:
    return data.resolve() if data is not None else None


def _print(value: Any) -> None:
    click.echo(json.dumps(value, allow_nan=False))


def _say(lines: list[str]) -> None:
    click.echo("\n".join(lines))


COMMANDS = (features,)
