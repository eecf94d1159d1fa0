"""Files in the raw Ali-CCP format, from import to a served model that uses their bags."""

import json

import pyarrow.parquet as pq
import pytest
from e2e.command import ONE, Esmm, serving

from benchmarks.ali_ccp_files import Files, write
from components.contracts.dataset import read_imported

pytestmark = pytest.mark.e2e
TRAIN = Files(lines=60_000, groups=6_000, users=2_500, funnel_errors=0.001, dirty=0.001)
TEST = Files(lines=30_000, groups=3_000, users=2_500, seed=2)
BAGS = {"f109_14", "f110_14", "f127_14", "f150_14", "f210", "f508", "f509", "f702", "f853"}


@pytest.fixture(scope="module")
def promoted(tmp_path_factory):
    """(command, dataset, spoiled lines, run's result)."""
    folder = tmp_path_factory.mktemp("ali-ccp")
    raw, data = folder / "raw", folder / "ali"
    spoiled = write(raw, TRAIN, "train")
    write(raw, TEST, "test")
    files = [
        part
        for split in ("train", "test")
        for part in (
            *(f"--{split}-skeleton", raw / f"sample_skeleton_{split}.csv"),
            *(f"--{split}-common", raw / f"common_features_{split}.csv"),
        )
    ]
    command = Esmm(folder / "home", folder)
    command("import", "ali-ccp", *files, "--out", data, "--name", "ali")
    return command, data, spoiled, command.run(data, *ONE)


def test_reaches_a_decision_on_the_published_split(promoted):
    command, data, spoiled, result = promoted
    assert result["promoted"], result
    rows = command.record(result)["rows"]
    imported = read_imported(data)
    assert sum(imported.refused.values()) >= len(spoiled) > 0
    # Every line of the skeletons is a row or refused; some of the refused are the common files'.
    logged = sum(pq.read_metadata(file).num_rows for file in (data / "log").glob("*/*.parquet"))
    refused = sum(
        "skeleton" in file
        for part in (data / "refused").glob("*.parquet")
        for file in pq.read_table(part).column("file").to_pylist()
    )
    assert logged + refused == TRAIN.lines + TEST.lines
    assert rows["total"] == logged
    assert rows["test"] == TEST.lines
    assert rows["valid"] == pytest.approx(0.15 * TRAIN.lines, rel=0.15)
    assert rows["quarantined"] > 0
    quality = json.loads((command.home / "runs" / result["run"] / "evaluation.json").read_text())["quality"]
    assert {reason for day in quality["days"] for reason in day["reasons"]} == {"FUNNEL"}


def test_the_model_reads_every_bag(promoted):
    command, _, _, result = promoted
    info = json.loads((command.home / "models" / "ali" / result["run"] / "model.json").read_text())
    assert {f["name"] for f in info["spec"]["features"] if f["encoding"] == "bag"} == BAGS
    assert sum(width > 1 for width in info["architecture"]["widths"]) >= 5


def test_serves_groups_and_bags(promoted):
    command, data, _, _ = promoted
    log = pq.ParquetFile(sorted((data / "log").glob("*/*.parquet"))[-1]).read().slice(0, 3).to_pylist()
    body = {
        "user_id": log[0]["user_id"],
        "group_id": log[0]["group_id"],
        "item_ids": [row["item_id"] for row in log],
        "item_context": {
            name: [row[name] for row in log] for name in log[0] if name.startswith("f") and name != "f301"
        },
    }
    with serving(command) as served:
        full = served.ask(body)
        assert (full["unknown_user"], full["unknown_group"]) == (False, False)
        scores = {item["item_id"]: item["pctcvr"] for item in full["items"]}
        without_group = served.ask({**body, "group_id": None})
        assert without_group["unknown_group"] is True
        without_bags = served.ask({**body, "item_context": {}})
        for other in (without_group, without_bags):
            assert {item["item_id"]: item["pctcvr"] for item in other["items"]} != scores
        assert served("--user", body["user_id"], "--group", body["group_id"], "--items", ",".join(body["item_ids"]))
