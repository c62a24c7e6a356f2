"""The server's own configuration: rows of `config` in the global and in the local database."""

from __future__ import annotations

from collections.abc import Mapping

from atoll.db.engine import Transaction


async def load(tx: Transaction) -> dict[str, str]:
    """All keys of this database."""
    return dict(await tx.query("SELECT key, value FROM config ORDER BY key"))


async def store(tx: Transaction, changes: Mapping[str, str]) -> None:
    """Set keys; an empty value removes one."""
    await tx.many("DELETE FROM config WHERE key = ?", [(key,) for key in changes])
    await tx.many("INSERT INTO config (key, value) VALUES (?, ?)", [(k, v) for k, v in changes.items() if v != ""])
