"""Jinja's immutable sandbox, with every rendering held to a budget of steps and of data made.

What keeps it within bounds, whatever the template:

- filters, tests and methods are those that conversations need; the others do not exist here;
- whatever walks a value (prints, compares, hashes, sorts it) first pays for its size, so that
  sharing and cycles gain nothing, and whatever could make much of little pays for its result;
- the bodies of loops, macros and blocks pay for their length each time they run.

The payments are calls that `metered` puts into the parsed template and that the wrapped filters
make; nothing here needs a thread, a signal or a clock.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from types import BuiltinMethodType
from typing import Any

from jinja2 import nodes, pass_context
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import BlockReference, Context, LoopContext, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Cycler, Joiner, Namespace
from jinja2.visitor import NodeTransformer

MOST_STEPS = 10_000_000  # a few seconds; 10,000 messages take about a tenth
MOST_DEPTH = 100  # of values in values
MOST_BITS = 4096  # of a number
# Data made, in units of a character or 4 bytes: what every template may make, and what it may make
# more for each character of the messages.
DATA_BASE = 32_000_000
DATA_PER_CHARACTER = 32

METER = " meter"  # where the context has it: no name of a template has a space


class BudgetError(Exception):
    """The template asked for too much; the text completes "the chat template ...: "."""


class Meter:
    """What one rendering has used up."""

    def __init__(self, messages: object) -> None:
        self.steps = 0
        self.depth = 0  # of the value weighed last
        self.data = self.most_data = 0
        self.most_data = DATA_BASE + DATA_PER_CHARACTER * self.weigh(messages)
        self.steps = 0

    def spend(self, steps: int) -> None:
        """Counts work: a step is some hundred nanoseconds."""
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise BudgetError(f"it did more than {MOST_STEPS:,} steps")

    def make(self, size: int) -> None:
        """Counts data about to be made, or just made in proportion to what was paid for."""
        self.spend(1 + size // 64)
        self.data += size
        if self.data > self.most_data:
            raise BudgetError(
                f"it made more than {self.most_data:,} characters of text and other data"
            )

    def weigh(self, *values: object) -> int:
        """Characters of the values written out, about; pays a step for each value inside."""
        characters = 0
        self.depth = 0
        stack: list[Iterator[object]] = [iter(values)]
        while stack:
            for value in stack[-1]:
                if isinstance(value, str):
                    characters += len(value)
                    continue
                if isinstance(value, int):
                    characters += 24 + value.bit_length() // 3
                    continue
                if isinstance(value, dict):
                    inside: Iterable[object] = chain(value, value.values())
                    count = 2 * len(value)
                elif isinstance(value, range):
                    # Written as two numbers, but `in` looks at all of it for what is no number.
                    inside, count = (), len(value)
                elif isinstance(value, Collection):
                    inside, count = value, len(value)
                elif isinstance(value, Namespace):
                    inside, count = (object.__getattribute__(value, "_Namespace__attrs"),), 1
                else:
                    characters += 24
                    continue
                self.spend(1 + count)
                characters += 2 * (1 + count)
                stack.append(iter(inside))
                self.depth = max(self.depth, len(stack))
                if len(stack) > MOST_DEPTH:
                    raise BudgetError(f"it nests values more than {MOST_DEPTH} deep")
                break
            else:
                stack.pop()
        return characters

    def made(self, result: object) -> Any:
        """Pays for the result of an operation; what is lazy is made a list of."""
        if isinstance(result, str):
            self.make(16 + len(result))
        elif isinstance(result, int):
            check_bits(result)
        elif isinstance(result, Iterator) and not isinstance(result, LoopContext):
            items = []
            for item in result:
                self.make(16)
                items.append(item)
            return items
        return result

    def on_string(self, name: str, text: str, args: Sequence[object]) -> None:
        """Pays for a filter or method of a string."""
        characters = self.weigh(*args)
        self.spend((1 + len(text) // 64) * (1 + characters // 64))
        if name in ("center", "ljust", "rjust", "zfill"):
            self.make(max([abs(arg) for arg in args if isinstance(arg, int)], default=80))
        elif name == "join":
            self.make(len(text) * characters)  # whichever of the two stands between
        elif name == "replace" and len(args) >= 2:
            self.make(text.count(str(args[0])) * len(str(args[1])))
        elif name == "indent":
            width = args[0] if args else 4
            size = abs(width) if isinstance(width, int) else len(str(width))
            self.make(len(text.splitlines()) * size)
        elif name == "format":
            # Every field may hold all arguments and be as wide as the largest number says.
            numbers = [int(digits[:10]) for digits in re.findall(r"\d+", text)]
            if "*" in text:
                numbers += [
                    abs(number)
                    for arg in args
                    for number in (arg if isinstance(arg, tuple) else (arg,))
                    if isinstance(number, int)
                ]
            fields = text.count("%") + text.count("{")
            self.make(fields * (characters + max(numbers, default=0)))


def check_bits(number: int) -> None:
    """Raises BudgetError for a number that takes long to compute with."""
    if number.bit_length() > MOST_BITS:
        raise BudgetError(f"it has a number of more than {MOST_BITS} bits")


def _meter(context: Context) -> Meter:
    meter: Meter = context.parent[METER]
    return meter


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | str | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


# Filters that look at one item or none, at every item once, and at everything inside their value.
_BRIEF = ("attr", "count", "d", "default", "first", "last", "length")
_SHALLOW = ("items", "list", "map", "reject", "rejectattr", "reverse", "select", "selectattr")
_DEEP = (
    *("abs", "capitalize", "center", "dictsort", "e", "escape", "float", "format", "groupby"),
    *("indent", "int", "join", "lower", "max", "min", "replace", "round", "safe", "sort"),
    *("string", "sum", "title", "tojson", "trim", "truncate", "unique", "upper", "urlencode"),
    "wordcount",
)
_BRIEF_TESTS = (
    *("boolean", "callable", "defined", "escaped", "even", "false", "filter", "float", "integer"),
    *("iterable", "mapping", "none", "number", "odd", "sameas", "sequence", "string", "test"),
    *("true", "undefined"),
)
_EQUALITY = ("==", "eq", "equalto", "!=", "ne")

_STRING_METHODS = (
    *("capitalize", "casefold", "center", "count", "endswith", "find", "format", "index"),
    *("isalnum", "isalpha", "isascii", "isdecimal", "isdigit", "islower", "isnumeric", "isspace"),
    *("istitle", "isupper", "join", "ljust", "lower", "lstrip", "partition", "removeprefix"),
    *("removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip"),
    *("split", "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill"),
)
_METHODS: tuple[tuple[type | tuple[type, ...], tuple[str, ...]], ...] = (
    (str, _STRING_METHODS),
    (dict, ("copy", "get", "items", "keys", "values")),
    ((list, tuple), ("copy", "count", "index")),
    ((type, int, float, complex, bytes, range), ()),
)


def _pay_for_filter(
    meter: Meter, name: str, value: object, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> None:
    meter.spend(4)
    everything = (*args, *kwargs.values())
    if name in ("center", "format", "indent", "replace") and not isinstance(value, str):
        meter.make(meter.weigh(value))
        value = str(value)  # as the filter does
    if isinstance(value, str) and name not in _BRIEF:
        meter.on_string(name, value, everything)
    elif name not in _BRIEF:
        before = meter.steps
        if name in _SHALLOW:
            meter.make(2 * len(value) if isinstance(value, Collection) else 16)
            characters = 0
        else:
            characters = meter.weigh(value)
        depth, walked = meter.depth, 1 + meter.steps - before
        arguments = meter.weigh(*everything)
        meter.spend(characters // 64 + walked * (arguments // 64))
        if name in ("join", "tojson"):  # something between any two values
            widths = [abs(arg) for arg in everything if isinstance(arg, int)]
            meter.make(characters + walked * (arguments + depth * max(widths, default=0)))
    if name == "round" and isinstance(value, str):
        raise BudgetError("it rounds text")
    if name == "round" and any(isinstance(arg, int) and abs(arg) > 1000 for arg in everything):
        raise BudgetError("it rounds to more than 1000 places")
    if name == "sum" and not isinstance(kwargs.get("start", 0), int | float):
        raise BudgetError("it sums up what are not numbers")


def _pay_for_test(
    meter: Meter, name: str, value: object, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> None:
    if name in ("odd", "even", "divisibleby") and isinstance(value, str):
        raise BudgetError(f"it asks whether text is {name}")  # its % would be the formatting one
    if name in _BRIEF_TESTS:
        meter.spend(4)
        return
    sizes = (meter.weigh(value), meter.weigh(*args, *kwargs.values()))
    # Equality ends with the shorter text.
    meter.spend(8 + (min(sizes) if name in _EQUALITY else sum(sizes)) // 64)


def _metered(name: str, function: Callable[..., Any], pay: Callable[..., None]) -> Any:
    """The filter or test, paid for."""
    # Which of Jinja's objects it takes first: context, eval_context or environment.
    wants = getattr(getattr(function, "jinja_pass_arg", None), "name", None)

    @pass_context
    def paid(context: Context, value: Any = "", *args: Any, **kwargs: Any) -> Any:
        meter = _meter(context)
        pay(meter, name, value, args, kwargs)
        first = {
            None: (),
            "context": (context,),
            "eval_context": (context.eval_ctx,),
            "environment": (context.environment,),
        }[wants]
        return meter.made(function(*first, value, *args, **kwargs))

    return paid


# What `metered` puts into a template: filters whose names no template can write.


@pass_context
def _spend(context: Context, steps: int) -> bool:
    _meter(context).spend(steps)
    return True


@pass_context
def _text(context: Context, size: int) -> str:
    _meter(context).make(size)
    return ""


@pass_context
def _shown(context: Context, value: object) -> object:
    meter = _meter(context)
    meter.make(len(value) if isinstance(value, str) else meter.weigh(value))
    return value


@pass_context
def _weighed(context: Context, value: object) -> object:
    if not isinstance(value, int):
        meter = _meter(context)
        meter.spend(1 + meter.weigh(value) // 64)
    return value


@pass_context
def _copied(context: Context, value: object) -> object:
    if isinstance(value, Collection):
        size = len(value)
        _meter(context).make(16 + (size if isinstance(value, str) else 2 * size))
    return value


@pass_context
def _built(context: Context, value: Collection[object]) -> object:
    _meter(context).make(16 + (32 if isinstance(value, dict) else 4) * len(value))
    return value


_OWN = {
    " spend": _spend,
    " text": _text,
    " shown": _shown,
    " weighed": _weighed,
    " copied": _copied,
    " built": _built,
}


class _GenerationTag(Extension):
    """`{% generation %}` marks the answers for training; here its body stands for itself."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class Sandbox(ImmutableSandboxedEnvironment):
    """The environment of chat templates. Render with a Meter in the variable METER."""

    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_GenerationTag, loopcontrols]
        )
        filters: dict[str, Callable[..., Any]] = {**self.filters, "tojson": _to_json}
        self.filters = {
            name: _metered(name, filters[name], _pay_for_filter)
            for name in (*_BRIEF, *_SHALLOW, *_DEEP)
        } | _OWN
        tests: Any = self.tests
        self.tests = {name: _metered(name, test, _pay_for_test) for name, test in tests.items()}
        del self.globals["lipsum"]  # text of any length for nothing

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Of the built-in types, the methods that are paid for."""
        for kind, methods in _METHODS:
            if isinstance(obj, kind):
                return attr in methods
        return super().is_safe_attribute(obj, attr, value)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """An operator, paid for."""
        meter = _meter(context)
        for value in (left, right):
            if isinstance(value, int):
                check_bits(value)
        if operator == "+":
            if isinstance(left, str | list | tuple) and isinstance(right, str | list | tuple):
                meter.make(16 + len(left) + len(right))
        elif operator == "*":
            for one, times in ((left, right), (right, left)):
                if isinstance(one, str | list | tuple) and isinstance(times, int):
                    meter.make(16 + 2 * len(one) * max(times, 0))
        elif operator == "**":
            whole = isinstance(left, int) and isinstance(right, int)
            if whole and left.bit_length() * right > MOST_BITS:
                raise BudgetError(f"it has a number of more than {MOST_BITS} bits")
        elif operator == "%" and isinstance(left, str):
            meter.on_string("format", left, (right,))
        meter.spend(1)
        return super().call_binop(context, operator, left, right)

    def call(self, context: Context, obj: Any, *args: Any, **kwargs: Any) -> Any:
        """A call, paid for."""
        meter = _meter(context)
        meter.spend(8 + len(args) + len(kwargs))
        method = getattr(obj, "__wrapped__", obj)  # the sandbox wraps str.format
        owner = method.__self__ if isinstance(method, BuiltinMethodType) else None
        everything = (*args, *kwargs.values())
        if isinstance(owner, str):
            if method.__name__ == "format" and any(
                "{" in (spec or "") for _, _, spec, _ in string.Formatter().parse(owner)
            ):
                raise BudgetError("it computes a width for str.format")
            meter.on_string(method.__name__, owner, everything)
        elif isinstance(owner, list | tuple) and method.__name__ != "copy":
            meter.spend(meter.weigh(owner, *everything) // 64)
        elif isinstance(owner, dict | list | tuple) and method.__name__ == "copy":
            meter.make(16 + 8 * len(owner))
        # These only bind their arguments to names; kwargs hold Jinja's own too.
        elif not isinstance(obj, Macro | BlockReference | LoopContext) and (
            obj not in (Namespace, Cycler, Joiner) or args
        ):
            meter.make(meter.weigh(*everything))
        result = meter.made(super().call(context, obj, *args, **kwargs))
        if isinstance(owner, str) and isinstance(result, list):
            meter.make(16 * len(result))
        return result


class _Payments(NodeTransformer):
    """Puts the payments into a parsed template."""

    def visit_body(self, node: Any) -> Any:
        """A body that may run many times pays for its nodes."""
        steps = 1 + sum(1 for part in node.body for _ in part.find_all(nodes.Node)) // 2
        self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(_paid(nodes.Const(steps), " spend")))
        if isinstance(node, nodes.For) and node.test is not None:
            node.test = nodes.And(_paid(nodes.Const(steps), " spend"), node.test)
        return node

    visit_For = visit_Macro = visit_CallBlock = visit_Block = visit_body  # noqa: N815

    def visit_Output(self, node: nodes.Output) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        constants = 0
        for i, child in enumerate(node.nodes):
            if isinstance(child, nodes.TemplateData):
                constants += len(child.data)
            else:
                node.nodes[i] = _paid(child, " shown")
        if constants:
            node.nodes.append(_paid(nodes.Const(constants), " text"))
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        node.nodes = [_paid(child, " shown") for child in node.nodes]
        return node

    def visit_Compare(self, node: nodes.Compare) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        first = node.ops[0]
        if len(node.ops) == 1 and first.op in ("eq", "ne"):
            if isinstance(node.expr, nodes.Const) or isinstance(first.expr, nodes.Const):
                return node
            return nodes.Test(node.expr, first.op, [first.expr], [], None, None)
        node.expr = _paid(node.expr, " weighed")
        for operand in node.ops:
            operand.expr = _paid(operand.expr, " weighed")
        return node

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        if isinstance(node.arg, nodes.Slice):
            node.node = _paid(node.node, " copied")
        elif not isinstance(node.arg, nodes.Const):
            node.arg = _paid(node.arg, " weighed")  # hashed
        return node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        for pair in node.items:
            if not isinstance(pair.key, nodes.Const):
                pair.key = _paid(pair.key, " weighed")
        return _paid(node, " built")

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _paid(node, " built")

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802
        self.generic_visit(node)
        return _paid(node, " built") if node.ctx == "load" else node

    def visit_Const(self, node: nodes.Const) -> nodes.Node:  # noqa: N802
        if isinstance(node.value, int):
            check_bits(node.value)
        return node


def _paid(node: nodes.Expr, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None)


def metered(template: nodes.Template, environment: Sandbox) -> nodes.Template:
    """The parsed template with its payments. Raises BudgetError for a number without end."""
    _Payments().visit(template)
    line = 1
    for node in template.find_all(nodes.Node):
        line = node.lineno = node.lineno or line
    template.set_environment(environment)
    return template
