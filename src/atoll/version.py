"""Versions: Atoll's own, and that of the LXD interface it speaks."""

ATOLL_VERSION = "0.1.0"
"""Atoll's own release."""

COMPAT_VERSION = "5.0.2"
"""The LXD release whose REST interface is served; clients read it as `environment.server_version`."""
