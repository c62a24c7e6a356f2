"""The Debian builder's parts that need no build: its command and its progress."""

from __future__ import annotations

from pathlib import Path

from atoll.domain import architectures
from atoll.host.imagebuild import apt, debian, recipe, template

OUTPUT = """\
I: chroot architecture amd64 is equal to the host's architecture
I: running apt-get update...
Get:1 http://mirror.example bookworm InRelease [151 kB]
I: downloading packages with apt...
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Get:1 http://mirror.example bookworm/main amd64 a amd64 1 [10 kB]
Get:2 http://mirror.example bookworm/main amd64 b amd64 1 [10 kB]
I: extracting archives...
I: installing essential packages...
Unpacking a (1) ...
Setting up a (1) ...
Unpacking b (1) ...
Setting up b (1) ...
Setting up b (1) ...
I: installing remaining packages inside the chroot...
I: cleaning package lists and apt cache...
I: success in 24.6001 seconds
"""


def test_progress_rises_and_says_what_is_done() -> None:
    told: list[tuple[int, str]] = []
    meter = debian.Meter(lambda percent, text: told.append((percent, text)))
    for line in OUTPUT.splitlines():
        meter.line(line)
    percents = [percent for percent, _ in told]
    assert percents == sorted(set(percents)) and percents[0] == 0 and percents[-1] == 90
    assert (65, "Installing the essential packages") in told
    assert [text for _, text in told][-1] == "Cleaning up"


def test_the_command_has_every_source_and_no_shell() -> None:
    row = recipe.find("debian/12", packages=["nginx"])
    entries = apt.official(row, "amd64")
    argv = debian.command(row, architectures.find("amd64"), Path("/x/root fs"), entries, ['Acquire::Retries "3";'])
    assert argv[0] == "unshare" and "--kill-child" in argv
    assert argv[-5:-3] == ["bookworm", "/x/root fs"]
    assert argv[-3:] == [line for entry in entries for line in entry.lines()]
    assert '--aptopt=Acquire::Retries "3";' in argv
    assert next(item for item in argv if item.startswith("--include=")).endswith(",nginx")


def test_metadata_of_a_build() -> None:
    made = template.metadata(recipe.find("debian/12"), architectures.find("x86_64"), now=1_700_000_000)
    assert made.architecture == "x86_64"
    assert made.properties["description"] == "Debian bookworm amd64 (20231114_2213)"
    assert (made.properties["os"], made.properties["release"], made.properties["version"]) == ("Debian", "bookworm", "12")


def test_files_replace_links_and_never_follow_them(tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("untouched")
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/a").symlink_to(tmp_path / "outside")
    template.write(tmp_path / "tree", "a", "mine", mode=0o600)
    assert (tmp_path / "outside").read_text() == "untouched"
    assert (tmp_path / "tree/a").read_text() == "mine" and (tmp_path / "tree/a").stat().st_mode & 0o777 == 0o600
