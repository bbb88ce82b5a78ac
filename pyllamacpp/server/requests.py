"""What requests may hold. Names and meanings are OpenAI's; what is unknown is refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Tokens = list[Annotated[int, Field(strict=True, ge=0, lt=1 << 31)]]
Prompts = str | Tokens | list[str] | list[Tokens]
Number = Annotated[float, Field(allow_inf_nan=False)]
Int32 = Annotated[int, Field(ge=-(1 << 31), lt=1 << 31)]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
ServiceTier = Literal["auto", "default"]  # the one that there is


class Body(BaseModel):
    """Of every request. Metadata about users is accepted and not kept.

    prompt_cache_key: what has begun alike is shared whatever it is.
    """

    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    model: str | None = None
    user: str | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        """OpenAI's null is what is not given; some clients send it for all that they leave open."""
        if not isinstance(given, dict):
            return given
        return {name: value for name, value in given.items() if value is not None}


class StreamOptions(BaseModel):
    """include_usage: a last chunk states the numbers of tokens."""

    model_config = ConfigDict(extra="forbid")

    include_usage: bool = False
    include_obfuscation: Literal[False] = False


class Sampling(Body):
    """How texts are drawn; see `SamplingParams`. What is not given is at OpenAI's default."""

    temperature: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] = 1.0
    top_p: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 1.0
    top_k: Int32 = 0
    min_p: Number = 0.0
    tfs_z: Number = 1.0
    typical_p: Number = 1.0
    frequency_penalty: Number = 0.0
    presence_penalty: Number = 0.0
    repeat_penalty: Number = 1.0
    mirostat_mode: Literal[0, 1, 2] = 0
    mirostat_tau: Number = 5.0
    mirostat_eta: Number = 0.1
    adaptive_target: Number = -1.0
    adaptive_decay: Number = 0.9
    dry_multiplier: Number = 0.0
    dry_base: Number = 1.75
    dry_allowed_length: Int32 = 2
    dry_penalty_last_n: Int32 = -1
    xtc_probability: Number = 0.0
    xtc_threshold: Number = 0.1
    top_n_sigma: Number = -1.0
    logit_bias: dict[Annotated[str, Field(pattern="^[0-9]{1,9}$")], Number] | None = None
    seed: Annotated[int, Field(ge=-1, lt=1 << 64)] | None = None
    stop: str | list[str] | None = None
    n: Annotated[int, Field(ge=1, le=128)] = 1
    min_tokens: Annotated[int, Field(ge=0, lt=1 << 31)] = 0
    ignore_eos: bool = False
    grammar: str | None = None
    banned_strings: Annotated[list[str], Field(max_length=64)] | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None


class CompletionBody(Sampling):
    """POST /v1/completions."""

    prompt: Prompts
    suffix: str | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = 16
    logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    echo: bool = False
    best_of: Annotated[int, Field(ge=1, le=128)] | None = None
    json_schema: dict[str, Any] | bool | None = None
    regex: str | None = None


class ChatBody(Sampling):
    """POST /v1/chat/completions."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    parallel_tool_calls: bool = True
    response_format: dict[str, Any] | None = None
    max_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    service_tier: ServiceTier | None = None
    modalities: list[Literal["text"]] | None = None
    verbosity: Literal["medium"] | None = None
    reasoning_effort: Effort | None = None
    reasoning_format: Literal["none", "deepseek", "auto"] = "auto"
    thinking_budget_tokens: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class EmbeddingBody(Body):
    """POST /v1/embeddings."""

    input: Prompts
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Annotated[int, Field(ge=1, lt=1 << 31)] | None = None


class TokenizeBody(Body):
    """POST /tokenize: llama-server's."""

    content: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class DetokenizeBody(Body):
    """POST /detokenize."""

    tokens: Tokens


class TemplateBody(Body):
    """POST /apply-template: the prompt of a conversation."""

    messages: list[dict[str, Any]] = Field(min_length=1)
    tools: list[dict[str, Any]] | None = None
    reasoning_effort: Effort | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class InputBody(Body):
    """POST /extras/tokenize and /extras/tokenize/count: llama-cpp-python's."""

    input: str
