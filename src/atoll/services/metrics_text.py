"""Metrics as text, in the format that Prometheus reads, under LXD's names. Pure.

A family is a row of `FAMILIES`; what it shows of an instance are pairs of labels and a value. Interfaces are named by guests, so
every label's value is quoted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from atoll.drivers.instance.contract import Measures, Memory

_NICS_SHOWN = 64
"""Interfaces of one instance: a guest may make thousands of them, and each is kept by whoever collects the figures."""

_NAME_SHOWN = 64
"""Characters of what a guest has named; the kernel allows fewer, but it is not us who say that."""

Value = int | float
Sample = tuple[Mapping[str, str], Value]


@dataclass(frozen=True, slots=True)
class Filesystem:
    """A file system that an instance has a disk on. Bytes; `free` is what the instance could write if it were root."""

    mountpoint: str
    fstype: str
    size: int
    free: int
    available: int


@dataclass(frozen=True, slots=True)
class Measured:
    """An instance that runs, and what was counted of it."""

    project: str
    name: str
    type: str
    measures: Measures
    filesystems: Sequence[Filesystem]
    host_memory: int


@dataclass(frozen=True, slots=True)
class Family:
    """Figures of one name; `words` is the help text without its first two."""

    name: str
    words: str
    samples: Callable[[Measured], Iterable[Sample]]
    type: str = "gauge"
    typed: bool = True  # whether the instance's type is a label


def _cpu(each: Measured) -> Iterator[Sample]:
    for (cpu, mode), spent in sorted(each.measures.cpu_ns.items(), key=lambda item: (int(item[0][0]), item[0][1])):
        yield {"cpu": cpu, "mode": mode}, spent / 1e9


def _disk(name: str, words: str, figure: str) -> Family:
    def samples(each: Measured) -> Iterator[Sample]:
        for device, traffic in each.measures.disks.items():
            yield {"device": device}, getattr(traffic, figure)

    return Family(f"lxd_disk_{name}_total", words, samples, "counter")


def _filesystem(name: str, words: str, figure: str) -> Family:
    def samples(each: Measured) -> Iterator[Sample]:
        for found in each.filesystems:
            yield {"device": "", "fstype": found.fstype, "mountpoint": found.mountpoint}, getattr(found, figure)

    return Family(f"lxd_filesystem_{name}_bytes", words, samples, typed=False)


def _memory(name: str, words: str, figure: Callable[[Memory, int], int], *, type: str = "gauge") -> Family:
    def samples(each: Measured) -> Iterator[Sample]:
        memory = each.measures.memory
        yield {}, figure(memory, min(memory.limit or each.host_memory, each.host_memory))

    return Family(f"lxd_memory_{name}", words, samples, type)


def _network(name: str, words: str, counter: str) -> Family:
    def samples(each: Measured) -> Iterator[Sample]:
        for device, counters in list(each.measures.nics.items())[:_NICS_SHOWN]:
            yield {"device": device[:_NAME_SHOWN]}, counters.get(counter, 0)

    return Family(f"lxd_network_{name}_total", words, samples, "counter")


def _free(memory: Memory, total: int) -> int:
    return max(0, total - memory.used)


FAMILIES: tuple[Family, ...] = (
    Family("lxd_cpu_seconds_total", "total number of CPU time used in seconds", _cpu, "counter"),
    _disk("read_bytes", "total number of bytes read", "read_bytes"),
    _disk("reads_completed", "total number of completed reads", "reads"),
    _disk("written_bytes", "total number of bytes written", "written_bytes"),
    _disk("writes_completed", "total number of completed writes", "writes"),
    _filesystem("avail", "number of available space in bytes", "available"),
    _filesystem("free", "number of free space in bytes", "free"),
    _filesystem("size", "size of the filesystem in bytes", "size"),
    _memory("Active_anon_bytes", "amount of anonymous memory on active LRU list", lambda m, _: m.active_anon),
    _memory("Active_file_bytes", "amount of file-backed memory on active LRU list", lambda m, _: m.active_file),
    _memory("Active_bytes", "amount of memory on active LRU list", lambda m, _: m.active_anon + m.active_file),
    _memory("Cached_bytes", "amount of cached memory", lambda m, _: m.cached),
    _memory("Dirty_bytes", "amount of memory waiting to get written back to the disk", lambda m, _: m.dirty),
    _memory("Inactive_anon_bytes", "amount of anonymous memory on inactive LRU list", lambda m, _: m.inactive_anon),
    _memory("Inactive_file_bytes", "amount of file-backed memory on inactive LRU list", lambda m, _: m.inactive_file),
    _memory("Inactive_bytes", "amount of memory on inactive LRU list", lambda m, _: m.inactive_anon + m.inactive_file),
    _memory("Mapped_bytes", "amount of mapped memory", lambda m, _: m.mapped),
    _memory("MemAvailable_bytes", "amount of available memory", lambda m, total: min(total, _free(m, total) + m.cached)),
    _memory("MemFree_bytes", "amount of free memory", _free),
    _memory("MemTotal_bytes", "amount of memory that the instance may use", lambda _, total: total),
    _memory("OOM_kills_total", "number of out of memory kills", lambda m, _: m.oom_kills, type="counter"),
    _memory("RSS_bytes", "amount of anonymous and swap cache memory", lambda m, _: m.rss),
    _memory("Shmem_bytes", "amount of cached filesystem data that is swap-backed", lambda m, _: m.shmem),
    _memory("Swap_bytes", "amount of used swap memory", lambda m, _: m.swap),
    _memory("Unevictable_bytes", "amount of unevictable memory", lambda m, _: m.unevictable),
    _memory("Writeback_bytes", "amount of memory queued for syncing to disk", lambda m, _: m.writeback),
    _network("receive_bytes", "amount of received bytes on a given interface", "bytes_received"),
    _network("receive_drop", "amount of received dropped bytes on a given interface", "packets_dropped_inbound"),
    _network("receive_errs", "amount of received errors on a given interface", "errors_received"),
    _network("receive_packets", "amount of received packets on a given interface", "packets_received"),
    _network("transmit_bytes", "amount of transmitted bytes on a given interface", "bytes_sent"),
    _network("transmit_drop", "amount of transmitted dropped bytes on a given interface", "packets_dropped_outbound"),
    _network("transmit_errs", "amount of transmitted errors on a given interface", "errors_sent"),
    _network("transmit_packets", "amount of transmitted packets on a given interface", "packets_sent"),
    Family("lxd_procs_total", "number of running processes", lambda each: [({}, each.measures.processes)]),
)
"""In the order in which they are shown, which is LXD's. Huge pages are counted of virtual machines only."""


def render(listed: Sequence[Measured]) -> str:
    """All families that have figures, each with its head; the end is marked."""
    named = [(each, _labels({"name": each.name, "project": each.project})) for each in listed]
    return "".join(text for family in FAMILIES for text in _family(family, named)) + "# EOF\n"


def _family(family: Family, listed: Sequence[tuple[Measured, str]]) -> Iterator[str]:
    """The lines of a family; of each instance its name and project come as the text that they are in all families."""
    lines = [
        f"{family.name}{{{_labels(labels) + ',' if labels else ''}{name}{_labels_of_type(family, each)}}} {value}\n"
        for each, name in listed
        for labels, value in family.samples(each)
    ]
    if lines:
        yield f"# HELP {family.name} The {family.words}.\n# TYPE {family.name} {family.type}\n"
        yield from lines


def _labels_of_type(family: Family, each: Measured) -> str:
    return f',type="{each.type}"' if family.typed else ""


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f'{label}="{_quoted(text)}"' for label, text in labels.items())


def _quoted(text: str) -> str:
    if text.isalnum():  # nearly always
        return text
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
