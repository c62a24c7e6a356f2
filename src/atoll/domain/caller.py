"""Who asks."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Protocol(StrEnum):
    """The way a caller came in; the value is the word in a requestor."""

    UNIX = "unix"
    TLS = "tls"
    NONE = ""


@dataclass(frozen=True, slots=True)
class Caller:
    """A caller's identity and rights. A restricted one may only see and do what belongs to its `projects`."""

    protocol: Protocol
    username: str = ""
    address: str = ""
    trusted: bool = False
    restricted: bool = False
    projects: frozenset[str] = frozenset()
    certificate_type: str = "client"

    @property
    def is_admin(self) -> bool:
        """Whether everything is allowed."""
        return self.trusted and not self.restricted and self.certificate_type != "metrics"

    def may_use(self, project: str) -> bool:
        """Whether that project's objects may be seen and changed."""
        return self.is_admin or (self.trusted and self.certificate_type != "metrics" and project in self.projects)

    def may_measure(self, project: str) -> bool:
        """Whether figures of that project's instances may be read."""
        return self.trusted and (not self.restricted or project in self.projects)

    def requestor(self) -> dict[str, str]:
        """As events and operations show it."""
        return {"username": self.username, "protocol": self.protocol.value, "address": self.address}


DAEMON = Caller(Protocol.NONE, username="atolld", trusted=True)
"""The daemon itself, for what it does unasked."""

NOBODY = Caller(Protocol.NONE)
