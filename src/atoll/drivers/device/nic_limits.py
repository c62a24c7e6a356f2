"""Limits of a NIC's bit rate, set on the host's end of its veth pair.

What goes *into* the guest leaves by that end: it is shaped there by htb. What *comes from* the guest arrives there and cannot
be queued: it is policed by an nft rule on the interface's ingress, which needs no second interface to redirect to.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from atoll.config import devices
from atoll.drivers.device import nic_filters
from atoll.host import iproute, nftables, process
from atoll.host.iproute import Change
from atoll.host.nftables import Chain, Family, Interface, Table, rule

# A policer's bucket holds a tenth of a second, and at least two of the largest packets that a guest hands over unsegmented.
_BURST_SHARE = 10
_SMALLEST_BURST = 128 * 1024
_TABLE = devices.device_table("nic", "p2p")


@dataclass(frozen=True, slots=True)
class Limits:
    """Bits per second; 0 is no limit. `ingress` is into the guest, as LXD has it."""

    ingress: int = 0
    egress: int = 0


def wanted(config: Mapping[str, str]) -> Limits:
    """The limits that a configuration asks for; `limits.max` goes for both ways and before the others."""
    both = _TABLE.number(config, "limits.max")
    values = {way: both or _TABLE.number(config, f"limits.{way}") or 0 for way in ("ingress", "egress")}
    return Limits(values["ingress"], values["egress"])


def policer(host_name: str, bits: int) -> Table:
    """The table that drops what comes from the guest beyond that rate."""
    rate = max(bits // 8, 1)
    burst = max(rate // _BURST_SHARE, _SMALLEST_BURST)
    limit = rule("limit rate over", rate, "bytes/second burst", burst, "bytes drop")
    chain = Chain("ingress", (limit,), "filter hook ingress", device=Interface(host_name))
    return Table(Family.NETDEV, nic_filters.table_name(host_name), (chain,))


def shaper(host_name: str, bits: int, *, new: bool) -> list[Change]:
    """What shapes all that goes into the guest to that rate: the queue, where it is new, and its one class."""
    queue = ("qdisc", "add", "dev", host_name, "root", "handle", "1:", "htb", "default", "10")
    only = ("class", "replace", "dev", host_name, "parent", "1:", "classid", "1:10", "htb", "rate", f"{bits}bit")
    return [queue, only] if new else [only]


async def apply(host_name: str, limits: Limits, old: Limits | None = None) -> None:
    """Set limits on an interface that has those of `old` (None: it is new and has none)."""
    before = old or Limits()
    if bool(limits.ingress) != bool(before.ingress):  # htb takes another rate, but refuses to be put in its own place
        await process.run(["tc", "qdisc", "del", "dev", host_name, "root"], check=False)
    if limits.ingress:
        await iproute.tc(shaper(host_name, limits.ingress, new=not before.ingress))
    if limits.egress:
        await nftables.replace(policer(host_name, limits.egress))
    elif before.egress:
        await nftables.remove(Family.NETDEV, nic_filters.table_name(host_name))


async def forget(host_name: str, limits: Limits) -> None:
    """Remove what does not end with the interface."""
    if limits.egress:
        await nftables.remove(Family.NETDEV, nic_filters.table_name(host_name))
