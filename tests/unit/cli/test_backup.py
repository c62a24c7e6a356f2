"""`export` and `import` of instances."""

from __future__ import annotations

from pathlib import Path

import pytest
from recorder import Operation

from atoll.cli.errors import CommandError
from atoll.client.errors import ServerError

BASE = "/1.0/instances/c1/backups"
ANSWERS = {
    f"POST {BASE}": Operation(resources={"backups": ["/1.0/backups/backup0"]}),
    f"GET {BASE}/backup0/export": b"\x1f\x8bdata",
    f"DELETE {BASE}/backup0": Operation(),
}


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"\x1f\x8b", "backup.tar.gz"),
        (b"\xfd7zXZ\0", "backup.tar.xz"),
        (b"\x28\xb5\x2f\xfd", "backup.tar.zst"),
        (b"x", "backup.tar"),
    ],
)
def test_a_backup_is_named_for_what_it_is(command, start: bytes, name: str):
    command("export c1", {**ANSWERS, f"GET {BASE}/backup0/export": start})
    assert [path.name for path in Path().iterdir()] == [name]


def test_export_to_a_file(command, capsys):
    server = command("export c1 mine --instance-only --optimized-storage --compression none", ANSWERS)
    assert Path("mine").read_bytes() == b"\x1f\x8bdata"
    assert [line for line, _ in server.requests] == list(ANSWERS)
    body = server.requests[0][1]
    assert (body["instance_only"], body["optimized_storage"], body["compression_algorithm"]) == (True, True, "none")
    assert capsys.readouterr().out == "Backup exported successfully!\n"


def test_export_to_standard_output(command, capfdbinary):
    command("export c1 -", ANSWERS)
    assert capfdbinary.readouterr().out == b"\x1f\x8bdata"
    assert list(Path().iterdir()) == []


def test_export_to_a_device_writes_to_it(command):
    """It is not replaced by a file; and that the host has no space left is said as it is."""
    Path("null").symlink_to("/dev/null")
    command("export c1 null", ANSWERS)
    assert Path("null").is_char_device() and Path("null").is_symlink()
    Path("full").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        command("export c1 full", ANSWERS)
    assert sorted(path.name for path in Path().iterdir()) == ["full", "null"]


def test_a_failed_download_leaves_no_file_and_no_backup(command):
    answers = {key: value for key, value in ANSWERS.items() if not key.startswith("GET")}
    with pytest.raises(ServerError, match="Not found"):
        command("export c1", answers)
    assert list(Path().iterdir()) == []


def test_a_target_that_cannot_be_written_is_found_before_the_server_works(command):
    with pytest.raises(FileNotFoundError):
        command("export c1 nosuch/file", {})


def test_import(command):
    Path("b.tar").write_bytes(b"data")
    server = command("import b.tar c2 -s fast", {"POST /1.0/instances": Operation()})
    [(_, (headers, sent))] = server.requests
    assert sent == b"data"
    assert headers == {
        "Content-Type": "application/octet-stream", "Content-Length": "4", "X-LXD-name": "c2", "X-LXD-pool": "fast",
    }  # fmt: skip


def test_import_under_its_own_name(command, capsys):
    Path("b.tar").write_bytes(b"data")
    command("import local: b.tar", {"POST /1.0/instances": Operation(resources={"instances": ["/1.0/instances/c7?project=x"]})})
    assert capsys.readouterr().out == "Instance name is: c7\n"


def test_import_of_nothing(command):
    with pytest.raises(CommandError, match="Missing backup file"):
        command("import local:", {})


CANCELLED = {f"POST {BASE}": Operation(), "DELETE operation": None}
REFUSED = {f"POST {BASE}": Operation(), "DELETE operation": ServerError("This operation can't be cancelled", status=400)}


def test_ctrl_c_cancels(command):
    with pytest.raises(CommandError, match="Remote operation canceled by user"):
        command("export c1", CANCELLED, interrupts=1)


def test_ctrl_c_three_times_leaves_an_operation_to_itself(command, capsys):
    with pytest.raises(CommandError, match="The remote operation will keep running"):
        command("export c1", REFUSED, interrupts=3)
    assert capsys.readouterr().err == "This operation can't be cancelled (interrupt two more times to force)\n" * 2


def test_ctrl_c_twice_goes_on_waiting(command):
    server = command("export c1", {**ANSWERS, "DELETE operation": REFUSED["DELETE operation"]}, interrupts=2)
    assert server.sent(f"DELETE {BASE}")
