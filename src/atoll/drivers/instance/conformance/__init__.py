"""The conformance suite of instance drivers: what every driver has to do, whatever it runs machines with.

A driver's own test module subclasses `Conformance` and gives the fixture `rig`, which is a `Rig`. Needs pytest and
pytest-asyncio (auto mode). The machines' root file system has to hold a shell and the common small commands, as busybox
brings them.
"""

from atoll.drivers.instance.conformance.changes import Changes
from atoll.drivers.instance.conformance.commands import Commands
from atoll.drivers.instance.conformance.console import Consoles
from atoll.drivers.instance.conformance.life import Life
from atoll.drivers.instance.conformance.rig import Rig, run, started

__all__ = ["Conformance", "Rig", "run", "started"]


class Conformance(Life, Commands, Consoles, Changes):
    """One method per promise of the contract."""
