"""Which command a line names, what help says, and what failures look like."""

from __future__ import annotations

import subprocess
import sys

import pytest

from atoll import version
from atoll.cli.errors import CommandError, UsageError
from atoll.runtime import help, main, table


@pytest.mark.parametrize(
    ("words", "name", "rest"),
    [
        ([], "", []),
        (["--debug", "--group", "sql"], "", ["--debug", "--group", "sql"]),
        (["init", "--auto"], "init", ["--auto"]),
        (["--logfile", "init", "waitready", "-t", "3"], "waitready", ["--logfile", "init", "-t", "3"]),
        (["--logfile=x", "sql", "local", "select 1"], "sql", ["--logfile=x", "local", "select 1"]),
    ],
)
def test_flags_may_stand_before_the_command(words: list[str], name: str, rest: list[str]) -> None:
    assert main.split(words) == (name, rest)


@pytest.mark.parametrize("name", table.COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.dispatch("atolld", [name, "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Description:\n")
    assert f"\n  atolld {name}" in shown
    assert "\nGlobal Flags:\n  -d, --debug     Show all debug messages\n" in shown


def test_root_help_lists_the_commands(capsys: pytest.CaptureFixture[str]) -> None:
    assert main.dispatch("lxd", ["--help"]) == 0
    shown = capsys.readouterr().out
    assert "\nUsage:\n  lxd [flags]\n  lxd [command]\n" in shown
    assert "\n  waitready          Wait for Atoll to be ready to process requests\n" in shown
    assert "      --group     The group" in shown
    assert "sql" not in shown
    assert main.dispatch("lxd", ["help"]) == 0
    assert capsys.readouterr().out == shown


def test_help_of_a_command(capsys: pytest.CaptureFixture[str]) -> None:
    main.dispatch("atolld", ["help", "shutdown"])
    assert capsys.readouterr().out == help.command("atolld", "shutdown", table.COMMANDS["shutdown"])


@pytest.mark.parametrize("words", [["version"], ["--version"], ["init", "--version"]])
def test_version_is_the_interface_under_its_name(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    main.dispatch("atolld", words)
    main.dispatch("lxd", words)
    assert capsys.readouterr().out.split() == [version.ATOLL_VERSION, version.COMPAT_VERSION]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["foo"], 'unknown command "foo" for "atolld"'),
        (["--foo"], "unknown flag: --foo"),
        (["waitready", "--timeout", "abc"], 'invalid argument "abc" for "-t, --timeout" flag'),
        (["cluster", "list-database"], "not available in this release"),
        (["sql", "foo", "SELECT 1"], "Invalid database type"),
        (["sql", "global", ""], "No query provided"),
        (["init", "--auto", "--preseed"], "Can't use --auto and --preseed together"),
        (["init", "--auto", "--dump"], "Can't use --dump with other flags"),
        (["init", "--storage-pool", "x"], "Configuration flags require --auto"),
        (["init", "--minimal", "--storage-pool", "x"], "Configuration flags require --auto"),
        (["init", "--auto", "--network-port", "9"], "--network-port can't be used without --network-address"),
        (["init", "--auto", "--trust-password", "x"], "--trust-password can't be used without --network-address"),
    ],
)
def test_refusals(words: list[str], message: str) -> None:
    with pytest.raises(CommandError) as raised:
        main.dispatch("atolld", words)
    assert message in str(raised.value)


def test_a_wrong_number_of_arguments_shows_the_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError):
        main.dispatch("atolld", ["sql", "global"])
    assert "atolld sql <local|global> <query> [flags]" in capsys.readouterr().out


def test_failures_are_one_line_and_exit_code_1(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["/usr/sbin/lxd", "nonsense"])
    assert main.main() == 1
    assert capsys.readouterr().err == 'Error: unknown command "nonsense" for "lxd"\n'


def test_the_commands_start_without_the_daemons_libraries() -> None:
    loaded = "import sys; from atoll.runtime import main; main.dispatch('atolld', ['version']); print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True).stdout
    heavy = {"aiohttp", "asyncio", "msgspec", "cryptography", "yaml"} & set(shown.split())
    assert not heavy
