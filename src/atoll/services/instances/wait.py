"""Waiting until an instance is ready: for an address, a port, a command that succeeds, the end of cloud-init …"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence
from typing import Any

from atoll.domain.caller import Caller
from atoll.domain.errors import AtollError, BadRequest, DeadlineExceeded, HostError, NotFound
from atoll.drivers.instance.contract import ExecSpec
from atoll.services.instances import exec as exec_
from atoll.services.instances.conditions import Condition, Kind, parse
from atoll.services.instances.core import InstanceCore, Loaded, instance_resources
from atoll.services.instances.exec_run import Command
from atoll.services.instances.lookout import Lookout
from atoll.services.operations import Operation, OperationRegistry, OperationSpec

_PRESENCE_SECONDS = 5.0
_PAUSE_FIRST, _PAUSE_MOST = 0.05, 2.0
_NOT_FOUND, _KILLED = 127, 128
_CLOUD_INIT_DONE = (0, 2)
"""Exit statuses of `cloud-init status --wait`: all went well, or it recovered from errors."""


class WaitService:
    """Use cases of waiting."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
        self._operations = operations
        self._lookout = Lookout(core.driver)

    async def start(self, project: str, name: str, wanted: Sequence[str], *, timeout: float, caller: Caller) -> Operation:
        """The operation that ends when each condition was met, or fails after `timeout` seconds (0: never).

        It can be started before the instance is. Its metadata tells which conditions have been met.
        """
        conditions = parse(wanted)
        if not 0 <= timeout < float("inf"):
            raise BadRequest("timeout: must not be negative")
        loaded = await self._core.load(project, name)
        wait = _Wait(self._core, self._lookout, loaded, conditions, timeout)
        return self._operations.start(
            OperationSpec(
                "Waiting for instance",
                wait.work,
                project=project,
                resources=instance_resources(name),
                metadata={"conditions": dict(wait.met)},
                caller=caller,
                cancellable=True,
            )
        )


class _Wait:
    """One wait for one instance."""

    def __init__(
        self, core: InstanceCore, lookout: Lookout, loaded: Loaded, conditions: Sequence[Condition], timeout: float
    ) -> None:
        self._core = core
        self._lookout = lookout
        self._loaded = loaded
        self._conditions = conditions
        self._timeout = timeout
        self.met = {each.text: False for each in conditions}

    async def work(self, operation: Operation) -> None:
        """The operation's work. DeadlineExceeded when the time is over, NotFound when the instance goes."""
        tasks = [asyncio.ensure_future(self._await(each, operation)) for each in self._conditions]
        presence: asyncio.Future[Any] = asyncio.ensure_future(self._presence())
        everything: asyncio.Future[Any] = asyncio.gather(*tasks)
        try:
            async with asyncio.timeout(self._timeout or None):
                done, _ = await asyncio.wait([everything, presence], return_when=asyncio.FIRST_COMPLETED)
            for each in done:
                each.result()
        except TimeoutError as error:
            missing = ", ".join(text for text, met in self.met.items() if not met)
            raise DeadlineExceeded(f"Timed out waiting for {missing}") from error
        finally:
            for task in (*tasks, presence):
                task.cancel()
            await asyncio.gather(*tasks, presence, everything, return_exceptions=True)

    async def _presence(self) -> None:
        """Until the instance is gone: NotFound."""
        record = self._loaded.record
        while True:
            await asyncio.sleep(_PRESENCE_SECONDS)
            if (await self._core.load(record.project, record.name)).record.id != record.id:
                raise NotFound("Instance not found")

    async def _await(self, condition: Condition, operation: Operation) -> None:
        if condition.command:
            await self._until_told(condition)
        else:
            await self._lookout.until(self._loaded.machine, condition.shows, ports=condition.kind is Kind.TCP)
        self.met[condition.text] = True
        operation.update({"conditions": dict(self.met)})

    async def _until_told(self, condition: Condition) -> None:
        """Run its command until that tells what is waited for; each time at longer intervals."""
        running = Condition("", Kind.RUNNING)
        pause = _PAUSE_FIRST
        while True:
            await self._lookout.until(self._loaded.machine, running.shows)
            try:
                status = await self._run(condition.command)
            except AtollError:  # it has stopped again, or cannot take commands yet
                status = None
            if status is not None and _tells(condition, status):
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _PAUSE_MOST)

    async def _run(self, command: Sequence[str]) -> int:
        """A command's exit status; what it says is thrown away."""
        environment = exec_.environment(self._loaded.expanded.config, Command(command))
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            spec = ExecSpec(command, environment, 0, 0, "/", null, null, null)
            process = await self._core.driver.exec(self._loaded.machine, spec)
        finally:
            os.close(null)
        try:
            return await process.wait()
        except asyncio.CancelledError:
            process.signal(signal.SIGKILL)
            raise


def _tells(condition: Condition, status: int) -> bool:
    """Whether a command's exit status says that the condition is met. NotFound, HostError if it never will be."""
    if condition.kind is Kind.AGENT:
        return status < _KILLED
    if condition.kind is Kind.EXEC:
        return status == 0
    if status == _NOT_FOUND:
        raise NotFound("There is no cloud-init in the instance")
    if status not in _CLOUD_INIT_DONE and status < _KILLED:
        raise HostError(f"cloud-init failed in the instance: its status command exited with {status}")
    return status < _KILLED
