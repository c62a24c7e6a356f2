"""What of a stranger's layer reaches tar: whatever the stream is, names that stay below its top, and no device nodes."""

from __future__ import annotations

import io
import tarfile

from hypothesis import given, settings
from hypothesis import strategies as st

from atoll.domain.errors import BadRequest, TooLarge
from atoll.host import archive_layers, archive_tar
from atoll.host.archive_tar import Budget, Source

BUDGET = Budget(bytes=1 << 20, entries=20, file_bytes=1 << 16)
KINDS = (tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE)
names = st.sampled_from(["a", "a/b", "../x", "/etc/x", "a/../../x", ".", "", "n" * 200, "ü", "a\0b"])
pax = st.dictionaries(
    st.sampled_from(
        ["path", "linkpath", "size", "GNU.sparse.name", "GNU.sparse.realsize", "SCHILY.xattr.trusted.overlay.opaque"]
    ),
    st.one_of(names, st.integers(0, 1 << 40).map(str)),
    max_size=2,
)


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    head = tarfile.TarInfo(draw(names))
    head.type, head.linkname, head.pax_headers = draw(st.sampled_from(KINDS)), draw(names), draw(pax)
    head.devmajor, head.devminor = draw(st.sampled_from([(0, 0), (1, 3), (8, 0)]))
    content = draw(st.binary(max_size=30)) if head.type == tarfile.REGTYPE else b""
    head.size = len(content)
    return head, content


@st.composite
def archives(draw: st.DrawFn) -> bytes:
    """Well made, or with some bytes changed, or cut off."""
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=draw(st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]))) as tar:
        for head, content in draw(st.lists(members(), max_size=4)):
            tar.addfile(head, io.BytesIO(content))
    stream = bytearray(made.getvalue())
    for _ in range(draw(st.integers(0, 2))):
        stream[draw(st.integers(0, len(stream) - 1))] = draw(st.integers(0, 255))
    return bytes(stream[: draw(st.sampled_from([len(stream), len(stream) // 2, 700]))])


@settings(deadline=None)
@given(archives())
def test_only_what_a_layer_may_have_reaches_tar(stream: bytes) -> None:
    passed = io.BytesIO()
    try:
        archive_tar.filter_stream(Source(io.BytesIO(stream), BUDGET), archive_layers._Rules(), BUDGET, passed.write)
    except (BadRequest, TooLarge):
        pass  # tar sees the end of its input in the middle of something
    passed.write(bytes(2 * archive_tar.BLOCK))
    seen = passed.getvalue()
    for member in _read(seen):
        assert ".." not in member.name.split("/")
        assert not member.isblk()
        assert not member.ischr() or (member.devmajor, member.devminor) == (0, 0)
        assert not member.islnk() or ".." not in member.linkname.split("/")


def _read(stream: bytes) -> list[tarfile.TarInfo]:
    found = []
    try:
        with tarfile.open(fileobj=io.BytesIO(stream)) as tar:
            found += list(tar)
    except (tarfile.TarError, ValueError):
        pass
    return found
