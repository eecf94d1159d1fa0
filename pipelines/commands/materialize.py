"""`esmm materialize`: the online feature store, outside of a training run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from tqdm import tqdm

from components.contracts.paths import Home
from pipelines.commands.data import default_shop

if TYPE_CHECKING:
    from components.features.online.bring_up import Report


@click.command()
@click.option("--data", type=click.Path(path_type=Path), help="Dataset folder; default: the simulated shop.")
@click.option("--as-of", default="", help="UTC time, exclusive; default: just after the last logged event.")
@click.option("--full", is_flag=True, help="Every view whole, not only what became known since the last time.")
@click.option("--json", "as_json", is_flag=True, help="The report as one JSON object.")
@click.pass_obj
def materialize(home: Home, data: Path | None, as_of: str, full: bool, as_json: bool) -> None:
    """Bring the online feature store up to AS-OF, outside of a training run."""
    from components.features.materialize import materialize_dataset
    from components.ingestion.ingest import default_as_of

    folder = data.resolve() if data else default_shop(home)
    with Bars() as bars:
        report = materialize_dataset(home, folder, as_of or default_as_of(folder), full, bars.show)
    click.echo(report.model_dump_json() if as_json else text(report))


class Bars:
    """A progress bar a view, on stderr, where somebody watches."""

    def __init__(self) -> None:
        self._bar: tqdm | None = None
        self._view = ""

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def show(self, view: str, done: int, total: int) -> None:
        if self._bar is None or self._view != view:
            self.__exit__()
            # disable=None: only on a terminal.
            self._view, self._bar = view, tqdm(total=total, desc=view, unit=" entities", disable=None)
        self._bar.update(done - self._bar.n)


def text(report: Report) -> str:
    lines = [f"materialized up to {report.as_of}"]
    for name, view in report.views.items():
        age = "no rows" if view.lag_seconds is None else f"newest {view.newest_event}, {_span(view.lag_seconds)} before"
        lines.append(
            f"  {name:20} {view.mode:12} {view.rows:>10,} entities, {view.written:,} written, "
            f"{view.removed:,} removed, {age} ({view.seconds:.1f} s)"
        )
    return "\n".join(lines)


def _span(seconds: float) -> str:
    for size, unit in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} seconds"


COMMANDS = (materialize,)
