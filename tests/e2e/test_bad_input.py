"""Bad input: one clear sentence, an exit code that is not zero, nothing half-written."""

from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from e2e.command import Esmm

pytestmark = pytest.mark.e2e


@pytest.fixture
def esmm(workshop, tmp_path):
    return Esmm(tmp_path / "home", tmp_path)


def says(done, *words):
    lines = [line for line in done.stderr.splitlines() if line.startswith("esmm: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    for word in words:
        assert word in lines[0]


def test_an_unknown_recipe(esmm, shop):
    says(esmm("run", "--data", shop, "--recipe", "nightli", code=2), "nightli", "nightly")


def test_an_unknown_key(esmm, shop):
    says(esmm("run", "--data", shop, "--set", "training.sede=1", code=2), "sede")


def test_a_missing_folder(esmm, tmp_path):
    says(esmm("run", "--data", tmp_path / "nowhere", code=1), "nowhere", "esmm import")


def test_a_folder_that_is_no_dataset(esmm, tmp_path):
    (tmp_path / "empty").mkdir()
    says(esmm("run", "--data", tmp_path / "empty", code=1), "dataset.json")


@pytest.mark.parametrize(("as_of", "word"), [("1999-01-01T00:00:00Z", "first logged event"), ("soon", "ISO-8601")])
def test_as_of_before_the_data_or_no_time(esmm, shop, as_of, word):
    says(esmm("run", "--data", shop, "--as-of", as_of, code=2), as_of, word)
    assert not (esmm.home / "runs").exists()


def table(**changes):
    at = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * 2, pa.timestamp("us", tz="UTC"))
    columns = {
        "user_id": ["a", "b"],
        "item_id": ["x", "y"],
        "event_timestamp": at,
        "click": [0, 1],
        "conversion": [0, 1],
    }
    return pa.table(columns | changes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"user_id": [1.0, 2.0]}, ("user_id", "float")),
        ({"click": ["no", "yes"]}, ("click",)),
        ({"event_timestamp": ["yesterday", "today"]}, ("event_timestamp",)),
    ],
)
def test_columns_of_a_wrong_type(esmm, tmp_path, changes, words):
    pq.write_table(table(**changes), tmp_path / "log.parquet")
    done = esmm("import", "log", "--log", tmp_path / "log.parquet", "--out", tmp_path / "out", code=1)
    says(done, *words)
    assert not (tmp_path / "out").exists()


def test_a_column_that_is_not_there(esmm, tmp_path):
    pq.write_table(table(), tmp_path / "log.parquet")
    log = ("--log", tmp_path / "log.parquet", "--out", tmp_path / "out")
    done = esmm("import", "log", *log, "--map", "user_id=visitor", code=1)
    says(done, "visitor")
    assert not (tmp_path / "out").exists()


def test_a_context_column_named_like_a_label(esmm, tmp_path):
    pq.write_table(table(is_click=[0, 1]), tmp_path / "log.parquet")
    log = ("--log", tmp_path / "log.parquet", "--out", tmp_path / "out")
    says(esmm("import", "log", *log, "--context", "is_click", code=2), "is_click", "label")


def test_nothing_to_serve_yet(esmm):
    says(esmm("serve", code=1), "esmm run")


def test_nothing_to_report_yet(esmm):
    says(esmm("report", code=1), "esmm run")


def test_existing_output_is_kept(esmm, shop):
    before = (shop / "dataset.json").read_bytes()
    says(esmm("simulate", "--out", shop, "--impressions", "2000", code=1), "not empty")
    assert (shop / "dataset.json").read_bytes() == before
