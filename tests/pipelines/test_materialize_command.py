"""`esmm materialize`: what it prints, and what it passes on."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from features.made import INFO, at, impressions, view_table

from components.contracts.dataset import write_info
from components.contracts.paths import Home
from components.contracts.times import format_utc
from components.features.online.bring_up import Report, ViewReport
from pipelines.cli import main
from pipelines.commands import materialize


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    (folder / "log/dt=2026-03-01").mkdir(parents=True)
    pq.write_table(impressions([{"event": day} for day in range(19)]), folder / "log/dt=2026-03-01/part-0.parquet")
    (folder / "features/item_activity").mkdir(parents=True)
    rows = [{"item_id": f"i{n}", "event": 17, "item_clicks_7d": n} for n in range(3)]
    pq.write_table(view_table("item_activity", rows), folder / "features/item_activity/part-0.parquet")
    write_info(folder, INFO)
    return folder


def run(tmp_path, *arguments):
    return CliRunner().invoke(main, ["--home", str(tmp_path / "home"), "materialize", *map(str, arguments)])


def test_prints_a_line_a_view_or_the_report(tmp_path, data, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", "")  # the command sets it for its children
    done = run(tmp_path, "--data", data, "--as-of", format_utc(at(18)))
    assert done.exit_code == 0, done.output
    assert "materialized up to 2026-03-19T00:00:00Z" in done.stdout
    assert "item_activity        full                  3 entities, 3 written, 0 removed" in done.stdout
    assert "newest 2026-03-18T00:00:00Z, 1.0 days before" in done.stdout
    for extra, mode, written in (((), "unchanged", 0), (("--full",), "full", 3)):
        done = run(tmp_path, "--data", data, "--as-of", format_utc(at(18)), "--json", *extra)
        view = json.loads(done.stdout)["views"]["item_activity"]
        assert (view["mode"], view["written"], view["lag_seconds"]) == (mode, written, 86_400)
    assert Home(tmp_path / "home").feast("tiny").is_dir()


def test_an_error_is_one_sentence(tmp_path, data, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", "")
    (data / "features/item_activity/part-0.parquet").write_bytes(b"PAR1")
    done = run(tmp_path, "--data", data)
    assert done.exit_code == 1
    assert done.stderr.startswith("esmm: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("lag", "shown"), [(5, "5 seconds"), (90, "1.5 minutes"), (7_200, "2.0 hours"), (86_400 * 3, "3.0 days")]
)
def test_the_lag_is_in_the_unit_that_fits(lag, shown):
    view = ViewReport(rows=1, written=1, removed=0, mode="full", lag_seconds=lag, newest_event="x", seconds=0.1)
    assert f"{shown} before" in materialize.text(Report(as_of="y", views={"v": view}))


def test_a_view_without_rows_has_no_lag():
    view = ViewReport(rows=0, written=0, removed=0, mode="full", lag_seconds=None, newest_event=None, seconds=0)
    assert "no rows" in materialize.text(Report(as_of="y", views={"v": view}))


def test_bars_count_where_nobody_watches_too():
    with materialize.Bars() as bars:
        for view, done in (("a", 5), ("a", 10), ("b", 3)):
            bars.show(view, done, 10)
