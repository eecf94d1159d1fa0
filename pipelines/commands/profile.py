"""`esmm profile show | accept`: the reference that drift is judged against is a file that a person reviewed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from components.contracts.errors import DataError, UsageError
from components.contracts.paths import Home
from pipelines.commands.run import chosen_run


@click.group()
def profile() -> None:
    """What a run's usable data looked like, and the reference that later runs are held against."""


@profile.command()
@click.argument("run", required=False)
@click.option("--json", "as_json", is_flag=True, help="The profile itself, as `esmm profile accept` would write it.")
@click.pass_obj
def show(home: Home, run: str | None, as_json: bool) -> None:
    """Show the profile of RUN (default: the latest)."""
    from pipelines import profiles

    found, _ = profiles.of_run(chosen_run(home, run))
    click.echo(found.to_text() if as_json else "\n".join(profiles.described(found)), nl=not as_json)


@profile.command()
@click.argument("run", required=False)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; commit it once it is reviewed.",
)
@click.option("--force", is_flag=True, help="Accept the profile of a run that failed, or of another dataset.")
@click.pass_obj
def accept(home: Home, run: str | None, out: Path, force: bool) -> None:
    """Write the profile of RUN (default: the latest) as the reference for later runs.

    RUN should be a good one. Says what changes against the FILE that is there, for a person to review.
    """
    from components.contracts.files import write_text
    from pipelines import profiles

    folder = chosen_run(home, run)
    found, record = profiles.of_run(folder)
    if not force:
        _refuse_failed(folder, record)
    for line in _against(out, found, force):
        click.echo(line)
    write_text(out, found.to_text())
    click.echo(f"wrote {out}: the profile of run {found.run}, as of {found.as_of}")
    click.echo(f"next: review and commit {out}, then: esmm run --data {record.get('data')} --reference {out}")


def _refuse_failed(folder: Path, record: dict[str, Any]) -> None:
    """Raises DataError unless the run came to a decision: then its data gate was open."""
    if record.get("status") not in ("promoted", "refused"):
        why = f"it failed, {record.get('code')}: see {folder / 'record.json'}" if record else "it has not ended"
        raise DataError(
            f"run {folder.name} is no good run ({why}), and a reference should be one: choose another RUN, or, if its "
            "data is right all the same, add --force"
        )


def _against(out: Path, found: Any, force: bool) -> list[str]:
    """What changes against the file that is there. Raises UsageError for a file that is no profile of the dataset."""
    from components.validation.profile import load
    from pipelines import profiles

    if not out.exists():
        return profiles.described(found)
    before = load(out)
    if before.dataset != found.dataset and not force:
        raise UsageError(
            f"{out} is the profile of dataset {before.dataset!r}, the run's is {found.dataset!r}: choose another --out "
            "or add --force"
        )
    return profiles.changes(before, found)


COMMANDS = (profile,)
