"""`esmm activity build | push`: counts of the last seven days, once a day or within a second (docs/streaming.md)."""

from __future__ import annotations

import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import IO

import click

from components.contracts.paths import Home

DATA = click.option("--data", required=True, type=click.Path(path_type=Path), help="Dataset folder.")
SHOWN = 5
"""Of each reason so many bad lines are shown as they come; all are counted and kept."""


@click.group()
def activity() -> None:
    """How often somebody was shown, clicked and bought something in the last seven days.

    \b
    A shop that brings no such tables, and one that wants them fresh:
      esmm activity build --data data/shop                 daily snapshots from the shop's own log
      esmm materialize --data data/shop                    into the online store
      tail -F events.jsonl | esmm activity push --data data/shop
    """


@activity.command()
@DATA
@click.option(
    "--delay", default=60.0, show_default=True, type=click.FloatRange(min=0),
    help="Minutes from midnight until a row counts as known, as if a nightly job had taken that long.",
)  # fmt: skip
def build(data: Path, delay: float) -> None:
    """Write daily snapshots of user_activity and item_activity from the dataset's log.

    One file a day and view, below DATA/features. Days that are there stay as they are, so run it again when the log has
    grown. A table from elsewhere is never overwritten.
    """
    from components.features.activity.build import build as make

    with click.progressbar(length=1, label="counting", file=sys.stderr) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        facts = make(data.resolve(), timedelta(minutes=delay), progress)
    for view, found in facts.items():
        click.echo(f"{view}: {found['files']} days written, {found['rows']} rows; {found['there']} days were there")
    click.echo(f"next: esmm materialize --data {data}")


@activity.command()
@DATA
@click.option(
    "--events", default="-", show_default=True, type=click.File("rb"), help="File of JSON lines; - is standard input."
)
@click.option(
    "--flush", default=0.2, show_default=True, type=click.FloatRange(min=0.01, max=60),
    help="Seconds that events are gathered before they go online together; of a recording, seconds of its own time.",
)  # fmt: skip
@click.option(
    "--ahead", default=None, type=click.FloatRange(min=0),
    help="Seconds that an event may be ahead of the clock; it waits until its time has come, one further ahead is "
    "refused. Default: 600, and a day for a recording.",
)  # fmt: skip
@click.pass_obj
def push(home: Home, data: Path, events: IO[bytes], flush: float, ahead: float | None) -> None:
    """Count events as they come: online within a second, and in the tables that training reads.

    \b
    One JSON object a line:
      {"event": "click", "user_id": "u1", "item_id": "i7", "time": "2026-01-31T10:15:00.250Z"}
    with event impression, click or conversion. Events that agree in all four are one, so send again what you are not
    sure of: after a restart the file from its beginning, if need be. Ends with the file, or on Ctrl-C or SIGTERM.
    """
    from components.features.activity import push as pushing
    from components.features.activity.lines import batches

    shown: dict[str, int] = {}

    def complain(line: str, reason: str) -> None:
        shown[reason] = shown.get(reason, 0) + 1
        if shown[reason] <= SHOWN:
            click.echo(f"refused: {line.strip()[:120]!r} {reason}", err=True)

    with pushing.opened(home, data.resolve(), ahead, flush) as pusher, _stopping() as stop:
        if pusher.counts.recovered:
            click.echo(f"took up {pusher.counts.recovered} events that an earlier push had left", err=True)
        click.echo("pushing; Ctrl-C ends it", err=True)
        pushing.run(pusher, batches(events, flush, stop), complain)
    click.echo(pushing.summary(pusher))


@contextlib.contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGTERM and Ctrl-C set: what was read is still pushed."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COMMANDS = (activity,)
"""Added to the group in cli.py."""
