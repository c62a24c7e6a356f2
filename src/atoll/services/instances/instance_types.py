"""`instance_type` of a request: sizes written out (`c2-m4`), or a type of one of the large clouds (`aws:t2.micro`)."""

from __future__ import annotations

import functools
import re

from atoll.domain.errors import BadRequest

_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,3})?"
_SIZES = re.compile(rf"(?:c(?P<cpus>{_NUMBER}))?(?:-?m(?P<memory>{_NUMBER}))?")

_ALIASES = {"gcp": "gce"}

# A line is a series: how its names are made, then `size:CPUs/GiB` for each.
_CLOUDS = {
    "aws": """
        t1.% micro:1/0.6
        t2.% nano:1/0.5 micro:1/1 small:1/2 medium:2/4 large:2/8 xlarge:4/16 2xlarge:8/32
        t3.% nano:2/0.5 micro:2/1 small:2/2 medium:2/4 large:2/8 xlarge:4/16 2xlarge:8/32
        t3a.% nano:2/0.5 micro:2/1 small:2/2 medium:2/4 large:2/8 xlarge:4/16 2xlarge:8/32
        t4g.% nano:2/0.5 micro:2/1 small:2/2 medium:2/4 large:2/8 xlarge:4/16 2xlarge:8/32
        m1.% small:1/1.7 medium:1/3.75 large:2/7.5 xlarge:4/15
        m3.% medium:1/3.75 large:2/7.5 xlarge:4/15 2xlarge:8/30
        m4.% large:2/8 xlarge:4/16 2xlarge:8/32 4xlarge:16/64 10xlarge:40/160 16xlarge:64/256
        m5.% large:2/8 xlarge:4/16 2xlarge:8/32 4xlarge:16/64 8xlarge:32/128 12xlarge:48/192 16xlarge:64/256 24xlarge:96/384
        m6g.% medium:1/4 large:2/8 xlarge:4/16 2xlarge:8/32 4xlarge:16/64 8xlarge:32/128 12xlarge:48/192 16xlarge:64/256
        m6i.% large:2/8 xlarge:4/16 2xlarge:8/32 4xlarge:16/64 8xlarge:32/128 12xlarge:48/192 16xlarge:64/256 24xlarge:96/384
        c3.% large:2/3.75 xlarge:4/7.5 2xlarge:8/15 4xlarge:16/30 8xlarge:32/60
        c4.% large:2/3.75 xlarge:4/7.5 2xlarge:8/15 4xlarge:16/30 8xlarge:36/60
        c5.% large:2/4 xlarge:4/8 2xlarge:8/16 4xlarge:16/32 9xlarge:36/72 12xlarge:48/96 18xlarge:72/144 24xlarge:96/192
        c6g.% medium:1/2 large:2/4 xlarge:4/8 2xlarge:8/16 4xlarge:16/32 8xlarge:32/64 12xlarge:48/96 16xlarge:64/128
        c6i.% large:2/4 xlarge:4/8 2xlarge:8/16 4xlarge:16/32 8xlarge:32/64 12xlarge:48/96 16xlarge:64/128 24xlarge:96/192
        r3.% large:2/15.25 xlarge:4/30.5 2xlarge:8/61 4xlarge:16/122 8xlarge:32/244
        r4.% large:2/15.25 xlarge:4/30.5 2xlarge:8/61 4xlarge:16/122 8xlarge:32/244 16xlarge:64/488
        r5.% large:2/16 xlarge:4/32 2xlarge:8/64 4xlarge:16/128 8xlarge:32/256 12xlarge:48/384 16xlarge:64/512 24xlarge:96/768
    """,
    "azure": """
        standard_b% 1ls:1/0.5 1s:1/1 1ms:1/2 2s:2/4 2ms:2/8 4ms:4/16 8ms:8/32 12ms:12/48 16ms:16/64 20ms:20/80
        standard_a%_v2 1:1/2 2:2/4 4:4/8 8:8/16 2m:2/16 4m:4/32 8m:8/64
        standard_ds%_v2 1:1/3.5 2:2/7 3:4/14 4:8/28 5:16/56
        standard_d%_v3 2:2/8 4:4/16 8:8/32 16:16/64 32:32/128 48:48/192 64:64/256
        standard_d%s_v3 2:2/8 4:4/16 8:8/32 16:16/64 32:32/128 48:48/192 64:64/256
        standard_d%s_v5 2:2/8 4:4/16 8:8/32 16:16/64 32:32/128 48:48/192 64:64/256 96:96/384
        standard_e%_v3 2:2/16 4:4/32 8:8/64 16:16/128 20:20/160 32:32/256 48:48/384 64:64/432
        standard_e%s_v3 2:2/16 4:4/32 8:8/64 16:16/128 20:20/160 32:32/256 48:48/384 64:64/432
        standard_f%s_v2 2:2/4 4:4/8 8:8/16 16:16/32 32:32/64 48:48/96 64:64/128 72:72/144
    """,
    "gce": """
        f1-% micro:0.2/0.6
        g1-% small:0.5/1.7
        n1-standard-% 1:1/3.75 2:2/7.5 4:4/15 8:8/30 16:16/60 32:32/120 64:64/240 96:96/360
        n1-highmem-% 2:2/13 4:4/26 8:8/52 16:16/104 32:32/208 64:64/416 96:96/624
        n1-highcpu-% 2:2/1.8 4:4/3.6 8:8/7.2 16:16/14.4 32:32/28.8 64:64/57.6 96:96/86.4
        n2-standard-% 2:2/8 4:4/16 8:8/32 16:16/64 32:32/128 48:48/192 64:64/256 80:80/320
        n2-highmem-% 2:2/16 4:4/32 8:8/64 16:16/128 32:32/256 48:48/384 64:64/512 80:80/640
        n2-highcpu-% 2:2/2 4:4/4 8:8/8 16:16/16 32:32/32 48:48/48 64:64/64 80:80/80
        e2-% micro:2/1 small:2/2 medium:2/4
        e2-standard-% 2:2/8 4:4/16 8:8/32 16:16/64 32:32/128
        e2-highmem-% 2:2/16 4:4/32 8:8/64 16:16/128
        e2-highcpu-% 2:2/2 4:4/4 8:8/8 16:16/16 32:32/32
    """,
}


def limits_of(instance_type: str) -> dict[str, str]:
    """The `limits.*` that a type stands for. BadRequest for what is not known."""
    text = instance_type.lower()
    cloud, colon, name = text.rpartition(":")
    cloud = _ALIASES.get(cloud, cloud)
    if (found := _known().get((cloud, name))) and bool(colon) == bool(cloud):
        return _limits(*found)
    match = _SIZES.fullmatch(text)
    cpus, memory = match.group("cpus", "memory") if match else (None, None)
    amounts = [float(each) for each in (cpus, memory) if each is not None]
    if not amounts or min(amounts) < 0.01:
        raise BadRequest(
            f"Unknown instance type {instance_type[:40]!r}",
            hint="write it as cCPUS-mGIB, e.g. c2-m4, or as a type of aws, azure or gce, e.g. aws:t2.micro",
        )
    return _limits(float(cpus) if cpus else None, float(memory) if memory else None)


def _limits(cpus: float | None, memory: float | None) -> dict[str, str]:
    limits: dict[str, str] = {}
    if cpus is not None:
        limits["limits.cpu"] = str(max(1, int(cpus)))
        if cpus < 1:
            limits["limits.cpu.allowance"] = f"{int(cpus * 100)}%"
    if memory is not None:
        limits["limits.memory"] = f"{int(memory * 1024)}MB"  # as LXD writes it, whose GiB are a little small
    return limits


@functools.cache
def _known() -> dict[tuple[str, str], tuple[float, float]]:
    """(cloud or "", type) -> (CPUs, GiB). A type is found without its cloud too: no two clouds have one of the same name."""
    found: dict[tuple[str, str], tuple[float, float]] = {}
    for cloud, table in _CLOUDS.items():
        for line in table.strip().splitlines():
            series, *sizes = line.split()
            for size in sizes:
                name, _, amounts = size.partition(":")
                cpus, _, memory = amounts.partition("/")
                found[cloud, series.replace("%", name)] = found["", series.replace("%", name)] = (float(cpus), float(memory))
    return found
