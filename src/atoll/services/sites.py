"""Where something that moves was, or is to be, as the phase of its row keeps it."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Site:
    """A volume's place. `snapshots`: those that have to go when the move is finished, or undone."""

    pool: str
    project: str
    name: str
    snapshots: tuple[str, ...] = ()

    def to_text(self) -> str:
        """For `from_text`."""
        return json.dumps(dataclasses.astuple(self))

    @classmethod
    def from_text(cls, text: str) -> Self:
        """The reverse of `to_text`."""
        pool, project, name, snapshots = json.loads(text)
        return cls(pool, project, name, tuple(snapshots))
