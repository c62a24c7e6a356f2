"""The client's configuration file."""

from __future__ import annotations

import posix

import pytest
import yaml

from atoll.cli import aliases, config
from atoll.cli.errors import CommandError


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setitem(posix.environ, b"ATOLL_CONF", bytes(tmp_path / "conf"))
    return tmp_path / "conf"


def test_without_a_file_there_are_the_built_in_remotes():
    settings = config.load()
    assert (settings.default_remote, sorted(settings.remotes), settings.aliases) == ("local", ["images", "local"], {})


def test_what_is_saved_is_loaded_by_the_quick_reader_and_by_yaml_alike(home):
    settings = config.load()
    settings.remotes["local"]["project"] = "web"
    settings.aliases["ll"] = "list -c nsp"
    settings.save()
    text = (home / "config.yml").read_text()
    assert config.read_plain(text) == yaml.safe_load(text)
    assert config.load().project("local") == "web"
    assert (home / "config.yml").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text",
    [
        "aliases:\n  ll: 'list -c n'\n",
        "remotes: {local: {addr: unix://}}\n",
        "# a comment\ndefault-remote: local\n",
        "aliases:\n  x: list # note\n",
        "default-remote: &a local\n",
        "aliases:\n   odd: indent\n",
        "a: b: c\n",
        "aliases:\n  n: 12\n",
    ],
)
def test_the_quick_reader_leaves_other_yaml_alone(text: str):
    assert config.read_plain(text) is None


def test_names_with_remotes():
    settings = config.load()
    assert settings.split("c1") == ("local", "c1")
    assert settings.split("images:debian/12") == ("images", "debian/12")
    assert settings.split("c1/a:b") == ("local", "c1/a:b")
    with pytest.raises(CommandError, match='The remote "nosuch" doesn\'t exist'):
        settings.split("nosuch:c1")


def test_aliases_expand_the_longest_name_and_place_arguments():
    table = {"ll": "list -c n", "my shell": 'exec @ARGS@ -- sh -c "id -u"', "my": "x"}
    assert aliases.expand(["ll", "web"], table) == ["list", "-c", "n", "web"]
    assert aliases.expand(["my", "shell", "c1"], table) == ["exec", "c1", "--", "sh", "-c", "id -u"]
    assert aliases.expand(["list"], table) == ["list"]
