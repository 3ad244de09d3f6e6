"""Downloads end with the right bytes or a typed error, whatever the server does."""

from __future__ import annotations

import random

import pytest

from edgeinfer.errors import CheckFailedError, EdgeInferError, NotFoundError
from edgeinfer.store import http

BODY = random.Random(0).randbytes(500_000)


@pytest.fixture
def fetch(server, tmp_path):
    """Downloads BODY into a part that may hold something already."""
    server.files["/body"] = BODY
    part = tmp_path / "body.part"

    def run(before: bytes | None = None, size: int | None = len(BODY), path: str = "/body"):
        if before is not None:
            part.write_bytes(before)
        seen = []
        with http.open_client() as client:
            http.download(
                client,
                server.url + path,
                part,
                size=size,
                progress=lambda done, total: seen.append((done, total)),
            )
        return part.read_bytes(), seen

    return run


def test_a_whole_file(server, fetch):
    content, seen = fetch()

    assert content == BODY
    assert seen[-1] == (len(BODY), len(BODY))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert server.gets("/body") == [None]


def test_the_size_comes_from_the_server_if_nobody_else_knows_it(fetch):
    content, seen = fetch(size=None)

    assert content == BODY
    assert seen[-1] == (len(BODY), len(BODY))


def test_it_goes_on_where_a_part_ends(server, fetch):
    content, seen = fetch(before=BODY[:300_000])

    assert content == BODY
    assert server.gets("/body") == ["bytes=300000-"]
    assert seen[0][0] > 300_000


def test_a_complete_part_asks_for_nothing(server, fetch):
    assert fetch(before=BODY)[0] == BODY
    assert server.requests == []


def test_a_server_without_ranges_sends_it_all_again(server, fetch):
    server.ranges = False

    assert fetch(before=b"old" * 1000)[0] == BODY


def test_a_broken_connection_is_resumed(server, fetch):
    server.cuts = [200_000, 100_000]

    assert fetch()[0] == BODY
    asked = server.gets("/body")
    assert asked[0] is None
    assert asked[1:] == ["bytes=200000-", "bytes=300000-"]


def test_a_broken_connection_without_ranges_starts_again(server, fetch):
    server.ranges, server.cuts = False, [200_000]

    assert fetch()[0] == BODY


def test_a_busy_server_is_asked_again(server, fetch):
    server.statuses = [503, 429]

    assert fetch()[0] == BODY


def test_a_server_that_stays_away_is_told_and_the_part_is_kept(server, fetch, tmp_path):
    server.statuses = [503] * 20

    with pytest.raises(NotFoundError, match="503") as caught:
        fetch(before=BODY[:1000])

    assert "goes on where it stopped" in str(caught.value.hint)
    assert (tmp_path / "body.part").read_bytes() == BODY[:1000]
    assert 3 <= len(server.requests) < 10


def test_a_missing_file_is_not_asked_for_twice(server, fetch):
    with pytest.raises(NotFoundError, match="404"):
        fetch(path="/nothing")

    assert len(server.requests) == 1


def test_nobody_listening(tmp_path):
    with http.open_client() as client, pytest.raises(NotFoundError, match="cannot fetch"):
        http.download(client, "http://127.0.0.1:9/x", tmp_path / "p", size=None, progress=None)


def test_more_than_was_promised_is_refused(fetch):
    with pytest.raises(CheckFailedError, match="more than"):
        fetch(size=1000)


def test_a_part_longer_than_the_file_starts_again(fetch):
    assert fetch(before=BODY + b"more")[0] == BODY


def test_credentials_do_not_follow_a_redirect_to_another_host(server, tmp_path):
    # localhost and 127.0.0.1 are different hosts to a client.
    other = server.url.replace("127.0.0.1", "localhost")
    server.files |= {"/here": b"", "/there": BODY}
    server.headers["/here"] = {"Location": f"{other}/there"}
    server.statuses = [302]
    with_password = server.url.replace("http://", "http://user:secret@") + "/here"

    with http.open_client() as client:
        http.download(client, with_password, tmp_path / "p", size=len(BODY), progress=None)

    assert server.authorizations[0] is not None
    assert server.authorizations[1:] == [None]


def test_a_disk_that_is_too_small_is_told_before_anything_is_fetched(server, fetch):
    with pytest.raises(EdgeInferError, match="bytes free on the disk"):
        fetch(size=1 << 60)

    assert server.requests == []
