"""Texts that follow a grammar, a regular expression or a JSON schema, by llguidance.

Nothing is imported of that package before it is needed: `pip install '.[grammar]'` brings it.
"""

from .llama_grammar import LlamaGrammar
from .structure import grammar_of, json_schema_grammar, lark_grammar
from .token_filter import GrammarFilter

__all__ = ["GrammarFilter", "LlamaGrammar", "grammar_of", "json_schema_grammar", "lark_grammar"]
