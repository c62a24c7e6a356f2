"""What one can wait for at an instance. Each condition is a word, or a word and a value: `ipv4`, `tcp=80`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from atoll.domain.errors import BadRequest
from atoll.domain.status import InstanceStatus
from atoll.services.instances.lookout import View


class Kind(StrEnum):
    """The words."""

    RUNNING = "running"
    STOPPED = "stopped"
    IPV4 = "ipv4"
    IPV6 = "ipv6"
    TCP = "tcp"
    AGENT = "agent"
    EXEC = "exec"
    CLOUD_INIT = "cloud-init"

    @property
    def has_value(self) -> bool:
        """Whether something has to follow after `=`."""
        return self in (Kind.TCP, Kind.EXEC)


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: as it was asked for, and understood. `command` is what tells; empty where a look from outside does."""

    text: str
    kind: Kind
    port: int = 0
    command: Sequence[str] = ()

    def shows(self, view: View) -> bool:
        """Whether a look tells that it is met."""
        match self.kind:
            case Kind.RUNNING:
                return view.state.status is InstanceStatus.RUNNING
            case Kind.STOPPED:
                return view.state.status is InstanceStatus.STOPPED
            case Kind.IPV4:
                return _has_address(view, "inet")
            case Kind.IPV6:
                return _has_address(view, "inet6")
            case _:
                return self.port in view.ports


def _has_address(view: View, family: str) -> bool:
    """An address that others than the guest itself and its neighbours can reach."""
    return any(each[0] == family and each[3] == "global" for nic in view.state.nics for each in nic.addresses)


def parse(texts: Sequence[str]) -> list[Condition]:
    """Conditions as a client writes them, each once. BadRequest for what is none."""
    if not texts:
        raise BadRequest("for: there must be at least one condition")
    return [_parse(text) for text in dict.fromkeys(texts)]


def _parse(text: str) -> Condition:
    word, equals, value = text.partition("=")
    try:
        kind = Kind(word)
    except ValueError as error:
        known = ", ".join(each.value + ("=…" if each.has_value else "") for each in Kind)
        raise BadRequest(f"for: unknown condition {text[:60]!r}", hint=f"there are {known}") from error
    if kind.has_value != bool(value) or (equals and not kind.has_value):
        raise BadRequest(f"for: {word} {'needs a' if kind.has_value else 'takes no'} value")
    match kind:
        case Kind.TCP:
            return Condition(text, kind, port=_port(value))
        case Kind.EXEC:
            return Condition(text, kind, command=_words(value))
        case Kind.AGENT:
            return Condition(text, kind, command=["true"])
        case Kind.CLOUD_INIT:
            return Condition(text, kind, command=["cloud-init", "status", "--wait"])
        case _:
            return Condition(text, kind)


def _port(value: str) -> int:
    if not (value.isascii() and value.isdecimal() and 0 < int(value[:6]) < 1 << 16):
        raise BadRequest(f"for: {value[:20]!r} is not a TCP port")
    return int(value)


def _words(value: str) -> list[str]:
    try:
        words = shlex.split(value)
    except ValueError as error:
        raise BadRequest(f"for: the command {value[:60]!r} cannot be understood: {error}") from error
    if not words or "\0" in value:
        raise BadRequest("for: the command may not be empty or hold a NUL character")
    return words
