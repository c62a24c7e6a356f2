"""Running commands in instances: over websockets, interactive or not; recorded to files; or just run."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.domain.caller import Caller
from atoll.domain.errors import BadRequest
from atoll.services.instances.core import InstanceCore, instance_resources
from atoll.services.instances.exec_run import Command, Run
from atoll.services.operations import Operation, OperationClass, OperationRegistry, OperationSpec

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ExecService:
    """Use cases of exec."""

    def __init__(self, core: InstanceCore, operations: OperationRegistry) -> None:
        self._core = core
        self._operations = operations

    async def start(self, project: str, name: str, command: Command, *, caller: Caller) -> Operation:
        """The operation that runs it. BadRequest if the instance does not run or the command is malformed."""
        loaded = await self._core.load(project, name)
        self._core.require_running(loaded)
        _check(command)
        variables = environment(loaded.expanded.config, command)
        run = Run(self._core, loaded, command, variables)
        operation = self._operations.start(
            OperationSpec(
                "Executing command",
                run.work,
                cls=OperationClass.WEBSOCKET if command.websockets else OperationClass.TASK,
                project=project,
                resources=instance_resources(name),
                metadata={
                    "command": list(command.command),
                    "environment": variables,
                    "interactive": command.interactive,
                },
                caller=caller,
                cancellable=True,
                sockets=run.sockets.secrets,
                connect=run.sockets.connect,
            )
        )
        self._core.tell("instance-exec", loaded.record, caller=caller, context={"command": list(command.command)})
        return operation


def _check(command: Command) -> None:
    if not command.command or not command.command[0]:
        raise BadRequest("command: it may not be empty")
    texts = [*command.command, command.cwd, *command.environment, *command.environment.values()]
    if any("\0" in text for text in texts):
        raise BadRequest("command: NUL characters are not allowed")
    if any("=" in key or not key for key in command.environment):
        raise BadRequest("environment: invalid variable name")
    if not (0 <= command.user < 2**32 - 1 and 0 <= command.group < 2**32 - 1):
        raise BadRequest("user, group: out of range")
    if command.record and (command.websockets or command.interactive):
        raise BadRequest("record-output: only without websockets and not interactive")


def environment(config: Mapping[str, str], command: Command) -> dict[str, str]:
    """The instance's own variables, LXD's defaults where nobody says otherwise, the client's on top."""
    found = {k.removeprefix("environment."): v for k, v in config.items() if k.startswith("environment.")}
    found.setdefault("PATH", _PATH)
    found.setdefault("LANG", "C.UTF-8")
    if command.user == 0:
        found.setdefault("HOME", "/root")
        found.setdefault("USER", "root")
    return {**found, **command.environment}
