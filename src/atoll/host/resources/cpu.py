"""Processors: sockets, their cores, the cores' threads."""

from __future__ import annotations

import platform
import re
from collections import defaultdict
from typing import Any

from atoll.host.resources.sysfs import Tree, id_set, without_empty

_CPU = "sys/devices/system/cpu"
_CPU_NAME = re.compile(r"cpu(\d+)")
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_OPTIONAL = ("name", "vendor", "cache", "frequency", "frequency_minimum", "frequency_turbo")


def read(tree: Tree) -> dict[str, Any]:
    """All sockets with CPUs that are online; `total` counts threads."""
    sockets: dict[int, list[int]] = defaultdict(list)
    for number in _numbers(tree):
        sockets[tree.number(f"{_CPU}/cpu{number}/topology/physical_package_id")].append(number)
    models = _models(tree)
    isolated = id_set(tree.text(f"{_CPU}/isolated"))
    rendered = [_socket(tree, socket, numbers, models, isolated) for socket, numbers in sorted(sockets.items())]
    return {"architecture": platform.machine(), "sockets": rendered, "total": sum(map(len, sockets.values()))}


def _numbers(tree: Tree) -> list[int]:
    """CPUs with a known place; one that is off line has none."""
    matches = (_CPU_NAME.fullmatch(name) for name in tree.names(_CPU))
    return [int(match[1]) for match in matches if match and tree.exists(f"{_CPU}/{match[0]}/topology")]


def _models(tree: Tree) -> dict[int, tuple[str, str]]:
    """(model, vendor) of each CPU that /proc/cpuinfo has one for."""
    models: dict[int, tuple[str, str]] = {}
    for block in tree.text("proc/cpuinfo").split("\n\n"):
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in block.splitlines())}
        if fields.get("processor", "").isdigit():
            models[int(fields["processor"])] = (fields.get("model name") or fields.get("cpu", ""), fields.get("vendor_id", ""))
    return models


def _socket(
    tree: Tree, socket: int, numbers: list[int], models: dict[int, tuple[str, str]], isolated: set[int]
) -> dict[str, Any]:
    name, vendor = models.get(numbers[0], ("", ""))
    cores: dict[tuple[int, int], list[int]] = defaultdict(list)
    for number in numbers:
        topology = f"{_CPU}/cpu{number}/topology"
        cores[tree.number(f"{topology}/die_id"), tree.number(f"{topology}/core_id")].append(number)
    rendered = [_core(tree, place, threads, isolated) for place, threads in sorted(cores.items())]
    frequencies = [core["frequency"] for core in rendered if "frequency" in core]
    scaling = f"{_CPU}/cpu{numbers[0]}/cpufreq"
    fields = {
        "name": name,
        "vendor": vendor,
        "socket": socket,
        "cache": _caches(tree, f"{_CPU}/cpu{numbers[0]}/cache"),
        "cores": rendered,
        "frequency": sum(frequencies) // len(frequencies) if frequencies else 0,
        "frequency_minimum": tree.number(f"{scaling}/cpuinfo_min_freq") // 1000,
        "frequency_turbo": tree.number(f"{scaling}/cpuinfo_max_freq") // 1000,
    }
    return without_empty(fields, _OPTIONAL)


def _core(tree: Tree, place: tuple[int, int], numbers: list[int], isolated: set[int]) -> dict[str, Any]:
    die, core = place
    threads = [
        {
            "id": number,
            "numa_node": _node(tree, number),
            "thread": index,
            "online": tree.number(f"{_CPU}/cpu{number}/online", 1) == 1,
            "isolated": number in isolated,
        }
        for index, number in enumerate(numbers)
    ]
    frequency = tree.number(f"{_CPU}/cpu{numbers[0]}/cpufreq/scaling_cur_freq") // 1000
    return without_empty({"core": core, "die": die, "threads": threads, "frequency": frequency}, ("frequency",))


def _node(tree: Tree, number: int) -> int:
    names = (name.removeprefix("node") for name in tree.names(f"{_CPU}/cpu{number}") if name.startswith("node"))
    return next((int(name) for name in names if name.isdigit()), 0)


def _caches(tree: Tree, folder: str) -> list[dict[str, Any]]:
    return [
        {
            "level": tree.number(f"{folder}/{name}/level"),
            "type": tree.text(f"{folder}/{name}/type"),
            "size": _size(tree.text(f"{folder}/{name}/size")),
        }
        for name in tree.names(folder)
        if name.startswith("index")
    ]


def _size(text: str) -> int:
    """`32K` in bytes."""
    digits = text.rstrip("KMG")
    return int(digits) * _UNITS.get(text[len(digits) :], 1) if digits.isdigit() else 0
