"""What is made from the rows: the reference pages, the metadata of the API, completion. And what importing costs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from atoll.config import catalog, docs

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "config"


def test_the_committed_reference_is_up_to_date() -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in REFERENCE.glob("*.md")}
    assert committed == docs.pages(), "run: python -m atoll.config.docs docs/reference/config"


def test_the_reference_has_every_row(tmp_path: Path) -> None:
    docs.write(tmp_path)
    text = "".join(path.read_text(encoding="utf-8") for path in tmp_path.iterdir())
    for groups in catalog.entities().values():
        for keys in groups.values():
            assert all(f"| `{key.name}` |" in text for key in keys)


def test_metadata_has_the_shape_of_the_api() -> None:
    described = json.loads(json.dumps(catalog.metadata()))["configs"]
    keys = {name: row for entry in described["instance"]["limits"]["keys"] for name, row in entry.items()}
    assert keys["limits.memory.enforce"] == {
        "type": "string",
        "shortdesc": "Whether the limit holds always, or only while the host is short of memory",
        "longdesc": "",
        "defaultdesc": "`hard`",
        "scope": "global",
        "liveupdate": "yes",
        "condition": "container",
    }
    assert {"server", "project", "network-bridge", "storage-overlay", "device-nic-bridged"} <= set(described)
    assert set(described["storage-btrfs"]) == {"pool-conf", "volume-conf"}


def test_importing_loads_nothing_heavy() -> None:
    heavy = ("ipaddress", "urllib", "msgspec", "yaml", "json", "datetime", "socket", "asyncio", "pathlib")
    code = f"import atoll.config, sys; print(*(name for name in {heavy!r} if name in sys.modules))"
    plain = f"import sys; print(*(name for name in {heavy!r} if name in sys.modules))"
    outputs = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout.split()
        for text in (code, plain)
    ]
    assert outputs[0] == outputs[1]
