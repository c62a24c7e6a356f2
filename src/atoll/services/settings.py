"""The server's own configuration: rows in the global and in the local database, one effective config in memory.

Whoever depends on keys subscribes to a prefix of their names. A subscriber is an async context manager around the commit: it is
entered with the changed keys after they were found valid, and may refuse by raising; when the commit or a later subscriber
fails it gets that error and undoes what it did; when it is left without one, the change is in force.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any

from atoll.config import SERVER
from atoll.config.table import Scope
from atoll.db import settings as rows
from atoll.db.engine import Database
from atoll.domain.caller import Caller
from atoll.domain.errors import BadRequest
from atoll.host import passwords
from atoll.host.threads import in_thread
from atoll.services.events import EventHub

log = logging.getLogger(__name__)

PASSWORD = "core.trust_password"

Changes = Mapping[str, str]
"""New values of the keys that change; "" for one that is unset."""

Around = Callable[[Changes], AbstractAsyncContextManager[None]]


class SettingsService:
    """Use cases of the server's configuration. `load` comes first."""

    def __init__(self, global_db: Database, local_db: Database, hub: EventHub) -> None:
        self._global_db = global_db
        self._local_db = local_db
        self._hub = hub
        self._config: dict[str, str] = {}
        self._subscribers: list[tuple[str, Around]] = []
        self._listeners: list[Callable[[], None]] = []
        self._turn = asyncio.Lock()

    async def load(self) -> None:
        """Read both databases."""
        async with self._global_db.read() as tx:
            shared = await rows.load(tx)
        async with self._local_db.read() as tx:
            local = await rows.load(tx)
        self._config = {**_usable(shared, Scope.GLOBAL), **_usable(local, Scope.LOCAL)}
        self._tell()

    # --- reading -------------------------------------------------------------------------------------------------------

    def get(self, key: str) -> Any:
        """The typed value of a key, else of its default, else None."""
        return SERVER.get(self._config, key)

    def flag(self, key: str) -> bool:
        """The value of a boolean key."""
        return SERVER.flag(self._config, key)

    def text(self, key: str) -> str:
        """The value of a key as it was set, else its default, else ""."""
        return self._config.get(key) or SERVER.defaults().get(key, "")

    def shown(self) -> dict[str, Any]:
        """What clients see: the keys that are set, secrets as `true`."""
        return {key: True if _is_secret(key) else value for key, value in sorted(self._config.items())}

    # --- subscribing ---------------------------------------------------------------------------------------------------

    def around_change(self, prefix: str, around: Around) -> None:
        """Put a context manager around each commit that changes keys of that prefix; it is given those keys only."""
        self._subscribers.append((prefix, around))

    def on_change(self, prefix: str, callback: Callable[[Changes], Awaitable[None]]) -> None:
        """Call back before the commit; for subscribers that only check, or whose work needs no undo."""

        @contextlib.asynccontextmanager
        async def around(changes: Changes) -> AsyncIterator[None]:
            await callback(changes)
            yield

        self.around_change(prefix, around)

    def on_commit(self, callback: Callable[[], None]) -> None:
        """Call back when a change is in force, for caches of what was read here."""
        self._listeners.append(callback)

    # --- changing ------------------------------------------------------------------------------------------------------

    async def replace(self, config: Mapping[str, Any], *, caller: Caller) -> None:
        """Make `config` the whole configuration. A secret that is `true`, as it is shown, stays what it is."""
        given = _as_text(config)
        async with self._turn:
            kept = {key: value for key, value in self._config.items() if config.get(key) is True and _is_secret(key)}
            await self._change({**given, **kept}, caller=caller)

    async def patch(self, changes: Mapping[str, Any], *, caller: Caller) -> None:
        """Set the given keys; "" or null unsets one."""
        given = _as_text(changes)
        async with self._turn:
            await self._change({**self._config, **given}, caller=caller)

    async def _change(self, wanted: dict[str, str], *, caller: Caller) -> None:
        """To the wanted configuration, by way of all subscribers. The turn is held."""
        SERVER.validate(wanted)
        wanted = {key: value for key, value in wanted.items() if value}
        changes = {
            key: wanted.get(key, "")
            for key in sorted({*wanted, *self._config})
            if wanted.get(key, "") != self._config.get(key, "")
        }
        if not changes:
            return
        if changes.get(PASSWORD):
            changes[PASSWORD] = await in_thread(passwords.make_hash, changes[PASSWORD])
        async with AsyncExitStack() as stack:
            for prefix, around in self._subscribers:
                if concerned := {key: value for key, value in changes.items() if key.startswith(prefix)}:
                    await stack.enter_async_context(around(concerned))
            await self._store(changes)
        self._hub.lifecycle("config-updated", "/1.0", caller=caller)

    async def _store(self, changes: Changes) -> None:
        local = {key: value for key, value in changes.items() if _scope(key) is Scope.LOCAL}
        shared = {key: value for key, value in changes.items() if key not in local}
        async with AsyncExitStack() as stack:
            for database, part in ((self._local_db, local), (self._global_db, shared)):
                if part:
                    await rows.store(await stack.enter_async_context(database.write()), part)
        merged = {**self._config, **changes}
        self._config = {key: value for key, value in merged.items() if value}
        self._tell()

    def _tell(self) -> None:
        for callback in self._listeners:
            callback()


def _usable(config: Mapping[str, str], scope: Scope) -> dict[str, str]:
    """Stored values that still are valid; another release, or a person with `atolld sql`, may have left others."""
    found: dict[str, str] = {}
    for key, value in config.items():
        try:
            SERVER.validate_one(key, value)
        except BadRequest as error:
            log.warning("A stored server setting is ignored: %s", error)
        else:
            if _scope(key) is scope:
                found[key] = value
    return found


def _scope(key: str) -> Scope:
    row = SERVER.find(key)
    return Scope.GLOBAL if row is None else row.scope


def _is_secret(key: str) -> bool:
    row = SERVER.find(key)
    return row is not None and row.secret


def _as_text(config: Mapping[str, Any]) -> dict[str, str]:
    """The values that a client sent as text; a secret sent as it is shown is left out. BadRequest for lists and the like."""
    found: dict[str, str] = {}
    for key, value in config.items():
        if value is True and _is_secret(key):
            continue
        if value is None:
            found[key] = ""
        elif isinstance(value, bool):
            found[key] = "true" if value else "false"
        elif isinstance(value, (str, int)):
            found[key] = str(value)
        else:
            raise BadRequest(f"cannot set '{key[:80]}': its value must be a string")
    return found
