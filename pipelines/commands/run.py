"""`esmm run`, `esmm compile`, `esmm report`, `esmm prune`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from components.contracts.config import merge
from components.contracts.errors import DataError, UsageError
from components.contracts.files import read_json
from components.contracts.paths import Home
from pipelines import summary


@click.command()
@click.option(
    "--data", type=click.Path(path_type=Path), help="Dataset folder. Without it: a simulated shop, made once."
)
@click.option("--recipe", default="", help="Named config; default: the one the dataset names.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one value: --set training.seed=7")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="JSON file of values to change.")
@click.option(
    "--reference",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Accepted profile of an earlier run that drift is judged against: esmm profile accept makes one.",
)
@click.option("--as-of", default="", help="UTC time; nothing later is seen. Default: just after the last logged event.")
@click.option("--pipeline", type=click.Path(dir_okay=False, path_type=Path), help="Run this compiled IR instead.")
@click.option(
    "--sweep",
    is_flag=False,
    flag_value="",
    metavar="[FILE]",
    help="Search for a better training config instead: over the space in FILE (JSON), or the recipe's own.",
)
@click.option("--trials", type=click.IntRange(min=1), help="Of --sweep: configs to try.")
@click.option("--rounds", type=click.IntRange(min=1), help="Of --sweep: rounds of suggesting, training and telling.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout, all else on stderr.")
@click.pass_obj
def run(
    home: Home,
    data: Path | None,
    recipe: str,
    sets: tuple[str, ...],
    config: Path | None,
    reference: Path | None,
    as_of: str,
    pipeline: Path | None,
    sweep: str | None,
    trials: int | None,
    rounds: int | None,
    as_json: bool,
) -> None:
    """Run the training pipeline here: validate, retrieve, train, gate, package, smoke-test, promote."""
    from pipelines import local, sweep_summary
    from pipelines.commands.data import default_shop
    from pipelines.recipes import parse_sets
    from pipelines.request import request_of
    from pipelines.sweep_request import changes_for, checked

    changes = merge(merge(_config(config), parse_sets(sets)), changes_for(sweep, trials, rounds))
    if reference is not None:
        changes["reference"] = str(reference.resolve())
    if pipeline is not None and not pipeline.is_file():
        raise UsageError(f"{pipeline} does not exist: write it with `esmm compile --out {pipeline}`")
    overrides = json.dumps(changes, sort_keys=True)
    folder = default_shop(home) if data is None else data.resolve()
    asked = request_of(folder, recipe, overrides, as_of)[1]
    request = local.Request(
        data=str(folder),
        recipe=recipe,
        overrides=overrides,
        as_of=as_of,
        pipeline=str(pipeline.resolve()) if pipeline else "",
        rounds=0 if sweep is None else checked(asked).rounds,
    )
    record = local.run(home, request, watch=summary.Progress())
    which = summary if sweep is None else sweep_summary
    result = which.result(home.runs / record["run"])
    if as_json:
        click.echo(json.dumps(result))
    else:
        click.echo(which.text(result, home))
    sys.exit(summary.exit_code(record))


def _config(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    if not path.is_file():
        raise UsageError(f"--config {path} does not exist")
    content = read_json(path)
    if not isinstance(content, dict):
        raise UsageError(f"--config {path} holds no JSON object: write it like {{'training': {{'seed': 7}}}}")
    return content


@click.command("compile")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write. Default: training.yaml, or sweep.yaml.",
)
@click.option("--image", default="", help="Container image for every component.")
@click.option("--config", type=click.Path(dir_okay=False, path_type=Path), help="JSON file of cluster settings.")
@click.option("--set", "sets", multiple=True, metavar="KEY=VALUE", help="Change one of them: --set pod.memory=32Gi")
@click.option("--train-job", metavar="CANDIDATE", help="Write instead the TrainJob that trains CANDIDATE.")
@click.option("--sweep", is_flag=True, help="Compile instead the search of esmm run --sweep.")
@click.option("--rounds", type=click.IntRange(min=1), help="Of --sweep.")
def compile_(
    out: Path | None,
    image: str,
    config: Path | None,
    sets: tuple[str, ...],
    train_job: str | None,
    sweep: bool,
    rounds: int | None,
) -> None:
    """Compile the training pipeline to KFP's IR (YAML), for a Kubeflow cluster.

    What training pods ask for is set here: docs/scale-out.md lists the settings.
    """
    from components.search.config import SweepConfig
    from pipelines.cluster import ClusterConfig, compile_sweep, compile_training, write_train_job
    from pipelines.recipes import parse_sets

    if sweep and train_job is not None:
        raise UsageError("--sweep and --train-job are two files: compile one at a time")
    if rounds is not None and not sweep:
        raise UsageError("--rounds belongs to a search: add --sweep")
    out = out or Path("sweep.yaml" if sweep else "training.yaml")

    changes = merge(_config(config), parse_sets(sets))
    if image:
        changes["image"] = image
    cluster = ClusterConfig.parse(changes, where="cluster settings")
    if sweep:
        compile_sweep(out, rounds or SweepConfig().rounds, cluster)
    elif train_job is None:
        compile_training(out, cluster)
    else:
        write_train_job(out, cluster, train_job)
    click.echo(f"wrote {out}")


def chosen_run(home: Home, run: str | None) -> Path:
    """Folder of the named run, or of the latest.

    Raises:
        DataError: there is none yet.
        UsageError: there is no such one.
    """
    runs = sorted(path.name for path in home.runs.glob("*") if path.is_dir())
    if not runs:
        raise DataError(f"{home.runs} holds no run yet: start one with `esmm run`")
    if run is not None and run not in runs:
        raise UsageError(f"there is no run {run!r} in {home.runs}: the latest is {runs[-1]}")
    return home.runs / (run or runs[-1])


@click.command()
@click.argument("run", required=False)
@click.option("--open", "open_", is_flag=True, help="Open it in the browser.")
@click.pass_obj
def report(home: Home, run: str | None, open_: bool) -> None:
    """Print where the report of RUN (default: the latest) lies."""
    folder = chosen_run(home, run)
    page = next((folder / n for n in ("report.html", "validation.html") if (folder / n).is_file()), None)
    if page is None:
        raise DataError(f"run {folder.name} ended before it had a report: see {folder / 'record.json'}")
    click.echo(page)
    if open_:
        click.launch(page.as_uri())


@click.command()
@click.option("--keep", type=click.IntRange(min=1), required=True, metavar="N", help="Runs to keep, newest first.")
@click.option("--dry-run", is_flag=True, help="Only say what would go.")
@click.pass_obj
def prune(home: Home, keep: int, dry_run: bool) -> None:
    """Delete old runs and artifacts; never what the champion, its previous or a live run uses."""
    from components.packaging import prune as pruning

    plan = pruning.plan_prune(home, keep)
    for line in plan.lines():
        click.echo(line)
    if not dry_run:
        pruning.apply(home, plan)
    click.echo(f"{'would free' if dry_run else 'freed'} {plan.bytes / 1e6:.1f} MB")


COMMANDS = (run, compile_, report, prune)
