"""What the configuration says about the images of a project: the project's own key, else the server's of the same name."""

from __future__ import annotations

from typing import Any

from atoll import config as keys
from atoll.services.projects import ProjectService
from atoll.services.settings import SettingsService


class ImageRules:
    """Typed values of `images.*`."""

    def __init__(self, projects: ProjectService, settings: SettingsService) -> None:
        self._projects = projects
        self._settings = settings

    async def get(self, project: str, key: str) -> Any:
        """The value for a project. NotFound for an unknown one."""
        own = (await self._projects.find(project)).config
        return keys.PROJECT.get(own, key) if own.get(key) else self._settings.get(key)

    async def by_project(self, key: str) -> dict[str, Any]:
        """The value for each project."""
        common = self._settings.get(key)
        return {
            project.name: keys.PROJECT.get(project.config, key) if project.config.get(key) else common
            for project in await self._projects.find_all()
        }
