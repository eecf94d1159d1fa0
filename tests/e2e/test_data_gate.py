"""The data gate closes, and nothing after it runs."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

pytestmark = pytest.mark.e2e


@pytest.fixture
def spoiled(shop, tmp_path):
    """A copy of the shop and a function that rewrites one day, or all days, of its log."""
    folder = tmp_path / "spoiled"
    shutil.copytree(shop, folder)

    def rewrite(change, days=None):
        for path in sorted(folder.glob("log/dt=*/*.parquet"))[days or slice(None)]:
            table = pq.read_table(path, partitioning=None)
            pq.write_table(change(table), path)
        return folder

    return rewrite


def first_share(table, share):
    """A mask over the first `share` of the rows."""
    return pa.array([i < share * table.num_rows for i in range(table.num_rows)])


def with_column(table, name, values):
    return table.set_column(table.schema.get_field_index(name), name, values)


def closes(esmm, data, champion, *sentences):
    result = esmm.run(data, "--recipe", "smoke", code=1)
    assert result["status"] == "failed"
    assert not result["promoted"]
    stages = esmm.record(result)["stages"]
    assert stages["validate"]["status"] == "failed"
    assert stages["validate"]["code"] == "DataGateClosed"
    for sentence in sentences:
        assert sentence in " ".join(result["reasons"])
    assert {"retrieve", "encode", "evaluate", "package", "promote"}.isdisjoint(ran(stages))
    assert not any(name.startswith("train") for name in ran(stages))
    assert Path(result["report"]).name == "validation.html"
    assert sentences[0] in Path(result["report"]).read_text()
    assert esmm.champion() == champion


def ran(stages):
    return {name for name, stage in stages.items() if stage["status"] in ("succeeded", "failed", "running")}


def test_a_missing_column(esmm, spoiled):
    data = spoiled(lambda table: table.drop_columns(["item_id"]))
    closes(esmm, data, esmm.champion(), "item_id")


def test_a_day_with_30_percent_bad_rows(esmm, spoiled):
    def spoil(table):
        bad = pc.if_else(first_share(table, 0.3), pa.scalar(None, pa.string()), table["user_id"].cast(pa.string()))
        return with_column(table, "user_id", bad)

    closes(esmm, spoiled(spoil, slice(4, 5)), esmm.champion(), "bad")


def test_a_day_with_5_percent_funnel_violations(esmm, spoiled):
    def spoil(table):
        mask = first_share(table, 0.05)
        click = pc.if_else(mask, pa.scalar(0, table["click"].type), table["click"])
        conversion = pc.if_else(mask, pa.scalar(1, table["conversion"].type), table["conversion"])
        return with_column(with_column(table, "click", click), "conversion", conversion)

    closes(esmm, spoiled(spoil, slice(5, 6)), esmm.champion(), "conversions without a click")
