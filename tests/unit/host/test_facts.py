"""The ids that the host lends."""

from __future__ import annotations

from pathlib import Path

import pytest

from atoll.domain.idmap import IdRange
from atoll.host import facts

DEFAULT = IdRange(0, facts.DEFAULT_BASE, facts.DEFAULT_COUNT)


@pytest.mark.parametrize(
    ("users", "groups", "lent"),
    [
        ("", "", DEFAULT),
        ("root:1000000:65536", "root:1000000:65536", IdRange(0, 1000000, 65536)),
        ("root:1000000:65536", "root:1000000:65535", None),
        ("root:1000000:200000", "root:1100000:200000", IdRange(0, 1100000, 100000)),
        ("root:100000:65536\nlxd:2000000:1000000", "0:100000:65536\nroot:2000000:1000000", IdRange(0, 2000000, 1000000)),
        ("joe:100000:65536", "joe:100000:65536", DEFAULT),
        ("joe:1000005:65536", "", None),
        ("root:1000000:65536", "", None),
        ("# root:1:2\n\nroot:x:1\nroot:5\nroot::\nroot:²:65536", "", DEFAULT),
    ],
)
def test_lent_ids(tmp_path: Path, users: str, groups: str, lent: IdRange | None) -> None:
    subuid, subgid = tmp_path / "subuid", tmp_path / "subgid"
    subuid.write_text(users)
    subgid.write_text(groups)
    assert facts.lent_ids(subuid, subgid) == lent


def test_missing_files_and_strange_bytes(tmp_path: Path) -> None:
    assert facts.lent_ids(tmp_path / "none", tmp_path / "none") == DEFAULT
    (tmp_path / "subuid").write_bytes(b"j\xff\xf6rg:100000:65536\n")
    assert facts.lent_ids(tmp_path / "subuid", tmp_path / "none") == DEFAULT


def test_figures_of_the_host() -> None:
    assert facts.memory_total() > 1 << 20
    assert facts.cpus() >= 1
    assert facts.architecture()
