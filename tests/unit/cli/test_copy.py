"""`copy` and `move`: what is asked of the server."""

from __future__ import annotations

import pytest
from recorder import Operation

from atoll.cli.errors import CommandError, UsageError

INSTANCE = {
    "name": "c1", "type": "container", "architecture": "x86_64", "ephemeral": True, "stateful": False, "description": "d",
    "profiles": ["default"], "status": "Stopped", "devices": {"eth0": {"type": "none"}},
    "config": {"user.a": "1", "volatile.base_image": "f0", "volatile.uuid": "u"},
    "expanded_devices": {"root": {"type": "disk", "path": "/", "pool": "fast"}, "eth0": {"type": "none"}},
}  # fmt: skip
ANSWERS = {"GET /1.0/instances/c1": INSTANCE, "POST /1.0/instances": Operation(), "POST /1.0/instances/c1": Operation()}


def copied(command, words: str, answers=ANSWERS) -> dict:
    [(_, body)] = command(words, dict(answers)).sent("POST /1.0/instances")
    return body


def test_a_copy_takes_all_but_what_is_volatile_and_whether_it_is_ephemeral(command):
    body = copied(command, "copy c1 c2")
    assert body["config"] == {"user.a": "1", "volatile.base_image": "f0"}
    assert (body["name"], body["ephemeral"], body["profiles"], body["description"]) == ("c2", False, ["default"], "d")
    assert body["source"] == {
        "type": "copy", "source": "c1", "base-image": "f0", "refresh": False, "instance_only": False,
        "container_only": False, "allow_inconsistent": False,
    }  # fmt: skip


def test_overrides(command):
    body = copied(command, "copy c1 c2 -c user.a=2 -c user.b=3 -d root,size=1GB -d eth0,name=x -p web -e --instance-only")
    assert body["config"]["user.a"] == "2"
    assert body["config"]["user.b"] == "3"
    assert body["devices"] == {
        "eth0": {"type": "none", "name": "x"}, "root": {"type": "disk", "path": "/", "pool": "fast", "size": "1GB"},
    }  # fmt: skip
    assert (body["profiles"], body["ephemeral"], body["source"]["instance_only"]) == (["web"], True, True)


def test_another_pool_changes_the_root_disk_alone(command):
    assert copied(command, "copy c1 c2 --storage slow")["devices"] == {
        "eth0": {"type": "none"}, "root": {"type": "disk", "path": "/", "pool": "slow"},
    }  # fmt: skip
    own = {**INSTANCE, "devices": {"disk0": {"type": "disk", "path": "/", "size": "5GB", "pool": "fast"}}}
    body = copied(command, "copy c1 c2 -s slow", {**ANSWERS, "GET /1.0/instances/c1": own})
    assert body["devices"] == {"disk0": {"type": "disk", "path": "/", "size": "5GB", "pool": "slow"}}


def test_no_profiles(command):
    assert copied(command, "copy c1 c2 --no-profiles")["profiles"] == []


def test_a_snapshot_becomes_an_instance(command):
    answers = {"GET /1.0/instances/c1/snapshots/s0": INSTANCE, "POST /1.0/instances": Operation()}
    body = copied(command, "copy c1/s0 c2", answers)
    assert (body["source"]["source"], body["name"]) == ("c1/s0", "c2")
    assert copied(command, "copy c1/s0", answers)["name"] == "c1"


def test_a_target_project_is_where_the_request_goes(command):
    server = command("copy c1 --target-project web", {**ANSWERS, "POST /1.0/instances?project=web": Operation()}, project="own")
    [(_, body)] = server.sent("POST")
    assert (body["name"], body["source"]["project"]) == ("c1", "own")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("copy c1 c2 -c a", "Bad key=value pair: a"),
        ("copy c1 c2 -d root,a", "Bad device override syntax, expecting <device>,<key>=<value>: root,a"),
        ("copy c1 c2 --mode fast", "Invalid transfer mode: fast"),
        ("copy local: c2", "You must specify a source instance name"),
        ("copy c1 c2 --refresh", 'The target server is missing the required "container_incremental_copy" API extension'),
        ("move c1 c2 -c a=b", "Can't override configuration or profiles in local rename"),
        ("move c1 c2/s0", 'The character "/" is reserved for snapshots'),
        ("move c1/s0 c2/s0", "Invalid new snapshot name, parent must be the same as source"),
    ],
)
def test_refusals(command, words: str, message: str):
    with pytest.raises(CommandError) as caught:
        command(words, {**ANSWERS, "GET /1.0": {"api_extensions": []}})
    assert str(caught.value) == message


def test_refresh_where_the_server_can(command):
    answers = {**ANSWERS, "GET /1.0": {"api_extensions": ["container_incremental_copy"]}}
    assert copied(command, "copy c1 c2 --refresh", answers)["source"]["refresh"] is True


def test_move_within_a_server_is_a_rename(command):
    assert command("move c1 c2", ANSWERS).requests == [("POST /1.0/instances/c1", {"name": "c2", "migration": False})]


def test_move_elsewhere_is_left_to_the_server(command):
    [(_, body)] = command("mv c1 -s slow", ANSWERS).requests
    assert (body["name"], body["migration"], body["pool"], body["project"]) == ("c1", True, "slow", "")


def test_a_member_is_named_to_the_server(command):
    answers = {**ANSWERS, "POST /1.0/instances/c1?target=two": Operation()}
    [(_, body)] = command("mv c1 -s slow --target two", answers).sent("POST")
    assert body["pool"] == "slow"


def test_a_move_with_other_settings_is_a_copy_of_all_and_a_deletion(command):
    source = {**ANSWERS["GET /1.0/instances/c1"], "ephemeral": True, "status_code": 102}
    source["config"] = {**source["config"], "volatile.eth0.hwaddr": "00:16:3e:00:00:01"}
    answers = {**ANSWERS, "GET /1.0/instances/c1": source, "DELETE /1.0/instances/c1": Operation()}
    server = command("mv c1 c2 -s slow -c user.a=2 -p web", answers)
    [(place, body)] = server.sent("POST")
    assert (place, body["name"], body["ephemeral"], body["profiles"]) == ("POST /1.0/instances", "c2", True, ["web"])
    assert body["config"] == {**source["config"], "user.a": "2"}
    assert [call for call, _ in server.requests][-1] == "DELETE /1.0/instances/c1"
    with pytest.raises(CommandError, match="must be stopped"):
        command("mv c1 -s slow -c user.a=2", {**ANSWERS, "GET /1.0/instances/c1": {**source, "status_code": 103}})


def test_move_needs_somewhere_to_go(command):
    with pytest.raises(UsageError):
        command("move c1", ANSWERS)
