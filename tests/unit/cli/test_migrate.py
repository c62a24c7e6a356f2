"""Ways to another server."""

from __future__ import annotations

import pytest

from atoll.cli.commands.migrate import Transfer
from atoll.cli.errors import CommandError
from atoll.client.errors import ClientError, OperationFailed, ServerError, Unreachable

ADDRESSES = ["https://10.0.0.1:8443", "https://[fd00::1]:8443", "https://host:8443"]


def attempts(*results: ClientError | None) -> list[str]:
    """The addresses that are tried when it goes so with them."""
    tried = []

    def attempt(address: str) -> None:
        tried.append(address)
        if (result := results[len(tried) - 1]) is not None:
            raise result

    Transfer._try_each(ADDRESSES[: len(results)], attempt)
    return tried


def test_the_first_that_works_is_the_last_that_is_tried():
    assert attempts(Unreachable("10.0.0.1", "no route"), None, None) == ADDRESSES[:2]


def test_the_reason_is_told_wherever_it_was_heard():
    with pytest.raises(CommandError) as failure:
        attempts(Unreachable("10.0.0.1:8443", "no route"), ClientError("the disk is full"), ClientError("not found"))
    assert str(failure.value).splitlines()[1:] == [
        " - https://10.0.0.1:8443: Cannot connect to 10.0.0.1:8443: no route",
        " - https://[fd00::1]:8443: the disk is full",
        " - https://host:8443: not found",
    ]


def test_what_is_refused_before_anything_is_tried_is_no_matter_of_the_address():
    with pytest.raises(ServerError, match="already exists"):
        attempts(ServerError("already exists", status=409), None, None)


def test_refusals_after_a_failure_do_not_hide_it():
    with pytest.raises(CommandError, match="no route"):
        attempts(OperationFailed("no route", status=400), ServerError("not found", status=404))


def test_with_one_address_the_error_is_what_it_was():
    with pytest.raises(ClientError, match="the disk is full"):
        attempts(ClientError("the disk is full"))
