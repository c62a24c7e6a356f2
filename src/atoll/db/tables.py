"""What all owners of configuration share: reading and replacing key/value and device tables in a fixed number of statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from atoll.db.engine import Row, Transaction

Statement = tuple[Any, ...]


def config_of(rows: Iterable[Row]) -> dict[int, dict[str, str]]:
    """(owner id, key, value) rows, grouped by owner."""
    grouped: dict[int, dict[str, str]] = defaultdict(dict)
    for owner, key, value in rows:
        grouped[owner][key] = value
    return grouped


def devices_of(rows: Iterable[Row]) -> dict[int, dict[str, dict[str, str]]]:
    """(owner id, device name, key or None, value) rows, grouped by owner and device."""
    grouped: dict[int, dict[str, dict[str, str]]] = defaultdict(dict)
    for owner, name, key, value in rows:
        device = grouped[owner].setdefault(name, {})
        if key is not None:
            device[key] = value
    return grouped


async def replace_config(tx: Transaction, table: str, owner: str, owner_id: int, config: Mapping[str, str]) -> None:
    """Make `config` all that the owner has; keys with an empty value are not kept."""
    await tx.execute(f"DELETE FROM {table}_config WHERE {owner}_id = ?", owner_id)
    await add_config(tx, table, owner, owner_id, config)


async def add_config(tx: Transaction, table: str, owner: str, owner_id: int, config: Mapping[str, str]) -> None:
    """The configuration of an owner that has none yet."""
    rows = [(owner_id, key, value) for key, value in config.items() if value != ""]
    await tx.many(f"INSERT INTO {table}_config ({owner}_id, key, value) VALUES (?, ?, ?)", rows)


async def patch_config(tx: Transaction, table: str, owner: str, owner_id: int, changes: Mapping[str, str]) -> None:
    """Set the given keys and leave the others; an empty value removes a key."""
    await tx.many(f"DELETE FROM {table}_config WHERE {owner}_id = ? AND key = ?", [(owner_id, key) for key in changes])
    rows = [(owner_id, key, value) for key, value in changes.items() if value != ""]
    await tx.many(f"INSERT INTO {table}_config ({owner}_id, key, value) VALUES (?, ?, ?)", rows)


async def replace_devices(
    tx: Transaction, table: str, owner: str, owner_id: int, devices: Mapping[str, Mapping[str, str]]
) -> None:
    """Make `devices` all that the owner has."""
    await tx.execute(f"DELETE FROM {table}_devices WHERE {owner}_id = ?", owner_id)
    await add_devices(tx, table, owner, owner_id, devices)


async def add_devices(tx: Transaction, table: str, owner: str, owner_id: int, devices: Mapping[str, Mapping[str, str]]) -> None:
    """The devices of an owner that has none yet."""
    rows: list[tuple[int, str, str]] = []
    for name, device in devices.items():
        device_id = await tx.insert(f"INSERT INTO {table}_devices ({owner}_id, name) VALUES (?, ?)", owner_id, name)
        rows += [(device_id, key, value) for key, value in device.items() if value != ""]
    await tx.many(f"INSERT INTO {table}_devices_config ({owner}_device_id, key, value) VALUES (?, ?, ?)", rows)


def select_config(table: str, owner: str, where: str, *parameters: Any) -> Statement:
    """The statement for `config_of`; `where` may speak of the owner's table by its name."""
    return (
        f"SELECT c.{owner}_id, c.key, c.value FROM {table}_config c JOIN {table} ON {table}.id = c.{owner}_id WHERE {where}",
        *parameters,
    )


def select_devices(table: str, owner: str, where: str, *parameters: Any) -> Statement:
    """The statement for `devices_of`."""
    return (
        f"SELECT d.{owner}_id, d.name, c.key, c.value FROM {table}_devices d"
        f" JOIN {table} ON {table}.id = d.{owner}_id"
        f" LEFT JOIN {table}_devices_config c ON c.{owner}_device_id = d.id WHERE {where} ORDER BY d.id",
        *parameters,
    )
