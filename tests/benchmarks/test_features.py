"""What `esmm bench features` compares is the same work: each contender finds the same values."""

import duckdb
import pytest

from benchmarks import features

SMALL = features.Size(rows=2_000, users=50, items=20, versions=10)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("benchmark")
    features.write(made, SMALL)
    return made


@pytest.fixture(scope="module")
def found(folder):
    sums = {}
    for name in ("offline", "handwritten", "feast_duckdb"):
        assert features.CONTENDERS[name](folder)() == SMALL.rows
        sums[name] = features._sums(folder / features.RESULT)
    return sums


@pytest.mark.parametrize("name", ["handwritten", "feast_duckdb"])
def test_contenders_find_the_same_values(found, name):
    assert found[name] == found["offline"]


def test_most_but_not_all_values_are_known(found):
    rows, known = found["offline"][0], found["offline"][1::2]
    assert rows == SMALL.rows
    assert all(rows / 2 < count < rows for count in known)


def test_one_changed_value_is_noticed(folder, found):
    features.CONTENDERS["handwritten"](folder)()
    with duckdb.connect() as db:
        result = folder / features.RESULT
        db.execute(
            f"CREATE TABLE r AS SELECT * REPLACE (CASE WHEN impression_id = 'm7' THEN coalesce(user_activity_0, 0) + 1 "
            f"ELSE user_activity_0 END AS user_activity_0) FROM '{result}'; COPY r TO '{result}' (FORMAT parquet)"
        )
    assert features._sums(folder / features.RESULT) != found["handwritten"]
