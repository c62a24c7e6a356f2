"""What is about the host and not about an object: resources, key tables, the cluster that there is not."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.config import catalog
from atoll.host import resources
from atoll.host.threads import in_thread


class HostRoutes:
    """Routes without a service of their own."""

    def table(self) -> Sequence[Route]:
        configuration = "/1.0/metadata/configuration"
        return (
            Route("GET", "/1.0/resources", self.resources, Access.TRUSTED, "Get the host's hardware", result=dict),
            Route("GET", configuration, self.configuration, Access.TRUSTED, "Get all config keys", result=dict),
            Route("GET", "/1.0/cluster", self.cluster, Access.TRUSTED, "Get the cluster", result=dict),
            Route("GET", "/1.0/cluster/members", self.members, Access.TRUSTED, "List cluster members", result=list[str]),
        )

    async def resources(self, _: Request) -> web.StreamResponse:
        """CPU, memory, disks, network cards, …"""
        return response.sync(await in_thread(resources.read))

    async def configuration(self, _: Request) -> web.StreamResponse:
        """Generated from the key tables."""
        return response.sync(catalog.metadata())

    async def cluster(self, _: Request) -> web.StreamResponse:
        """This server is not part of one."""
        return response.sync({"server_name": "", "enabled": False, "member_config": []})

    async def members(self, _: Request) -> web.StreamResponse:
        """None."""
        return response.sync([])
