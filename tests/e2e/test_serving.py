"""The champion, served and asked as a person would."""

import socket

import pytest
from e2e.command import serving

pytestmark = pytest.mark.e2e


def test_serve_and_rank(esmm):
    with serving(esmm) as rank:
        answer = rank("--user", "u1", "--items", "i1,i2,i3,nothing", "--context", "hour=20")
    scores = [item["pctcvr"] for item in answer["items"]]
    assert scores == sorted(scores, reverse=True)
    assert all(item["pctcvr"] == item["pctr"] * item["pcvr"] for item in answer["items"])
    assert answer["unknown_items"] == ["nothing"]


def test_a_port_in_use_is_said_and_nothing_starts(esmm):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = esmm("serve", "--port", port, code=1)
    assert f"{port}" in done.stderr
    assert "in use" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_service_is_a_sentence(esmm):
    done = esmm("rank", "--user", "u1", "--items", "i1", "--url", "http://127.0.0.1:9", code=1)
    assert "esmm serve" in done.stderr


def test_materialize_between_runs(esmm, shop):
    assert "user_activity" in esmm("materialize", "--data", shop).stdout
    older = esmm("materialize", "--data", shop, "--as-of", "2026-01-10T00:00:00Z", code=1)
    assert "older" in older.stderr
    assert "Traceback" not in older.stderr


def test_promote_and_roll_back_say_what_cannot_be(esmm):
    assert "champion already" in esmm("models", "promote", "1", code=1).stderr
    assert "no predecessor" in esmm("models", "rollback", code=1).stderr
    assert esmm("models", "promote", "7", code=1).stderr.startswith("esmm: ")
