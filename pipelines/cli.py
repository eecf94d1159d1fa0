"""The `esmm` command. Each command's arguments live in `commands/`; here is the group and how errors are shown."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

from components.contracts.errors import EsmmError
from components.contracts.paths import HOME_VARIABLE, Home
from pipelines.commands import activity, bench, data, features, materialize, models, parity, profile, run, serve


class Group(click.Group):
    """Prints an EsmmError as one sentence, without traceback, and exits with the error's own code."""

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except EsmmError as error:
            click.echo(f"esmm: {error}", err=True)
            ctx.exit(error.exit_code)


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--home",
    default="var",
    show_default=True,
    envvar=HOME_VARIABLE,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder that holds all state: data, runs, registry, feature store, Bentos.",
)
@click.version_option(package_name="esmm-pipeline")
@click.pass_context
def main(context: click.Context, home: Path) -> None:
    """Retrain a conversion model every day and never ship a worse or broken one.

    \b
    First steps:
      esmm run                         simulate a shop, train, gate, package, promote
      esmm serve                       serve the champion on http://127.0.0.1:3000
      esmm rank --user u1 --items i1,i2,i3

    \b
    Your own logs:
      esmm import log --log impressions.parquet --map user_id=visitor --map click=is_click \\
          --context hour,device --out data/shop
      esmm import events --impressions shown.csv.gz --clicks clicks.csv --conversions orders.csv \\
          --timezone Europe/Berlin --out data/shop
      esmm run --data data/shop

    Exit codes: 0 a decision was reached (promoted or refused), 1 the data gate closed or a stage failed,
    2 bad usage.
    """
    context.obj = Home(home.resolve())
    os.environ[HOME_VARIABLE] = str(context.obj.root)


for group in (data, materialize, run, parity, profile, features, activity, models, serve, bench):
    for command in group.COMMANDS:
        main.add_command(command)

if __name__ == "__main__":
    sys.exit(main())
