"""Grammars of llguidance from what callers give: GBNF, Lark, regular expressions, schemas."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import InvalidArgumentError, UnsupportedError
from .gbnf import lark_of_gbnf
from .package import llguidance

# Between the parts of JSON: nothing, a blank or a new line; a model may write blanks for ever.
_BLANKS = r"( |\n[ \t]{0,20})?"
_UNKNOWN_KEYWORDS = re.compile(r"Unimplemented keys: (\[.*\])")
# What llguidance cannot do, as it says so; everything else it complains of is an error of the text.
_LIMITS = ("not supported", "Unknown format", "Default retriever", "too large", "limit")


def json_schema_grammar(schema: str | Mapping[str, Any] | bool) -> str:
    """The grammar of JSON texts that a schema allows, in any order of their whitespace.

    schema: JSON Schema (draft 2020-12 and before), as text or as an object. Properties come in the
    schema's order.

    Raises UnsupportedError naming a keyword that cannot be honoured and where it is,
    InvalidArgumentError for what is no schema.
    """
    if isinstance(schema, str):
        try:
            schema = json.loads(schema)
        except (json.JSONDecodeError, RecursionError) as error:
            raise InvalidArgumentError(f"the JSON schema is not JSON: {error}") from None
    if schema is False:
        raise InvalidArgumentError("the JSON schema false allows no text")
    if not isinstance(schema, Mapping | bool):
        raise InvalidArgumentError(f"a JSON schema is an object, found {schema!r:.80}")
    try:
        text = json.dumps(schema, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"the JSON schema is not JSON: {error!s:.200}") from None
    matcher = llguidance().LLMatcher
    options = {"whitespace_pattern": _BLANKS, "whitespace_flexible": True}
    if schema is True:
        text = "{}"
    grammar: str = matcher.grammar_from_json_schema(text, overrides=options)
    _check(grammar, schema)
    return grammar


def gbnf_grammar(text: str) -> str:
    """Of a grammar in GBNF. Raises as `check`."""
    return lark_grammar(lark_of_gbnf(text))


def lark_grammar(text: str) -> str:
    """Of a grammar in llguidance's dialect of Lark. Raises InvalidArgumentError."""
    grammar: str = llguidance().LLMatcher.grammar_from_lark(text)
    _check(grammar)
    return grammar


def regex_grammar(pattern: str) -> str:
    """Of texts that a regular expression (Rust's syntax) matches as a whole.

    Raises UnsupportedError for look-around and back-references, InvalidArgumentError.
    """
    grammar: str = llguidance().LLMatcher.grammar_from_regex(pattern)
    _check(grammar)
    return grammar


def grammar_of(options: Mapping[str, Any]) -> str | None:
    """What a call's `grammar`, `json_schema` and `regex` ask for; None: any text.

    grammar: a `LlamaGrammar`, or GBNF. Raises InvalidArgumentError for more than one of them, and
    as the functions above.
    """
    given = {
        name: options[name]
        for name in ("grammar", "json_schema", "regex")
        if options.get(name) is not None
    }
    if not given:
        return None
    if len(given) > 1:
        raise InvalidArgumentError(f"only one of {' and '.join(given)} can be given")
    ((name, value),) = given.items()
    if name == "json_schema":
        return json_schema_grammar(value)
    if name == "grammar" and hasattr(value, "source"):
        return str(value.source)
    if not isinstance(value, str):
        expected = "a LlamaGrammar or a string" if name == "grammar" else "a string"
        raise InvalidArgumentError(f"{name} must be {expected}, found {value!r:.80}")
    return gbnf_grammar(value) if name == "grammar" else regex_grammar(value)


def _check(grammar: str, schema: Any = None) -> None:
    is_error, messages = llguidance().LLMatcher.validate_grammar_with_warnings(grammar)
    if not is_error:
        return
    sentence = " ".join(str(messages[0]).split())
    unknown = _UNKNOWN_KEYWORDS.search(sentence)
    if unknown:
        names = json.loads(unknown[1])
        place = next(_places(schema, names[0]), "")
        raise UnsupportedError(f"the JSON schema's {names[0]!r}{place} is not supported")
    if any(word in sentence for word in _LIMITS):
        raise UnsupportedError(f"the grammar cannot be followed: {sentence:.500}")
    raise InvalidArgumentError(f"the grammar is wrong: {sentence:.500}")


def _places(schema: Any, keyword: str, path: str = "#") -> Iterator[str]:
    """Where a keyword stands, as text for an error."""
    if isinstance(schema, Mapping):
        if keyword in schema:
            yield f" at {path}"
        for name, value in schema.items():
            yield from _places(value, keyword, f"{path}/{name}")
    elif isinstance(schema, list):
        for i, value in enumerate(schema):
            yield from _places(value, keyword, f"{path}/{i}")
