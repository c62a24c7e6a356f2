"""Images, their aliases, properties and sources in the database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from atoll.db.engine import Row, Transaction
from atoll.domain import clock
from atoll.domain.entities import Image, ImageAlias, ImageSource
from atoll.domain.errors import BadRequest, NotFound

_COLUMNS = """images.id, projects.name, images.fingerprint, images.type, images.filename, images.size, images.public,
    images.architecture, images.creation_date, images.expiry_date, images.upload_date, images.last_use_date, images.cached,
    images.auto_update, images.format"""
_FROM = "FROM images JOIN projects ON projects.id = images.project_id"
_IN_PROJECT = "images.project_id = (SELECT id FROM projects WHERE name = ?)"


@dataclass(frozen=True, slots=True)
class NewImage:
    """What a new row has. Dates in seconds, 0 for none."""

    project: str
    fingerprint: str
    type: str
    filename: str
    size: int
    public: bool
    architecture: str
    creation_date: int
    expiry_date: int
    upload_date: int
    auto_update: bool
    format: str
    properties: Mapping[str, str]
    cached: bool = False


async def find_all(tx: Transaction, project: str | None = None, *, profiles_of: str = "") -> list[Image]:
    """All images of a project, or of all projects; each with the profiles that it brings in the project `profiles_of`."""
    where = ("1",) if project is None else (_IN_PROJECT, project)
    return await _find(tx, *where, profiles_of=profiles_of)


async def find(tx: Transaction, project: str, fingerprint: str, *, profiles_of: str = "") -> Image:
    """The one image whose fingerprint begins with that. NotFound for none, BadRequest for several."""
    where = f"{_IN_PROJECT} AND substr(images.fingerprint, 1, ?) = ?"
    found = await _find(tx, where, project, len(fingerprint), fingerprint, profiles_of=profiles_of)
    if not found:
        raise NotFound("Image not found")
    if len(found) > 1:
        raise BadRequest("More than one image matches the fingerprint", hint="give more of its digits")
    return found[0]


async def cached_from(tx: Transaction, project: str, source: ImageSource) -> list[str]:
    """Fingerprints of the project's images that are kept up to date from that very source, the newest first."""
    found = await tx.query(
        f"""SELECT images.fingerprint {_FROM} JOIN images_source s ON s.image_id = images.id
        WHERE {_IN_PROJECT} AND images.cached = 1 AND images.auto_update = 1
        AND s.server = ? AND s.protocol = ? AND s.alias = ? AND s.project = ?
        ORDER BY images.creation_date DESC, images.id DESC""",
        project,
        source.server,
        source.protocol,
        source.alias,
        source.project,
    )
    return [row[0] for row in found]


async def projects_with(tx: Transaction, fingerprint: str) -> list[str]:
    """Names of the projects that have the image of exactly that fingerprint."""
    rows = await tx.query(f"SELECT projects.name {_FROM} WHERE images.fingerprint = ?", fingerprint)
    return [row[0] for row in rows]


async def fingerprints(tx: Transaction) -> set[str]:
    """Of all images of all projects."""
    return {row[0] for row in await tx.query("SELECT DISTINCT fingerprint FROM images")}


async def _find(tx: Transaction, where: str, *parameters: Any, profiles_of: str) -> list[Image]:
    join = "JOIN images ON images.id ="
    rows, properties, aliases, profiles, sources = await tx.queries(
        (f"SELECT {_COLUMNS} {_FROM} WHERE {where} ORDER BY images.fingerprint, images.id", *parameters),
        (f"SELECT p.image_id, p.key, p.value FROM images_properties p {join} p.image_id WHERE {where}", *parameters),
        (
            f"SELECT a.image_id, a.name, a.description, images.fingerprint, images.type FROM images_aliases a"
            f" {join} a.image_id WHERE {where} ORDER BY a.id",
            *parameters,
        ),
        (
            f"SELECT ip.image_id, profiles.name FROM images_profiles ip {join} ip.image_id"
            f" JOIN profiles ON profiles.id = ip.profile_id JOIN projects viewer ON viewer.id = profiles.project_id"
            f" WHERE {where} AND viewer.name = ? ORDER BY profiles.name",
            *parameters,
            profiles_of,
        ),
        (
            f"SELECT s.image_id, s.server, s.protocol, s.certificate, s.alias, s.image_type, s.project FROM images_source s"
            f" {join} s.image_id WHERE {where}",
            *parameters,
        ),
    )
    by_id: defaultdict[int, tuple[dict[str, str], list[ImageAlias], list[str]]] = defaultdict(lambda: ({}, [], []))
    for image_id, key, value in properties:
        by_id[image_id][0][key] = value
    for image_id, *alias in aliases:
        by_id[image_id][1].append(ImageAlias(*alias))
    for image_id, name in profiles:
        by_id[image_id][2].append(name)
    source = {image_id: ImageSource(*rest) for image_id, *rest in sources}
    return [_image(row, *by_id[row[0]], source.get(row[0])) for row in rows]


def _image(
    row: Row, properties: dict[str, str], aliases: list[ImageAlias], profiles: list[str], source: ImageSource | None
) -> Image:
    *head, public, architecture, created, expires, uploaded, used, cached, auto_update, kind = row
    dates = [_seconds(date) for date in (created, expires, uploaded, used)]
    values: Row = (*head, bool(public), architecture, *dates, bool(cached), bool(auto_update), kind)
    return Image(*(*values, properties, tuple(aliases), tuple(profiles), source))


def _seconds(date: Any) -> int:
    """A date as it is stored; scripts that write into the database directly write it as text, which LXD does too."""
    if isinstance(date, str):
        try:
            return int(clock.parse(date))
        except ValueError:
            return 0
    return int(date or 0)


async def create(tx: Transaction, new: NewImage, *, node_id: int = 1) -> int:
    """Insert; Conflict if the project has that fingerprint already."""
    image_id = await tx.insert(
        """INSERT INTO images (project_id, fingerprint, type, filename, size, public, architecture, creation_date, expiry_date,
        upload_date, cached, auto_update, format)
        VALUES ((SELECT id FROM projects WHERE name = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        new.project,
        new.fingerprint,
        new.type,
        new.filename,
        new.size,
        int(new.public),
        new.architecture,
        new.creation_date,
        new.expiry_date,
        new.upload_date,
        int(new.cached),
        int(new.auto_update),
        new.format,
    )
    await tx.insert("INSERT INTO images_nodes (image_id, node_id) VALUES (?, ?)", image_id, node_id)
    await _replace_properties(tx, image_id, new.properties)
    return image_id


async def _replace_properties(tx: Transaction, image_id: int, properties: Mapping[str, str]) -> None:
    await tx.execute("DELETE FROM images_properties WHERE image_id = ?", image_id)
    rows = [(image_id, key, value) for key, value in properties.items()]
    await tx.many("INSERT INTO images_properties (image_id, key, value) VALUES (?, ?, ?)", rows)


async def update(
    tx: Transaction,
    image_id: int,
    *,
    public: bool,
    auto_update: bool,
    expiry_date: int,
    properties: Mapping[str, str],
) -> None:
    """Replace what may be changed."""
    await tx.execute(
        "UPDATE images SET public = ?, auto_update = ?, expiry_date = ? WHERE id = ?",
        int(public),
        int(auto_update),
        expiry_date,
        image_id,
    )
    await _replace_properties(tx, image_id, properties)


async def set_profiles(tx: Transaction, image_id: int, project: str, profiles: tuple[str, ...]) -> None:
    """The profiles of a project that instances made there from the image get by default. BadRequest for an unknown one."""
    await tx.execute(
        """DELETE FROM images_profiles WHERE image_id = ? AND profile_id IN
        (SELECT id FROM profiles WHERE project_id = (SELECT id FROM projects WHERE name = ?))""",
        image_id,
        project,
    )
    for name in profiles:
        row = await tx.one(
            "SELECT id FROM profiles WHERE name = ? AND project_id = (SELECT id FROM projects WHERE name = ?)", name, project
        )
        if row is None:
            raise BadRequest(f"Profile {name!r} doesn't exist")
        await tx.insert("INSERT OR IGNORE INTO images_profiles (image_id, profile_id) VALUES (?, ?)", image_id, row[0])


async def lend(tx: Transaction, owner: str, borrower: str) -> None:
    """From now on a project uses the images of another, with its own default profile."""
    await tx.execute(
        """INSERT OR IGNORE INTO images_profiles (image_id, profile_id)
        SELECT images.id, profiles.id FROM images, profiles JOIN projects ON projects.id = profiles.project_id
        WHERE images.project_id = (SELECT id FROM projects WHERE name = ?) AND projects.name = ? AND profiles.name = 'default'""",
        owner,
        borrower,
    )


async def take_back(tx: Transaction, owner: str, borrower: str) -> None:
    """The end of `lend`."""
    await tx.execute(
        """DELETE FROM images_profiles WHERE image_id IN
        (SELECT id FROM images WHERE project_id = (SELECT id FROM projects WHERE name = ?)) AND profile_id IN
        (SELECT id FROM profiles WHERE project_id = (SELECT id FROM projects WHERE name = ?))""",
        owner,
        borrower,
    )


async def replace(tx: Transaction, image_id: int, newer: int, *, wholly: bool) -> bool:
    """Give a newer version the aliases of an image and, `wholly`, its flags, its profiles and when it was used. False if there is
    no such image any more."""
    if await tx.one("SELECT 1 FROM images WHERE id = ?", image_id) is None:
        return False
    await tx.execute("UPDATE images_aliases SET image_id = ? WHERE image_id = ?", newer, image_id)
    if wholly:
        await tx.execute(
            """UPDATE images SET (public, auto_update, cached, last_use_date) =
            (SELECT public, auto_update, cached, last_use_date FROM images WHERE id = ?) WHERE id = ?""",
            image_id,
            newer,
        )
        await tx.execute("DELETE FROM images_profiles WHERE image_id = ?", newer)
        await tx.execute(
            "INSERT INTO images_profiles (image_id, profile_id) SELECT ?, profile_id FROM images_profiles WHERE image_id = ?",
            newer,
            image_id,
        )
    return True


async def set_cached(tx: Transaction, image_id: int, *, cached: bool) -> None:
    """Whether it is here for instances alone."""
    await tx.execute("UPDATE images SET cached = ? WHERE id = ?", int(cached), image_id)


async def set_source(tx: Transaction, image_id: int, source: ImageSource) -> None:
    """Remember where the image came from."""
    await tx.execute("DELETE FROM images_source WHERE image_id = ?", image_id)
    await tx.insert(
        """INSERT INTO images_source (image_id, server, protocol, certificate, alias, image_type, project)
        VALUES (?, ?, ?, ?, ?, ?, ?)""",
        image_id,
        source.server,
        source.protocol,
        source.certificate,
        source.alias,
        source.image_type,
        source.project,
    )


async def touch(tx: Transaction, image_id: int, now: int) -> None:
    """It was used for an instance."""
    await tx.execute("UPDATE images SET last_use_date = ? WHERE id = ?", now, image_id)


async def delete(tx: Transaction, image_id: int) -> None:
    """Remove it with its aliases."""
    await tx.execute("DELETE FROM images WHERE id = ?", image_id)


_ALIASES = """SELECT a.name, a.description, images.fingerprint, images.type FROM images_aliases a
    JOIN images ON images.id = a.image_id WHERE a.project_id = (SELECT id FROM projects WHERE name = ?)"""


async def aliases(tx: Transaction, project: str) -> list[ImageAlias]:
    """All aliases of a project, by name."""
    return [ImageAlias(*row) for row in await tx.query(f"{_ALIASES} ORDER BY a.name", project)]


async def find_alias(tx: Transaction, project: str, name: str) -> ImageAlias:
    """One alias. NotFound if there is none."""
    row = await tx.one(f"{_ALIASES} AND a.name = ?", project, name)
    if row is None:
        raise NotFound("Image alias not found")
    return ImageAlias(*row)


async def create_alias(tx: Transaction, project: str, name: str, description: str, image_id: int) -> None:
    """Insert; Conflict if the name is taken."""
    await tx.insert(
        """INSERT INTO images_aliases (project_id, image_id, name, description)
        VALUES ((SELECT id FROM projects WHERE name = ?), ?, ?, ?)""",
        project,
        image_id,
        name,
        description,
    )


async def update_alias(tx: Transaction, project: str, name: str, *, description: str, image_id: int) -> None:
    """Point it elsewhere."""
    await tx.execute(
        """UPDATE images_aliases SET description = ?, image_id = ?
        WHERE name = ? AND project_id = (SELECT id FROM projects WHERE name = ?)""",
        description,
        image_id,
        name,
        project,
    )


async def rename_alias(tx: Transaction, project: str, name: str, new: str) -> None:
    """Change its name; Conflict if it is taken."""
    await tx.execute(
        "UPDATE images_aliases SET name = ? WHERE name = ? AND project_id = (SELECT id FROM projects WHERE name = ?)",
        new,
        name,
        project,
    )


async def delete_alias(tx: Transaction, project: str, name: str) -> None:
    """Remove it."""
    await tx.execute(
        "DELETE FROM images_aliases WHERE name = ? AND project_id = (SELECT id FROM projects WHERE name = ?)", name, project
    )
