"""`esmm bench WHICH`: ratios in one run against what one would use instead (docs/benchmarks.md)."""

from __future__ import annotations

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
def train(as_json: bool) -> None:
    """Training against the loop one would write by hand."""
    from benchmarks.train import main

    main(as_json)


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


COMMANDS = (bench,)
