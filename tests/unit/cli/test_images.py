"""New instances and images: `init`, `publish`, `image import` of a folder."""

from __future__ import annotations

import io
import os
import tarfile

import pytest
from recorder import NOT_FOUND, Operation

from atoll.cli.errors import CommandError
from atoll.client.errors import OperationFailed, ServerError

NEW = {"POST /1.0/instances": Operation(), "GET /1.0/instances/c1": {"expanded_devices": {"eth0": {"type": "nic"}}}}


def test_an_alias_is_left_to_the_server(command):
    server = command("init tiny c1", NEW)
    assert server.requests[0][1]["source"] == {"type": "image", "alias": "tiny"}
    assert [line for line, _ in server.requests] == ["POST /1.0/instances", "GET /1.0/instances/c1"]


def test_a_fingerprint_where_no_alias_is_found(command):
    answers = NEW | {"GET /1.0/images/f00": {"fingerprint": "f00d"}, "POST /1.0/instances": [NOT_FOUND, Operation()]}
    server = command("init f00 c1", answers)
    assert server.sent("POST")[1][1]["source"] == {"type": "image", "fingerprint": "f00d"}


STREAM = {
    "type": "image", "mode": "pull", "server": "https://images.linuxcontainers.org", "protocol": "simplestreams",
    "alias": "debian/12",
}  # fmt: skip


def test_an_image_server_is_asked_by_the_server(command):
    server = command("init images:debian/12 c1", NEW | {"POST /1.0/instances": [NOT_FOUND, Operation()]})
    assert server.sent("POST /1.0/instances")[1][1]["source"] == STREAM


def test_what_no_image_server_gives_is_built_when_its_name_says_how(command, capsys):
    answers = NEW | {
        "POST /1.0/instances": [NOT_FOUND, Operation(status_code=400, err="away"), Operation()],
        "POST /1.0/images": Operation(metadata={"fingerprint": "f00d"}),
    }
    server = command("init images:debian/12 c1", answers)
    assert [body["source"] for _, body in server.sent("POST /1.0/instances")][1] == STREAM
    [(_, built)] = server.sent("POST /1.0/images")
    assert built["source"] == {"type": "build", "distribution": "debian", "release": "12", "packages": []}
    assert built["aliases"] == [{"name": "debian/12"}]
    assert server.sent("POST /1.0/instances")[2][1]["source"] == {"type": "image", "fingerprint": "f00d"}
    assert "building it here" in capsys.readouterr().err


def test_no_image(command):
    with pytest.raises(CommandError, match="Image not found"):
        command("init nosuch c1", {})


def test_what_no_image_server_has_and_nobody_builds(command):
    answers = NEW | {"POST /1.0/instances": [NOT_FOUND, Operation(status_code=404, err="has no image 'x'")]}
    with pytest.raises(OperationFailed, match="has no image"):
        command("init images:x c1", answers)


def test_an_error_that_is_not_about_the_image_is_told(command):
    answers = {"POST /1.0/instances": ServerError("Already there", status=409), "GET /1.0/images/aliases/tiny": {"target": "f"}}
    with pytest.raises(ServerError, match="Already there"):
        command("init tiny c1", answers)


STOPPED = {
    "GET /1.0/instances/c1": {"status": "Stopped", "ephemeral": False},
    "POST /1.0/images": Operation(metadata={"fingerprint": "new"}),
}
RUNNING = STOPPED | {
    "GET /1.0/instances/c1": {"status": "Running", "ephemeral": True},
    "PATCH /1.0/instances/c1": None,
    "PUT /1.0/instances/c1/state": Operation(),
}


def test_publish(command, capsys):
    answers = STOPPED | {"POST /1.0/images/aliases": None}
    server = command("publish c1 local: os=x --alias a --public --compression zstd --expire 2030-01-01T00:00:00Z", answers)
    [(_, body), (_, alias)] = server.sent("POST")
    assert body == {
        "source": {"type": "instance", "name": "c1"}, "properties": {"os": "x"}, "public": True,
        "expires_at": "2030-01-01T00:00:00Z", "compression_algorithm": "zstd",
    }  # fmt: skip
    assert alias == {"name": "a", "target": "new", "description": ""}
    assert capsys.readouterr().out == "Instance published with fingerprint: new\n"


def test_publish_moves_an_alias_and_with_reuse_deletes_what_has_none_left(command):
    answers = STOPPED | {
        "GET /1.0/images/aliases/a": {"target": "old"}, "GET /1.0/images/aliases/b": {"target": "kept"},
        "PATCH /1.0/images/aliases/a": None, "PATCH /1.0/images/aliases/b": None,
        "GET /1.0/images/old": {"aliases": []}, "GET /1.0/images/kept": {"aliases": [{"name": "c"}]},
        "DELETE /1.0/images/old": Operation(),
    }  # fmt: skip
    server = command("publish c1 --alias a --alias b --reuse", answers)
    assert server.sent("PATCH")[0] == ("PATCH /1.0/images/aliases/a", {"target": "new"})
    assert server.sent("DELETE") == [("DELETE /1.0/images/old", None)]
    assert command("publish c1 --alias a", answers).sent("DELETE") == []


def test_publish_of_a_snapshot_asks_nothing_of_the_instance(command):
    server = command("publish c1/s0", STOPPED)
    assert server.requests[0][1]["source"] == {"type": "snapshot", "name": "c1/s0"}


def test_publish_of_what_runs(command):
    with pytest.raises(CommandError, match="The instance is currently running"):
        command("publish c1", RUNNING)
    done = [(line.split(" ")[0], (body or {}).get("action")) for line, body in command("publish c1 --force", RUNNING).requests]
    assert done == [("GET", None), ("PATCH", None), ("PUT", "stop"), ("POST", None), ("PUT", "start"), ("PATCH", None)]


def test_what_was_stopped_is_started_again_when_publishing_fails(command):
    states = [Operation(), Operation()]
    answers = RUNNING | {"POST /1.0/images": ServerError("No space", status=500), "PUT /1.0/instances/c1/state": states}
    with pytest.raises(ServerError, match="No space"):
        command("publish c1 -f", answers)
    assert states == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("publish c1 --expire soon", "Invalid expiration date: soon"),
        ("publish c1 other:", "Instances cannot be published to other servers yet"),
        ("publish c1 x", "Bad key=value pair: x"),
    ],
)
def test_publish_refusals(command, words: str, message: str):
    with pytest.raises(CommandError) as caught:
        command(words, STOPPED)
    assert str(caught.value) == message


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tiny/rootfs/etc").mkdir(parents=True)
    (tmp_path / "tiny/metadata.yaml").write_text("architecture: x86_64\n")
    (tmp_path / "tiny/unrelated").write_text("")
    return tmp_path / "tiny"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_folder_is_packed_and_sent(command, folder, capsys):
    server = command("image import tiny x=y --public", {"POST /1.0/images": Operation(metadata={"fingerprint": "f00d"})})
    [(_, (headers, sent))] = server.requests
    assert (headers["X-LXD-filename"], headers["X-LXD-properties"], headers["X-LXD-public"]) == ("tiny.tar.gz", "x=y", "true")
    with tarfile.open(fileobj=io.BytesIO(sent), mode="r:gz") as tar:
        assert tar.getnames() == ["metadata.yaml", "rootfs", "rootfs/etc"]
    assert capsys.readouterr().out == "Image imported with fingerprint: f00d\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_a_folder_that_is_no_image(command, folder):
    (folder / "metadata.yaml").unlink()
    with pytest.raises(CommandError, match="Not an image directory: tiny"):
        command("image import tiny", {})


def test_a_folder_needs_root(command, folder, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(CommandError, match="Must run as root to import from directory"):
        command("image import tiny", {})
