"""`LlamaGrammar`, as llama-cpp-python has it."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import FileError
from .structure import gbnf_grammar, json_schema_grammar, lark_grammar, regex_grammar


class LlamaGrammar:
    """What a text may be; for any model and any number of calls.

    source: the grammar as llguidance takes it.
    """

    def __init__(self, source: str) -> None:
        self.source = source

    @classmethod
    def from_string(cls, grammar: str, verbose: bool = True) -> LlamaGrammar:
        """Of GBNF, whose first rule is `root`. `verbose` is the peer's: nothing is printed.

        Raises InvalidArgumentError that says where the text is wrong.
        """
        del verbose
        return cls(gbnf_grammar(grammar))

    @classmethod
    def from_file(cls, file: str | os.PathLike[str], verbose: bool = True) -> LlamaGrammar:
        """Of a file with GBNF. Raises FileError where it cannot be read, and as `from_string`."""
        try:
            text = Path(file).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise FileError(f"{os.fspath(file)}: cannot read the grammar: {error}") from error
        return cls.from_string(text, verbose)

    @classmethod
    def from_json_schema(cls, json_schema: str, verbose: bool = True) -> LlamaGrammar:
        """Of a JSON schema, as text. Raises as `json_schema_grammar`."""
        del verbose
        return cls(json_schema_grammar(json_schema))

    @classmethod
    def from_lark(cls, grammar: str) -> LlamaGrammar:
        """Of llguidance's dialect of Lark, whose first rule is `start`."""
        return cls(lark_grammar(grammar))

    @classmethod
    def from_regex(cls, pattern: str) -> LlamaGrammar:
        """Of texts that a regular expression (Rust's syntax) matches as a whole."""
        return cls(regex_grammar(pattern))
