"""The rules hold in the whole tree, and each of them finds a planted violation."""

from __future__ import annotations

import pytest
import rules
from rules import File, Rule

PER_FILE: list[Rule] = [
    rules.programs_start_in_one_place,
    rules.foreign_data_is_read_safely,
    rules.the_loop_never_blocks,
    rules.blind_excepts_have_reasons,
    rules.public_modules_have_docstrings,
]
FILE_P90, FILE_MAX = 300, 450
TEST_FILE_MAX = 700
FUNCTION_P95, FUNCTION_MAX = 25, 45
FLAGS_PER_1000 = 10


@pytest.fixture(scope="module")
def sources() -> list[File]:
    return rules.source_files()


@pytest.mark.parametrize("rule", PER_FILE, ids=lambda rule: rule.__name__)
def test_the_source_keeps_the_rule(rule: Rule, sources: list[File]) -> None:
    assert [f"{file.path}:{violation}" for file in sources for violation in rule(file)] == []


PLANTED: list[tuple[Rule, str, str]] = [
    (rules.programs_start_in_one_place, "services/a.py", "import subprocess"),
    (rules.programs_start_in_one_place, "services/a.py", "from subprocess import run"),
    (rules.programs_start_in_one_place, "host/mount.py", "import os\nos.system('true')"),
    (rules.programs_start_in_one_place, "host/mount.py", "from os import execvp\nexecvp('true', ['true'])"),
    (rules.programs_start_in_one_place, "api/a.py", "import asyncio\nasyncio.create_subprocess_exec('true')"),
    (rules.foreign_data_is_read_safely, "host/a.py", "import tarfile\ntarfile.open('x').extractall()\ntar.extractall('/')"),
    (rules.foreign_data_is_read_safely, "host/a.py", "import shutil\nshutil.unpack_archive('x')"),
    (rules.foreign_data_is_read_safely, "host/a.py", "from pickle import loads"),
    (rules.foreign_data_is_read_safely, "host/a.py", "import yaml\nyaml.load('x', Loader=yaml.Loader)"),
    (rules.foreign_data_is_read_safely, "host/a.py", "import yaml\nyaml.compose('x', Loader=yaml.FullLoader)"),
    (rules.the_loop_never_blocks, "services/a.py", "import time\ntime.sleep(1)"),
    (rules.the_loop_never_blocks, "services/a.py", "from time import sleep\nsleep(1)"),
    (rules.the_loop_never_blocks, "runtime/a.py", "import requests"),
    (rules.blind_excepts_have_reasons, "services/a.py", "try:\n    x()\nexcept Exception:\n    pass"),
    (rules.blind_excepts_have_reasons, "services/a.py", "try:\n    x()\nexcept:\n    pass"),
    (rules.blind_excepts_have_reasons, "services/a.py", "try:\n    x()\nexcept (OSError, BaseException):\n    pass"),
    (rules.public_modules_have_docstrings, "services/a.py", "x = 1"),
    (rules.public_modules_have_docstrings, "services/__init__.py", "x = 1"),
]


@pytest.mark.parametrize(("rule", "path", "text"), PLANTED)
def test_a_planted_violation_is_found(rule: Rule, path: str, text: str) -> None:
    assert list(rule(File(f"src/atoll/{path}", text)))


ALLOWED: list[tuple[Rule, str, str]] = [
    (rules.programs_start_in_one_place, "host/process.py", "import subprocess"),
    (rules.programs_start_in_one_place, "host/zygote_server.py", "import os\nos.execv('/bin/true', ['true'])"),
    (
        rules.foreign_data_is_read_safely,
        "host/a.py",
        "import yaml\nyaml.safe_load('x')\nyaml.compose('x', Loader=yaml.SafeLoader)",
    ),
    (rules.foreign_data_is_read_safely, "host/a.py", "import yaml\nyaml.compose('x', Loader=yaml.CSafeLoader)"),
    (
        rules.foreign_data_is_read_safely,
        "domain/a.py",
        "import yaml\nyaml.load('x', own)  # noqa: S506 - a safe loader's subclass",
    ),
    (rules.the_loop_never_blocks, "runtime/commands/a.py", "import time\ntime.sleep(1)"),
    (rules.the_loop_never_blocks, "host/a.py", "import time\ntime.sleep(1)  # blocks: runs in a child of its own"),
    (
        rules.blind_excepts_have_reasons,
        "services/a.py",
        "try:\n    x()\nexcept Exception:  # a plug-in may raise anything\n    pass",
    ),
    (rules.blind_excepts_have_reasons, "services/a.py", "try:\n    x()\nexcept BaseException:\n    y()\n    raise"),
    (rules.blind_excepts_have_reasons, "services/a.py", "try:\n    x()\nexcept OSError:\n    pass"),
    (rules.public_modules_have_docstrings, "services/__init__.py", ""),
    (rules.public_modules_have_docstrings, "services/_private.py", "x = 1"),
]


@pytest.mark.parametrize(("rule", "path", "text"), ALLOWED)
def test_what_is_allowed_is_not_found(rule: Rule, path: str, text: str) -> None:
    assert list(rule(File(f"src/atoll/{path}", text))) == []


def test_file_sizes(sources: list[File]) -> None:
    assert [file.path for file in sources if len(file.lines) > FILE_MAX] == []
    assert [file.path for file in rules.test_files() if len(file.lines) > TEST_FILE_MAX] == []
    assert rules.percentile([len(file.lines) for file in sources], 0.9) <= FILE_P90


def test_function_sizes(sources: list[File]) -> None:
    lengths = {f"{file.path}:{each.lineno}": rules.length(each) for file in sources for each in rules.functions(file)}
    assert [where for where, length in lengths.items() if length > FUNCTION_MAX] == []
    assert rules.percentile(list(lengths.values()), 0.95) <= FUNCTION_P95


def test_nothing_is_unused(sources: list[File]) -> None:
    assert list(rules.unused_names(sources)) == []


def test_what_is_unused_is_found() -> None:
    text = (
        "A, B = 1, 2\n\nclass C(Base):\n    def called_by_its_base(self): return B\n\nclass D(C):\n    def dead(self): ...\n\nD()"
    )
    assert list(rules.unused_names([File("src/atoll/a.py", text)])) == ["src/atoll/a.py:1: A", "src/atoll/a.py:7: dead"]


def test_flags_are_keywords(sources: list[File]) -> None:
    every = [(file.path, function) for file in sources for function in rules.functions(file)]
    found = [f"{path}:{function.lineno}" for path, function in every if rules.positional_booleans(function)]
    assert len(found) * 1000 <= FLAGS_PER_1000 * len(every), found


def test_the_measures_measure() -> None:
    file = File("src/atoll/a.py", "def f(a: bool, b=True, *, c: bool = False) -> None:\n    x()\n    y()\n")
    [function] = rules.functions(file)
    assert rules.positional_booleans(function) == 2
    assert rules.length(function) == 3
    assert rules.percentile(list(range(1, 101)), 0.9) == 90
    assert rules.percentile([5], 0.9) == 5
