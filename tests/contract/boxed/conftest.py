"""What the boxed cases share: a bridge, and guests: network namespaces with one end of a veth pair."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from atoll.drivers.network.bridge.driver import BridgeDriver
from atoll.drivers.network.contract import Network

NAME = "atolltest0"
MAC = "00:16:3e:11:22:33"
CONFIG = {
    "ipv4.address": "10.177.1.1/24",
    "ipv4.nat": "true",
    "ipv6.address": "fd42:177:1::1/64",
    "ipv6.nat": "true",
    "dns.domain": "test",
    "raw.dnsmasq": "no-resolv",
}


def run_shell(line: str, *, check: bool = True) -> str:
    """Run a shell line and return what it printed."""
    return subprocess.run(["sh", "-c", line], check=check, capture_output=True, text=True).stdout


@dataclass(frozen=True)
class Guest:
    """A network namespace, held by a process."""

    pid: int
    host_name: str

    def run(self, line: str, *, check: bool = True) -> str:
        """Run a shell line in it."""
        return run_shell(f"nsenter -t {self.pid} -n {line}", check=check)

    def dhcp(self, *options: str, tries: int = 30) -> str:
        """The address that a DHCP client gets; empty for none in so many tries of a second each."""
        out = self.run(f"busybox udhcpc -i eth0 -n -q -t {tries} -T 1 -s /bin/true {' '.join(options)} 2>&1", check=False)
        return next((line.split()[3] for line in out.splitlines() if "lease of" in line), "")

    def python(self, code: str) -> None:
        """Run Python code in it; its exit status has to be 0."""
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", "python3", "-c", code], check=True)

    def send(self, *frames: bytes) -> None:
        """Put raw frames on the wire."""
        code = "import socket,sys;s=socket.socket(17,3);s.bind(('eth0',0));[s.send(bytes.fromhex(l)) for l in sys.stdin]"
        lines = "\n".join(frame.hex() for frame in frames)
        argv = ["nsenter", "-t", str(self.pid), "-n", "python3", "-c", code]
        subprocess.run(argv, input=lines, text=True, check=True)


def wait_for_port(host_name: str) -> None:
    """A port forwards once the kernel's link watcher has seen its carrier."""
    deadline = time.monotonic() + 30
    while Path(f"/sys/class/net/{host_name}/brport/state").read_text().strip() != "3":
        assert time.monotonic() < deadline, "the port does not forward"
        time.sleep(0.01)


MakeGuest = Callable[..., AbstractContextManager[Guest]]


@pytest.fixture
def folder() -> Iterator[Path]:
    """Outside of pytest's own folders: dnsmasq reads it as an unprivileged user."""
    path = Path(tempfile.mkdtemp(prefix="atoll-net-"))
    path.chmod(0o711)
    yield path
    run_shell(f"rm -rf {path}")


@pytest.fixture
def sh() -> Callable[..., str]:
    return run_shell


@pytest.fixture
def make(folder: Path) -> Callable[..., BridgeDriver]:
    """Makes a driver object of the one network of the tests."""
    return lambda: BridgeDriver(Network("default", NAME, CONFIG, folder / NAME))


@pytest.fixture
async def bridge(make: Callable[..., BridgeDriver]) -> AsyncIterator[BridgeDriver]:
    driver = make()
    await driver.start([])
    yield driver
    await driver.stop()


@pytest.fixture
def guest() -> MakeGuest:
    @contextmanager
    def make_guest(host_name: str = "vethtest", *, hwaddr: str = MAC, master: str = NAME) -> Iterator[Guest]:
        holder = subprocess.Popen(["unshare", "--net", "sleep", "600"])
        try:
            while os.readlink(f"/proc/{holder.pid}/ns/net") == os.readlink("/proc/self/ns/net"):
                pass
            inside = Guest(holder.pid, host_name)
            run_shell(f"ip link add {host_name} type veth peer name eth0 address {hwaddr} netns {holder.pid}")
            run_shell(f"ip link set {host_name} {f'master {master}' if master else ''} up")
            inside.run("ip link set lo up")
            inside.run("ip link set eth0 up")
            if master:
                wait_for_port(host_name)
            yield inside
        finally:
            run_shell(f"ip link delete {host_name}", check=False)
            holder.kill()
            holder.wait()

    return make_guest
