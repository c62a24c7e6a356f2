"""The writer of liblxc configurations: what it writes, and what it refuses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from atoll.domain.errors import BadRequest
from atoll.domain.idmap import IdMap, IdRange
from atoll.drivers.instance.contract import DiskLimit, Launch, Limits, MachineId, MountSpec, NicSpec
from atoll.drivers.instance.lxc import config, limits
from atoll.host.cgroup import Layout, Setting

V1 = Layout({name: f"/cg/{name}" for name in ("cpu", "cpuset", "memory", "pids", "devices", "blkio", "hugetlb")}, {}, ())
V2 = Layout({}, dict.fromkeys(("cpu", "cpuset", "memory", "pids", "io", "hugetlb"), "/cg"), ("/cg",))

LAUNCH = Launch(
    id=MachineId("blue", "c1"),
    uuid="",
    rootfs=Path("/pool/c1"),
    log_dir=Path("/log"),
    run_dir=Path("/run"),
    hostname="c1",
    architecture="x86_64",
    idmap=IdMap.plain(1000000, 65536),
    rootfs_idmap=True,
    nics=[NicSpec("eth0", "veth1", "eth0", "00:16:3e:00:00:01", bridge="br0", mtu=1400)],
    mounts=[MountSpec("m", "/srv/a b", "mnt/a b")],
    limits=Limits(cpu_set="0-1", memory_bytes=1 << 30, hugepages={"2MB": 1 << 21}, rlimits={"nofile": "1024:2048"}),
    environment={"A": "b"},
    sysctls={"net/ipv4/ip_forward": "1"},
)


def host(tmp_path: Path, layout: Layout = V1, **changes: Any) -> config.Host:
    return config.Host(layout, "atoll", lxcfs=tmp_path / "lxcfs", root=tmp_path, **changes)


def lines(text: str) -> list[tuple[str, str]]:
    return [(key, value) for key, _, value in (line.partition(" = ") for line in text.splitlines())]


def test_writes_what_was_launched(tmp_path: Path) -> None:
    found = lines(config.render(LAUNCH, host(tmp_path), Path("/run/seccomp")))
    for pair in [
        ("lxc.uts.name", "c1"),
        ("lxc.rootfs.path", "dir:/pool/c1"),
        ("lxc.rootfs.options", "idmap=container"),
        ("lxc.idmap", "u 0 1000000 65536"),
        ("lxc.idmap", "g 0 1000000 65536"),
        ("lxc.net.0.veth.pair", "veth1"),
        ("lxc.net.0.link", "br0"),
        ("lxc.net.0.mtu", "1400"),
        ("lxc.mount.entry", r"/srv/a\040b mnt/a\040b none bind,create=dir 0 0"),
        ("lxc.cgroup.memory.limit_in_bytes", str(1 << 30)),
        ("lxc.cgroup.hugetlb.2MB.limit_in_bytes", str(1 << 21)),
        ("lxc.prlimit.nofile", "1024:2048"),
        ("lxc.environment", "A=b"),
        ("lxc.sysctl.net.ipv4.ip_forward", "1"),
        ("lxc.seccomp.profile", "/run/seccomp"),
        ("lxc.cgroup.dir.container", "atoll/payload/blue_c1"),
    ]:
        assert pair in found
    assert not {key for key, _ in found if key.startswith(("lxc.hook", "lxc.include", "lxc.apparmor", "lxc.cap"))}


def test_a_privileged_machine_drops_capabilities_and_sees_less(tmp_path: Path) -> None:
    found = lines(config.render(replace(LAUNCH, idmap=None), host(tmp_path), Path("/s")))
    assert ("lxc.cap.drop", config.DROPPED) in found
    assert ("lxc.mount.auto", "proc:mixed sys:mixed cgroup:rw:force") in found
    assert not {key for key, _ in found if key in ("lxc.idmap", "lxc.rootfs.options")}


def test_the_unified_hierarchy_has_its_own_files(tmp_path: Path) -> None:
    found = lines(config.render(LAUNCH, host(tmp_path, V2), Path("/s")))
    assert ("lxc.cgroup2.memory.max", str(1 << 30)) in found
    assert ("lxc.cgroup2.devices.deny", "a") in found


def test_inside_another_container_there_are_no_device_groups(tmp_path: Path) -> None:
    text = config.render(LAUNCH, host(tmp_path, nested=True), Path("/s"))
    assert "devices" not in text


def test_apparmor_only_where_it_is_active(tmp_path: Path) -> None:
    found = lines(config.render(replace(LAUNCH, nesting=True), host(tmp_path, apparmor=True), Path("/s")))
    assert ("lxc.apparmor.profile", "generated") in found
    assert ("lxc.apparmor.allow_nesting", "1") in found


def test_lxcfs_files_are_mounted_where_it_runs(tmp_path: Path) -> None:
    (tmp_path / "lxcfs/proc").mkdir(parents=True)
    (tmp_path / "lxcfs/proc/meminfo").touch()
    text = config.render(LAUNCH, host(tmp_path), Path("/s"))
    assert f"{tmp_path}/lxcfs/proc/meminfo proc/meminfo none bind,optional 0 0" in text


def test_lines_for_apparmor_where_it_is(tmp_path: Path) -> None:
    launch = replace(LAUNCH, apparmor="mount fstype=proc,\n\n  ptrace,\n")
    assert "apparmor" not in config.render(launch, host(tmp_path), Path("/s"))
    text = config.render(launch, replace(host(tmp_path), apparmor=True), Path("/s"))
    assert "lxc.apparmor.raw = mount fstype=proc,\nlxc.apparmor.raw = ptrace,\n" in text


def test_raw_text_comes_last_as_it_is(tmp_path: Path) -> None:
    text = config.render(replace(LAUNCH, raw="lxc.environment = b\n# c\x0bd"), host(tmp_path), Path("/s"))
    assert text.endswith("lxc.environment = b\n# c\x0bd\n")


def test_users_and_groups_can_have_maps_of_their_own() -> None:
    only = IdMap((IdRange(0, 100, 1, groups=False), IdRange(0, 200, 1, users=False)))
    assert config.idmap_lines(only) == ["u 0 100 1", "g 0 200 1"]


def spoiled(value: Any, bad: str, path: str = "") -> Iterator[tuple[str, Any]]:
    """(which, the value with one of its texts spoiled) for every text anywhere in it."""
    if isinstance(value, str):
        yield path, value + bad
    elif isinstance(value, Path):
        yield path, Path(f"{value}{bad}")
    elif is_dataclass(value) and not isinstance(value, type):
        for each in fields(value):
            for where, worse in spoiled(getattr(value, each.name), bad, f"{path}.{each.name}"):
                yield where, replace(value, **{each.name: worse})
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield f"{path}[key]", {key + bad: inner}
            for where, worse in spoiled(inner, bad, f"{path}[{key}]"):
                yield where, {**value, key: worse}
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            for where, worse in spoiled(inner, bad, f"{path}[{number}]"):
                yield where, [*value[:number], worse, *value[number + 1 :]]


NOT_WRITTEN = {".uuid", ".run_dir", ".raw", ".apparmor", ".syscalls.raw", ".nics[0].device", ".mounts[0].device", ".id.project"}


@pytest.mark.parametrize("bad", ["\n", "\r", "\0", "\nlxc.hook.pre-start = /bin/evil"])
def test_no_value_becomes_a_line(tmp_path: Path, bad: str) -> None:
    """Every text of a launch, keys of mappings too, with a line break or a NUL in it."""
    checked = 0
    for where, worse in spoiled(LAUNCH, bad):
        if where in NOT_WRITTEN:
            continue
        with pytest.raises(BadRequest):
            config.render(worse, host(tmp_path), Path("/s"))
            pytest.fail(f"{where} was accepted")
        checked += 1
    assert checked >= 20


@pytest.mark.parametrize("target", ["", "/", "../etc", "a/../../b"])
def test_mounts_stay_below_the_root(tmp_path: Path, target: str) -> None:
    with pytest.raises(BadRequest):
        config.render(replace(LAUNCH, mounts=[MountSpec("m", "/srv", target)]), host(tmp_path), Path("/s"))


def test_a_key_is_a_key() -> None:
    with pytest.raises(BadRequest):
        config.Writer().set("lxc.a = b\nlxc.c", "d")


def test_limits_on_each_version() -> None:
    wanted = Limits(cpu_quota_us=50_000, cpu_shares=1024, memory_bytes=4096, memory_soft=True, memory_swap=False, processes=7)
    assert limits.settings(wanted, V1) == [
        Setting("cpu", "cpu.cfs_period_us", "100000"),
        Setting("cpu", "cpu.cfs_quota_us", "50000"),
        Setting("cpu", "cpu.shares", "1024"),
        Setting("memory", "memory.soft_limit_in_bytes", "4096"),
        Setting("memory", "memory.swappiness", "0"),
        Setting("pids", "pids.max", "7"),
    ]
    assert limits.settings(wanted, V2) == [
        Setting("cpu", "cpu.max", "50000 100000"),
        Setting("cpu", "cpu.weight", "39"),
        Setting("memory", "memory.low", "4096"),
        Setting("memory", "memory.swap.max", "0"),
        Setting("pids", "pids.max", "7"),
    ]
    assert limits.settings(wanted, Layout({}, {}, ())) == []


@pytest.mark.parametrize(("priority", "swappiness"), [(10, "60"), (0, "70"), (5, "65")])
def test_the_higher_the_priority_the_less_is_swapped(priority: int, swappiness: str) -> None:
    assert limits.settings(Limits(memory_swap_priority=priority), V1) == [Setting("memory", "memory.swappiness", swappiness)]


def test_traffic_with_disks_on_each_version() -> None:
    wanted = Limits(disks={"8:0": DiskLimit(read_bytes=1000, write_requests=5)})
    blkio = Layout({"blkio": "/b"}, {}, ())
    assert limits.settings(wanted, blkio) == [
        Setting("blkio", "blkio.throttle.read_bps_device", "8:0 1000"),
        Setting("blkio", "blkio.throttle.write_iops_device", "8:0 5"),
    ]
    io = Layout({}, {"io": "/i"}, ())
    assert limits.settings(wanted, io) == [Setting("io", "io.max", "8:0 rbps=1000 riops=max wbps=max wiops=5")]


def test_what_the_host_cannot_hold() -> None:
    wanted = Limits(disk_priority=3, hugepages={"2MB": 1}, network_priority=1, processes=5)
    layout = Layout({"blkio": "/b", "pids": "/p"}, {}, ())
    assert limits.unenforceable(wanted, layout, frozenset({"blkio.bfq.weight"})) == ["blkio", "hugetlb", "net_prio"]
    assert limits.unenforceable(Limits(processes=5), layout, frozenset()) == []


def group(folder: Path, **files: str) -> Path:
    """A control group of plain files; `__` stands for the dot."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)
    return folder


def test_limits_that_are_lifted_are_set_free(tmp_path: Path) -> None:
    files = {
        "blkio__throttle__read_bps_device": "8:0 1000\n",
        "blkio__throttle__write_bps_device": "",
        "blkio__bfq__weight": "800\n",
    }
    made = group(tmp_path / "b/g", **files)
    limits.apply(Layout({"blkio": f"{tmp_path}/b"}, {}, ()), "g", Limits())
    assert (made / "blkio.throttle.read_bps_device").read_text().startswith("8:0 0")
    assert (made / "blkio.bfq.weight").read_text().startswith("100")
    assert (made / "blkio.throttle.write_bps_device").read_text() == ""


def test_version_2_would_kill_for_memory_that_is_in_use(tmp_path: Path) -> None:
    made = group(tmp_path / "m/g", memory__max="max\n", memory__stat="anon 5000\nfile 100000\n", memory__swap__max="0\n")
    layout = Layout({}, {"memory": f"{tmp_path}/m"}, ())
    with pytest.raises(OSError, match="more is in use"):
        limits.apply(layout, "g", Limits(memory_bytes=4096))
    assert (made / "memory.max").read_text() == "max\n"
    limits.apply(layout, "g", Limits(memory_bytes=8192))
    assert (made / "memory.max").read_text().startswith("8192")


def test_pins_pass_over_what_is_gone(tmp_path: Path) -> None:
    (tmp_path / "cpuset.cpus").write_text("0-3\n")
    made = group(tmp_path / "g", cpuset__cpus="0-3\n")
    layout = Layout({"cpuset": str(tmp_path)}, {}, ())
    assert limits.pin(layout, {"g": "1,3", "gone": "0"}) == []
    assert (made / "cpuset.cpus").read_text().startswith("1,3")
    limits.pin(layout, {"g": ""})
    assert (made / "cpuset.cpus").read_text().startswith("0-3")
