"""The client's own configuration: remotes, default remote, projects of remotes, aliases.

Folder: ATOLL_CONF, else LXD_CONF, else ~/.config/atoll. File: config.yml, in the layout `lxc` knows:

    default-remote: local
    remotes:
      local: {addr: unix://, project: web}
    aliases:
      ll: list -c nsp
"""

from __future__ import annotations

from atoll.cli.errors import CommandError
from atoll.client.address import variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from atoll.client.tls import Identity

LOCAL = "local"
IMAGES = "images"
BUILT_IN: dict[str, dict[str, Any]] = {
    LOCAL: {"addr": "unix://", "public": False},
    IMAGES: {"addr": "https://images.linuxcontainers.org", "protocol": "simplestreams", "public": True},
}


def folder() -> str:
    """Where the configuration lives."""
    return variable("ATOLL_CONF") or variable("LXD_CONF") or f"{variable('HOME') or _home()}/.config/atoll"


def _home() -> str:
    """What the system's user list says, where the environment says nothing."""
    import os

    return os.path.expanduser("~")


class Config:
    """The configuration; changes last only after `save`."""

    def __init__(self, raw: dict[str, Any], path: str) -> None:
        self.path = path
        self.default_remote: str = raw.get("default-remote") or LOCAL
        found: dict[str, dict[str, Any]] | None = raw.get("remotes")
        known = BUILT_IN if found is None else {LOCAL: BUILT_IN[LOCAL], **found}
        self.remotes = {name: dict(row) for name, row in known.items()}
        self.aliases: dict[str, str] = raw.get("aliases") or {}

    def split(self, text: str) -> tuple[str, str]:
        """ "remote:name" into both; without a remote, the default one."""
        remote, colon, name = text.partition(":")
        if not colon or "/" in remote:
            return self.default_remote, text
        if remote not in self.remotes:
            raise CommandError(f'The remote "{remote}" doesn\'t exist')
        return remote, name

    def project(self, remote: str) -> str:
        """The project in use on a remote; empty: the server's default."""
        return self.remotes[remote].get("project") or ""

    def remove(self, remote: str) -> dict[str, Any]:
        """Take a remote out; what it was."""
        return self.remotes.pop(remote)

    def identity(self) -> Identity:
        """This client's certificate, for servers that are reached by HTTPS."""
        from atoll.client.tls import Identity

        return Identity(self.path.rpartition("/")[0])

    def known_path(self, remote: str) -> str:
        """Where the certificate of a remote server is kept."""
        return f"{self.path.rpartition('/')[0]}/servercerts/{remote}.crt"

    def move_known(self, remote: str, new: str) -> None:
        """The certificate of a remote server goes with its name."""
        import os
        from contextlib import suppress

        with suppress(FileNotFoundError):
            os.replace(self.known_path(remote), self.known_path(new))

    def forget_known(self, remote: str) -> None:
        """Remove the certificate of a remote server, if there is one."""
        import os
        from contextlib import suppress

        with suppress(FileNotFoundError):
            os.unlink(self.known_path(remote))

    def save(self) -> None:
        """Write the file, readable by its owner alone, in one step."""
        import os

        from atoll.cli import yaml_out

        raw = {"default-remote": self.default_remote, "remotes": self.remotes, "aliases": self.aliases}
        os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
        new = f"{self.path}.new"
        with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "w") as file:
            file.write(yaml_out.dump(raw))
        os.replace(new, self.path)


def is_remote_name(name: str) -> bool:
    """Whether that can name a remote, and a file."""
    plain = name.replace("-", "").replace("_", "").replace(".", "")
    return 0 < len(name) <= 128 and name.isascii() and name[0].isalnum() and plain.isalnum()


def load() -> Config:
    """Read the configuration; the defaults where there is none yet."""
    path = f"{folder()}/config.yml"
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read()
    except FileNotFoundError:
        return Config({}, path)
    except OSError as error:
        raise CommandError(f"Unable to read the configuration: {path}: {error.strerror}") from error
    raw = read_plain(text)
    if raw is None:
        from atoll.cli import yaml_in

        raw = yaml_in.load(text)
    return Config(raw if isinstance(raw, dict) else {}, path)


def read_plain(text: str) -> dict[str, Any] | None:
    """The YAML that `save` writes in the usual case: nested mappings of plain words. None for any other YAML.

    A YAML library costs more to import than a whole `atoll list`.
    """
    root: dict[str, Any] = {}
    levels: list[dict[str, Any]] = [root]
    opened: dict[str, Any] | None = None
    for line in text.splitlines():
        body = line.lstrip(" ")
        if not body:
            continue
        indent, odd = divmod(len(line) - len(body), 2)
        name, colon, value = body.partition(":")
        value = value.strip(" ")
        if odd or not colon or not _is_plain(name) or not (_is_plain(value) or value in ("", "{}")):
            return None
        if indent == len(levels) and opened is not None:
            levels.append(opened)
        elif indent >= len(levels):
            return None
        del levels[indent + 1 :]
        opened = {} if value == "" else None
        levels[-1][name] = opened if opened is not None else _plain_value(value)
    return root


def _is_plain(text: str) -> bool:
    """Whether a word needs no YAML rules at all to be read as itself."""
    if text.endswith("://"):
        return text[:-3].isalpha()
    if not text or not text[0].isalpha() or text[-1] == ":" or ": " in text:
        return False
    return not text.strip("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_/:. ")


def _plain_value(value: str) -> object:
    if value == "{}":
        return {}
    return {"true": True, "false": False, "null": None}.get(value, value)
