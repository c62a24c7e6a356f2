"""Compares what a daemon says with what is on its host: rows, folders, mounts, control groups, interfaces, processes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from box import SECONDS, Daemon


def check(daemon: Daemon) -> None:
    """AssertionError, with all differences, unless there are none after a moment: a daemon may be starting instances."""
    deadline = time.monotonic() + SECONDS
    while found := list(differences(daemon)):
        assert time.monotonic() < deadline, "\n".join(found) + daemon.end_of_log()
        time.sleep(0.1)


def differences(daemon: Daemon) -> Iterator[str]:
    """One sentence for each."""
    instances = {row["name"]: row for row in daemon.query("/1.0/instances?recursion=1")}
    running = {name for name, row in instances.items() if row["status"] == "Running"}
    stopped = {name for name, row in instances.items() if row["status"] == "Stopped"}
    yield from _compare("neither running nor stopped", set(instances) - running - stopped, ())
    yield from _folders(daemon, set(instances))
    mounts = _mounts(daemon)
    sources = {place for place in mounts if place.startswith("devices/")}
    yield from _compare("root file systems and other mounts", mounts - sources, _roots(running))
    yield from _compare("instances with sources of disks", {place.split("/")[1] for place in sources} - running, ())
    for kind in ("payload", "monitor"):
        yield from _compare(f"control groups ({kind})", daemon.groups(kind), running)
    yield from _compare("host interfaces", _veths(daemon), _host_names(instances, running))
    yield from _compare("host names of stopped instances", _host_names(instances, stopped), ())
    yield from _processes(daemon, running)


def _compare(what: str, found: Iterable[str], expected: Iterable[str]) -> Iterator[str]:
    there, wanted = set(found), set(expected)
    more, missing = sorted(there - wanted), sorted(wanted - there)
    if more:
        yield f"{what}: {', '.join(more)} should not be there"
    if missing:
        yield f"{what}: {', '.join(missing)} should be there"


def _folders(daemon: Daemon, names: set[str]) -> Iterator[str]:
    pool = daemon.dir / "storage-pools/default"
    for folder in (pool / "containers", daemon.dir / "containers", daemon.dir / "logs", daemon.dir / "devices"):
        yield from _compare(f"folders in {folder.relative_to(daemon.dir)}", os.listdir(folder), names)
    for folder in (daemon.dir / "run", daemon.dir / "snapshots", pool / "containers-snapshots"):
        yield from _compare(f"folders in {folder.relative_to(daemon.dir)}", set(os.listdir(folder)) - names, ())
    for folder in (pool / ".aside", pool / ".renames"):
        yield from _compare(f"left in {folder.name}", os.listdir(folder), ())


def _mounts(daemon: Daemon) -> set[str]:
    """What is mounted below the state, by its path there."""
    prefix = f"{daemon.dir}/"
    lines = Path(f"/proc/{daemon.box.init}/mountinfo").read_text().splitlines()
    return {place.removeprefix(prefix) for line in lines if (place := line.split()[4]).startswith(prefix)}


def _roots(names: set[str]) -> set[str]:
    return {f"storage-pools/default/containers/{name}/rootfs" for name in names}


def _veths(daemon: Daemon) -> set[str]:
    links = json.loads(daemon.run("ip", "-json", "-details", "link", "show", "type", "veth") or "[]")
    return {link["ifname"] for link in links if link}


def _host_names(instances: dict[str, Any], names: set[str]) -> set[str]:
    return {
        value
        for name in names
        for key, value in instances[name]["config"].items()
        if key.startswith("volatile.") and key.endswith(".host_name")
    }


def _processes(daemon: Daemon, running: set[str]) -> Iterator[str]:
    """Monitors of what runs, one zygote, and a server for each network; nothing else that was started and forgotten."""
    networks = sum(row["managed"] for row in daemon.query("/1.0/networks?recursion=1"))
    lines = [line.strip() for line in daemon.run("ps", "-eo", "args=").splitlines()]
    monitor = f"[lxc monitor] {daemon.dir} "
    yield from _compare("monitors", (line.removeprefix(monitor) for line in lines if line.startswith(monitor)), running)
    server = f"dnsmasq --conf-file={daemon.dir}"
    for what, wanted in (("zygote_server", 1), (server, networks), ("lxc-start", 0), ("lxc-attach", 0)):
        count = sum(what in line for line in lines)
        if count != wanted:
            yield f"processes: {count} of {what} instead of {wanted}"
