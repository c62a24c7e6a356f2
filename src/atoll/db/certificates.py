"""The trust store in the database."""

from __future__ import annotations

from collections import defaultdict

from atoll.db.engine import Transaction
from atoll.domain.entities import Certificate
from atoll.domain.errors import BadRequest, NotFound


async def find_all(tx: Transaction) -> list[Certificate]:
    """All entries."""
    return await _find(tx, "1")


async def find(tx: Transaction, fingerprint: str) -> Certificate:
    """The one entry whose fingerprint begins with that. NotFound for none, BadRequest for several."""
    found = await _find(tx, "substr(certificates.fingerprint, 1, ?) = ?", len(fingerprint), fingerprint)
    if not found:
        raise NotFound("Certificate not found")
    if len(found) > 1:
        raise BadRequest("More than one certificate matches the fingerprint")
    return found[0]


async def _find(tx: Transaction, where: str, *parameters: str | int) -> list[Certificate]:
    rows, project_rows = await tx.queries(
        (
            f"""SELECT id, fingerprint, type, name, certificate, restricted FROM certificates WHERE {where}
            ORDER BY certificates.fingerprint""",
            *parameters,
        ),
        (
            f"""SELECT cp.certificate_id, projects.name FROM certificates_projects cp
            JOIN certificates ON certificates.id = cp.certificate_id
            JOIN projects ON projects.id = cp.project_id WHERE {where} ORDER BY projects.name""",
            *parameters,
        ),
    )
    projects: dict[int, list[str]] = defaultdict(list)
    for certificate_id, name in project_rows:
        projects[certificate_id].append(name)
    return [Certificate(*(*row[:5], bool(row[5]), tuple(projects.get(row[0], ())))) for row in rows]


async def create(
    tx: Transaction, *, fingerprint: str, type: str, name: str, pem: str, restricted: bool, projects: tuple[str, ...]
) -> int:
    """Insert; Conflict if it is there already."""
    certificate_id = await tx.insert(
        "INSERT INTO certificates (fingerprint, type, name, certificate, restricted) VALUES (?, ?, ?, ?, ?)",
        fingerprint,
        type,
        name,
        pem,
        int(restricted),
    )
    await _set_projects(tx, certificate_id, projects)
    return certificate_id


async def update(
    tx: Transaction, certificate_id: int, *, type: str, name: str, restricted: bool, projects: tuple[str, ...]
) -> None:
    """Replace what may be changed."""
    await tx.execute(
        "UPDATE certificates SET type = ?, name = ?, restricted = ? WHERE id = ?",
        type,
        name,
        int(restricted),
        certificate_id,
    )
    await _set_projects(tx, certificate_id, projects)


async def _set_projects(tx: Transaction, certificate_id: int, projects: tuple[str, ...]) -> None:
    await tx.execute("DELETE FROM certificates_projects WHERE certificate_id = ?", certificate_id)
    for name in projects:
        row = await tx.one("SELECT id FROM projects WHERE name = ?", name)
        if row is None:
            raise NotFound(f"Project {name!r} not found")
        await tx.insert("INSERT INTO certificates_projects (certificate_id, project_id) VALUES (?, ?)", certificate_id, row[0])


async def delete(tx: Transaction, certificate_id: int) -> None:
    """Remove."""
    await tx.execute("DELETE FROM certificates WHERE id = ?", certificate_id)
