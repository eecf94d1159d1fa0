"""`esmm import`: raw logs to a dataset folder."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from components.contracts.errors import UsageError
from pipelines.commands.arguments import pairs, slug, typed

if TYPE_CHECKING:
    from components.ingestion.sources.events import Attribute
    from components.ingestion.sources.importing import ImportOptions

OUT = click.option("--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="New dataset folder.")
FILE = click.Path(path_type=Path)

Command = TypeVar("Command", bound=Callable[..., Any])

_SHARED = (
    click.option(
        "--context",
        default="",
        help="Columns known at request time, comma-separated: hour,device. A CSV column's type may follow: zip:string.",
    ),
    click.option("--item-context", default="", help="The same, for columns whose value belongs to the item: price."),
    click.option(
        "--features", multiple=True, metavar="VIEW=PATH", help="Feature table of a view in feature_repo/views.py."
    ),
    click.option("--name", default="", help="Dataset name (registry, feature store); default: the folder's name."),
    click.option(
        "--click-window", type=float, help="Seconds after an impression in which a click counts; default 3600."
    ),
    click.option(
        "--conversion-window", type=float, help="Seconds after a click in which a purchase counts; default 86400."
    ),
    click.option("--timezone", default="", help="Zone of times that carry none: Europe/Berlin; default UTC."),
    click.option(
        "--epoch", type=click.Choice(["s", "ms", "us", "ns"]), help="What integer time columns count, from 1970 in UTC."
    ),
    click.option(
        "--clock",
        type=click.Choice(["frozen", "wall"]),
        default="frozen",
        show_default=True,
        help="A feature's age when served, measured from the last materialization (a recording) or now (a live shop).",
    ),
    OUT,
)


def shared(command: Command) -> Command:
    """The options of every import of a user's own logs."""
    for option in reversed(_SHARED):
        command = option(command)
    return command


@click.group("import")
def import_() -> None:
    """Turn raw logs into a dataset folder that `esmm run --data` reads."""


@import_.command()
@click.option(
    "--log", required=True, type=FILE, help="Parquet or CSV file, or a folder of them: one row an impression."
)
@click.option("--map", "mapping", multiple=True, metavar="OURS=THEIRS", help="Name of a column: --map user_id=visitor")
@shared
def log(log: Path, mapping: tuple[str, ...], **given: Any) -> None:
    """Your own log, Parquet or CSV: ids, event time, click, conversion, and what was known at request time."""
    from components.ingestion.sources.joined import import_log

    with _bar(log) as update:
        facts = import_log(log, pairs(mapping, "--map"), _options(given, update))
    _tell(facts, given["out"])


@import_.command()
@click.option("--impressions", required=True, type=FILE, help="Parquet or CSV file, or a folder of them.")
@click.option("--clicks", required=True, type=FILE, help="The same, one row a click.")
@click.option("--conversions", required=True, type=FILE, help="The same, one row a conversion.")
@click.option("--map-impressions", multiple=True, metavar="OURS=THEIRS", help="Name of a column of the impressions.")
@click.option("--map-clicks", multiple=True, metavar="OURS=THEIRS", help="The same; event_timestamp is the click's.")
@click.option("--map-conversions", multiple=True, metavar="OURS=THEIRS", help="The same, of the conversions.")
@click.option(
    "--attribute",
    type=click.Choice(["impression-id", "window"]),
    help="How clicks and conversions find their impression; default: by impression id where they carry it, else by "
    "user, item and time (last touch).",
)
@shared
def events(
    impressions: Path,
    clicks: Path,
    conversions: Path,
    map_impressions: tuple[str, ...],
    map_clicks: tuple[str, ...],
    map_conversions: tuple[str, ...],
    attribute: Attribute | None,
    **given: Any,
) -> None:
    """Your own event streams: impressions, clicks and conversions, joined by last touch."""
    from components.ingestion.sources.events import Streams, import_events

    streams = Streams(
        impressions,
        clicks,
        conversions,
        pairs(map_impressions, "--map-impressions"),
        pairs(map_clicks, "--map-clicks"),
        pairs(map_conversions, "--map-conversions"),
    )
    with _bar(impressions, clicks, conversions) as update:
        facts = import_events(streams, _options(given, update), attribute)
    _tell(facts, given["out"])


@import_.command("ali-ccp")
@click.option("--train-skeleton", required=True, type=FILE, help="Training impressions, plain or gzipped.")
@click.option("--train-common", required=True, type=FILE, help="Common features of the training impressions.")
@click.option("--test-skeleton", type=FILE, help="Published test impressions; without them the split is by user.")
@click.option("--test-common", type=FILE, help="Common features of the test impressions.")
@click.option("--name", default="", help="Dataset name (registry, feature store); default: ali_ccp.")
@OUT
def ali_ccp(
    train_skeleton: Path,
    train_common: Path,
    test_skeleton: Path | None,
    test_common: Path | None,
    name: str,
    out: Path,
) -> None:
    """The public Ali-CCP set, raw: every impression, every value of every field, with its weight."""
    from components.ingestion.sources.ali_ccp import NAME, import_ali_ccp

    given = [path for path in (train_skeleton, train_common, test_skeleton, test_common) if path]
    with _bar(*given, every=True) as update:
        facts = import_ali_ccp(
            train_skeleton, train_common, out, test_skeleton, test_common, name or NAME, progress=update
        )
    _tell(facts, out)


@import_.command()
@click.option(
    "--csv", required=True, type=click.Path(path_type=Path), help="hillstrom.csv of the MineThatData challenge."
)
@OUT
def hillstrom(csv: Path, out: Path) -> None:
    """The MineThatData e-mail challenge: 64,000 e-mails, visit as click, conversion as conversion."""
    from components.ingestion.sources.hillstrom import import_hillstrom

    _tell(import_hillstrom(csv, out), out)


def _options(given: dict[str, Any], progress: Callable[[int], None] | None) -> ImportOptions:
    from components.ingestion.sources.importing import ImportOptions

    request, item = typed(given["context"], "--context"), typed(given["item_context"], "--item-context")
    twice = sorted(request.keys() & item.keys())
    if twice:
        raise UsageError(f"{twice[0]!r} is given both in --context and in --item-context: name it once")
    return ImportOptions(
        out=given["out"],
        name=given["name"] or slug(given["out"].resolve().name),
        context=cast("dict[str, Any]", {**request, **item}),
        item_context=tuple(item),
        features={view: Path(path) for view, path in pairs(given["features"], "--features").items()},
        click_window_seconds=given["click_window"],
        conversion_window_seconds=given["conversion_window"],
        clock=given["clock"],
        timezone=given["timezone"],
        epoch=given["epoch"],
        progress=progress,
    )


@contextmanager
def _bar(*paths: Path, every: bool = False) -> Iterator[Callable[[int], None] | None]:
    """A progress bar over the bytes of the text files among `paths` (of all files, if `every`), if it is a terminal."""
    files = [file for path in paths for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()]
    size = sum(file.stat().st_size for file in files if every or file.suffix in (".csv", ".gz"))
    if not size or not sys.stderr.isatty():
        yield None
        return
    with click.progressbar(length=size, label="reading", file=sys.stderr) as bar:
        yield bar.update


def _tell(facts: dict[str, Any], out: Path) -> None:
    for note in facts.pop("notes", ()):
        click.echo(f"note: {note}", err=True)
    click.echo(f"wrote {out}: " + ", ".join(f"{key} {value}" for key, value in facts.items()))
    click.echo(f"next: esmm run --data {out}")
