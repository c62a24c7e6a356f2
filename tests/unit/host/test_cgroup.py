"""Control groups over trees of plain files, in all three shapes that hosts have."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.host import cgroup

MOUNT = "30 25 0:26 / {0} rw,nosuid shared:9 - {1} {1} {2}\n"


def tree(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def proc(folder: Path, groups: str, mounts: str) -> Path:
    tree(folder / "proc", {"1/cgroup": groups, "self/mountinfo": "1 1 0:1 / / rw - ext4 /dev/sda rw\n" + mounts})
    return folder / "proc"


@pytest.fixture
def hybrid(tmp_path: Path) -> cgroup.Layout:
    """v1 controllers, one of them based below its root, and a v2 without controllers."""
    groups = "9:name=systemd:/\n8:pids:/\n7:cpu,cpuacct:/\n6:freezer:/\n4:memory:/box\n0::/\n"
    mounts = ""
    for name in ("pids", "freezer", "memory"):
        mounts += MOUNT.format(tmp_path / name, "cgroup", f"rw,{name}")
    mounts += MOUNT.format(tmp_path / "cpu,cpuacct", "cgroup", "rw,cpu,cpuacct")
    mounts += MOUNT.format(tmp_path / "systemd", "cgroup", "rw,xattr,name=systemd")
    mounts += MOUNT.format(tmp_path / "unified", "cgroup2", "rw")
    tree(tmp_path, {"unified/cgroup.controllers": "\n"})
    return cgroup.detect(proc=proc(tmp_path, groups, mounts))


@pytest.fixture
def unified(tmp_path: Path) -> cgroup.Layout:
    tree(tmp_path, {"cg/cgroup.controllers": "cpuset cpu io memory pids\n"})
    return cgroup.detect(proc=proc(tmp_path, "0::/init.scope\n", MOUNT.format(tmp_path / "cg", "cgroup2", "rw,nsdelegate")))


def test_hybrid_layout(hybrid: cgroup.Layout, tmp_path: Path) -> None:
    assert hybrid.version("memory") == 1
    assert hybrid.path("memory", "atoll/c1") == f"{tmp_path}/memory/box/atoll/c1"
    assert hybrid.path("cpuacct", "g") == f"{tmp_path}/cpu,cpuacct/g"
    assert hybrid.version("io") == 0
    assert not hybrid.is_unified
    assert len(hybrid.roots) == 6
    v1 = ("pids/g", "freezer/g", "memory/box/g", "cpu,cpuacct/g", "systemd/g")
    assert hybrid.folders("g") == (f"{tmp_path}/unified/g", [f"{tmp_path}/{folder}" for folder in v1])


def test_unified_layout(unified: cgroup.Layout, tmp_path: Path) -> None:
    assert unified.is_unified
    assert unified.version("memory") == 2
    assert unified.path("memory", "g") == f"{tmp_path}/cg/g"
    assert unified.roots == (f"{tmp_path}/cg",)
    assert unified.folders("g") == (f"{tmp_path}/cg/g", [])


def test_figures_of_v1(hybrid: cgroup.Layout, tmp_path: Path) -> None:
    tree(
        tmp_path,
        {
            "pids/g/pids.current": "12\n",
            "cpu,cpuacct/g/cpuacct.usage": "123456789\n",
            "memory/box/g/memory.usage_in_bytes": "4096\n",
            "memory/box/g/memory.max_usage_in_bytes": "8192\n",
            "memory/box/g/memory.memsw.usage_in_bytes": "5000\n",
            "memory/box/g/memory.memsw.max_usage_in_bytes": "9000\n",
        },
    )
    assert cgroup.figures(hybrid, "g") == cgroup.Figures(12, 123456789, 4096, 8192, 904, 808)


def test_figures_of_v2(unified: cgroup.Layout, tmp_path: Path) -> None:
    tree(
        tmp_path / "cg/g",
        {
            "pids.current": "3\n",
            "cpu.stat": "usage_usec 77\nuser_usec 70\nsystem_usec 7\n",
            "memory.current": "100\n",
            "memory.peak": "200\n",
            "memory.swap.current": "0\n",
        },
    )
    assert cgroup.figures(unified, "g") == cgroup.Figures(3, 77_000, 100, 200, 0, 0)


def test_figures_of_nothing(hybrid: cgroup.Layout, unified: cgroup.Layout) -> None:
    assert cgroup.figures(hybrid, "no") == cgroup.figures(unified, "no") == cgroup.Figures()


def test_settings_are_tried_in_another_order(hybrid: cgroup.Layout, tmp_path: Path) -> None:
    tree(tmp_path, {"pids/g/pids.max": "", "memory/box/g/memory.limit_in_bytes": ""})
    cgroup.apply(hybrid, "g", [cgroup.Setting("pids", "pids.max", "5"), cgroup.Setting("io", "io.weight", "1")])
    assert (tmp_path / "pids/g/pids.max").read_text() == "5"
    with pytest.raises(OSError, match=r"no\.such"):
        cgroup.apply(hybrid, "g", [cgroup.Setting("memory", "no.such", "5")])


def test_freezing_times_out_and_thaws(unified: cgroup.Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cgroup, "FREEZE_SECONDS", 0.01)
    tree(tmp_path / "cg/g", {"cgroup.freeze": "", "cgroup.events": "populated 1\nfrozen 0\n"})
    with pytest.raises(TimeoutError):
        cgroup.freeze(unified, "g", frozen=True)
    assert (tmp_path / "cg/g/cgroup.freeze").read_text() == "0"


def test_freezing(hybrid: cgroup.Layout, tmp_path: Path) -> None:
    tree(tmp_path, {"freezer/g/freezer.state": "", "freezer/g/freezer.self_freezing": "1\n"})
    cgroup.freeze(hybrid, "g", frozen=True)
    assert (tmp_path / "freezer/g/freezer.state").read_text() == "FROZEN"
    assert cgroup.is_frozen(hybrid, "g")


def test_removal_goes_bottom_up(unified: cgroup.Layout, tmp_path: Path) -> None:
    (tmp_path / "cg/g/a/b").mkdir(parents=True)
    (tmp_path / "cg/g/a/in use").touch()
    assert not cgroup.remove(unified, "g")
    (tmp_path / "cg/g/a/in use").unlink()
    assert cgroup.remove(unified, "g")
    assert not cgroup.exists(unified, "g")
    assert cgroup.remove(unified, "g")


def test_a_refused_setting_leaves_all_as_it_was(hybrid: cgroup.Layout, tmp_path: Path) -> None:
    tree(tmp_path, {"pids/g/pids.max": "10\n", "memory/box/g/memory.limit_in_bytes": "20\n"})
    settings = [
        cgroup.Setting("pids", "pids.max", "50"),
        cgroup.Setting("memory", "memory.limit_in_bytes", "60"),
        cgroup.Setting("pids", "no/such/file", "1"),
    ]
    with pytest.raises(OSError, match="no/such/file"):
        cgroup.apply(hybrid, "g", settings)
    assert (tmp_path / "pids/g/pids.max").read_text().strip() == "10"
    assert (tmp_path / "memory/box/g/memory.limit_in_bytes").read_text().strip() == "20"


@pytest.mark.parametrize(
    ("text", "value", "standing"),
    [
        ("100\n", "200", "100"),
        ("", "8:0 5", "8:0 0"),
        ("8:16 1\n8:0 7\n", "8:0 5", "8:0 7"),
        ("", "8:0 rbps=5", "8:0 rbps=max wbps=max riops=max wiops=max"),
        ("default 100\n", "default 300", "default 100"),
    ],
)
def test_what_a_write_puts_aside(tmp_path: Path, text: str, value: str, standing: str) -> None:
    (tmp_path / "file").write_text(text)
    assert cgroup._standing(f"{tmp_path}/file", value) == standing


@pytest.mark.parametrize(("text", "cpus"), [("", ()), ("0\n", (0,)), ("0-2,5\n", (0, 1, 2, 5))])
def test_lists_of_cpus(text: str, cpus: tuple[int, ...]) -> None:
    assert cgroup.parse_cpus(text) == cpus


def test_cpus_that_may_be_used(tmp_path: Path) -> None:
    (tmp_path / "cpuset.effective_cpus").write_text("0\n")
    assert cgroup.usable_cpus(cgroup.Layout({"cpuset": str(tmp_path)}, {}, ())) == (0,)
    assert 0 in cgroup.usable_cpus(cgroup.Layout({}, {}, ()))
