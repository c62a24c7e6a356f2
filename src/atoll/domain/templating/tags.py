"""The structure of a template: from pieces to functions that write into a scope."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from atoll.domain.errors import BadRequest
from atoll.domain.templating import lexer, values
from atoll.domain.templating.expressions import Expression, Parser
from atoll.domain.templating.expressions import parse as parse_expression
from atoll.domain.templating.lexer import Kind, Piece
from atoll.domain.templating.scope import Scope
from atoll.domain.templating.values import Plain, Value

Node = Callable[[Scope], None]

DEEPEST = 64
_FOREIGN = frozenset({"block", "extends", "import", "include", "macro", "ssi"})
"""pongo2's tags that reach for other templates or files."""


def parse(source: str) -> list[Node]:
    """The nodes of a whole template. BadRequest, naming the line, where it is malformed."""
    blocks = _Blocks(lexer.pieces(source))
    nodes, ended = blocks.until(frozenset(), depth=0)
    assert not ended
    return nodes


class _Tag:
    """A tag being read: its name and the words behind it."""

    def __init__(self, piece: Piece) -> None:
        self.line = piece.line
        words = lexer.words(piece.content)
        if not words or words[0].kind is not Kind.NAME:
            raise BadRequest("a tag without a name")
        self.name = words[0].content
        self.rest = words[1:]
        self.parser = Parser(self.rest)

    def expression(self) -> Expression:
        """All that stands behind the name, as one expression."""
        return parse_expression(self.rest)

    def bare(self) -> None:
        """Nothing stands behind the name."""
        self.parser.end()


class _Blocks:
    """Reads pieces from the first to the last."""

    def __init__(self, pieces: Sequence[Piece]) -> None:
        self._pieces = pieces
        self._next = 0

    def until(self, names: frozenset[str], *, depth: int) -> tuple[list[Node], _Tag | None]:
        """The nodes up to a tag of one of these names, and that tag; without names up to the end of the template."""
        if depth > DEEPEST:
            raise BadRequest("the template is nested too deeply")
        nodes: list[Node] = []
        while self._next < len(self._pieces):
            piece = self._pieces[self._next]
            self._next += 1
            with lexer.at_line(piece.line):
                if piece.kind is not Kind.TAG:
                    nodes.append(_leaf(piece))
                    continue
                tag = _Tag(piece)
                if tag.name in names:
                    return nodes, tag
                if (node := self._tag(tag, depth=depth)) is not None:
                    nodes.append(_located(node, piece.line))
        if names:
            closing = max(names, key=lambda name: name.startswith("end"))
            raise BadRequest(f"the tag {closing!r} is missing at the end")
        return nodes, None

    def _until(self, *names: str, depth: int) -> tuple[list[Node], _Tag]:
        nodes, tag = self.until(frozenset(names), depth=depth + 1)
        assert tag is not None
        return nodes, tag

    def _tag(self, tag: _Tag, *, depth: int) -> Node | None:
        match tag.name:
            case "if":
                return self._if(tag, depth=depth)
            case "ifequal" | "ifnotequal":
                return self._if_equal(tag, depth=depth)
            case "for":
                return self._for(tag, depth=depth)
            case "set":
                return _set(tag)
            case "with":
                return self._with(tag, depth=depth)
            case "autoescape":
                return self._autoescape(tag, depth=depth)
            case "comment":
                self._skip_comment()
                return None
        what = "is not allowed here" if tag.name in _FOREIGN else "is not known, or out of place"
        raise BadRequest(f"the tag {tag.name[:40]!r} {what}")

    def _if(self, tag: _Tag, *, depth: int) -> Node:
        condition = tag.expression()
        nodes, end = self._until("elif", "else", "endif", depth=depth)
        return _choice(condition, nodes, self._otherwise(end, "endif", depth=depth))

    def _otherwise(self, tag: _Tag, closing: str, *, depth: int) -> Sequence[Node]:
        """What is rendered when the condition before does not hold."""
        with lexer.at_line(tag.line):
            if tag.name == "elif":
                return [self._if(tag, depth=depth + 1)]
            tag.bare()
            if tag.name == closing:
                return ()
            nodes, end = self._until(closing, depth=depth)
            end.bare()
            return nodes

    def _if_equal(self, tag: _Tag, *, depth: int) -> Node:
        one, other = tag.parser.atom(), tag.parser.atom()
        tag.parser.end()
        nodes, end = self._until("else", f"end{tag.name}", depth=depth)
        otherwise = self._otherwise(end, f"end{tag.name}", depth=depth)
        wanted = tag.name == "ifequal"
        return _choice(lambda scope: values.equal(one(scope), other(scope)) is wanted, nodes, otherwise)

    def _for(self, tag: _Tag, *, depth: int) -> Node:
        parser = tag.parser
        names = [parser.name()]
        if parser.take(","):
            names.append(parser.name())
        parser.require("in")
        items = parser.expression()
        backwards = bool(parser.take("reversed"))
        ordered = bool(parser.take("sorted"))
        parser.end()
        nodes, end = self._until("empty", "endfor", depth=depth)
        otherwise = self._otherwise(end, "endfor", depth=depth)

        def run(scope: Scope) -> None:
            rows = _rows(items(scope), ordered=ordered)
            _repeat(scope, names, rows[::-1] if backwards else rows, nodes, otherwise)

        return run

    def _with(self, tag: _Tag, *, depth: int) -> Node:
        given: dict[str, Expression] = {}
        while not tag.parser.at_end:
            name = tag.parser.name()
            tag.parser.require("=")
            given[name] = tag.parser.expression()
        nodes, end = self._until("endwith", depth=depth)
        end.bare()

        def run(scope: Scope) -> None:
            with scope.block({name: value(scope) for name, value in given.items()}):
                _run(nodes, scope)

        return run

    def _autoescape(self, tag: _Tag, *, depth: int) -> Node:
        if tag.parser.name() != "off":
            raise BadRequest("autoescape can only be off")
        nodes, end = self._until("endautoescape", depth=depth)
        end.bare()
        return lambda scope: _run(nodes, scope)

    def _skip_comment(self) -> None:
        """To behind `endcomment`, whatever is in between."""
        while self._next < len(self._pieces):
            piece = self._pieces[self._next]
            self._next += 1
            if piece.kind is Kind.TAG and piece.content.strip() == "endcomment":
                return
        raise BadRequest("the tag 'endcomment' is missing at the end")


def _leaf(piece: Piece) -> Node:
    content = piece.content
    if piece.kind is Kind.PLAIN:
        return lambda scope: scope.write(content)
    value = parse_expression(lexer.words(content))
    return _located(lambda scope: scope.write(values.to_text(value(scope))), piece.line)


def _located(node: Node, line: int) -> Node:
    def run(scope: Scope) -> None:
        with lexer.at_line(line):
            node(scope)

    return run


def _run(nodes: Sequence[Node], scope: Scope) -> None:
    for node in nodes:
        node(scope)


def _choice(condition: Expression, nodes: Sequence[Node], otherwise: Sequence[Node]) -> Node:
    def run(scope: Scope) -> None:
        scope.spend()
        chosen = nodes if values.is_true(condition(scope)) else otherwise
        _run(chosen, scope)

    return run


def _set(tag: _Tag) -> Node:
    name = tag.parser.name()
    tag.parser.require("=")
    value = tag.parser.expression()
    tag.parser.end()
    return lambda scope: scope.assign(name, value(scope))


def _rows(items: Value, *, ordered: bool) -> list[tuple[Value, Value]]:
    """What a loop goes over: (key, value) of a map by key, (entry, nothing) of a list or text; nothing else has entries."""
    if isinstance(items, Mapping):
        return [(key, items[key]) for key in sorted(items)]
    if not isinstance(items, (str, Sequence)):
        return []
    listed: list[Value] = list(items)
    if ordered:
        listed.sort(key=lambda entry: (isinstance(entry, str), values.to_float(entry), values.to_text(entry)))
    return [(entry, None) for entry in listed]


def _repeat(
    scope: Scope, names: Sequence[str], rows: Sequence[tuple[Value, Value]], nodes: Sequence[Node], otherwise: Sequence[Node]
) -> None:
    parent = scope.look_up("forloop")
    for number, row in enumerate(rows):
        scope.spend()
        with scope.block({**dict(zip(names, row)), "forloop": _counters(number, len(rows), parent)}):  # noqa: B905 - 1 name, 2 values
            _run(nodes, scope)
    if not rows:
        _run(otherwise, scope)


def _counters(number: int, length: int, parent: Value) -> Mapping[str, Plain]:
    return {
        "Counter": number + 1,
        "Counter0": number,
        "Revcounter": length - number,
        "Revcounter0": length - number - 1,
        "First": number == 0,
        "Last": number == length - 1,
        "Parentloop": parent if isinstance(parent, Mapping) else None,
    }
