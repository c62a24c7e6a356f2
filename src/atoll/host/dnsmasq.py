"""One dnsmasq per network: DHCP, router advertisements and DNS.

It daemonises by itself, so it belongs to no one: it outlives this daemon and is adopted on the next start. The process that is
ours is the one whose command line is exactly `argv`; the pid file only says where to look. Its configuration file is
written after the old process ended and before the new one starts, so a running process always has the file's content.

Everything lies in one folder: `dnsmasq.conf`, `dnsmasq.raw`, `dnsmasq.pid`, `dnsmasq.leases`, `dnsmasq.hosts/`.
"""

from __future__ import annotations

import os
import pwd
import re
import select
import signal
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.errors import BadRequest, DeadlineExceeded, HostError
from atoll.host import process, threads

_UNSAFE = re.compile(r"[\x00-\x1f\x7f\"'\\]")
_STOP_SECONDS = 5.0
_USERS = ("dnsmasq", "nobody")
_MAC_LEASE = re.compile(r"[0-9a-f]{2}(?::[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True)
class LeaseLine:
    """A line of the leases file. `client` is the MAC of a DHCPv4 client; for DHCPv6 `duid` and `iaid` identify it instead."""

    expires: int
    client: str
    address: str
    hostname: str
    duid: str = ""
    iaid: int = 0


@dataclass(frozen=True, slots=True)
class Leases:
    """The content of a leases file; `server_duid` is dnsmasq's own, empty before its first DHCPv6 answer."""

    lines: tuple[LeaseLine, ...] = ()
    server_duid: str = ""


def option(name: str, *values: object) -> str:
    """One configuration line, `name` or `name=v1,v2`. BadRequest for a value that could end it or quote."""
    text = ",".join(str(value) for value in values)
    if _UNSAFE.search(text):
        raise BadRequest(f"Invalid value for {name} of a DNS or DHCP server: {text[:80]!r}")
    return f"{name}={text}" if values else name


def raw_lines(text: str) -> str:
    """`raw.dnsmasq` as it is, but for characters that no configuration line can hold."""
    if "\0" in text or "\r" in text:
        raise BadRequest("raw.dnsmasq may not contain NUL or carriage return characters")
    return text.rstrip("\n") + "\n" if text else ""


def host_line(hwaddr: str, *, ipv4: str = "", ipv6: str = "", hostname: str = "") -> str:
    """The content of a hosts file: what DHCP gives to that hardware address."""
    fields = [hwaddr, *([ipv4] if ipv4 else []), *([f"[{ipv6}]"] if ipv6 else []), *([hostname] if hostname else [])]
    for text in fields:
        if _UNSAFE.search(text) or "," in text or not text:
            raise BadRequest(f"Invalid value for a DHCP reservation: {text[:80]!r}")
    return ",".join(fields) + "\n"


def parse_leases(text: str) -> Leases:
    """Read a leases file; lines that are not whole (dnsmasq may be writing) are passed over."""
    lines: list[LeaseLine] = []
    server = ""
    for words in (line.split() for line in text.splitlines()):
        if len(words) == 2 and words[0] == "duid":
            server = words[1]
        elif len(words) == 5 and words[0].isdigit():
            expires, client, address, name, identity = words
            hostname = "" if name == "*" else name
            if _MAC_LEASE.fullmatch(client):
                lines.append(LeaseLine(int(expires), client, address, hostname))
            elif client.lstrip("T").isdigit():
                lines.append(LeaseLine(int(expires), "", address, hostname, identity, int(client.lstrip("T"))))
    return Leases(tuple(lines), server)


class Dnsmasq:
    """The server process of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.conf = folder / "dnsmasq.conf"
        self.hosts = folder / "dnsmasq.hosts"
        self.leases_file = folder / "dnsmasq.leases"
        self._raw = folder / "dnsmasq.raw"
        self._pid_file = folder / "dnsmasq.pid"

    @property
    def argv(self) -> list[str]:
        """The command line; the folder makes it unique on the host."""
        return ["dnsmasq", f"--conf-file={self.conf}"]

    def render(self, options: Sequence[str]) -> str:
        """The configuration file: what is the same for every network, the given lines, and at last the raw ones."""
        common = [
            option("user", _user()),
            option("pid-file", self._pid_file),
            option("dhcp-leasefile", self.leases_file),
            option("dhcp-hostsfile", self.hosts),
            "bind-dynamic",
            "no-hosts",
            "no-ping",  # no address is ever probed
            "strict-order",
            "dhcp-authoritative",
            "dhcp-no-override",
            "dhcp-rapid-commit",
            "dhcp-ignore-clid",  # the MAC alone identifies a client: no second lease for a made-up client id
            "quiet-dhcp",
            "quiet-dhcp6",
            "quiet-ra",
        ]
        return "\n".join([*common, *options, option("conf-file", self._raw), ""])

    async def ensure(self, options: Sequence[str], raw: str) -> bool:
        """Have it running with that configuration; True when it had to be started. HostError if it will not start."""
        conf, raw_text = self.render(options), raw_lines(raw)
        if await threads.in_thread(self._runs_with, conf, raw_text):
            return False
        await self.stop()
        await threads.in_thread(self._write, conf, raw_text)
        await process.run(self.argv, timeout=20)
        return True

    async def pid(self) -> int | None:
        """Its process id if it runs."""
        return await threads.in_thread(self._pid)

    async def stop(self) -> None:
        """End it and wait for that; nothing wrong if it does not run."""
        await threads.in_thread(self._stop)

    async def set_hosts(self, files: Mapping[str, str]) -> set[str]:
        """Make these (file name → line) all reservations; a running server is told only when something changed.

        Returns the hardware addresses that had a reservation and have none any more.
        """
        return await threads.in_thread(self._set_hosts, files)

    async def leases(self) -> Leases:
        """What it gave out."""
        return await threads.in_thread(self._read_leases)

    async def forget(self) -> None:
        """End it and remove its files but the reservations."""
        await self.stop()
        await threads.in_thread(_remove, (self.conf, self._raw, self._pid_file, self.leases_file))

    def _runs_with(self, conf: str, raw: str) -> bool:
        return self._pid() is not None and _read(self.conf) == conf and _read(self._raw) == raw

    def _write(self, conf: str, raw: str) -> None:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.hosts.mkdir(mode=0o755, exist_ok=True)
        _replace(self._raw, raw, mode=0o600)
        _replace(self.conf, conf, mode=0o600)

    def _read_leases(self) -> Leases:
        return parse_leases(_read(self.leases_file) or "")

    def _set_hosts(self, files: Mapping[str, str]) -> set[str]:
        self._folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self.hosts.mkdir(mode=0o755, exist_ok=True)
        present = {path.name: path.read_text() for path in self.hosts.iterdir() if path.is_file()}
        if present == files:
            return set()
        _remove(self.hosts / name for name in present.keys() - files.keys())
        for name, line in files.items():
            if present.get(name) != line:
                _replace(self.hosts / name, line, mode=0o644)
        self._signal(signal.SIGHUP)
        return _hwaddrs(present.values()) - _hwaddrs(files.values())

    def _pid(self) -> int | None:
        try:
            pid = int((_read(self._pid_file) or "").strip())
            cmdline = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (ValueError, OSError):
            return None
        words = cmdline.decode(errors="replace").rstrip("\0").split("\0")
        return pid if words[1:] == self.argv[1:] and Path(words[0]).name == self.argv[0] else None

    def _open(self) -> int | None:
        """A pidfd of the running server. The command line is looked at again through it: a pid cannot be confused."""
        pid = self._pid()
        if pid is None:
            return None
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            return None
        if self._pid() == pid:
            return descriptor
        os.close(descriptor)
        return None

    def _signal(self, number: signal.Signals) -> None:
        descriptor = self._open()
        if descriptor is not None:
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                pass
            finally:
                os.close(descriptor)

    def _stop(self) -> None:
        descriptor = self._open()
        if descriptor is None:
            return
        try:
            for number in (signal.SIGTERM, signal.SIGKILL):
                signal.pidfd_send_signal(descriptor, number)
                if select.select([descriptor], [], [], _STOP_SECONDS)[0]:
                    return
            raise DeadlineExceeded("dnsmasq did not end when it was killed")
        except ProcessLookupError:
            return
        finally:
            os.close(descriptor)


def _hwaddrs(lines: Iterable[str]) -> set[str]:
    return {line.partition(",")[0].strip() for line in lines}


def _user() -> str:
    for name in _USERS:
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise HostError("There is no unprivileged user for dnsmasq", hint="add a system user 'dnsmasq'")


def _read(path: Path) -> str | None:
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return None


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _replace(path: Path, text: str, *, mode: int) -> None:
    """Write aside and rename; the name of the part file starts with a dot, which dnsmasq does not read in a folder."""
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
    part.rename(path)
