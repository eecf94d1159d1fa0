"""`esmm simulate`, `esmm import`, `esmm materialize`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import click

from components.contracts.errors import UsageError
from components.contracts.paths import Home

OUT = click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="New dataset folder.")


def default_shop(home: Home) -> Path:
    """The simulated shop that `esmm run` uses when it is given no data: made once, deterministic."""
    folder = home.data / "shop"
    if not folder.is_dir():
        from components.ingestion.sources.simulator import SimulatorConfig, simulate

        click.echo("simulating a shop (once) ...", err=True)
        simulate(SimulatorConfig(), folder)
    return folder


@click.command()
@OUT
@click.option("--seed", type=int, default=None)
@click.option("--days", type=click.IntRange(min=4), default=None, help="Days of log.")
@click.option("--impressions", type=click.IntRange(min=1000), default=None)
@click.option("--users", type=click.IntRange(min=10), default=None)
@click.option("--items", type=click.IntRange(min=10), default=None)
@click.option("--selection-observed", type=float, default=None, help="Selection through features the model sees.")
@click.option(
    "--selection-latent", type=float, default=None, help="Selection through a latent of click and conversion."
)
@click.option("--dirty-share", type=click.FloatRange(0, 0.5), default=None, help="Share of rows to spoil.")
def simulate(out: Path, **options: float | None) -> None:
    """Simulate a shop: log, feature snapshots and the truth behind them. Same seed, same bytes."""
    from components.ingestion.sources.simulator import SimulatorConfig
    from components.ingestion.sources.simulator import simulate as make

    config = SimulatorConfig.parse({k: v for k, v in options.items() if v is not None}, where="esmm simulate")
    facts = make(config, out)
    click.echo(f"wrote {out}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    click.echo(f"next: esmm run --data {out}")


@click.group("import")
def import_() -> None:
    """Turn raw logs into a dataset folder that `esmm run --data` reads."""


@import_.command()
@click.option(
    "--csv", required=True, type=click.Path(path_type=Path), help="hillstrom.csv of the MineThatData challenge."
)
@OUT
def hillstrom(csv: Path, out: Path) -> None:
    """The MineThatData e-mail challenge: 64,000 e-mails, visit as click, conversion as conversion."""
    from components.ingestion.sources.hillstrom import import_hillstrom

    facts = import_hillstrom(csv, out)
    click.echo(f"wrote {out}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    click.echo(f"next: esmm run --data {out}")


@import_.command()
@click.option(
    "--log", required=True, type=click.Path(path_type=Path), help="Parquet file or folder, one row an impression."
)
@click.option("--map", "mapping", multiple=True, metavar="OURS=THEIRS", help="Name of a column: --map user_id=visitor")
@click.option("--context", default="", help="Columns known at request time, comma-separated: hour,device")
@click.option(
    "--features", multiple=True, metavar="VIEW=PATH", help="Feature table of a view in feature_repo/views.py."
)
@click.option("--name", default="", help="Dataset name (registry, feature store); default: the folder's name.")
@click.option("--click-window", type=float, help="Seconds after an impression in which a click counts; default 3600.")
@click.option(
    "--conversion-window", type=float, help="Seconds after a click in which a purchase counts; default 86400."
)
@click.option(
    "--clock",
    type=click.Choice(["frozen", "wall"]),
    default="frozen",
    show_default=True,
    help="A feature's age when served, measured from the last materialization (a recording) or from now (a live shop).",
)
@OUT
def parquet(
    log: Path,
    mapping: tuple[str, ...],
    context: str,
    features: tuple[str, ...],
    name: str,
    click_window: float | None,
    conversion_window: float | None,
    clock: Literal["frozen", "wall"],
    out: Path,
) -> None:
    """Your own log as Parquet: ids, event time, click, conversion, and what was known at request time."""
    from components.ingestion.sources.tables import import_tables

    facts = import_tables(
        log=log,
        mapping=pairs(mapping, "--map"),
        context=[column.strip() for column in context.split(",") if column.strip()],
        features={view: Path(path) for view, path in pairs(features, "--features").items()},
        out=out,
        name=name or slug(out.resolve().name),
        click_window_seconds=click_window,
        conversion_window_seconds=conversion_window,
        clock=clock,
    )
    for note in facts.pop("notes"):
        click.echo(f"note: {note}", err=True)
    click.echo(f"wrote {out}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    click.echo(f"next: esmm run --data {out}")


def slug(name: str) -> str:
    """A dataset name from a folder's: lower case letters, digits and _, beginning with a letter."""
    text = re.sub(r"[^a-z0-9]+", "_", name.lower()).strip("_")
    return text if text[:1].isalpha() else f"d_{text}".rstrip("_")


def pairs(items: tuple[str, ...], option: str) -> dict[str, str]:
    """`("a=b",)` -> `{"a": "b"}`. Raises UsageError for an item without `=` and for one given twice."""
    found: dict[str, str] = {}
    for item in items:
        key, equals, value = item.partition("=")
        if not (key and equals and value):
            raise UsageError(f"{option} {item!r} is not NAME=VALUE")
        if key in found:
            raise UsageError(f"{option} names {key!r} twice")
        found[key] = value
    return found


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Dataset folder; default: the simulated shop.")
@click.option("--as-of", default="", help="UTC time, exclusive; default: just after the last logged event.")
@click.pass_obj
def materialize(home: Home, data: Path | None, as_of: str) -> None:
    """Bring the online feature store up to AS-OF, outside of a training run."""
    from components.features.materialize import materialize_dataset
    from components.ingestion.ingest import default_as_of

    folder = data.resolve() if data else default_shop(home)
    facts = materialize_dataset(home, folder, as_of or default_as_of(folder))
    click.echo("materialized: " + ", ".join(f"{key} {value}" for key, value in facts.items()))


COMMANDS = (simulate, import_, materialize)
