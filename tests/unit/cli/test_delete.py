"""`delete`: what stands before it."""

from __future__ import annotations

import pytest
from recorder import Operation

from atoll.cli.errors import CommandError
from atoll.client.errors import OperationFailed

ONE, STATE = "GET /1.0/instances/c1", "PUT /1.0/instances/c1/state"
RUNNING, STOPPED = {"status": "Running"}, {"status": "Stopped"}
REFUSED = Operation(status_code=400, err="The instance is already stopped")


def methods(server) -> list[str]:
    return [line.split(" ")[0] for line, _ in server.requests]


def test_a_running_one_needs_force(command):
    with pytest.raises(CommandError, match="stop it first"):
        command("delete c1", {ONE: RUNNING})


def test_force_stops_it_first(command):
    answers = {ONE: RUNNING, STATE: Operation(), "DELETE /1.0/instances/c1": Operation()}
    assert methods(command("delete --force c1", answers)) == ["GET", "PUT", "DELETE"]


def test_a_protected_one_is_not_even_stopped(command):
    found = RUNNING | {"expanded_config": {"security.protection.delete": "true"}}
    with pytest.raises(CommandError, match=r"protected \(unset security.protection.delete"):
        command("delete --force c1", {ONE: found})


def test_one_that_ends_meanwhile_is_deleted_all_the_same(command):
    answers = {ONE: [RUNNING, STOPPED], STATE: REFUSED, "DELETE /1.0/instances/c1": Operation()}
    assert methods(command("delete --force c1", answers)) == ["GET", "PUT", "GET", "DELETE"]


def test_one_that_cannot_be_stopped_stays(command):
    with pytest.raises(OperationFailed, match="busy"):
        command("delete --force c1", {ONE: [RUNNING, RUNNING], STATE: Operation(status_code=400, err="busy")})


def test_an_ephemeral_one_is_gone_once_it_is_stopped(command):
    assert methods(command("delete --force c1", {ONE: RUNNING | {"ephemeral": True}, STATE: Operation()})) == ["GET", "PUT"]
