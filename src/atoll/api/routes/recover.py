"""/internal/recover: for `atolld recover`, on the unix socket only; LXD's shapes, which scripts know."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema.common import Body, Config
from atoll.domain.entities import StoragePool
from atoll.services.instances.recover import Findings, RecoverService


class RecoverPool(Body):
    """A pool to look into; of one that the server knows, its name is enough."""

    name: str = ""
    driver: str = ""
    description: str = ""
    config: Config | None = None


class RecoverPost(Body):
    """POST /internal/recover/validate and …/import."""

    pools: list[RecoverPool] | None = None


class RecoverRoutes:
    """Routes of recovery."""

    def __init__(self, recover: RecoverService) -> None:
        self._recover = recover

    def table(self) -> Sequence[Route]:
        base, local = "/internal/recover", Access.LOCAL
        return (
            Route("POST", f"{base}/validate", self.validate, local, "Look for lost volumes", RecoverPost, result=dict),
            Route("POST", f"{base}/import", self.import_, local, "Record lost volumes", RecoverPost, result=dict),
        )

    async def validate(self, request: Request) -> web.StreamResponse:
        """What would be recovered, and what is missing for it."""
        return response.sync(_render(await self._recover.validate(_pools(await request.body(RecoverPost)))))

    async def import_(self, request: Request) -> web.StreamResponse:
        """Recover, unless something is missing: then the answer tells what."""
        findings = await self._recover.recover(_pools(await request.body(RecoverPost)), caller=request.caller)
        return response.sync(_render(findings)) if findings.missing else response.empty()


def _pools(body: RecoverPost) -> list[StoragePool]:
    return [StoragePool(0, each.name, each.driver, each.description, each.config or {}) for each in body.pools or ()]


def _render(findings: Findings) -> dict[str, Any]:
    volumes = [
        {
            "name": lost.volume.name,
            "type": lost.type,
            "snapshotCount": len(lost.snapshots),
            "project": lost.volume.project,
            "pool": lost.pool,
        }
        for lost in findings.lost
    ]
    return {"UnknownVolumes": volumes or None, "DependencyErrors": findings.missing or None}
