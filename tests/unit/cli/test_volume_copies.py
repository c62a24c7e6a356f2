"""`storage volume copy`, `move`, `export` and `import`."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorder import Operation

from atoll.cli.errors import CommandError

FAST, SLOW = "/1.0/storage-pools/fast/volumes/custom", "/1.0/storage-pools/slow/volumes/custom"
BACKUPS = f"{FAST}/v1/backups"
VOLUME = {"name": "v1", "config": {"size": "1GiB"}, "description": "d", "content_type": "filesystem", "used_by": ["/1.0/x"]}
ANSWERS = {f"GET {FAST}/v1": VOLUME, f"POST {SLOW}": Operation()}


def copied(command, words: str, answers=ANSWERS, place: str = SLOW, **options):
    [(path, body)] = command(words, answers, **options).sent("POST")
    assert path == f"POST {place}"
    return body


def test_a_copy_takes_what_the_volume_has(command, capsys):
    assert copied(command, "storage volume copy fast/v1 slow/v2") == {
        "name": "v2",
        "type": "custom",
        "config": {"size": "1GiB"},
        "description": "d",
        "content_type": "filesystem",
        "source": {"type": "copy", "pool": "fast", "name": "v1", "volume_only": False, "refresh": False},
    }
    assert capsys.readouterr().out == "Storage volume copied successfully!\n"


def test_flags(command):
    place = f"{SLOW}?project=web"
    answers = {**ANSWERS, f"POST {place}": Operation()}
    words = "storage volume cp fast/v1 slow/v2 --volume-only --refresh --target-project web"
    source = copied(command, words, answers, place, project="own")["source"]
    assert (source["volume_only"], source["refresh"], source["project"]) == (True, True, "own")


def test_a_snapshot_becomes_a_volume(command):
    answers = {**ANSWERS, f"GET {FAST}/v1/snapshots/s0": {**VOLUME, "config": {"size": "2GiB"}}}
    body = copied(command, "storage volume copy fast/v1/s0 slow/v2", answers)
    assert (body["source"]["name"], body["config"]) == ("v1/s0", {"size": "2GiB"})


def test_a_move(command):
    server = command("storage volume move fast/v1 slow/v2 --target-project web", {f"POST {FAST}/v1": Operation()})
    assert server.sent("POST") == [(f"POST {FAST}/v1", {"name": "v2", "pool": "slow", "project": "web"})]


def test_a_copy_to_another_server_offers_the_volume_and_lets_the_target_fetch_it(command):
    secrets = {"control": "c", "fs": "f"}
    answers = {
        **ANSWERS,
        f"GET {FAST}/v1/snapshots/s0": VOLUME,
        "GET /1.0": {"environment": {"addresses": ["192.0.2.1:8443"], "certificate": "PEM"}},
        f"POST {FAST}/v1": {"id": "op", "metadata": secrets},
        f"POST {FAST}/v1/snapshots/s0": {"id": "op", "metadata": secrets},
        f"DELETE {FAST}/v1": {},
    }
    for words, place in (("copy fast/v1", "v1"), ("copy fast/v1/s0", "v1/snapshots/s0"), ("move fast/v1", "v1")):
        server = command(f"storage volume {words} other:slow/v2", answers)
        [(asked, offer), (made, body)] = server.sent("POST")
        assert (asked, made) == (f"POST {FAST}/{place}", f"POST {SLOW}")
        assert offer == {"migration": True, "name": "v2", "pool": "fast", "volume_only": False}
        source = body["source"]
        assert (source["type"], source["mode"], source["secrets"], source["certificate"]) == ("migration", "pull", secrets, "PEM")
        assert source["operation"] == "https://192.0.2.1:8443/1.0/operations/op"
        assert len(server.sent("DELETE")) == (words.startswith("move"))


def test_export(command):
    answers = {
        f"POST {BACKUPS}": Operation(resources={"backups": ["/1.0/backups/backup0"]}),
        f"GET {BACKUPS}/backup0/export": b"\x1f\x8bdata",
        f"DELETE {BACKUPS}/backup0": Operation(),
    }
    server = command("storage volume export fast v1 mine --volume-only --compression zstd", answers)
    assert Path("mine").read_bytes() == b"\x1f\x8bdata"
    body = server.requests[0][1]
    assert (body["volume_only"], body["optimized_storage"], body["compression_algorithm"]) == (True, False, "zstd")
    command("storage volume export fast v1", answers)
    assert Path("backup.tar.gz").exists()


def test_import(command):
    Path("b.tar").write_bytes(b"data")
    server = command("storage volume import fast b.tar v9", {f"POST {FAST}": Operation()})
    [(_, (headers, sent))] = server.requests
    assert (sent, headers["X-LXD-name"]) == (b"data", "v9")


@pytest.mark.parametrize(("words", "kind"), [("x.iso cd", "iso"), ("x.iso v --type=backup", ""), ("f v --type=tar", "tar")])
def test_import_of_other_files(command, words: str, kind: str):
    Path(words.split()[0]).write_bytes(b"data")
    extensions = {"api_extensions": ["custom_volume_iso", "import_custom_volume_tar"]}
    server = command(f"storage volume import fast {words}", {"GET /1.0": extensions, f"POST {FAST}": Operation()})
    assert server.requests[-1][1][0].get("X-LXD-type", "") == kind
    if kind:
        with pytest.raises(CommandError, match="missing the required"):
            command(f"storage volume import fast {words}", {"GET /1.0": {"api_extensions": []}})


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("import fast x.iso", "Importing a file of this type requires a volume name"),
        ("import fast x v --type=qcow2", "Invalid type of file: qcow2"),
        ("copy v1 slow/v2", "No storage pool for source volume specified"),
        ("copy fast/v1 v2", "No storage pool for target volume specified"),
        ("copy fast/v1 slow/v2/s0", "Cannot copy or move a volume to a snapshot"),
        ("copy fast/v1 slow/v2 --mode fast", "Invalid transfer mode: fast"),
        ("move fast/v1/s0 slow/v2", "Only volumes can be moved, not snapshots"),
        ("export fast container/c1", 'Only "custom" volumes can be exported'),
        ("export fast v1/s0", "Only volumes can be exported, not snapshots"),
    ],
)
def test_refusals(command, words: str, message: str):
    with pytest.raises(CommandError) as caught:
        command(f"storage volume {words}", ANSWERS)
    assert str(caught.value) == message
