"""Expressions: from words to functions that give a value in a scope."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from atoll.domain.errors import BadRequest
from atoll.domain.templating import filters, values
from atoll.domain.templating.lexer import Kind, Word
from atoll.domain.templating.scope import Scope
from atoll.domain.templating.values import Plain, Value

Expression = Callable[[Scope], Value]

DEEPEST = 32
_CONSTANTS: dict[str, Plain] = {"true": True, "True": True, "false": False, "False": False, "nil": None, "None": None}
_RESERVED = frozenset({"in", "and", "or", "not", "as", "export"})


class Parser:
    """Reads words from left to right."""

    def __init__(self, words: Sequence[Word]) -> None:
        self._words = words
        self._next = 0
        self._depth = 0

    # --- words ---------------------------------------------------------------------------------------------------------

    @property
    def at_end(self) -> bool:
        """Whether all words are read."""
        return self._next >= len(self._words)

    def peek(self, *contents: str) -> str:
        """The next word if it is one of these symbols or names, else ""."""
        if self.at_end:
            return ""
        word = self._words[self._next]
        return word.content if word.kind in (Kind.SYMBOL, Kind.NAME) and word.content in contents else ""

    def take(self, *contents: str) -> str:
        """As `peek`, and goes on."""
        found = self.peek(*contents)
        self._next += bool(found)
        return found

    def require(self, content: str) -> None:
        """That word comes next."""
        if not self.take(content):
            raise BadRequest(f"{content!r} is missing {self._before()}")

    def name(self) -> str:
        """A name comes next."""
        if self.at_end or self._words[self._next].kind is not Kind.NAME or self._words[self._next].content in _RESERVED:
            raise BadRequest(f"a name is missing {self._before()}")
        self._next += 1
        return self._words[self._next - 1].content

    def end(self) -> None:
        """Nothing comes any more."""
        if not self.at_end:
            raise BadRequest(f"{self._words[self._next].content[:40]!r} is not expected")

    def _before(self) -> str:
        return "at the end" if self.at_end else f"before {self._words[self._next].content[:40]!r}"

    # --- grammar -------------------------------------------------------------------------------------------------------

    def expression(self) -> Expression:
        """comparison [("and" | "or") expression]"""
        self._depth += 1
        if self._depth > DEEPEST:
            raise BadRequest("the expression is nested too deeply")
        one = self._comparison()
        operator = self.take("and", "&&", "or", "||")
        if operator:
            other = self.expression()
            one = _both(one, other) if operator in ("and", "&&") else _either(one, other)
        self._depth -= 1
        return one

    def _comparison(self) -> Expression:
        """sum [operator sum]"""
        one = self._sum()
        if operator := self.take("==", "!=", "<>", "<", "<=", ">", ">=", "in"):
            return _compared(operator, one, self._sum())
        return one

    def _sum(self) -> Expression:
        """["-"] ["not"] product {("+" | "-") product}"""
        negative = self.take("-", "+") == "-"
        denied = bool(self.take("not", "!"))
        result = self._product()
        while operator := self.take("+", "-"):
            result = _calculated(operator, result, self._product())
        if denied:
            result = _denied(result)
        return _calculated("-", lambda _: 0, result) if negative else result

    def _product(self) -> Expression:
        """factor {("*" | "/" | "%") factor}"""
        result = self._factor()
        while operator := self.take("*", "/", "%"):
            result = _calculated(operator, result, self._factor())
        return result

    def _factor(self) -> Expression:
        """A value in parentheses, a literal or a variable, with its filters."""
        if self.take("("):
            value = self.expression()
            self.require(")")
        else:
            value = self.atom()
        while self.take("|"):
            name = self.name()
            argument = self.atom() if self.take(":") else None
            value = _filtered(name, value, argument)
        return value

    def atom(self) -> Expression:
        """A literal or a variable."""
        if self.at_end:
            raise BadRequest("a value is missing at the end")
        word = self._words[self._next]
        if word.kind is Kind.SYMBOL or (word.content in _RESERVED and word.kind is Kind.NAME):
            raise BadRequest(f"a value is missing before {word.content!r}")
        self._next += 1
        if word.kind is Kind.TEXT:
            return _constant(word.content)
        if word.kind is Kind.NUMBER:
            return _constant(float(word.content) if "." in word.content else int(word.content))
        if word.content in _CONSTANTS:
            return _constant(_CONSTANTS[word.content])
        return self._variable(word.content)

    def _variable(self, name: str) -> Expression:
        """name {"." field | "[" expression "]" | "(" arguments ")"}"""
        value: Expression = lambda scope: scope.look_up(name)  # noqa: E731 - one of several forms of the same thing
        while symbol := self.take(".", "[", "("):
            if symbol == "(":
                value = _called(value, self._arguments(), name)
                continue
            field = self._field() if symbol == "." else self._subscript()
            value = _member(value, field, name)
        return value

    def _field(self) -> Expression:
        if not self.at_end and self._words[self._next].kind is Kind.NUMBER:
            self._next += 1
            return _constant(self._words[self._next - 1].content)
        return _constant(self.name())

    def _subscript(self) -> Expression:
        field = self.expression()
        self.require("]")
        return field

    def _arguments(self) -> list[Expression]:
        found: list[Expression] = []
        while not self.take(")"):
            if found:
                self.require(",")
            found.append(self.expression())
        return found


def parse(words: Sequence[Word]) -> Expression:
    """The words as one expression."""
    parser = Parser(words)
    result = parser.expression()
    parser.end()
    return result


def _constant(value: Plain) -> Expression:
    return lambda _: value


def _denied(value: Expression) -> Expression:
    return lambda scope: not values.is_true(value(scope))


def _both(one: Expression, other: Expression) -> Expression:
    return lambda scope: values.is_true(one(scope)) and values.is_true(other(scope))


def _either(one: Expression, other: Expression) -> Expression:
    return lambda scope: values.is_true(one(scope)) or values.is_true(other(scope))


def _member(value: Expression, field: Expression, name: str) -> Expression:
    def evaluate(scope: Scope) -> Value:
        scope.spend()
        return values.member(value(scope), values.to_text(field(scope)), name)

    return evaluate


def _called(value: Expression, arguments: Sequence[Expression], name: str) -> Expression:
    def evaluate(scope: Scope) -> Value:
        scope.spend()
        function = value(scope)
        if not callable(function):
            raise BadRequest(f"{name!r} is not a function")
        given = [argument(scope) for argument in arguments]
        try:
            return function(*given)
        except TypeError as error:
            raise BadRequest(f"{name!r} does not take {len(given)} arguments of these kinds") from error

    return evaluate


def _filtered(name: str, value: Expression, argument: Expression | None) -> Expression:
    apply = filters.find(name)

    def evaluate(scope: Scope) -> Value:
        result = apply(value(scope), argument(scope) if argument is not None else None)
        scope.spend(result)
        return result

    return evaluate


def _compared(operator: str, one: Expression, other: Expression) -> Expression:
    def evaluate(scope: Scope) -> Value:
        left, right = one(scope), other(scope)
        scope.spend(right)
        match operator:
            case "==":
                return values.equal(left, right)
            case "!=" | "<>":
                return not values.equal(left, right)
            case "in":
                return values.contains(right, left)
        return _ordered(operator, left, right)

    return evaluate


def _ordered(operator: str, left: Value, right: Value) -> bool:
    floats = isinstance(left, float) or isinstance(right, float)
    number = values.to_float if floats else values.to_integer
    one, other = number(left), number(right)
    return {"<": one < other, "<=": one <= other, ">": one > other, ">=": one >= other}[operator]


def _calculated(operator: str, one: Expression, other: Expression) -> Expression:
    def evaluate(scope: Scope) -> Value:
        left, right = one(scope), other(scope)
        if operator == "+" and isinstance(left, str) and isinstance(right, str):
            scope.spend(left)
            scope.spend(right)
            return left + right
        scope.spend()
        return _number(operator, left, right)

    return evaluate


def _number(operator: str, left: Value, right: Value) -> Plain:
    floats = isinstance(left, float) or isinstance(right, float)
    one, other = (
        (values.to_float(left), values.to_float(right)) if floats else (values.to_integer(left), values.to_integer(right))
    )
    match operator:
        case "+":
            return values.bounded(one + other)
        case "-":
            return values.bounded(one - other)
        case "*":
            return values.bounded(one * other)
    if other == 0:
        raise BadRequest("division by zero")
    # Towards zero, with the sign of the first, as Go divides.
    quotient = one / other if floats else abs(int(one)) // abs(int(other)) * (1 if (one < 0) == (other < 0) else -1)
    return quotient if operator == "/" else int(one) - int(other) * int(quotient)
