"""`esmm serve` and `esmm rank`."""

from __future__ import annotations

import json

import click

from components.contracts.errors import RegistryError, ServiceError, UsageError
from components.contracts.paths import Home
from pipelines.commands.arguments import pairs

DATASET = click.option("--dataset", default="", help="Name of the dataset; needed only if the home holds several.")


def chosen_dataset(home: Home, name: str) -> str:
    """The named dataset, or the only one that has registered models.

    Raises:
        RegistryError: there is none yet, or no such one.
        UsageError: there are several and none was named.
    """
    from components.packaging import registry

    known = registry.datasets(home)
    if not known:
        raise RegistryError(f"{home.root} holds no registered model yet: run `esmm run` until one is promoted")
    if name and name not in known:
        raise RegistryError(f"no model of dataset {name!r} is registered: there are {', '.join(known)}")
    if not name and len(known) > 1:
        raise UsageError(f"several datasets have models ({', '.join(known)}): choose one with --dataset")
    return name or known[0]


@click.command()
@DATASET
@click.option("--port", type=click.IntRange(1, 65535), default=3000, show_default=True)
@click.option("--host", default="127.0.0.1", show_default=True)
@click.pass_obj
def serve(home: Home, dataset: str, port: int, host: str) -> None:
    """Serve the champion's Bento. A running server never switches by itself: restart it after a promotion."""
    from components.packaging import process, registry

    name = chosen_dataset(home, dataset)
    champion = registry.champion(home, name)
    if champion is None:
        raise RegistryError(f"dataset {name!r} has no champion: promote one with `esmm models promote VERSION`")
    click.echo(f"serving version {champion.version} ({champion.bento}) on http://{host}:{port}", err=True)
    process.serve(home, champion.bento, port=port, host=host)


@click.command()
@click.option("--user", required=True, help="User id.")
@click.option("--group", default=None, help="Group id, for a model whose features are kept by group.")
@click.option("--items", required=True, help="Item ids, comma-separated.")
@click.option("--context", multiple=True, metavar="NAME=VALUE", help="What is known of the request: --context hour=20")
@click.option("--url", default="http://127.0.0.1:3000", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="The service's answer as it came.")
def rank(user: str, group: str | None, items: str, context: tuple[str, ...], url: str, as_json: bool) -> None:
    """Ask a running service to rank items for a user."""
    import httpx

    body = {
        "user_id": user,
        **({"group_id": group} if group is not None else {}),
        "item_ids": [item.strip() for item in items.split(",") if item.strip()],
        "context": {name: _value(text) for name, text in pairs(context, "--context").items()},
    }
    try:
        answer = httpx.post(f"{url}/rank", json=body, timeout=30.0, trust_env=False)
    except httpx.HTTPError as error:
        raise ServiceError(f"no service answers at {url} ({error}): start one with `esmm serve`") from None
    if answer.status_code != 200:
        raise ServiceError(f"{url} refused the request ({answer.status_code}): {answer.text}")
    result = answer.json()
    if as_json:
        click.echo(json.dumps(result))
        return
    click.echo(f"{'item':20} {'pctr':>10} {'pcvr':>10} {'pctcvr':>12}")
    for item in result["items"]:
        click.echo(f"{item['item_id']:20} {item['pctr']:10.6f} {item['pcvr']:10.6f} {item['pctcvr']:12.8f}")
    if result["unknown_user"]:
        click.echo(f"user {user} is unknown: scored without user features", err=True)
    if result.get("unknown_group"):
        said = f"group {group} is unknown" if group is not None else "no --group was given"
        click.echo(f"{said}: scored without the features kept by group", err=True)
    if result["unknown_items"]:
        click.echo(f"unknown items: {', '.join(result['unknown_items'])}", err=True)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


COMMANDS = (serve, rank)
