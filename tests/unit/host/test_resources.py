"""The host's hardware from a made-up /sys and /proc, and from the real ones."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atoll.host import resources
from atoll.host.resources.sysfs import Tree, id_set

PCI = "sys/devices/pci0000:00"
CPUINFO = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Made-up CPU @ 2.00GHz
flags\t\t: fpu vme

processor\t: 1
vendor_id\t: GenuineIntel
model name\t: Made-up CPU @ 2.00GHz
"""
PCI_IDS = """# comment
8086  Intel Corporation
\t10d3  82574L Gigabit Network Connection
\t\t8086 a01f  a sub-system, not a product
\t5916  HD Graphics 620
10de  NVIDIA Corporation
\t10d3  not Intel's
C 02  Network controller
"""

Build = Callable[[dict[str, str]], Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Files by path; a content that starts with `->` makes a link."""

    def make(files: dict[str, str]) -> Path:
        for name, content in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if content.startswith("->"):
                path.symlink_to(content[2:])
            else:
                path.write_text(content)
        return tmp_path

    return make


def pci(address: str, kind: str, ids: tuple[str, str], *, numa: int = 0) -> dict[str, str]:
    """A device of the PCI bus."""
    base = f"{PCI}/{address}"
    return {
        f"{base}/class": f"0x{kind}0000\n",
        f"{base}/vendor": f"0x{ids[0]}\n",
        f"{base}/device": f"0x{ids[1]}\n",
        f"{base}/numa_node": f"{numa}\n",
        f"sys/bus/pci/devices/{address}": f"->../../../devices/pci0000:00/{address}",
    }


def cpu(number: int, *, core: int, node: int = 0, online: str = "1") -> dict[str, str]:
    base = f"sys/devices/system/cpu/cpu{number}"
    return {
        f"{base}/topology/physical_package_id": "0\n",
        f"{base}/topology/core_id": f"{core}\n",
        f"{base}/topology/die_id": "-1\n",
        f"{base}/online": online,
        f"{base}/node{node}/cpulist": "0-1",
        f"{base}/cache/index0/level": "1\n",
        f"{base}/cache/index0/type": "Data\n",
        f"{base}/cache/index0/size": "32K\n",
        f"{base}/cpufreq/scaling_cur_freq": "2100000\n",
        f"{base}/cpufreq/cpuinfo_min_freq": "400000\n",
        f"{base}/cpufreq/cpuinfo_max_freq": "3500000\n",
    }


def test_nothing_to_read_gives_empty_parts(tmp_path: Path) -> None:
    found = resources.read(tmp_path)
    assert {part: found[part]["total"] for part in ("cpu", "gpu", "network", "storage", "usb", "pci", "memory")} == dict.fromkeys(
        ("cpu", "gpu", "network", "storage", "usb", "pci", "memory"), 0
    )
    assert found["cpu"]["sockets"] == found["memory"]["nodes"] == found["storage"]["disks"] == []
    assert found["system"]["firmware"] is None


def test_threads_of_a_core_are_together(build: Build) -> None:
    root = build({**cpu(0, core=0), **cpu(1, core=0), "proc/cpuinfo": CPUINFO, "sys/devices/system/cpu/isolated": "1\n"})
    found = resources.read(root)["cpu"]
    assert found["total"] == 2
    thread = {"id": 0, "numa_node": 0, "thread": 0, "online": True, "isolated": False}
    assert found["sockets"] == [
        {
            "name": "Made-up CPU @ 2.00GHz",
            "vendor": "GenuineIntel",
            "socket": 0,
            "cache": [{"level": 1, "type": "Data", "size": 32768}],
            "cores": [
                {
                    "core": 0,
                    "die": 0,
                    "threads": [thread, {**thread, "id": 1, "thread": 1, "isolated": True}],
                    "frequency": 2100,
                }
            ],
            "frequency": 2100,
            "frequency_minimum": 400,
            "frequency_turbo": 3500,
        }
    ]


def test_memory_counts_blocks_and_gives_back_the_cache(build: Build) -> None:
    root = build(
        {
            "proc/meminfo": "MemTotal: 900 kB\nMemFree: 300 kB\nBuffers: 50 kB\nCached: 50 kB\n"
            "HugePages_Total: 4\nHugePages_Free: 1\nHugepagesize: 2048 kB\n",
            "sys/devices/system/memory/block_size_bytes": f"{1 << 20:x}\n",
            "sys/devices/system/memory/memory0/online": "1\n",
            "sys/devices/system/memory/memory1/online": "0\n",
            "sys/devices/system/node/node0/memory0/online": "1\n",
            "sys/devices/system/node/node0/meminfo": "Node 0 MemTotal: 900 kB\nNode 0 MemUsed: 600 kB\n"
            "Node 0 HugePages_Total: 4\nNode 0 HugePages_Free: 4\n",
        }
    )
    huge = 2 << 20
    assert resources.read(root)["memory"] == {
        "nodes": [{"numa_node": 0, "hugepages_used": 0, "hugepages_total": 4 * huge, "used": 600 << 10, "total": 1 << 20}],
        "hugepages_total": 4 * huge,
        "hugepages_used": 3 * huge,
        "hugepages_size": huge,
        "used": (1 << 20) - (400 << 10),
        "total": 1 << 20,
    }


def test_a_network_card_has_its_names_and_ports(build: Build) -> None:
    address = "0000:00:19.0"
    root = build(
        {
            **pci(address, "02", ("8086", "10d3"), numa=-1),
            "usr/share/misc/pci.ids": PCI_IDS,
            f"{PCI}/{address}/net/eth0/address": "00:11:22:33:44:55\n",
            f"{PCI}/{address}/net/eth0/type": "1\n",
            f"{PCI}/{address}/net/eth0/carrier": "1\n",
            f"{PCI}/{address}/net/eth0/speed": "1000\n",
            f"{PCI}/{address}/net/eth0/duplex": "full\n",
            f"{PCI}/{address}/net/eth0/device": "->../..",
            f"{PCI}/{address}/driver": "->../../../bus/pci/drivers/e1000e",
            "sys/bus/pci/drivers/e1000e/bind": "",
            "sys/module/e1000e/version": "3.2.6-k\n",
            "sys/class/net/eth0": f"->../../devices/pci0000:00/{address}/net/eth0",
            "sys/class/net/lo/type": "772\n",
        }
    )
    found = resources.read(root)
    assert found["network"] == {
        "cards": [
            {
                "driver": "e1000e",
                "driver_version": "3.2.6-k",
                "pci_address": address,
                "vendor": "Intel Corporation",
                "vendor_id": "8086",
                "product": "82574L Gigabit Network Connection",
                "product_id": "10d3",
                "ports": [
                    {
                        "id": "eth0",
                        "address": "00:11:22:33:44:55",
                        "port": 0,
                        "protocol": "ethernet",
                        "auto_negotiation": False,
                        "link_detected": True,
                        "link_speed": 1000,
                        "link_duplex": "full",
                    }
                ],
                "numa_node": 0,
            }
        ],
        "total": 1,
    }
    assert found["pci"]["devices"][0]["vendor"] == "Intel Corporation"


def test_virtual_functions_are_shown_with_their_card(build: Build) -> None:
    parent, child = "0000:00:19.0", "0000:00:19.1"
    root = build(
        {
            **pci(parent, "02", ("8086", "10d3")),
            **pci(child, "02", ("8086", "10ed")),
            f"{PCI}/{parent}/sriov_totalvfs": "7\n",
            f"{PCI}/{parent}/sriov_numvfs": "1\n",
            f"{PCI}/{parent}/virtfn0": f"->../{child}",
            f"{PCI}/{child}/physfn": f"->../{parent}",
        }
    )
    found = resources.read(root)["network"]
    assert found["total"] == 2
    [card] = found["cards"]
    assert (card["sriov"]["current_vfs"], card["sriov"]["maximum_vfs"]) == (1, 7)
    assert [function["pci_address"] for function in card["sriov"]["vfs"]] == [child]


def test_a_disk_with_partitions(build: Build) -> None:
    address = "0000:05:00.0"
    disk = f"{PCI}/{address}/nvme/nvme0/nvme0n1"
    root = build(
        {
            **pci(address, "01", ("8086", "f1a5"), numa=1),
            f"{disk}/dev": "259:0\n",
            f"{disk}/size": "1000\n",
            f"{disk}/ro": "0\n",
            f"{disk}/removable": "0\n",
            f"{disk}/wwid": "eui.01\n",
            f"{disk}/queue/physical_block_size": "512\n",
            f"{disk}/queue/rotational": "0\n",
            f"{disk}/device": "->..",
            f"{disk}/nvme0n1p1/partition": "1\n",
            f"{disk}/nvme0n1p1/dev": "259:1\n",
            f"{disk}/nvme0n1p1/size": "500\n",
            f"{disk}/nvme0n1p1/ro": "1\n",
            f"{PCI}/{address}/nvme/nvme0/model": "MADE UP SSD  \n",
            f"{PCI}/{address}/nvme/nvme0/serial": "S123\n",
            f"{PCI}/{address}/nvme/nvme0/firmware_rev": "F1\n",
            f"{PCI}/{address}/nvme/nvme0/subsystem": "->../../../../../class/nvme",
            "sys/class/nvme/x": "",
            "sys/class/block/nvme0n1": f"->../../devices/pci0000:00/{address}/nvme/nvme0/nvme0n1",
            "sys/class/block/loop0/size": "0\n",
            "dev/nvme0n1": "",
            "dev/disk/by-id/nvme-MADE_UP_S123": "->../../nvme0n1",
            "dev/disk/by-id/nvme-eui.01": "->../../nvme0n1",
            "dev/disk/by-path/pci-0000:05:00.0-nvme-1": "->../../nvme0n1",
        }
    )
    assert resources.read(root)["storage"] == {
        "disks": [
            {
                "id": "nvme0n1",
                "device": "259:0",
                "model": "MADE UP SSD",
                "type": "nvme",
                "read_only": False,
                "size": 512000,
                "removable": False,
                "wwn": "eui.01",
                "numa_node": 1,
                "device_path": "pci-0000:05:00.0-nvme-1",
                "block_size": 512,
                "firmware_version": "F1",
                "rpm": 0,
                "serial": "S123",
                "device_id": "nvme-eui.01",
                "partitions": [{"id": "nvme0n1p1", "device": "259:1", "read_only": True, "size": 256000, "partition": 1}],
                "pci_address": address,
            }
        ],
        "total": 2,
    }


def test_a_graphics_card_with_its_device_nodes(build: Build) -> None:
    address = "0000:00:02.0"
    root = build(
        {
            **pci(address, "03", ("8086", "5916")),
            f"{PCI}/{address}/drm/card0/dev": "226:0\n",
            f"{PCI}/{address}/drm/renderD128/dev": "226:128\n",
            f"{PCI}/{address}/mdev_supported_types/i915-8/available_instances": "2\n",
            f"{PCI}/{address}/mdev_supported_types/i915-8/device_api": "vfio-pci\n",
        }
    )
    found = resources.read(root)["gpu"]
    assert found["total"] == 1
    [card] = found["cards"]
    assert card["drm"] == {
        "id": 0,
        "card_name": "card0",
        "card_device": "226:0",
        "render_name": "renderD128",
        "render_device": "226:128",
    }
    assert card["mdev"] == {"i915-8": {"api": "vfio-pci", "available": 2, "devices": []}}


def test_usb_devices_without_root_hubs(build: Build) -> None:
    mouse, hub = "sys/bus/usb/devices/1-2", "sys/bus/usb/devices/usb1"
    root = build(
        {
            f"{hub}/idVendor": "1d6b\n",
            f"{mouse}/idVendor": "0557\n",
            f"{mouse}/idProduct": "2221\n",
            f"{mouse}/manufacturer": "ATEN\n",
            f"{mouse}/product": "Mouse\n",
            f"{mouse}/busnum": "1\n",
            f"{mouse}/devnum": "3\n",
            f"{mouse}/speed": "1.5\n",
            f"{mouse}:1.0/bInterfaceClass": "03\n",
            f"{mouse}:1.0/bInterfaceSubClass": "01\n",
            f"{mouse}:1.0/bInterfaceNumber": "00\n",
        }
    )
    assert resources.read(root)["usb"] == {
        "devices": [
            {
                "bus_address": 1,
                "device_address": 3,
                "interfaces": [
                    {
                        "class": "Human Interface Device",
                        "class_id": 3,
                        "number": 0,
                        "subclass": "Boot Interface Subclass",
                        "subclass_id": 1,
                    }
                ],
                "vendor": "ATEN",
                "vendor_id": "0557",
                "product": "Mouse",
                "product_id": "2221",
                "speed": 1.5,
            }
        ],
        "total": 1,
    }


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({}, "physical"),
        ({"proc/cpuinfo": "processor: 0\nflags : fpu hypervisor\n"}, "virtual-machine"),
        ({"run/systemd/container": "lxc\n"}, "container"),
    ],
)
def test_the_kind_of_system(build: Build, files: dict[str, str], kind: str) -> None:
    dmi = {"sys/class/dmi/id/sys_vendor": "LENOVO\n", "sys/class/dmi/id/chassis_type": "10\n"}
    found = resources.read(build({**dmi, **files}))["system"]
    assert (found["type"], found["vendor"], found["chassis"]["type"]) == (kind, "LENOVO", "Notebook")


def test_malformed_files_are_passed_over(build: Build) -> None:
    root = build(
        {
            "proc/meminfo": "MemTotal\nMemFree: x kB\n",
            "proc/cpuinfo": "processor\n\n:\n",
            "sys/devices/system/cpu/isolated": "a-b,1-\n",
            "sys/bus/usb/devices/1-1/idVendor": "zz\n",
            "sys/bus/usb/devices/1-1:1.0/bInterfaceClass": "not hex\n",
            **pci("0000:00:01.0", "02", ("", "")),
        }
    )
    resources.read(root)


def test_lists_of_ids() -> None:
    assert id_set("0-2,8") == {0, 1, 2, 8}
    assert id_set("") == set()


def test_numbers_sort_as_numbers(build: Build) -> None:
    root = build({"sys/cpu10": "", "sys/cpu9": "", "sys/a": ""})
    assert Tree(root).names("sys") == ["a", "cpu9", "cpu10"]


def test_this_host_can_be_read() -> None:
    found: dict[str, Any] = resources.read()
    json.dumps(found)
    assert found["cpu"]["total"] >= 1
    assert found["memory"]["total"] > found["memory"]["used"] > 0
