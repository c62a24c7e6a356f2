from __future__ import annotations

import errno
from pathlib import Path

from atoll.drivers.storage.rubbish import Rubbish


async def test_what_is_busy_is_removed_with_what_comes_next() -> None:
    busy, gone = {Path("/a")}, []

    def remove(path: Path) -> None:
        if path in busy:
            raise OSError(errno.EBUSY, "something is mounted there")
        gone.append(path)

    rubbish = Rubbish(remove)
    await rubbish.remove([Path("/a"), Path("/b")])
    await rubbish.remove([Path("/c")])
    busy.clear()
    await rubbish.remove([Path("/d")])
    await rubbish.remove([Path("/e")])
    assert gone == [Path(path) for path in ("/b", "/c", "/d", "/a", "/e")]
