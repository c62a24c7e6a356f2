"""What a `cloud` variant has on top: cloud-init, with the seeds of its NoCloud data source as templates.

The seeds say what /dev/lxd says, for instances that have it not (`security.devlxd` off) and for versions of cloud-init that do
not know it. They are rendered before every start: a change of the configuration is in them at the next one, and cloud-init
applies it when the instance id in them is another.
"""

from __future__ import annotations

from atoll.domain.image_metadata import Template, Trigger

PACKAGES = ("cloud-init",)

_SEED = "/var/lib/cloud/seed/nocloud-net"

_META_DATA = """\
#cloud-config
instance-id: {{ config_get("volatile.cloud-init.instance-id", container.name) }}
local-hostname: {{ container.name }}
{{ config_get("user.meta-data", "") }}
"""

_NETWORK_CONFIG = """\
version: 1
config:
  - type: physical
    name: eth0
    subnets:
      - type: dhcp
        control: auto
"""


def _setting(name: str, default: str) -> str:
    """A template of the text that an instance's configuration has, the present name of the key before the former."""
    return (
        f'{{% if config_get("cloud-init.{name}", "") %}}{{{{ config_get("cloud-init.{name}", "") }}}}'
        f'{{% elif config_get("user.{name}", "") %}}{{{{ config_get("user.{name}", "") }}}}'
        f"{{% else %}}{default}{{% endif %}}\n"
    )


FILES = {
    "cloud-init-meta.tpl": _META_DATA,
    "cloud-init-network.tpl": _setting("network-config", _NETWORK_CONFIG.rstrip()),
    "cloud-init-user.tpl": _setting("user-data", "#cloud-config\n{}"),
    "cloud-init-vendor.tpl": _setting("vendor-data", "#cloud-config\n{}"),
}
"""The templates' texts."""

_WHEN = (Trigger.CREATE, Trigger.COPY, Trigger.RENAME, Trigger.START)

TEMPLATES = {
    f"{_SEED}/meta-data": Template(_WHEN, "cloud-init-meta.tpl"),
    f"{_SEED}/network-config": Template(_WHEN, "cloud-init-network.tpl"),
    f"{_SEED}/user-data": Template(_WHEN, "cloud-init-user.tpl"),
    f"{_SEED}/vendor-data": Template(_WHEN, "cloud-init-vendor.tpl"),
}

WAIT_ONLINE = """\
[Service]
# an instance without a network shall not wait long for one
ExecStart=
ExecStart=/lib/systemd/systemd-networkd-wait-online --any --timeout=20
"""
"""cloud-init installs packages once the network is there."""
