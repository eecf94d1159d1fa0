"""Which impressions are compared, and at which states of the store they may be read."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
from features.made import START, at
from features.parity_made import SHOWN, VIEWS, parity_spec, seen, write_dataset, write_tables
from hypothesis import given
from hypothesis import strategies as st

from components.contracts.errors import DataError, NoEvidence
from components.features.parity.sample import choose, draw, instant, microseconds, moments, within
from components.features.parity.settings import ParitySettings

TIMES = st.integers(0, 50)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parity-sample")
    features = write_tables(folder / "features")
    return features, write_dataset(folder, features)


@given(st.lists(st.tuples(TIMES, st.none() | st.integers(1, 20)), min_size=1, max_size=40))
def test_each_impression_is_read_at_a_moment_that_knows_what_it_knew(given_):
    pool = [seen(time, None if wait is None else time + wait) for time, wait in given_]
    planned = moments(pool)
    assert sorted(number for _, numbers in planned for number in numbers) == list(range(len(pool)))
    times = [microseconds(until) for until, _ in planned]
    assert times == sorted(set(times))
    for until, numbers in zip(times, (numbers for _, numbers in planned), strict=True):
        for number in numbers:
            assert pool[number].at <= until
            assert pool[number].follows is None or until < pool[number].follows


def test_impressions_share_a_moment_while_nothing_of_theirs_changes():
    assert [len(numbers) for _, numbers in moments([seen(n, follows=100) for n in range(50)])] == [50]
    assert len(moments([seen(n, follows=n + 1) for n in range(50)])) == 50


def test_where_features_change_all_the_time_there_are_still_few_moments():
    pool = [seen(n // 4, follows=n // 4 + 1, draw=n) for n in range(4000)]
    chosen = within(pool, 200, most=10)
    assert len(moments([pool[number] for number in chosen])) <= 10
    assert len(set(chosen)) == len(chosen) == 40  # four at each of the ten
    assert within(pool[:8], 200, most=10) == choose(pool[:8], 200)


def test_a_quarter_has_few_rows_and_a_quarter_late_ones():
    pool = [
        seen(n, rows=(1, 2) if n in (900, 901) else (1, 9), late=n % 100 == 50, draw=n * 7919 % 1009)
        for n in range(1000)
    ]
    chosen = choose(pool, 40)
    assert len(set(chosen)) == len(chosen) == 40
    assert {900, 901} <= set(chosen)
    assert sum(pool[number].late for number in chosen) >= 10
    rest = sorted(pool[number].at for number in chosen)
    assert rest[0] < 100
    assert rest[-1] > 900


def test_a_small_pool_is_taken_whole():
    assert sorted(choose([seen(n) for n in range(7)], 200)) == list(range(7))
    assert choose([], 5) == []


def test_the_sample_and_its_tables(world, tmp_path):
    features, dataset = world
    sample = draw(dataset, features, parity_spec(), ParitySettings(sample=60), tmp_path / "cut")
    times = sample.rows["event_timestamp"].to_pylist()
    assert len(sample.rows) == len(sample.seen) == 60
    assert times == sorted(times)
    assert [instant(each.at) for each in sample.seen] == times
    assert {"u9", "u10", "u11"} & set(sample.rows["user_id"].to_pylist())  # no row
    assert any(each.late for each in sample.seen)
    for view in VIEWS:
        (name,) = (each.entity for each in parity_spec().views if each.name == view)
        kept = set(pq.read_table(tmp_path / "cut" / view)[name].to_pylist())
        assert kept <= set(sample.rows[name].to_pylist())
        assert kept


def test_what_the_tables_say_of_an_impression(world, tmp_path):
    features, dataset = world
    sample = draw(dataset, features, parity_spec(), ParitySettings(sample=SHOWN), tmp_path / "cut")
    by_id = dict(zip(sample.rows["impression_id"].to_pylist(), sample.seen, strict=True))
    one = by_id["t0000"]  # day 9, user u0, item i0, group g0
    assert one.newest == {
        "user_profile": microseconds(START),
        "item_activity": microseconds(at(8)),
        "ali_ccp_user": microseconds(at(1)),
    }
    assert one.late  # i0's row of day 9 is written two hours later
    assert one.follows == microseconds(at(9 + 2 / 24))
    assert one.rows == (1, 1, 9)
    assert "user_profile" not in by_id["t0009"].newest  # u9


def test_the_draw_depends_on_the_seed_alone(world, tmp_path):
    features, dataset = world

    def ids(seed, folder):
        sample = draw(dataset, features, parity_spec(), ParitySettings(sample=30, seed=seed), tmp_path / folder)
        return sample.rows["impression_id"].to_pylist()

    assert ids(1, "a") == ids(1, "b") != ids(2, "c")


def test_no_impressions_are_no_evidence_and_a_table_that_is_gone_is_an_error(world, tmp_path):
    features, dataset = world
    (tmp_path / "empty" / "test").mkdir(parents=True)
    first = next((dataset / "test").glob("*.parquet"))
    pq.write_table(pq.read_table(first).slice(0, 0), tmp_path / "empty" / "test" / "part-0.parquet")
    with pytest.raises(NoEvidence):
        draw(tmp_path / "empty", features, parity_spec(), ParitySettings(), tmp_path / "cut")
    (tmp_path / "none").mkdir()
    with pytest.raises(DataError, match="no table for view"):
        draw(dataset, tmp_path / "none", parity_spec(), ParitySettings(), tmp_path / "cut2")
