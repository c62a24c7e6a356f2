"""`atolld version`: the release; under the name `lxd`, the release of the interface it speaks."""

from __future__ import annotations

from atoll import version
from atoll.runtime.call import Call


def run(call: Call) -> int:
    """Print one version number."""
    print(version.COMPAT_VERSION if call.name == "lxd" else version.ATOLL_VERSION)
    return 0
