"""ETags."""

from __future__ import annotations

import pytest
from aiohttp.test_utils import make_mocked_request

from atoll.api.request import Request, etag
from atoll.domain.caller import DAEMON
from atoll.domain.errors import PreconditionFailed

SUBJECT = {"b": 1, "a": {"y": "2", "x": "1"}}


def request(header: str | None) -> Request:
    return Request(make_mocked_request("PUT", "/", headers={} if header is None else {"If-Match": header}), DAEMON)


def test_a_tag_depends_on_the_content_alone() -> None:
    assert etag(SUBJECT) == etag({"a": {"x": "1", "y": "2"}, "b": 1})
    assert etag(SUBJECT) != etag({**SUBJECT, "b": 2})


@pytest.mark.parametrize("header", [None, "", "*", etag(SUBJECT), f'"{etag(SUBJECT)}"'])
def test_what_matches(header: str | None) -> None:
    request(header).check_etag(SUBJECT)


@pytest.mark.parametrize("header", ["x", '"x"', etag({}), etag(SUBJECT)[:-1], f"W/{etag(SUBJECT)}"])
def test_what_does_not(header: str) -> None:
    with pytest.raises(PreconditionFailed, match="ETag doesn't match"):
        request(header).check_etag(SUBJECT)
