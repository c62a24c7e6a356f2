"""/1.0/networks."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, render, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import objects as schema
from atoll.api.schema.common import DescriptionConfig, Rename
from atoll.domain import names
from atoll.domain.errors import BadRequest, Unsupported
from atoll.services.events import with_project
from atoll.services.networks import NetworkService, NetworkView


class NetworkRoutes:
    """Routes of networks."""

    def __init__(self, networks: NetworkService) -> None:
        self._networks = networks

    def table(self) -> Sequence[Route]:
        one = "/1.0/networks/{name}"
        return (
            Route("GET", "/1.0/networks", self.list_, Access.PROJECT, "List networks", result=list[schema.Network]),
            Route("POST", "/1.0/networks", self.create, Access.PROJECT, "Create a network", schema.NetworksPost),
            Route("GET", one, self.get, Access.PROJECT, "Get a network", result=schema.Network),
            Route("PUT", one, self.put, Access.PROJECT, "Replace a network", DescriptionConfig),
            Route("PATCH", one, self.patch, Access.PROJECT, "Change a network", DescriptionConfig),
            Route("POST", one, self.rename, Access.PROJECT, "Rename a network", Rename),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a network"),
            Route("GET", f"{one}/leases", self.leases, Access.PROJECT, "List leases", result=list[schema.Lease]),
            Route("GET", f"{one}/state", self.state, Access.PROJECT, "Get a network's state", result=dict),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Managed ones, and the host's other interfaces."""
        found = await self._networks.find_all(request.project)
        used = await self._networks.used_by([view.name for view in found]) if request.recursion else {}
        return listing.answer(
            request, found, url=_url, render=lambda view: _network(view, request.visible(used.get(view.name, [])))
        )

    async def get(self, request: Request) -> web.StreamResponse:
        view = await self._find(request)
        used = request.visible((await self._networks.used_by([view.name]))[view.name])
        return response.sync(_network(view, used), etag=_tag(view))

    async def create(self, request: Request) -> web.StreamResponse:
        """A new managed one."""
        body = await request.body(schema.NetworksPost)
        if body.type not in ("", "bridge"):
            raise Unsupported(f"Networks of type {body.type[:40]!r} are not supported in this release")
        await self._networks.create(
            request.project, body.name, body.type, body.description, body.config or {}, caller=request.caller
        )
        return response.created(f"/1.0/networks/{body.name}")

    async def put(self, request: Request) -> web.StreamResponse:
        body = await request.body(DescriptionConfig)
        view = await self._managed(request)
        await self._networks.update(request.project, view.name, *body.replacing(), caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(DescriptionConfig)
        view = await self._managed(request)
        changed = body.changing(view.description, view.config)
        await self._networks.update(request.project, view.name, *changed, caller=request.caller)
        return response.empty()

    async def rename(self, request: Request) -> web.StreamResponse:
        """Give an unused one another name."""
        body = await request.body(Rename)
        await self._networks.rename(request.project, _name(request), body.name, caller=request.caller)
        return response.created(f"/1.0/networks/{body.name}")

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove an unused one."""
        await self._networks.delete(request.project, _name(request), caller=request.caller)
        return response.empty()

    async def leases(self, request: Request) -> web.StreamResponse:
        """Addresses in use."""
        found = await self._networks.leases(request.project, _name(request))
        return response.sync([schema.Lease(each.hostname, each.hwaddr, each.address, each.kind, "none") for each in found])

    async def state(self, request: Request) -> web.StreamResponse:
        """Facts of its interface."""
        found = await self._networks.state(request.project, _name(request))
        described = render.network(found.nic)
        del described["host_name"]
        return response.sync({**described, "bond": None, "bridge": dict(found.bridge) or None, "ovn": None, "vlan": None})

    async def _find(self, request: Request) -> NetworkView:
        return await self._networks.find(request.project, _name(request))

    async def _managed(self, request: Request) -> NetworkView:
        view = await self._find(request)
        if not view.managed:
            raise BadRequest("Only managed networks can be modified")
        request.check_etag(_tag(view))
        return view


def _name(request: Request) -> str:
    return names.interface(request.path("name"))


def _tag(view: NetworkView) -> list[object]:
    return [view.name, view.managed, view.type, view.description, view.config]


def _url(view: NetworkView) -> str:
    return with_project(f"/1.0/networks/{view.name}", view.project)


def _network(view: NetworkView, used_by: list[str]) -> schema.Network:
    locations = ["none"] if view.managed else []
    return schema.Network(
        view.name, view.description, view.type, view.managed, view.status, dict(view.config), used_by, locations
    )
