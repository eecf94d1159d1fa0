"""Against a bare ASGI app, with messages as a server would send them."""

import asyncio
import json

import pytest

from serving.middleware import BodyGuard
from serving.schemas import RankRequest

JSON = [(b"content-type", b"application/json; charset=utf-8")]
GOOD = b'{"user_id": "u", "item_ids": ["a"]}'


def call(chunks, headers=JSON, method="POST", path="/rank", max_bytes=100):
    """(status, body, what the app got, chunks read) of one request whose body comes in chunks."""
    got, sent, read = [], [], 0

    async def app(scope, receive, send):
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        got.append((scope["method"], body))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"{}"})

    async def receive():
        nonlocal read
        if read >= len(chunks):
            return {"type": "http.disconnect"}
        read += 1
        return {"type": "http.request", "body": chunks[read - 1], "more_body": read < len(chunks)}

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    asyncio.run(BodyGuard(app, max_bytes, {"/rank": RankRequest})(scope, receive, send))
    status = sent[0]["status"] if sent else None
    return status, b"".join(m.get("body", b"") for m in sent), got, read


def test_json_is_handed_on_whole():
    status, _, got, _ = call([GOOD[:10], GOOD[10:]])
    assert status == 200
    assert got == [("POST", GOOD)]


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"content-type", b"application/x-www-form-urlencoded")],
        [(b"content-type", b"multipart/form-data; boundary=x")],
        [(b"content-type", b"text/plain")],
        [(b"content-type", b"application/vnd.bentoml+pickle")],
        [(b"content-type", b"application/jsonp")],
    ],
)
def test_another_content_type(headers):
    status, body, got, _ = call([GOOD], headers)
    assert status == 415
    assert "application/json" in json.loads(body)["error"]
    assert got == []


def test_too_large_by_its_own_word_is_not_read():
    status, body, got, read = call([b"x"], [*JSON, (b"content-length", b"101")])
    assert (status, got, read) == (413, [], 0)
    assert "100 bytes" in json.loads(body)["error"]


def test_too_large_without_content_length_stops_while_reading():
    status, _, got, read = call([b"x" * 60] * 1000)
    assert (status, got, read) == (413, [], 2)


def test_a_false_content_length_does_not_help():
    assert call([b"x" * 60] * 3, [*JSON, (b"content-length", b"5")])[0] == 413


def test_a_client_that_goes_away_is_not_answered():
    assert call([])[0] is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{nonsense", "Invalid JSON"),
        (b"", "Invalid JSON"),
        (b'{"user_id": 1.5, "item_ids": ["a"]}', "user_id: an id is a non-empty string or an integer, not 1.5"),
        (b'{"user_id": "u", "item_ids": ["a", "a"]}', "item_ids: item 'a' is in item_ids twice"),
        (b'{"item_ids": ["a"]}', "user_id: Field required"),
    ],
)
def test_a_body_that_does_not_fit_gets_one_sentence(body, said):
    status, answer, got, _ = call([body])
    assert (status, got) == (400, [])
    assert said in json.loads(answer)["error"]


def test_get_info_becomes_post_and_other_gets_pass():
    assert call([b""], [], method="GET", path="/info")[2] == [("POST", b"")]
    assert call([b""], [], method="GET", path="/livez")[2] == [("GET", b"")]
    assert call([b""], [], method="POST", path="/info")[0] == 200
