"""What an instance's configuration asks of the host before it can start."""

from __future__ import annotations

from collections.abc import Mapping

from atoll import config as keys
from atoll.domain.errors import Unsupported
from atoll.host import cgroup, modules
from atoll.host.threads import in_thread

_INTERCEPTED = ("bpf", "bpf.devices", "mknod", "mount", "sched_setscheduler", "setxattr")


async def meet(config: Mapping[str, str]) -> None:
    """Load the kernel modules that it wants. Unsupported for what no start on this host can give it: a machine that quietly has
    less than its configuration says would be worse than none."""
    for name in _INTERCEPTED:
        key = f"security.syscalls.intercept.{name}"
        if keys.INSTANCE.flag(config, key):
            raise Unsupported(f"{key}: system calls cannot be intercepted in this release", hint=f"unset {key}")
    if keys.INSTANCE.flag(config, "nvidia.runtime"):
        raise Unsupported("nvidia.runtime: the NVIDIA container tools are not supported in this release", hint="unset it")
    if config.get("image.requirements.cgroup") == "v1" and (await in_thread(cgroup.detect)).is_unified:
        raise Unsupported("The image used by this instance requires a CGroupV1 host system")
    await load_modules(config)


async def load_modules(config: Mapping[str, str]) -> None:
    """Those of `linux.kernel_modules`. HostError, naming the module, if one cannot be loaded."""
    await modules.load(keys.INSTANCE.get(config, "linux.kernel_modules") or ())
