"""LXD's status words and codes, for instances and operations, and the state tables over them."""

from __future__ import annotations

from enum import StrEnum


class InstanceStatus(StrEnum):
    """What an instance is doing; the value is the word on the wire."""

    STOPPED = "Stopped"
    RUNNING = "Running"
    FROZEN = "Frozen"
    ERROR = "Error"

    @property
    def code(self) -> int:
        """LXD's number for the word."""
        return _INSTANCE_CODES[self]

    @property
    def is_running(self) -> bool:
        """Whether it has processes (a frozen one has)."""
        return self in (InstanceStatus.RUNNING, InstanceStatus.FROZEN)


_INSTANCE_CODES = {
    InstanceStatus.STOPPED: 102,
    InstanceStatus.RUNNING: 103,
    InstanceStatus.FROZEN: 110,
    InstanceStatus.ERROR: 112,
}


class OperationStatus(StrEnum):
    """Where an operation stands."""

    PENDING = "Pending"
    RUNNING = "Running"
    CANCELLING = "Cancelling"
    SUCCESS = "Success"
    FAILURE = "Failure"
    CANCELLED = "Cancelled"

    @property
    def code(self) -> int:
        """LXD's number for the word."""
        return _OPERATION_CODES[self]

    @property
    def is_final(self) -> bool:
        """Whether it will not change any more."""
        return self.code >= 200


_OPERATION_CODES = {
    OperationStatus.PENDING: 105,
    OperationStatus.RUNNING: 103,
    OperationStatus.CANCELLING: 104,
    OperationStatus.SUCCESS: 200,
    OperationStatus.FAILURE: 400,
    OperationStatus.CANCELLED: 401,
}


class StateAction(StrEnum):
    """What `PUT …/state` may ask for."""

    START = "start"
    STOP = "stop"
    RESTART = "restart"
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
