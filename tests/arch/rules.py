"""The project's own rules, each a function from a parsed file to its violations.

A rule says `line: what` for each violation; `path` is relative to the checkout, with forward slashes.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class File:
    """A Python file: where it is, its text, and what it parses to."""

    path: str
    text: str
    tree: ast.Module = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "tree", ast.parse(self.text, self.path))

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()


Rule = Callable[[File], Iterator[str]]

STARTS_PROGRAMS = re.compile(r"^src/atoll/host/(process|zygote\w*|archive_jail)\.py$")
SYNCHRONOUS = re.compile(r"^src/atoll/(client|cli|runtime/commands)/")
"""Programs of their own, without an event loop."""


def source_files() -> list[File]:
    """The package's files."""
    return _read(sorted((ROOT / "src/atoll").rglob("*.py")))


def test_files() -> list[File]:
    """The tests' files."""
    return _read(sorted((ROOT / "tests").rglob("*.py")))


def _read(paths: list[Path]) -> list[File]:
    return [File(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths]


def _dotted(node: ast.expr) -> str:
    """`a.b.c` of a name or attribute chain, "" for anything else."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (head := _dotted(node.value)):
        return f"{head}.{node.attr}"
    return ""


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and full name of everything that is imported."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def _calls(tree: ast.Module) -> Iterator[tuple[ast.Call, str]]:
    """Every call, and its name with imported names written out: `sleep` after `from time import sleep` is `time.sleep`."""
    known = {name.rpartition(".")[2]: name for _, name in _imports(tree) if "." in name}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (name := _dotted(node.func)):
            head, dot, rest = name.partition(".")
            yield node, known.get(head, head) + dot + rest


def _starts_with(name: str, modules: frozenset[str]) -> bool:
    return any(name == module or name.startswith(module + ".") for module in modules)


PROGRAM_STARTERS = re.compile(
    r"(subprocess\.\w+|os\.(system|popen|posix_spawnp?|spawn\w+|exec[lv]\w*)|asyncio\.create_subprocess_\w+|pty\.spawn)$"
)


def programs_start_in_one_place(file: File) -> Iterator[str]:
    """Only host.process, the zygote and the jail's own script start programs; a client may run an editor."""
    if STARTS_PROGRAMS.match(file.path) or SYNCHRONOUS.match(file.path):
        return
    for line, name in _imports(file.tree):
        if _starts_with(name, frozenset({"subprocess"})):
            yield f"{line}: imports subprocess"
    for call, name in _calls(file.tree):
        if PROGRAM_STARTERS.match(name):
            yield f"{call.lineno}: calls {name}"


UNSAFE_MODULES = frozenset({"pickle", "marshal", "shelve", "dill", "cPickle"})
UNSAFE_YAML = frozenset({"load", "load_all", "full_load", "full_load_all", "unsafe_load", "unsafe_load_all"})
SAFE_SUBCLASS = re.compile(r"#\s*noqa: S506 - \S")
UNSAFE_LOADERS = re.compile(r"(^|\.)(Unsafe|Full|C?)Loader$")


def foreign_data_is_read_safely(file: File) -> Iterator[str]:
    """No archive is extracted by the standard library, nothing is unpickled, YAML has safe loaders."""
    for line, name in _imports(file.tree):
        if _starts_with(name, UNSAFE_MODULES):
            yield f"{line}: imports {name}"
    for call, name in _calls(file.tree):
        last = name.rpartition(".")[2]
        if name == "shutil.unpack_archive" or ("tar" in name.lower() and last in ("extract", "extractall")):
            yield f"{call.lineno}: extracts an archive with {name}"
        if name.startswith("yaml.") and last in UNSAFE_YAML and not SAFE_SUBCLASS.search(file.lines[call.lineno - 1]):
            yield f"{call.lineno}: calls {name}"
        for argument in (*call.args, *(keyword.value for keyword in call.keywords)):
            if name.startswith("yaml.") and UNSAFE_LOADERS.search(_dotted(argument)):
                yield f"{call.lineno}: gives {name} the loader {_dotted(argument)}"


BLOCKING_MODULES = frozenset({"requests", "urllib.request", "http.client", "urllib3"})
WAITS = re.compile(r"#\s*blocks: \S")


def the_loop_never_blocks(file: File) -> Iterator[str]:
    """Nothing of the daemon sleeps or speaks HTTP synchronously; code for a thread or a child says so: `# blocks: why`."""
    if SYNCHRONOUS.match(file.path):
        return
    for line, name in _imports(file.tree):
        if _starts_with(name, BLOCKING_MODULES):
            yield f"{line}: imports {name}"
    for call, name in _calls(file.tree):
        if name == "time.sleep" and not WAITS.search(file.lines[call.lineno - 1]):
            yield f"{call.lineno}: calls {name}"


BLIND = frozenset({"Exception", "BaseException"})


def blind_excepts_have_reasons(file: File) -> Iterator[str]:
    """`except Exception` and wider says why in a comment at or below the line, or raises again."""
    for node in ast.walk(file.tree):
        if not isinstance(node, ast.ExceptHandler) or not _is_blind(node.type):
            continue
        raises = any(isinstance(inner, ast.Raise) for statement in node.body for inner in ast.walk(statement))
        said = any("#" in line for line in file.lines[node.lineno - 1 : node.body[0].lineno])
        if not (raises or said):
            yield f"{node.lineno}: a blind except without its reason"


def _is_blind(caught: ast.expr | None) -> bool:
    if caught is None:
        return True
    kinds = caught.elts if isinstance(caught, ast.Tuple) else [caught]
    return any(_dotted(kind).rpartition(".")[2] in BLIND for kind in kinds)


def public_modules_have_docstrings(file: File) -> Iterator[str]:
    """A module that is not private says what it is for; an empty __init__.py has nothing to say."""
    name = file.path.rpartition("/")[2]
    private = name.startswith("_") and name != "__init__.py"
    if file.tree.body and not private and ast.get_docstring(file.tree) is None:
        yield "1: no docstring"


FORBIDDEN_WORDS = re.compile(r"/w[o]rk/|/tmp/u[p]/|n[e]tbox\b|w[o]rkplace|\bT[O]DO\b|\bF[I]XME\b", re.IGNORECASE)


def forbidden_words(text: str) -> Iterator[str]:
    """Notes to oneself, and paths of the place where a text was written."""
    for number, line in enumerate(text.splitlines(), 1):
        if found := FORBIDDEN_WORDS.search(line):
            yield f"{number}: {found.group()}"


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(file: File) -> list[Function]:
    """All functions and methods of a file."""
    return [node for node in ast.walk(file.tree) if isinstance(node, Function)]


def length(function: Function) -> int:
    """Its lines, from `def` to the last one."""
    return (function.end_lineno or function.lineno) - function.lineno + 1


def positional_booleans(function: Function) -> int:
    """How many of its parameters are flags that a caller may give by position."""
    arguments = function.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(arguments.defaults)) + list(arguments.defaults)
    return sum(
        (argument.annotation is not None and _dotted(argument.annotation) == "bool")
        or (isinstance(default, ast.Constant) and isinstance(default.value, bool))
        for argument, default in zip(positional, defaults, strict=True)
    )


FOR_TESTS = re.compile(r"^src/atoll/drivers/(\w+/sim\w*\.py|.*conformance)")
"""What simulated drivers let tests do, and the suites that drivers are tested with."""


def unused_names(files: list[File]) -> Iterator[str]:
    """Functions, classes, methods and constants whose names stand nowhere but where they are defined.

    Methods of classes with a base from outside of the project count as used: the base calls them.
    """
    words = Counter(word for file in files for word in re.findall(r"\w+", file.text))
    own = {node.name for file in files for node in ast.walk(file.tree) if isinstance(node, ast.ClassDef)}
    for file in files:
        if not FOR_TESTS.match(file.path):
            yield from (f"{file.path}:{line}: {name}" for line, name in _defined(file.tree, own) if words[name] == 1)


def _defined(tree: ast.Module, own: set[str]) -> Iterator[tuple[int, str]]:
    """Line and name of what a module defines, and of the methods of its classes."""
    for node in tree.body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = [each for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)]
            yield from ((node.lineno, each.id) for each in names if not each.id.startswith("__"))
        elif isinstance(node, Function | ast.ClassDef):
            yield node.lineno, node.name
        if isinstance(node, ast.ClassDef) and all(_dotted(base).rpartition(".")[2] in own for base in node.bases):
            methods = [each for each in node.body if isinstance(each, Function) and not each.name.startswith("__")]
            yield from ((each.lineno, each.name) for each in methods)


def percentile(values: list[int], share: float) -> int:
    """The value that `share` of the values do not exceed."""
    return sorted(values)[max(0, round(share * len(values)) - 1)]
