"""One validator per kind of name (security invariant I5), applied where input enters: URL, JSON, header, archive index.

Each takes the name and returns it, or raises BadRequest with a message that names the kind.
"""

from __future__ import annotations

import re

from atoll.domain.errors import BadRequest

_HOSTNAME = re.compile(r"[a-zA-Z0-9](?:[a-zA-Z0-9-]{0,61}[a-zA-Z0-9])?")
_FINGERPRINT = re.compile(r"[0-9a-f]{1,64}")
_DIGITS = 64
_INTERFACE = re.compile(r"[a-zA-Z0-9_.:-]{1,15}")
_LOG_FILE = re.compile(r"[a-zA-Z0-9_.][a-zA-Z0-9_.-]{0,127}")
_UNSAFE_TEXT = re.compile(r"[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff]")
"""What moves a terminal's cursor, turns the direction of text, or cannot be seen or encoded."""


def _refuse_path_like(kind: str, name: str, *, longest: int) -> str:
    if not name:
        raise BadRequest(f"{kind} name may not be empty")
    if len(name) > longest:
        raise BadRequest(f"{kind} name is longer than {longest} characters")
    if _UNSAFE_TEXT.search(name):
        raise BadRequest(f"{kind} name may not contain control characters")
    if "/" in name or name in (".", ".."):
        raise BadRequest(f"{kind} name {name!r} may not contain '/' or be '.' or '..'")
    if name.startswith("-"):
        raise BadRequest(f"{kind} name {name!r} may not start with '-'")
    return name


def instance(name: str) -> str:
    """A host name label of at most 63 characters that is not all digits, as LXD has it."""
    if not _HOSTNAME.fullmatch(name):
        raise BadRequest(
            f"Invalid instance name {name[:80]!r}: it can only contain letters, digits and '-', of at most 63 characters,"
            " and may not start or end with '-'"
        )
    if name[0].isdigit():
        raise BadRequest(f"Invalid instance name {name!r}: it must not start with a number")
    return name


def snapshot(name: str) -> str:
    """A snapshot of an instance or volume: one path segment without spaces."""
    if " " in name:
        raise BadRequest(f"Invalid snapshot name {name[:80]!r}: it may not contain spaces")
    return _refuse_path_like("Snapshot", name, longest=255)


def backup(name: str) -> str:
    """A backup of an instance: one path segment without spaces that is no hidden file, for half-made ones are hidden."""
    if " " in name or name.startswith("."):
        raise BadRequest(f"Invalid backup name {name[:80]!r}: it may not contain spaces or start with '.'")
    return _refuse_path_like("Backup", name, longest=200)


def project(name: str) -> str:
    """One path segment without spaces, underscores or quotes: it becomes a prefix of names on disk."""
    _refuse_path_like("Project", name, longest=63)
    if re.search(r"[\s_'\"*]", name):
        raise BadRequest(f"Project names may not contain spaces, underscores, quotes or '*': {name!r}")
    return name


def profile(name: str) -> str:
    """One path segment."""
    return _refuse_path_like("Profile", name, longest=64)


def storage_pool(name: str) -> str:
    """One path segment without spaces."""
    if " " in name:
        raise BadRequest(f"Storage pool name {name[:80]!r} may not contain spaces")
    return _refuse_path_like("Storage pool", name, longest=64)


def volume(name: str) -> str:
    """A custom storage volume: one path segment without spaces."""
    if " " in name:
        raise BadRequest(f"Storage volume name {name[:80]!r} may not contain spaces")
    return _refuse_path_like("Storage volume", name, longest=128)


def network(name: str) -> str:
    """A managed network: it is the interface's name, of 2 to 15 characters."""
    interface(name)
    if len(name) < 2:
        raise BadRequest(f"Network name {name!r} must have at least 2 characters")
    if "." in name or ":" in name:
        raise BadRequest(f"Network name {name!r} may not contain '.' or ':'")
    return name


def interface(name: str) -> str:
    """A network interface of the kernel."""
    if name in (".", "..") or not _INTERFACE.fullmatch(name) or name.startswith("-"):
        raise BadRequest(f"Invalid network interface name {name[:80]!r}")
    return name


def device(name: str) -> str:
    """A device of an instance or profile, of at most 64 bytes: names on disk begin with it. Slashes are ordinary characters in
    it, as LXD has it: whoever makes a path of it escapes them."""
    if len(name.encode(errors="surrogatepass")) > 64:
        raise BadRequest("The maximum device name length is 64 characters")
    if name.startswith("."):
        raise BadRequest(f"Device name {name!r} must not start with '.'")
    _refuse_path_like("Device", name.replace("/", "_"), longest=64)
    return name


def image_alias(name: str) -> str:
    """An image alias; slashes are ordinary characters in it (`debian/12`)."""
    if not name or len(name) > 255:
        raise BadRequest("Image alias must have between 1 and 255 characters")
    if _UNSAFE_TEXT.search(name) or name.startswith("-") or ".." in name.split("/"):
        raise BadRequest(f"Invalid image alias {name[:80]!r}")
    return name


def fingerprint(text: str) -> str:
    """A SHA-256 in hexadecimal, whole or a prefix; never a pattern."""
    if not _FINGERPRINT.fullmatch(text):
        raise BadRequest("Invalid fingerprint: it must be hexadecimal")
    return text


def whole_fingerprint(text: str) -> str:
    """A SHA-256 in hexadecimal, no prefix of one."""
    if len(text) != _DIGITS or not _FINGERPRINT.fullmatch(text):
        raise BadRequest(f"Invalid fingerprint: it must be {_DIGITS} hexadecimal digits")
    return text


def filename(name: str) -> str:
    """What a file was called where it came from; kept to be shown, never used as a path."""
    return _refuse_path_like("File", name, longest=255)


def log_file(name: str) -> str:
    """A file of an instance's log folder."""
    if name in (".", "..") or not _LOG_FILE.fullmatch(name):
        raise BadRequest(f"Invalid log file name {name[:80]!r}")
    return name
