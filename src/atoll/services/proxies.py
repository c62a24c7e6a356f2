"""core.proxy_*: the HTTP proxies of the daemon and of the programs it starts, by the environment variables that all know."""

from __future__ import annotations

import os
from collections.abc import MutableMapping

from atoll.services.settings import SettingsService

_VARIABLES = {"core.proxy_http": "http_proxy", "core.proxy_https": "https_proxy", "core.proxy_ignore_hosts": "no_proxy"}


class Proxies:
    """Keeps the variables as the configuration says; a key that is not set leaves what the daemon was started with."""

    def __init__(self, settings: SettingsService, environment: MutableMapping[str, str] = os.environ) -> None:
        self._settings = settings
        self._environment = environment
        self._inherited = {name: environment.get(name) or environment.get(name.upper()) for name in _VARIABLES.values()}
        settings.on_commit(self._apply)
        self._apply()

    def _apply(self) -> None:
        for key, name in _VARIABLES.items():
            value = self._settings.text(key) or self._inherited[name]
            if value:
                self._environment[name] = value
            else:
                self._environment.pop(name, None)
