"""What `esmm bench materialize` compares is the same work: the same bytes in Redis afterwards."""

import pytest

from benchmarks import materialize
from benchmarks.redis_server import redis_server

KEYS = 40


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By contender what it left in Redis, and then the same after one value was changed."""
    folder = tmp_path_factory.mktemp("benchmark")
    materialize.write(folder / "tables", KEYS)
    sums = {}
    with redis_server() as (address, client):
        for name in ("ours", "feast"):
            client.flushall()
            run = materialize._in_a_process(name, folder, address)
            assert run["seconds"] > 0
            assert run["peak_mb"] > 50
            sums[name] = materialize.stored(client)
        key = next(key for key in client.scan_iter() if not key.startswith(b"esmm:"))
        field = next(field for field in client.hgetall(key) if not field.startswith(b"_ts:"))
        client.hset(key, field, b"")
        sums["changed"] = materialize.stored(client)
    return sums


def test_both_leave_the_same_bytes(found):
    assert found["ours"] == found["feast"]
    assert found["ours"][0] == KEYS


def test_one_changed_value_is_noticed(found):
    assert found["changed"] != found["feast"]
