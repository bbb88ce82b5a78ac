"""`LlamaGrammar`, where llama-cpp-python has it."""

from .grammar import LlamaGrammar

__all__ = ["LlamaGrammar"]
