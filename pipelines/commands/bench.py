"""`esmm bench WHICH`: ratios in one run against what one would use instead (docs/benchmarks.md)."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

JSON = click.option("--json", "as_json", is_flag=True, help="One object: figures, ratios, machine.")


@click.group()
def bench() -> None:
    """Measure this project against what one would use instead, in turns within one run."""


@bench.command()
@JSON
@click.option("--full", is_flag=True, help="The importer alone on 2,000,000 lines and more, for its peak memory.")
def data(as_json: bool, full: bool) -> None:
    """Import against a plain loop, the data gate against the same checks by hand in DuckDB."""
    from benchmarks.data import main

    main(as_json, full)


@bench.command()
@JSON
@click.option(
    "--full", is_flag=True, help="Once each: Feast's default store (with the rows it loses), 10 and 20 times the rows."
)
def features(as_json: bool, full: bool) -> None:
    """Features at a point in time: the offline store against Feast's own and against a join by hand."""
    from benchmarks.features import main

    main(as_json, full=full)


@bench.command()
@JSON
@click.option("--full", is_flag=True, help="Quality, too: AUC over 5 seeds, with paired differences to the best peer.")
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True, help="What every trainer runs on."
)
def train(as_json: bool, full: bool, device: Literal["cpu", "cuda"]) -> None:
    """Training against DeepCTR-Torch, torch-rechub, a loop by hand and bare matrix products."""
    from benchmarks.train import main

    main(as_json, full, device)


@bench.command()
@JSON
@click.option(
    "--seeds", default=5, show_default=True, type=click.IntRange(min=1), help="Shops, or trainings of --data."
)
@click.option("--data", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A dataset, like Ali-CCP.")
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="Draw it, too (PNG).")
def models(as_json: bool, seeds: int, data: Path | None, plot: Path | None) -> None:
    """Every loss of the family: the table of the ESMM paper, on simulated shops or on a dataset."""
    from benchmarks.models import main

    main(as_json, data, seeds, plot)


@bench.command()
@JSON
@click.option("--seeds", default=10, show_default=True, type=click.IntRange(min=2), help="Shops of each kind.")
def debias(as_json: bool, seeds: int) -> None:
    """The study of docs/debiasing-study.md: do debiased losses come closer to the truth?"""
    from benchmarks.debias import main

    main(as_json, seeds)


@bench.command()
@JSON
def materialize(as_json: bool) -> None:
    """Filling the online store: this against Feast's materialize_incremental, into Redis."""
    from benchmarks.materialize import main

    main(as_json)


@bench.command()
@JSON
def lookup(as_json: bool) -> None:
    """Features of a request from Redis: the service's lookup against Feast's call and against bare HMGETs."""
    from benchmarks.lookup import main

    main(as_json)


@bench.command()
@JSON
def push(as_json: bool) -> None:
    """From an event line in to its count readable online, on SQLite and on Redis."""
    from benchmarks.push import main

    main(as_json)


@bench.command()
@JSON
def scale(as_json: bool) -> None:
    """A training step of one and of two processes, and what of it they spend exchanging."""
    from benchmarks.scale import main

    main(as_json)


@bench.command()
@JSON
def stream(as_json: bool) -> None:
    """Training from disk: ten times the rows in ten times the time and no more memory."""
    from benchmarks.stream import main

    main(as_json)


COMMANDS = (bench,)
