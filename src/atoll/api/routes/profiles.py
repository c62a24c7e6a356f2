"""/1.0/profiles."""

from __future__ import annotations

from collections.abc import Sequence

from aiohttp import web

from atoll.api import listing, response
from atoll.api.request import Request
from atoll.api.route import Access, Route
from atoll.api.schema import objects as schema
from atoll.api.schema.common import Rename
from atoll.domain import entities, names
from atoll.services.events import with_project
from atoll.services.profiles import ProfileService, profile_path


class ProfileRoutes:
    """Routes of profiles."""

    def __init__(self, profiles: ProfileService) -> None:
        self._profiles = profiles

    def table(self) -> Sequence[Route]:
        one = "/1.0/profiles/{name}"
        return (
            Route("GET", "/1.0/profiles", self.list_, Access.PROJECT, "List profiles", result=list[schema.Profile]),
            Route("POST", "/1.0/profiles", self.create, Access.PROJECT, "Create a profile", schema.ProfilesPost),
            Route("GET", one, self.get, Access.PROJECT, "Get a profile", result=schema.Profile),
            Route("PUT", one, self.put, Access.PROJECT, "Replace a profile", schema.ProfilePut),
            Route("PATCH", one, self.patch, Access.PROJECT, "Change a profile", schema.ProfilePut),
            Route("POST", one, self.rename, Access.PROJECT, "Rename a profile", Rename),
            Route("DELETE", one, self.delete, Access.PROJECT, "Delete a profile"),
        )

    async def list_(self, request: Request) -> web.StreamResponse:
        """Of a project."""
        found = await self._profiles.find_all(request.project)
        return listing.answer(
            request,
            found,
            url=lambda each: _profile_url(each[0]),
            render=lambda each: _profile(each[0], request.visible(each[1])),
        )

    async def get(self, request: Request) -> web.StreamResponse:
        profile, users = await self._profiles.find(request.project, _name(request))
        return response.sync(_profile(profile, request.visible(users)), etag=_tag(profile))

    async def create(self, request: Request) -> web.StreamResponse:
        body = await request.body(schema.ProfilesPost)
        await self._profiles.create(
            request.project,
            body.name,
            body.description,
            body.config or {},
            body.devices or {},
            caller=request.caller,
        )
        return response.created(profile_path(body.name))

    async def put(self, request: Request) -> web.StreamResponse:
        body = await request.body(schema.ProfilePut)
        profile, _ = await self._profiles.find(request.project, _name(request))
        request.check_etag(_tag(profile))
        await self._profiles.update(request.project, profile.name, *body.replacing(), body.devices or {}, caller=request.caller)
        return response.empty()

    async def patch(self, request: Request) -> web.StreamResponse:
        """Change what is given."""
        body = await request.body(schema.ProfilePut)
        profile, _ = await self._profiles.find(request.project, _name(request))
        request.check_etag(_tag(profile))
        changed = body.changing(profile.description, profile.config)
        devices = {**profile.devices, **(body.devices or {})}
        await self._profiles.update(request.project, profile.name, *changed, devices, caller=request.caller)
        return response.empty()

    async def rename(self, request: Request) -> web.StreamResponse:
        body = await request.body(Rename)
        await self._profiles.rename(request.project, _name(request), body.name, caller=request.caller)
        return response.created(profile_path(body.name))

    async def delete(self, request: Request) -> web.StreamResponse:
        """Remove an unused one."""
        await self._profiles.delete(request.project, _name(request), caller=request.caller)
        return response.empty()


def _name(request: Request) -> str:
    return names.profile(request.path("name"))


def _tag(profile: entities.Profile) -> list[object]:
    return [profile.config, profile.description, profile.devices]


def _profile_url(profile: entities.Profile) -> str:
    return with_project(profile_path(profile.name), profile.project)


def _profile(profile: entities.Profile, users: list[str]) -> schema.Profile:
    devices = {name: dict(device) for name, device in profile.devices.items()}
    return schema.Profile(profile.name, profile.description, dict(profile.config), devices, users)
