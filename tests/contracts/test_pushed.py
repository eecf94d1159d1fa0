"""Files of pushed rows: named by when they became known, and left out of what a run before that is made from."""

from datetime import UTC, datetime, timedelta

import pytest

from components.contracts import pushed
from components.contracts.dataset import data_fingerprint
from components.contracts.errors import DataError

AT = datetime(2026, 1, 24, 10, 15, 0, 250_001, tzinfo=UTC)


def test_the_name_says_when_the_first_row_was_created():
    name = pushed.name(AT, "1f2e")
    assert name == "push-20260124T101500250001Z-1f2e.parquet"
    assert pushed.first_created(name) == AT


@pytest.mark.parametrize("name", ["part-0.parquet", "push-1.parquet", "push-20260124T101500250001Z-xyz.parquet"])
def test_other_files_were_not_pushed(name):
    assert pushed.first_created(name) is None


def test_a_name_without_a_time_is_refused():
    with pytest.raises(DataError, match="without a time"):
        pushed.first_created("push-20269924T101500250001Z-1f.parquet")


def test_rows_that_are_pushed_while_a_run_goes_on_do_not_change_its_data(tmp_path):
    table = tmp_path / "features" / "item_activity"
    table.mkdir(parents=True)
    (table / "part-0.parquet").write_text("a")
    before, all_before = data_fingerprint(tmp_path, AT), data_fingerprint(tmp_path)
    (table / pushed.name(AT, "aa")).write_text("b")
    assert data_fingerprint(tmp_path, AT) == before
    assert data_fingerprint(tmp_path) != all_before
    assert data_fingerprint(tmp_path, AT + timedelta(microseconds=1)) != before
    (table / pushed.name(AT - timedelta(microseconds=1), "bb")).write_text("c")
    assert data_fingerprint(tmp_path, AT) != before
