"""Bytes to a chat template and a conversation: both fuzzers of templates begin here."""

from __future__ import annotations

import time

from pyllamacpp.chat import sandbox
from pyllamacpp.chat.template import ChatTemplate
from pyllamacpp.errors import FormatError, InvalidArgumentError

# A fiftieth of what users have, so that a rendering at the limit is short and many fit in a run.
MOST_STEPS, DATA_BASE = 200_000, 640_000

ATOMS = (
    *("messages", "messages[0]", "messages[0].content", "messages[-1]['role']", "ns", "ns.a"),
    *("ns.b", "x", "y", "loop", "loop.index", "loop.previtem", "self", "bos_token", "range(99999)"),
    *("'a'", "'%s %d'", "'%9999999999d'", "'{0:{1}}'", "'{:999999999}'", "''", "'é\\n\\x00'"),
    *("0", "1", "-1", "3", "65536", "10**9", "1.5", "none", "true", "[]", "()", "{}", "dict()"),
    *("namespace()", "cycler(1, 2)", "joiner()", "'<|im_end|>'", "varargs", "kwargs", "caller"),
    *("'" + "ab" * 40 + "'", "0x" + "f" * 600, "raise_exception", "strftime_now", "dict", "range"),
)
OPERATORS = (
    *("+", "-", "*", "/", "//", "%", "**", "~", "==", "!=", "<", ">=", "in", "not in", "and"),
    *("or", "is sameas", "is divisibleby"),
)
FILTERS = (*sandbox._BRIEF, *sandbox._SHALLOW, *sandbox._DEEP)
TESTS = ("defined", "none", "string", "mapping", "iterable", "upper", "odd", "callable", "lower")
METHODS = (
    *("format", "join", "replace", "split", "strip", "upper", "center", "zfill", "title", "count"),
    *("items", "get", "keys", "copy", "index", "startswith", "rsplit", "splitlines", "next"),
    *("fromkeys", "to_bytes", "append", "__class__", "cycle", "changed", "expandtabs", "find"),
)
START = (
    "{% set ns = namespace(a=[], b='b') %}{% set x, y = (3, messages) %}"
    "{% macro m(x) %}{{ caller() if caller else x }}{% endmacro %}"
)
FRAGMENTS = ("{{", "}}", "{%", "%}", "{#", "#}", "-%}", "{%-", "{% raw %}", "'", "|", "(", "\n")


class _Source:
    """Choices read off the bytes; zeros when they end."""

    def __init__(self, data: bytes) -> None:
        self._bytes = iter(data)
        self._blocks = 0

    def below(self, n: int) -> int:
        return next(self._bytes, 0) % n

    def one(self, choices: tuple[str, ...]) -> str:
        return choices[self.below(len(choices))]

    def expression(self, depth: int) -> str:
        kind = self.below(9) if depth else 0
        if kind <= 1:
            return self.one(ATOMS)
        inner = self.expression(depth - 1)
        if kind <= 3:
            return f"({inner} {self.one(OPERATORS)} {self.expression(depth - 1)})"
        if kind == 4:
            return f"({inner} | {self.one(FILTERS)}{self.arguments(depth)})"
        if kind == 5:
            return f"{inner}.{self.one(METHODS)}{self.arguments(depth) or '()'}"
        if kind == 6:
            other = self.expression(depth - 1)
            forms = (f"[{inner}, {other}]", f"({inner}, {other})", f"{{{inner}: {other}}}")
            return self.one((*forms, f"{inner}[{other}:]", f"{inner}[{other}]", f"{inner}[::-1]"))
        if kind == 7:
            return f"({inner} is {self.one(TESTS)})"
        return f"{self.one(('m', 'loop', 'x', 'self.b', 'dict', 'namespace', 'range'))}({inner})"

    def arguments(self, depth: int) -> str:
        names = ("", "", "", "'upper', ", "attribute=", "start=", "width=", "indent=", "*", "**")
        parts = {self.below(len(names)): self.expression(depth - 1) for _ in range(self.below(3))}
        # In order, so that positional arguments come first.
        return f"({', '.join(names[i] + parts[i] for i in sorted(parts))})" if parts else ""

    def statements(self, depth: int) -> str:
        return "".join(self.statement(depth) for _ in range(1 + self.below(3)))

    def statement(self, depth: int) -> str:
        kind = self.below(14) if depth else self.below(4)
        if kind <= 1:
            return f"{{{{ {self.expression(3)} }}}}"
        if kind <= 3:
            target = self.one(("ns.a", "ns.b", "x", "y", "x, y"))
            return f"{{% set {target} = {self.expression(3)} %}}"
        head = self.expression(2)
        body = self.statements(depth - 1)
        if kind <= 7:
            test = self.one(("", "", f" if {head}", " recursive"))
            items = self.one(("messages", "range(99999)", "range(60)", head))
            return f"{{% for x in {items}{test} %}}{body}{{% endfor %}}"
        if kind == 8:
            return f"{{% macro m(x, y={head}) %}}{body}{{% endmacro %}}"
        if kind == 9:
            return f"{{% call m({head}) %}}{body}{{% endcall %}}"
        if kind == 10:
            return f"{{% filter {self.one(FILTERS)} %}}{body}{{% endfilter %}}"
        if kind == 11:
            return (
                f"{{% if {head} %}}{body}{{% else %}}{{% set x %}}{body}{{% endset %}}{{% endif %}}"
            )
        if kind == 12:
            tags = ("autoescape true", "generation", "with")
            tag = self.one(tags)
            return f"{{% {tag} %}}{body}{{% end{tag.split()[0]} %}}"
        if self.below(4):
            self._blocks += 1
            name = "b" if self._blocks == 1 else f"b{self._blocks}"
            return f"{{% block {name} %}}{body}{{% endblock %}}"
        return self.one(FRAGMENTS) + body


def run(data: bytes) -> float:
    """One execution; CPU seconds. Whatever is not a documented error comes out."""
    source = _Source(data[1:])
    kind = data[0] % 8 if data else 0
    template = data[1:].decode("utf-8", "replace") if kind == 0 else START + source.statements(4)
    content = data[:9].decode("latin-1")
    messages = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": "é" * 100, "tool_calls": [{"arguments": {"a": [1]}}]},
    ]
    started = time.process_time()
    try:
        ChatTemplate(template, bos="<s>", eos="</s>").render(messages[: 1 + kind % 2])
    except (FormatError, InvalidArgumentError) as error:
        assert str(error).startswith("the chat template ")  # noqa: PT017
        assert len(str(error)) < 1000  # noqa: PT017
    return time.process_time() - started
