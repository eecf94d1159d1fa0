"""`esmm parity`: features offline against online, for impressions of a finished run's test split."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from components.contracts.artifacts import MODEL_JSON
from components.contracts.dataset import FEATURES, read_info
from components.contracts.errors import DataError, UsageError
from components.contracts.files import read_json
from components.contracts.paths import Home
from pipelines.commands.run import chosen_run


@click.command()
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Dataset folder: its newest finished run, against its feature tables as they are now.",
)
@click.option("--run", "run_name", default=None, metavar="RUN", help="A run, against the tables it saw.")
@click.option("--sample", type=click.IntRange(min=1), default=None, help="Impressions to compare; default: the run's.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_obj
def parity(home: Home, data: Path | None, run_name: str | None, sample: int | None, as_json: bool) -> None:
    """Compare the features a run was trained on with what online serving had at the time.

    By default of the newest finished run. For each sampled impression a scratch store is brought up to its time and
    read as the service reads it; the live store is not touched. Exits with 1 if anything differs.
    """
    from components.features.parity.settings import ParitySettings
    from components.features.parity.stage import measure, retrieved_spec
    from pipelines.parities import lines
    from serving.lookup import OnlineLookup

    if data is not None and run_name is not None:
        raise UsageError("--data and --run both choose what to compare: give one of the two")
    folder, record = _run(home, data, run_name)
    artifacts = _artifacts(folder, record)
    chosen = {**((record.get("config") or {}).get("parity") or {}), **({"sample": sample} if sample else {})}
    settings = ParitySettings.parse(chosen, where=str(folder / "record.json"))
    tables = artifacts["features"] if data is None else data.resolve() / FEATURES
    winner = artifacts["winner"] if (artifacts["winner"] / MODEL_JSON).is_file() else None
    spec = retrieved_spec(artifacts["dataset"])
    found = measure(spec, settings, tables, artifacts["dataset"], winner, OnlineLookup)
    if as_json:
        names = {"run": folder.name, "dataset": record.get("dataset"), "passed": found.gate.passed}
        click.echo(json.dumps({**names, **found.model_dump(mode="json")}))
    else:
        click.echo("\n".join([f"run {folder.name}, dataset {record.get('dataset')}", *lines(found)]))
    sys.exit(0 if found.gate.passed else 1)


def _run(home: Home, data: Path | None, name: str | None) -> tuple[Path, dict[str, Any]]:
    """The named run, or the newest that came to a decision (on that dataset), and its record."""
    if name is not None:
        folder = chosen_run(home, name)
        return folder, read_json(folder / "record.json")
    dataset = read_info(data).name if data is not None else None
    chosen_run(home, None)
    for folder in sorted((path for path in home.runs.glob("*") if path.is_dir()), reverse=True):
        record = read_json(folder / "record.json") if (folder / "record.json").is_file() else {}
        if record.get("status") in ("promoted", "refused") and dataset in (None, record.get("dataset")):
            return folder, record
    of = f" on dataset {dataset!r}" if dataset else ""
    raise DataError(f"{home.runs} holds no finished run{of}: start one with `esmm run`, or name one with --run")


def _artifacts(folder: Path, record: dict[str, Any]) -> dict[str, Path]:
    """Raises DataError if the run did not come to its verdict, or its artifacts were pruned."""
    noted = ((record.get("stages") or {}).get("collect") or {}).get("facts", {}).get("artifacts")
    if not noted:
        raise DataError(f"run {folder.name} notes no artifacts: it ended before its verdict; choose another --run")
    found = {name: Path(path) for name, path in noted.items()}
    if not found["dataset"].is_dir() or not found["features"].is_dir():
        raise DataError(f"the artifacts of run {folder.name} are gone, pruned or moved: run `esmm run` again")
    return found


COMMANDS = (parity,)
