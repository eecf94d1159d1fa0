"""`esmm simulate`, `esmm import` (imports.py)."""

from __future__ import annotations

from pathlib import Path

import click

from components.contracts.paths import Home
from pipelines.commands.imports import OUT, import_


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


COMMANDS = (simulate, import_)
