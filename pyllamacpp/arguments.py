"""The keyword arguments of `Llama`'s calls as types, for signatures that depend on `stream`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .params import MoreArguments

if TYPE_CHECKING:
    from .grammar import LlamaGrammar
    from .params import LogitsProcessor, StoppingCriteria


class SharedArguments(MoreArguments, total=False):
    """What completions and chats both take; see `Llama.create_completion`."""

    temperature: float
    top_p: float
    min_p: float
    typical_p: float
    top_k: int
    stop: str | list[str] | None
    seed: int | None
    presence_penalty: float
    frequency_penalty: float
    repeat_penalty: float
    tfs_z: float
    mirostat_mode: int
    mirostat_tau: float
    mirostat_eta: float
    model: str | None
    logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None
    grammar: LlamaGrammar | str | None
    logit_bias: Mapping[int, float] | None


class CompletionArguments(SharedArguments, total=False):
    """What `Llama.create_completion` takes besides prompt, suffix, max_tokens and stream."""

    logprobs: int | None
    echo: bool
    stopping_criteria: StoppingCriteria | Sequence[StoppingCriteria] | None


class ChatArguments(SharedArguments, total=False):
    """What `Llama.create_chat_completion` takes besides messages and stream."""

    functions: Sequence[Mapping[str, Any]] | None
    function_call: str | Mapping[str, Any] | None
    tools: Sequence[Mapping[str, Any]] | None
    tool_choice: str | Mapping[str, Any] | None
    parallel_tool_calls: bool
    response_format: Mapping[str, Any] | None
    max_tokens: int | None
    logprobs: bool | None
    top_logprobs: int | None
    reasoning_effort: str | None
    reasoning_format: str
    thinking_budget_tokens: int | None
    chat_template_kwargs: Mapping[str, Any] | None
