"""No feature comes from the future.

The same training on *latest-value* features (each entity's newest snapshot, whatever its time) scores visibly
better on test: that is what a leak looks like, and why nobody notices one by its metrics. The pipeline's own retrieval
must not do it.
"""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.contracts import duck
from components.contracts.files import facts_of, read_manifest, write_manifest
from components.contracts.online import PROFILE_VARIABLE
from components.contracts.spec import FeatureSpec
from components.evaluation.comparison import Scored, compare
from components.evaluation.metrics import Outcome, Predicted
from components.features.encode import EncodeConfig
from components.features.encode import run as encode
from components.features.point_in_time import PointInTime
from components.scoring.raw import columns_from_table
from components.scoring.score import Scorer
from components.training.train import TrainConfig
from components.training.train import run as train
from pipelines import recipes

pytestmark = pytest.mark.e2e


@pytest.fixture(scope="module")
def artifacts(first):
    """Folders of the first run's artifacts by task and output name."""
    command, _ = first
    root = next(command.home.glob("pipeline/*/retrieve")).parent
    return lambda task, output: next(root.rglob(f"{task}/{output}"))


def latest(dataset: Path, features: Path, out: Path, spec: FeatureSpec) -> Path:
    """The dataset with every stored feature replaced by the entity's newest value."""
    for split in ("train", "valid", "test"):
        (out / split).mkdir(parents=True)
        joins, chosen = [], []
        for view in spec.views:
            newest = f"row_number() OVER (PARTITION BY {view.entity} ORDER BY event_timestamp DESC, created DESC) = 1"
            table = f"(SELECT * FROM '{features / view.name}/*.parquet' QUALIFY {newest})"
            joins.append(f"LEFT JOIN {table} AS {view.name} USING ({view.entity})")
            chosen += [f"{view.name}.{field} AS {field}" for field in view.fields]
        own = ["impression_id", "user_id", "item_id", "event_timestamp", "click", "conversion"]
        own += [feature.name for feature in spec.context]
        with duck.connect() as connection:
            connection.execute(
                f"COPY (SELECT {', '.join(f'd.{name}' for name in own)}, {', '.join(chosen)} "
                f"FROM '{dataset / split}/*.parquet' AS d {' '.join(joins)} "
                f"ORDER BY d.event_timestamp, d.impression_id) "
                f"TO '{out / split}/part-0.parquet' (FORMAT parquet)"
            )
    write_manifest(out, **facts_of(read_manifest(dataset)))
    return out


def predictions(dataset: Path, folder: Path, spec: FeatureSpec) -> tuple[Predicted, Outcome, np.ndarray]:
    """ESMM trained on the dataset's training split and scored on its test split."""
    encode(EncodeConfig(spec=spec), dataset, folder / "encoded")
    config = TrainConfig(
        training=recipes.smoke().training, dataset="shop", as_of="2026-01-01T00:00:00Z", data_fingerprint=""
    )
    train("esmm", config, folder / "encoded", folder / "model")
    table = pq.read_table(dataset / "test")
    names = [feature.name for feature in spec.features]
    scores = Scorer(folder / "model").score(columns_from_table(table, names))
    labels = [table[name].to_numpy().astype(bool) for name in ("click", "conversion")]
    return (
        Predicted(scores.pctr, scores.pcvr, scores.pctcvr),
        Outcome(*labels),
        np.asarray(table["user_id"].to_pylist()),
    )


def test_latest_values_leak_and_retrieval_does_not_use_them(artifacts, tmp_path):
    dataset, features = artifacts("retrieve", "dataset"), artifacts("ingest", "features")
    spec = FeatureSpec.parse(json.loads((dataset / "manifest.json").read_text())["spec"])
    leaky = latest(dataset, features, tmp_path / "latest", spec)

    columns = [feature.name for feature in spec.stored]
    tables = [pq.read_table(folder / "test").sort_by("impression_id") for folder in (dataset, leaky)]
    assert tables[0]["impression_id"].equals(tables[1]["impression_id"])
    assert sum(not tables[0][name].equals(tables[1][name]) for name in columns) >= len(columns) / 2

    honest, outcome, users = predictions(dataset, tmp_path / "honest", spec)
    cheating, *_ = predictions(leaky, tmp_path / "cheating", spec)
    auc = compare(Scored(cheating, cheating), Scored(honest, honest), outcome, users).ctcvr_auc
    print(
        f"CTCVR AUC {auc.champion:.4f} point in time, {auc.candidate:.4f} latest: "
        f"+{auc.difference:.4f} [{auc.low:.4f}, {auc.high:.4f}]"
    )
    assert auc.difference >= 0.02
    assert auc.low > 0


def test_no_feature_was_stamped_or_created_after_its_impression(artifacts):
    """Every retrieved value is that of the newest snapshot stamped and created no later than the impression."""
    dataset, features = artifacts("retrieve", "dataset"), artifacts("ingest", "features")
    spec = FeatureSpec.parse(json.loads((dataset / "manifest.json").read_text())["spec"])
    for view in spec.views:
        fields = " AND ".join(f"d.{field} IS NOT DISTINCT FROM s.{field}" for field in view.fields)
        with duck.connect() as connection:
            wrong, found = connection.execute(
                f"""
                WITH d AS (SELECT * FROM '{dataset / "test"}/*.parquet' USING SAMPLE 5000 (reservoir, 3)),
                s AS (
                    SELECT d.impression_id, v.* FROM d JOIN '{features / view.name}/*.parquet' AS v
                    ON v.{view.entity} = d.{view.entity} AND v.event_timestamp <= d.event_timestamp
                    AND v.created <= d.event_timestamp
                    AND v.event_timestamp >= d.event_timestamp - to_seconds({view.ttl_seconds})
                    QUALIFY row_number() OVER (
                        PARTITION BY d.impression_id ORDER BY v.event_timestamp DESC, v.created DESC
                    ) = 1
                )
                SELECT count(*) FILTER (WHERE NOT ({fields})), count(s.impression_id)
                FROM d LEFT JOIN s USING (impression_id)
                """
            ).fetchone()
        assert found > 1000, view.name
        assert wrong == 0, view.name


@pytest.mark.slow
@pytest.mark.skipif(
    shutil.which("java") is None and not os.environ.get("JAVA_HOME"),
    reason="the spark profile needs Java 17 or later, and there is none on the path",
)
def test_on_spark_too(artifacts, tmp_path, monkeypatch):
    """Each impression of the test split gets the same values under the spark profile: nothing of the future either."""
    pytest.importorskip("pyspark", reason="the spark profile needs pyspark: pip install 'esmm-pipeline[spark]'")
    monkeypatch.setenv(PROFILE_VARIABLE, "spark")
    monkeypatch.setenv("ESMM_SPARK_MASTER", "local[2]")
    monkeypatch.setenv("ESMM_SPARK_PARTITIONS", "4")
    dataset, features = artifacts("retrieve", "dataset"), artifacts("ingest", "features")
    spec = FeatureSpec.parse(json.loads((dataset / "manifest.json").read_text())["spec"])
    rows = pq.read_table(dataset / "test")
    with PointInTime(features, spec) as store:
        found = store.join(rows)
    assert len(found) > 1000
    assert found.equals(rows.select(found.column_names).combine_chunks())
