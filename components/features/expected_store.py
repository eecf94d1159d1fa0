"""An online store of its own for the smoke test, where the live one has moved on.

Rows that were pushed after as-of are online and not among what is expected, and more may come while the Bento is asked.
So it is asked over a small embedded store then, which holds the sampled users and items as known at as-of.
"""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa

from components.contracts import duck
from components.contracts.artifacts import EXPECTED_HOME
from components.contracts.online import REGISTRY, Place
from components.contracts.paths import Home
from components.contracts.spec import FeatureSpec
from components.features import tables
from components.features.online import registry
from components.features.online.bring_up import bring_up
from feature_repo.views import PUSHED


def pushed_since(place: Place, spec: FeatureSpec, rows: pa.Table, as_of: datetime) -> bool:
    """Whether the live store holds a row, of what `rows` ask for, that is stamped in the second of as-of or later."""
    latest = 0
    with registry.opened(place) as store:
        for view in (view for view in spec.views if view.name in PUSHED):
            keys = [{view.entity: key} for key in rows[view.entity].unique().to_pylist()]
            found = store.get_online_features([f"{view.name}:{view.fields[0]}"], keys)
            stamps = found.to_dict(include_event_timestamps=True)[f"{view.fields[0]}__ts"]
            latest = max([latest, *stamps])
    return latest >= int(as_of.timestamp())


def write(copied: Path, project: str, spec: FeatureSpec, rows: pa.Table, as_of: datetime, expected: Path) -> None:
    """Fills the store of a home of its own, `expected`/home, from the tables `copied`."""
    folder = Home(expected / EXPECTED_HOME).feast(project)
    folder.mkdir(parents=True)
    place = Place(folder, project, "embedded", f"sqlite:///{folder / REGISTRY}")
    with TemporaryDirectory(prefix="esmm-expected-") as aside:
        for view in spec.views:
            (Path(aside) / view.name).mkdir()
            with duck.connect() as db:
                db.register("asked", pa.table({"key": rows[view.entity].unique()}))
                db.execute(
                    f"COPY (SELECT * FROM {tables.parquet(copied / view.name)} WHERE {duck.name(view.entity)} IN "
                    f"(SELECT key FROM asked)) TO {duck.text(Path(aside) / view.name / 'part-0.parquet')}"
                )
        bring_up(place, Path(aside), tuple(view.name for view in spec.views), as_of)
