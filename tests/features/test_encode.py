from __future__ import annotations

import numpy as np
import pyarrow.parquet as pq
import pytest
from features.made import (
    GROUP_VIEW,
    GROUPED,
    LOGGED,
    grouped_spec,
    impressions,
    read,
    spec,
    view_table,
    write_clean,
    write_features,
)

from components.contracts.errors import DataError
from components.contracts.files import facts_of, read_manifest, write_manifest
from components.features.encode import EncodeConfig, run
from components.features.retrieve import RetrieveConfig
from components.features.retrieve import run as retrieve
from components.scoring.encoder import Encoder
from components.scoring.raw import columns_from_table


@pytest.fixture
def dataset(tmp_path):
    users = [f"u{n % 3}" for n in range(30)] + ["u9"] * 6
    splits = ["train"] * 30 + ["valid"] * 3 + ["test"] * 3
    rows = [
        {"event": n / 100, "user_id": user, "split": split, "click": n % 2, "conversion": n % 2 and n % 4 == 1}
        for n, (user, split) in enumerate(zip(users, splits, strict=True))
    ]
    clean = write_clean(tmp_path / "clean", impressions({**row, "conversion": int(row["conversion"])} for row in rows))
    activity = [{"item_id": "i1", "event": 0, "item_clicks_7d": 4, "item_ctr_7d": 0.25}]
    features = write_features(tmp_path / "features", {"item_activity": view_table("item_activity", activity)})
    config = RetrieveConfig(dataset="tiny", spec=spec(("item_activity",)))
    retrieve(config, clean, features, tmp_path / "dataset", part_rows=7)
    return tmp_path / "dataset"


def test_arrays_are_what_the_encoder_makes_of_the_rows(dataset, tmp_path):
    wanted = spec(("item_activity",))
    facts = run(EncodeConfig(spec=wanted), dataset, tmp_path / "encoded")
    encoder = Encoder.load(tmp_path / "encoded")
    names = [feature.name for feature in wanted.features]
    for split in ("train", "valid"):
        table = read(dataset, split)
        expected = encoder.transform(columns_from_table(table, names))
        ids = np.load(tmp_path / "encoded" / split / "ids.npy", mmap_mode="r", allow_pickle=False)
        assert ids.dtype == np.int32
        np.testing.assert_array_equal(ids, expected.ids)
        np.testing.assert_array_equal(np.load(tmp_path / "encoded" / split / "dense.npy"), expected.dense)
        assert np.load(tmp_path / "encoded" / split / "weights.npy").shape == (len(table), 0)
        for label in ("click", "conversion"):
            array = np.load(tmp_path / "encoded" / split / f"{label}.npy")
            assert array.dtype == np.float32
            np.testing.assert_array_equal(array, table[label].to_numpy())
    assert facts["rows"] == {"train": 30, "valid": 3}


def test_only_the_training_split_is_learned_from(dataset, tmp_path):
    facts = run(EncodeConfig(spec=spec(("item_activity",))), dataset, tmp_path / "encoded")
    encoder = Encoder.load(tmp_path / "encoded")
    assert set(encoder.vocabularies["user_id"]) == {"u0", "u1", "u2"}
    assert facts["unknown_in_valid"]["user_id"] == 1.0


def test_the_test_split_is_not_encoded_and_not_read(dataset, tmp_path):
    run(EncodeConfig(spec=spec(("item_activity",))), dataset, tmp_path / "with")
    for file in (dataset / "test").glob("*.parquet"):
        table = pq.read_table(file)
        pq.write_table(table.slice(0, 0), file)
    facts = facts_of(read_manifest(dataset, verify=False))
    write_manifest(dataset, **facts)
    run(EncodeConfig(spec=spec(("item_activity",))), dataset, tmp_path / "without")
    assert read_manifest(tmp_path / "with")["fingerprint"] == read_manifest(tmp_path / "without")["fingerprint"]
    assert not (tmp_path / "with/test").exists()


def test_manifest_facts_are_carried(dataset, tmp_path):
    run(EncodeConfig(spec=spec(("item_activity",))), dataset, tmp_path / "encoded")
    manifest, before = read_manifest(tmp_path / "encoded"), read_manifest(dataset)
    for key in ("ranges", "rows", "info", "as_of"):
        assert manifest[key] == before[key]
    assert manifest["spec"] == spec(("item_activity",)).model_dump(mode="json")


def test_a_spec_that_is_less_than_the_dataset_s(dataset, tmp_path):
    run(EncodeConfig(spec=spec(())), dataset, tmp_path / "encoded")
    assert np.load(tmp_path / "encoded/train/ids.npy").shape == (30, 4)


def test_a_dataset_without_training_rows_is_named(dataset, tmp_path):
    for file in (dataset / "train").glob("*.parquet"):
        file.unlink()
    facts = facts_of(read_manifest(dataset, verify=False))
    write_manifest(dataset, **facts)
    with pytest.raises(DataError, match="holds no impressions"):
        run(EncodeConfig(spec=spec(("item_activity",))), dataset, tmp_path / "encoded")


def test_bags_are_columns_of_ids_and_weights(tmp_path):
    """Shard by shard as in one piece, the widths learned from the training split alone."""
    rows = [
        {"event": n / 100, "split": "train" if n < 30 else "valid", "group_id": f"g{n % 3}", "seen": ["s"] * (n % 2),
         "f210": [f"t{k}" for k in range(n % 4 if n < 30 else 9)],
         "f210_weights": [1.0 + k for k in range(n % 4 if n < 30 else 9)]}
        for n in range(40)
    ]  # fmt: skip
    clean = write_clean(tmp_path / "clean", impressions(rows, **LOGGED), GROUPED)
    bags = [
        {"group_id": f"g{n}", "event": 0, "f109_14": [f"v{n}", "v"], "f109_14_weights": [1.0, 3.0]} for n in range(2)
    ]
    tables = {GROUP_VIEW: view_table(GROUP_VIEW, bags), "item_activity": view_table("item_activity", [])}
    features = write_features(tmp_path / "features", tables)
    wanted = grouped_spec()
    retrieve(RetrieveConfig(dataset="tiny", spec=wanted), clean, features, tmp_path / "dataset", part_rows=7)
    facts = run(EncodeConfig(spec=wanted), tmp_path / "dataset", tmp_path / "encoded")
    encoder = Encoder.load(tmp_path / "encoded")
    assert dict(encoder.bag_widths) == {
        "seen": 1, "f210": 3, "f109_14": 2, "f110_14": 1, "f127_14": 1, "f150_14": 1,
    }  # fmt: skip
    for split, count in (("train", 30), ("valid", 10)):
        table = read(tmp_path / "dataset", split)
        expected = encoder.transform(columns_from_table(table, wanted.raw))
        folder = tmp_path / "encoded" / split
        ids, weights = (np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ids", "weights"))
        assert (ids.dtype, ids.shape[0], weights.dtype, weights.shape) == (np.int32, count, np.float32, (count, 9))
        np.testing.assert_array_equal(ids, expected.ids)
        np.testing.assert_array_equal(weights, expected.weights)
        known = np.array([group < "g2" for group in table["group_id"].to_pylist()])
        place = [f.name for f in wanted.features if f.encoding == "bag"].index("f109_14")
        at = sum([1, 3, 2][:place])
        np.testing.assert_array_equal(weights[:, at : at + 2], np.where(known[:, None], [[0.25, 0.75]], [[1, 0]]))
    assert facts["sizes"]["f109_14"] > 2
