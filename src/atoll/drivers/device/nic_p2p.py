"""`nictype: p2p`: a veth pair of which one end is left to the host's administrator."""

from __future__ import annotations

from atoll.drivers.device.nic_veth import VethNic


class P2pNic(VethNic):
    """All that a veth pair can do, and nothing more."""
