"""The life of a container, by the command line alone."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from box import SECONDS, wait_until  # found through conftest's path

pytestmark = pytest.mark.system
ATOLL = [sys.executable, "-m", "atoll.cli"]
Run = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def environment(daemon, tmp_path) -> dict[str, str]:
    return dict(os.environ) | daemon.env() | {"ATOLL_CONF": str(tmp_path)}


@pytest.fixture
def run(environment) -> Run:
    """Run the client; `given` is its standard input."""

    def call(*words: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([*ATOLL, *words], env=environment, input=given, capture_output=True, timeout=SECONDS)

    return call


@pytest.fixture
def machine(run, machines) -> Iterator[str]:
    """A running container."""
    launched = run("launch", "tiny", "cli1")
    assert (launched.returncode, launched.stderr) == (0, b"")
    assert launched.stdout == b"Creating cli1\nStarting cli1\n"
    yield "cli1"


def test_exec_carries_streams_and_the_exit_status(run, machine):
    done = run("exec", machine, "--", "sh", "-c", "cat; echo problem >&2; exit 7", given=b"in\0put")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"in\0put", b"problem\n")


def test_exec_moves_bulk_data_unchanged(run, machine):
    data = os.urandom(5_000_000)
    assert run("exec", machine, "--", "cat", given=data).stdout == data


@pytest.mark.parametrize("attempt", range(10))
def test_a_command_that_ends_at_once(run, machine, attempt: int):
    done = run("exec", machine, "--", "echo", str(attempt))
    assert (done.returncode, done.stdout) == (0, f"{attempt}\n".encode())


def test_a_command_that_is_not_there(run, machine):
    done = run("exec", machine, "--", "nosuch")
    assert (done.returncode, done.stderr) == (127, b"Error: Command not found\n")


def test_exec_with_environment_user_and_folder(run, machine):
    done = run("exec", machine, "--env", "A=b c", "--user", "5", "--cwd", "/tmp", "--", "sh", "-c", "id -u; pwd; echo $A")
    assert done.stdout == b"5\n/tmp\nb c\n"


def test_a_terminal_has_our_size_and_is_put_back(environment, machine):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, b"\x11\x00\x39\x00\x00\x00\x00\x00")
    before = termios.tcgetattr(slave)
    client = subprocess.Popen([*ATOLL, "exec", machine, "--", "stty", "size"], env=environment, stdin=slave, stdout=slave)
    shown = b""
    deadline = time.monotonic() + SECONDS
    while b"\n" not in shown and time.monotonic() < deadline:
        if select.select([master], [], [], 0.1)[0]:
            shown += os.read(master, 1000)
    assert client.wait(SECONDS) == 0
    assert shown == b"17 57\r\n"
    assert termios.tcgetattr(slave) == before
    os.close(master)
    os.close(slave)


def test_a_signal_reaches_the_command(environment, machine):
    script = "trap 'exit 9' TERM; echo ready; while :; do sleep 0.1; done"
    client = subprocess.Popen([*ATOLL, "exec", machine, "-n", "--", "sh", "-c", script], env=environment, stdout=-1)
    assert client.stdout is not None
    assert client.stdout.readline() == b"ready\n"
    client.terminate()
    assert client.wait(SECONDS) == 9
    client.stdout.close()


def test_a_command_dies_with_its_client(environment, run, machine):
    client = subprocess.Popen([*ATOLL, "exec", machine, "--", "sh", "-c", "touch /up; exec sleep 4321"], env=environment)
    wait_until(lambda: run("exec", machine, "--", "ls", "/up").returncode == 0, "the command runs")
    client.kill()
    client.wait()
    gone = "! ps | grep -q '[s]leep 4321'"
    wait_until(lambda: run("exec", machine, "--", "sh", "-c", gone).returncode == 0, "the command has ended")


def test_snapshot_restore_rename_delete(run, machine):
    run("exec", machine, "--", "touch", "/root/kept")
    assert run("snapshot", machine, "one").returncode == 0
    run("exec", machine, "--", "rm", "/root/kept")
    assert run("rename", f"{machine}/one", f"{machine}/two").returncode == 0
    assert run("restore", machine, "two").returncode == 0
    assert run("exec", machine, "--", "ls", "/root/kept").stdout == b"/root/kept\n"
    assert run("delete", f"{machine}/two").returncode == 0
    assert run("delete", machine).stderr == b"Error: The instance is currently running, stop it first or pass --force\n"


def test_configuration_and_devices(run, machine):
    assert run("config", "set", machine, "user.a=1", "user.b=2").returncode == 0
    assert run("config", "get", machine, "user.a").stdout == b"1\n"
    assert run("config", "device", "add", machine, "empty", "none").stdout == b"Device empty added to cli1\n"
    assert run("config", "device", "show", machine).stdout == b"empty:\n  type: none\n"
    assert run("config", "edit", machine, given=run("config", "show", machine).stdout).returncode == 0
    assert run("config", "device", "remove", machine, "empty").returncode == 0


def test_copy_and_move(run, machine):
    assert run("copy", machine, "cli2", "-c", "user.a=1", "--instance-only").returncode == 0
    assert run("snapshot", machine, "one").returncode == 0
    assert run("copy", f"{machine}/one", "cli3", "--ephemeral").returncode == 0
    assert run("move", "cli2", "cli4").returncode == 0
    assert run("list", "-f", "csv", "-c", "nst").stdout.splitlines() == [
        b"cli1,RUNNING,CONTAINER", b"cli3,STOPPED,CONTAINER (EPHEMERAL)", b"cli4,STOPPED,CONTAINER",
    ]  # fmt: skip
    assert run("config", "get", "cli4", "user.a").stdout == b"1\n"
    assert run("start", "cli4").returncode == 0
    assert run("move", "cli4", "cli5").returncode == 1


def test_publish_and_launch_again(run, machine):
    run("exec", machine, "--", "touch", "/root/kept")
    refused = run("publish", machine)
    assert refused.stderr == b"Error: The instance is currently running. Use --force to have it stopped and restarted\n"
    published = run("publish", machine, "--force", "--alias", "mine", "os=Own")
    assert published.stdout.startswith(b"Instance published with fingerprint: ")
    assert run("launch", "mine", "cli2").returncode == 0
    assert run("exec", "cli2", "--", "ls", "/root/kept").returncode == 0
    assert run("publish", "cli2", "--force", "--alias", "mine", "--reuse").returncode == 0
    assert run("image", "list", "-f", "csv", "-c", "l").stdout.splitlines() == [b"mine", b"tiny"]
    assert run("image", "delete", "mine").returncode == 0


def test_an_exported_image_is_imported_as_a_folder(run, machine, tmp_path):
    assert run("image", "export", "tiny", str(tmp_path / "tiny")).returncode == 0
    (packed,) = tmp_path.glob("tiny.*")
    (tmp_path / "folder").mkdir()
    subprocess.run(["tar", "-C", tmp_path / "folder", "-xf", packed], check=True)
    assert run("image", "import", str(tmp_path / "folder"), "--alias", "again").returncode == 0
    assert run("launch", "again", "cli2").returncode == 0
    assert run("image", "delete", "again").returncode == 0


def test_an_instance_is_exported(run, machine, tmp_path):
    target = tmp_path / "backup.tar"
    done = run("export", machine, str(target), "--compression", "none", "--instance-only")
    assert (done.returncode, done.stdout) == (0, b"Backup exported successfully!\n")
    with tarfile.open(target) as archive:
        assert archive.getnames()[0] == "backup/index.yaml"
    assert run("query", f"/1.0/instances/{machine}/backups").stdout == b"[]\n\n"


def test_ctrl_c_cancels_what_can_be_cancelled(environment, run, machine):
    run("exec", machine, "--", "sh", "-c", "head -c 50000000 /dev/urandom > /root/much")
    words = ["publish", machine, "--force", "--compression", "xz"]
    client = subprocess.Popen(
        [*ATOLL, *words], env=environment, stdout=-1, stderr=-1, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    )
    packing = b"Downloading image,RUNNING"
    wait_until(lambda: packing in run("operation", "list", "-f", "csv").stdout, "it is being packed")
    client.send_signal(signal.SIGINT)
    _, error = client.communicate(timeout=SECONDS)
    assert (client.returncode, error) == (1, b"Error: Remote operation canceled by user\n")
    assert run("list", "-f", "csv", "-c", "s").stdout == b"RUNNING\n"
