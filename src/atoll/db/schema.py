"""The tables. Names follow LXD's, because its scripts and people read them with `atolld sql`.

A database's version is the highest row of its `schema` table; each migration is a list of statements and is applied in one
transaction with its version row. Rows that belong to one host carry a `node_id`.
"""

from __future__ import annotations

import time

from atoll.db.engine import Database


def _config(owner: str, table: str) -> str:
    """A key/value table of an owner's configuration."""
    return f"""CREATE TABLE {table}_config (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        {owner}_id INTEGER NOT NULL REFERENCES {table} (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        UNIQUE ({owner}_id, key))"""


def _member_config(owner: str, table: str) -> str:
    """As `_config`, with rows that hold on one member only (node_id) or on all (NULL)."""
    return f"""CREATE TABLE {table}_config (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        {owner}_id INTEGER NOT NULL REFERENCES {table} (id) ON DELETE CASCADE,
        node_id INTEGER REFERENCES nodes (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        UNIQUE ({owner}_id, node_id, key))"""


def _devices(owner: str, table: str) -> list[str]:
    """The two tables of an owner's devices."""
    return [
        f"""CREATE TABLE {table}_devices (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        {owner}_id INTEGER NOT NULL REFERENCES {table} (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        UNIQUE ({owner}_id, name))""",
        f"""CREATE TABLE {table}_devices_config (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        {owner}_device_id INTEGER NOT NULL REFERENCES {table}_devices (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        UNIQUE ({owner}_device_id, key))""",
    ]


_SCHEMA_TABLE = """CREATE TABLE schema (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        version INTEGER NOT NULL UNIQUE,
        updated_at TEXT NOT NULL)"""

GLOBAL: list[list[str]] = [
    [
        """CREATE TABLE nodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        name TEXT NOT NULL UNIQUE,
        description TEXT NOT NULL DEFAULT '',
        address TEXT NOT NULL UNIQUE,
        arch TEXT NOT NULL DEFAULT '')""",
        "INSERT INTO nodes (id, name, address) VALUES (1, 'none', '0.0.0.0')",
        """CREATE TABLE config (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        key TEXT NOT NULL UNIQUE,
        value TEXT NOT NULL)""",
        """CREATE TABLE projects (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        name TEXT NOT NULL UNIQUE,
        description TEXT NOT NULL DEFAULT '')""",
        _config("project", "projects"),
        "INSERT INTO projects (id, name, description) VALUES (1, 'default', 'Default LXD project')",
        "INSERT INTO projects_config (project_id, key, value) VALUES (1, 'features.images', 'true')",
        "INSERT INTO projects_config (project_id, key, value) VALUES (1, 'features.profiles', 'true')",
        "INSERT INTO projects_config (project_id, key, value) VALUES (1, 'features.storage.volumes', 'true')",
        "INSERT INTO projects_config (project_id, key, value) VALUES (1, 'features.networks', 'true')",
        """CREATE TABLE profiles (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        name TEXT NOT NULL,
        description TEXT NOT NULL DEFAULT '',
        project_id INTEGER NOT NULL REFERENCES projects (id),
        UNIQUE (project_id, name))""",
        _config("profile", "profiles"),
        *_devices("profile", "profiles"),
        "INSERT INTO profiles (project_id, name, description) VALUES (1, 'default', 'Default LXD profile')",
        """CREATE TABLE certificates (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        fingerprint TEXT NOT NULL UNIQUE,
        type TEXT NOT NULL,
        name TEXT NOT NULL,
        certificate TEXT NOT NULL,
        restricted INTEGER NOT NULL DEFAULT 0)""",
        """CREATE TABLE certificates_projects (
        certificate_id INTEGER NOT NULL REFERENCES certificates (id) ON DELETE CASCADE,
        project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
        UNIQUE (certificate_id, project_id))""",
        """CREATE TABLE images (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        project_id INTEGER NOT NULL REFERENCES projects (id),
        fingerprint TEXT NOT NULL,
        type TEXT NOT NULL DEFAULT 'container',
        filename TEXT NOT NULL DEFAULT '',
        size INTEGER NOT NULL,
        public INTEGER NOT NULL DEFAULT 0,
        architecture TEXT NOT NULL,
        creation_date INTEGER NOT NULL DEFAULT 0,
        expiry_date INTEGER NOT NULL DEFAULT 0,
        upload_date INTEGER NOT NULL DEFAULT 0,
        last_use_date INTEGER NOT NULL DEFAULT 0,
        cached INTEGER NOT NULL DEFAULT 0,
        auto_update INTEGER NOT NULL DEFAULT 0,
        format TEXT NOT NULL DEFAULT 'unified',
        UNIQUE (project_id, fingerprint))""",
        "CREATE INDEX images_fingerprint ON images (fingerprint)",
        """CREATE TABLE images_properties (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        key TEXT NOT NULL,
        value TEXT NOT NULL,
        UNIQUE (image_id, key))""",
        """CREATE TABLE images_aliases (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        project_id INTEGER NOT NULL REFERENCES projects (id) ON DELETE CASCADE,
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        description TEXT NOT NULL DEFAULT '',
        UNIQUE (project_id, name))""",
        """CREATE TABLE images_source (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        image_id INTEGER NOT NULL UNIQUE REFERENCES images (id) ON DELETE CASCADE,
        server TEXT NOT NULL,
        protocol TEXT NOT NULL,
        certificate TEXT NOT NULL DEFAULT '',
        alias TEXT NOT NULL DEFAULT '',
        image_type TEXT NOT NULL DEFAULT '')""",
        """CREATE TABLE images_nodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        node_id INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
        UNIQUE (image_id, node_id))""",
        """CREATE TABLE images_profiles (
        image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,
        profile_id INTEGER NOT NULL REFERENCES profiles (id) ON DELETE CASCADE,
        UNIQUE (image_id, profile_id))""",
        """CREATE TABLE instances (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        node_id INTEGER NOT NULL REFERENCES nodes (id),
        project_id INTEGER NOT NULL REFERENCES projects (id),
        name TEXT NOT NULL,
        type TEXT NOT NULL DEFAULT 'container',
        architecture TEXT NOT NULL,
        ephemeral INTEGER NOT NULL DEFAULT 0,
        stateful INTEGER NOT NULL DEFAULT 0,
        description TEXT NOT NULL DEFAULT '',
        created_at TEXT NOT NULL,
        last_used_at TEXT NOT NULL DEFAULT '',
        phase TEXT NOT NULL DEFAULT '',
        UNIQUE (project_id, name))""",
        "CREATE INDEX instances_node ON instances (node_id)",
        _config("instance", "instances"),
        *_devices("instance", "instances"),
        """CREATE TABLE instances_profiles (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
        profile_id INTEGER NOT NULL REFERENCES profiles (id),
        apply_order INTEGER NOT NULL DEFAULT 0,
        UNIQUE (instance_id, profile_id))""",
        "CREATE INDEX instances_profiles_profile ON instances_profiles (profile_id)",
        """CREATE TABLE instances_snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        architecture TEXT NOT NULL,
        ephemeral INTEGER NOT NULL DEFAULT 0,
        stateful INTEGER NOT NULL DEFAULT 0,
        description TEXT NOT NULL DEFAULT '',
        created_at TEXT NOT NULL,
        last_used_at TEXT NOT NULL DEFAULT '',
        expires_at TEXT NOT NULL DEFAULT '',
        profiles TEXT NOT NULL DEFAULT '[]',
        phase TEXT NOT NULL DEFAULT '',
        UNIQUE (instance_id, name))""",
        _config("instance_snapshot", "instances_snapshots"),
        *_devices("instance_snapshot", "instances_snapshots"),
        """CREATE TABLE storage_pools (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        name TEXT NOT NULL UNIQUE,
        driver TEXT NOT NULL,
        description TEXT NOT NULL DEFAULT '')""",
        _member_config("storage_pool", "storage_pools"),
        """CREATE TABLE storage_pools_nodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        storage_pool_id INTEGER NOT NULL REFERENCES storage_pools (id) ON DELETE CASCADE,
        node_id INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
        UNIQUE (storage_pool_id, node_id))""",
        """CREATE TABLE storage_volumes (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        storage_pool_id INTEGER NOT NULL REFERENCES storage_pools (id),
        node_id INTEGER REFERENCES nodes (id),
        project_id INTEGER NOT NULL REFERENCES projects (id),
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        content_type TEXT NOT NULL DEFAULT 'filesystem',
        description TEXT NOT NULL DEFAULT '',
        created_at TEXT NOT NULL DEFAULT '',
        phase TEXT NOT NULL DEFAULT '',
        UNIQUE (storage_pool_id, node_id, project_id, name, type))""",
        _config("storage_volume", "storage_volumes"),
        """CREATE TABLE storage_volumes_snapshots (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        storage_volume_id INTEGER NOT NULL REFERENCES storage_volumes (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        description TEXT NOT NULL DEFAULT '',
        created_at TEXT NOT NULL DEFAULT '',
        expires_at TEXT NOT NULL DEFAULT '',
        phase TEXT NOT NULL DEFAULT '',
        UNIQUE (storage_volume_id, name))""",
        _config("storage_volume_snapshot", "storage_volumes_snapshots"),
        """CREATE TABLE instances_backups (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        instance_id INTEGER NOT NULL REFERENCES instances (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL DEFAULT '',
        instance_only INTEGER NOT NULL DEFAULT 0,
        optimized_storage INTEGER NOT NULL DEFAULT 0,
        phase TEXT NOT NULL DEFAULT '',
        UNIQUE (instance_id, name))""",
        """CREATE TABLE networks (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        project_id INTEGER NOT NULL REFERENCES projects (id),
        name TEXT NOT NULL,
        type TEXT NOT NULL,
        description TEXT NOT NULL DEFAULT '',
        state TEXT NOT NULL DEFAULT 'Created',
        UNIQUE (project_id, name))""",
        _member_config("network", "networks"),
        """CREATE TABLE networks_nodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        network_id INTEGER NOT NULL REFERENCES networks (id) ON DELETE CASCADE,
        node_id INTEGER NOT NULL REFERENCES nodes (id) ON DELETE CASCADE,
        UNIQUE (network_id, node_id))""",
        """CREATE TABLE warnings (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        uuid TEXT NOT NULL UNIQUE,
        node_id INTEGER REFERENCES nodes (id) ON DELETE CASCADE,
        project TEXT NOT NULL DEFAULT '',
        entity_url TEXT NOT NULL DEFAULT '',
        type TEXT NOT NULL,
        severity TEXT NOT NULL,
        status TEXT NOT NULL,
        first_seen_at TEXT NOT NULL,
        last_seen_at TEXT NOT NULL,
        count INTEGER NOT NULL DEFAULT 1,
        last_message TEXT NOT NULL DEFAULT '',
        UNIQUE (node_id, project, entity_url, type))""",
        # People read these two with `atolld sql`; the daemon itself does not.
        """CREATE VIEW instances_config_ref (project, node, instance, key, value) AS
        SELECT projects.name, nodes.name, instances.name, instances_config.key, instances_config.value
        FROM instances_config
        JOIN instances ON instances.id = instances_config.instance_id
        JOIN projects ON projects.id = instances.project_id
        JOIN nodes ON nodes.id = instances.node_id""",
        """CREATE VIEW profiles_config_ref (project, name, key, value) AS
        SELECT projects.name, profiles.name, profiles_config.key, profiles_config.value
        FROM profiles_config
        JOIN profiles ON profiles.id = profiles_config.profile_id
        JOIN projects ON projects.id = profiles.project_id""",
        # An image file belongs to all projects that have a row of it; its source goes with the last of them, not by accident.
        """CREATE TRIGGER on_image_delete AFTER DELETE ON images
        BEGIN
            DELETE FROM warnings WHERE entity_url = '/1.0/images/' || OLD.fingerprint;
        END""",
        """CREATE TRIGGER on_instance_delete AFTER DELETE ON instances
        BEGIN
            DELETE FROM warnings WHERE entity_url = '/1.0/instances/' || OLD.name
                AND project = (SELECT name FROM projects WHERE id = OLD.project_id);
        END""",
    ],
    [  # a snapshot of its volume beside each snapshot of an instance, see `instance_volumes`
        """INSERT INTO storage_volumes_snapshots (storage_volume_id, name, description, created_at)
        SELECT v.id, s.name, v.description, s.created_at FROM instances_snapshots s JOIN instances i ON i.id = s.instance_id
        JOIN storage_volumes v ON v.name = i.name AND v.project_id = i.project_id
        WHERE v.type IN ('container', 'virtual-machine')""",
        """INSERT INTO storage_volumes_snapshots_config (storage_volume_snapshot_id, key, value)
        SELECT t.id, c.key, c.value FROM storage_volumes_snapshots t JOIN storage_volumes v ON v.id = t.storage_volume_id
        JOIN storage_volumes_config c ON c.storage_volume_id = v.id WHERE v.type IN ('container', 'virtual-machine')""",
    ],
    [  # as in LXD's database, whose administrators remove a pool's row to recover it: those of its volumes go with it
        """CREATE TRIGGER storage_pools_before_delete BEFORE DELETE ON storage_pools BEGIN
            DELETE FROM storage_volumes WHERE storage_pool_id = OLD.id;
        END""",
    ],
    [
        """CREATE TABLE storage_volumes_backups (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        storage_volume_id INTEGER NOT NULL REFERENCES storage_volumes (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        created_at TEXT NOT NULL,
        expires_at TEXT NOT NULL DEFAULT '',
        volume_only INTEGER NOT NULL DEFAULT 0,
        optimized_storage INTEGER NOT NULL DEFAULT 0,
        phase TEXT NOT NULL DEFAULT '',
        UNIQUE (storage_volume_id, name))""",
    ],
    ["ALTER TABLE storage_pools ADD COLUMN phase TEXT NOT NULL DEFAULT ''"],
    [
        "ALTER TABLE images_source ADD COLUMN project TEXT NOT NULL DEFAULT ''",
        # A project that has profiles but no images of its own uses the default project's images with its own default profile.
        """INSERT OR IGNORE INTO images_profiles (image_id, profile_id)
        SELECT images.id, profiles.id FROM images, profiles JOIN projects ON projects.id = profiles.project_id
        WHERE images.project_id = 1 AND profiles.name = 'default' AND projects.id != 1
        AND EXISTS (SELECT 1 FROM projects_config c WHERE c.project_id = projects.id AND c.key = 'features.profiles'
            AND lower(c.value) IN ('true', '1', 'yes', 'on'))
        AND NOT EXISTS (SELECT 1 FROM projects_config c WHERE c.project_id = projects.id AND c.key = 'features.images'
            AND lower(c.value) IN ('true', '1', 'yes', 'on'))""",
    ],
]

LOCAL: list[list[str]] = [
    [
        """CREATE TABLE config (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        key TEXT NOT NULL UNIQUE,
        value TEXT NOT NULL)""",
        """CREATE TABLE patches (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        name TEXT NOT NULL UNIQUE,
        applied_at TEXT NOT NULL)""",
        """CREATE TABLE raft_nodes (
        id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
        address TEXT NOT NULL UNIQUE,
        role INTEGER NOT NULL DEFAULT 0,
        name TEXT NOT NULL DEFAULT '')""",
    ],
]

PATCHES = (
    "shrink_logs_db_file",
    "invalid_profile_names",
    "leftover_profile_config",
    "network_permissions",
    "storage_api",
    "dnsmasq_entries_include_device_name",
    "storage_rename_custom_volume_add_project",
)
"""LXD's names of changes to data on disk that an Atoll home has from its first day; tools that look for them find them."""


async def migrate(database: Database, migrations: list[list[str]], *, patches: tuple[str, ...] = ()) -> int:
    """Bring a database to the newest version; returns that version. Each step is one transaction."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    async with database.read() as tx:
        present = await tx.one("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'schema'")
        row = await tx.one("SELECT MAX(version) FROM schema") if present else None
    done = row[0] if row and row[0] is not None else 0
    if not present:
        await database.script([_SCHEMA_TABLE])
    for version, statements in enumerate(migrations, start=1):
        if version <= done:
            continue
        async with database.write() as tx:
            for statement in statements:
                await tx.execute(statement)
            await tx.insert("INSERT INTO schema (version, updated_at) VALUES (?, ?)", version, now)
    async with database.write() as tx:
        for name in patches:
            await tx.execute("INSERT OR IGNORE INTO patches (name, applied_at) VALUES (?, ?)", name, now)
    return len(migrations)
