"""`esmm features` in this process, and small datasets, homes and models for it to show."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from click.testing import CliRunner, Result
from features.made import GROUP_VIEW, INFO, impressions, spec, view_table
from tiny_model import make_model

from components.contracts import dataset as ds
from components.contracts.packaged import PACKAGED_JSON, Packaged
from components.contracts.paths import Home
from components.packaging import registry
from pipelines.cli import main

AS_OF = "2026-03-20T00:00:00Z"
VALUES = {"string": np.array(["a", "b"], object), "int": np.array([1, 2]), "float": np.array([0.5, 1.5])}
PROFILES = [
    {"user_id": "u1", "event": 1, "country": "de", "segment": "s", "age_band": 3, "member_days": 40},
    {"user_id": "u1", "event": 5, "country": "fr", "segment": "s", "age_band": 3, "member_days": 44},
    {"user_id": "u2", "event": 2, "country": "fr", "age_band": 4, "member_days": 10},
    {"user_id": "u3", "event": 3},
    {"user_id": "u1", "event": 6, "created": 25, "country": "late", "member_days": 1000},
]
ACTIVITY = [
    {"item_id": "i1", "event": 18, "item_clicks_7d": 7, "item_impressions_7d": 70, "item_ctr_7d": 0.1},
    {"item_id": "i2", "event": 11, "item_clicks_7d": 5, "item_impressions_7d": 50},
    {"item_id": "i3", "event": 12, "item_clicks_7d": 6, "item_impressions_7d": 0, "item_ctr_7d": float("nan")},
    {"item_id": "i4", "event": 18},
    {"item_id": "i1", "event": 30, "item_clicks_7d": 99},
]
GROUPS = [
    {"group_id": "g1", "event": 1, "f121": "a", "f109_14": ["x", "y"], "f109_14_weights": [1.0, 3.0]},
    {"group_id": "g2", "event": 1, "f121": "a", "f109_14": ["x"], "f109_14_weights": [2.0]},
    {"group_id": "g3", "event": 1, "f109_14": [], "f109_14_weights": []},
]
TABLES = {
    "user_profile": view_table("user_profile", PROFILES),
    "item_activity": view_table("item_activity", ACTIVITY),
}
GROUPED = {GROUP_VIEW: view_table(GROUP_VIEW, GROUPS)}


def write_dataset(folder: Path, tables: dict[str, pa.Table], name: str = "tiny", **changes: object) -> Path:
    """A dataset whose log ends just before AS_OF."""
    day = folder / ds.LOG / "dt=2026-03-19"
    day.mkdir(parents=True)
    pq.write_table(impressions([{"event": 18.99999}]), day / "part-0.parquet")
    ds.write_info(folder, INFO.model_copy(update={"name": name, **changes}))
    for view, table in tables.items():
        (folder / ds.FEATURES / view).mkdir(parents=True)
        pq.write_table(table, folder / ds.FEATURES / view / "part-0.parquet")
    return folder


class Esmm:
    """`esmm --home HOME ARGUMENTS` in this process."""

    def __init__(self, root: Path) -> None:
        self.home = Home(root)

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["--home", str(self.home.root), *map(str, arguments)])

    def said(self, *arguments: object) -> str:
        """Output, each run of blanks as one."""
        done = self("features", *arguments)
        assert done.exit_code == 0, done.output
        return re.sub(r" +", " ", done.stdout)

    def json(self, *arguments: object) -> object:
        done = self("features", *arguments, "--json")
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    def refused(self, code: int, *arguments: object) -> str:
        done = self("features", *arguments)
        assert done.exit_code == code, done.output
        assert done.stdout == ""
        assert done.stderr.startswith("esmm: ")
        assert done.stderr.count("\n") == 1
        return done.stderr


def promote(esmm: Esmm, model: Path, dataset: str, read: tuple[str, ...], clock: str, champion: int | None) -> None:
    """Registers a model that reads these views, with the note that packaging puts into its Bento."""
    run = model.name
    bento = esmm.home.bentoml / "bentos" / f"esmm-{dataset}" / run
    (bento / "src").mkdir(parents=True)
    (bento / "bento.yaml").touch()
    packaged = Packaged(dataset=dataset, run=run, candidate="esmm", as_of=AS_OF, clock=clock)
    (bento / "src" / PACKAGED_JSON).write_text(packaged.to_json())
    reads = spec(read)
    columns = {name: VALUES[dtype] for name, dtype in reads.raw.items()}
    make_model(model, columns=columns, spec=reads, dataset=dataset, as_of=AS_OF)
    registry.promote(
        esmm.home, dataset, model, bento=f"esmm-{dataset}:{run}", metrics={}, expected_champion=champion, as_of=AS_OF,
        run=run,
    )  # fmt: skip


def by_name(found, key="name"):
    return {entry[key]: entry for entry in found}
