"""Types of the dicts that go in and come out, under the names of `llama_cpp.llama_types`.

Messages, tools and choices are as OpenAI lays them out. The results have their types in
`pyllamacpp.completion` and `pyllamacpp.chat_completion`, and here their other names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, TypedDict

from . import chat_completion as _chat
from . import completion as _completion
from . import log_prob_text as _log_probs

JsonSchema: TypeAlias = Mapping[str, Any]


class ChatCompletionRequestMessageContentPartText(TypedDict):
    """A part of a message's content; the parts are joined."""

    type: Literal["text"]
    text: str


class ChatCompletionRequestSystemMessage(TypedDict):
    """What the model is told before the conversation."""

    role: Literal["system"]
    content: str | list[ChatCompletionRequestMessageContentPartText]


class ChatCompletionRequestUserMessage(TypedDict):
    """A turn of the user."""

    role: Literal["user"]
    content: str | list[ChatCompletionRequestMessageContentPartText]


ChatCompletionMessageToolCallFunction: TypeAlias = _chat.ChatCompletionMessageToolCallFunction
ChatCompletionMessageToolCall: TypeAlias = _chat.ChatCompletionMessageToolCall


class _AssistantMessage(TypedDict):
    role: Literal["assistant"]


class ChatCompletionRequestAssistantMessage(_AssistantMessage, total=False):
    """A turn of the model. content may be None or missing beside calls.

    function_call: the older form of one call.
    """

    content: str | list[ChatCompletionRequestMessageContentPartText] | None
    tool_calls: list[ChatCompletionMessageToolCall]
    function_call: ChatCompletionMessageToolCallFunction


class ChatCompletionRequestToolMessage(TypedDict):
    """What a call gave."""

    role: Literal["tool"]
    content: str | list[ChatCompletionRequestMessageContentPartText]
    tool_call_id: str


class ChatCompletionRequestFunctionMessage(TypedDict):
    """What a call gave, in the older form."""

    role: Literal["function"]
    content: str
    name: str


ChatCompletionRequestMessage: TypeAlias = (
    ChatCompletionRequestSystemMessage
    | ChatCompletionRequestUserMessage
    | ChatCompletionRequestAssistantMessage
    | ChatCompletionRequestToolMessage
    | ChatCompletionRequestFunctionMessage
)


class _Function(TypedDict):
    name: str


class ChatCompletionFunction(_Function, total=False):
    """A function: up to 64 letters, digits, "_", "-" and ".", what it does, its arguments' schema.

    Without parameters it takes no arguments.
    """

    description: str
    parameters: JsonSchema


class ChatCompletionTool(TypedDict):
    """A tool that the model may call."""

    type: Literal["function"]
    function: ChatCompletionFunction


class ChatCompletionNamedToolChoiceFunction(TypedDict):
    """The name in a choice."""

    name: str


class ChatCompletionNamedToolChoice(TypedDict):
    """This tool has to be called."""

    type: Literal["function"]
    function: ChatCompletionNamedToolChoiceFunction


ChatCompletionToolChoiceOption: TypeAlias = (
    Literal["none", "auto", "required"] | ChatCompletionNamedToolChoice
)


class ChatCompletionRequestFunctionCallOption(TypedDict):
    """The older form of a named choice."""

    name: str


ChatCompletionRequestFunctionCall: TypeAlias = (
    Literal["none", "auto"] | ChatCompletionRequestFunctionCallOption
)


class _JsonSchemaFormat(TypedDict):
    schema: JsonSchema


class ChatCompletionResponseFormatJsonSchema(_JsonSchemaFormat, total=False):
    """The schema of an answer. The answer always follows it, whatever strict says."""

    name: str
    description: str
    strict: bool | None


class _ResponseFormat(TypedDict):
    type: Literal["text", "json_object", "json_schema"]


class ChatCompletionRequestResponseFormat(_ResponseFormat, total=False):
    """The form of an answer.

    schema: with "json_object", as llama-cpp-python has it; json_schema: with "json_schema".
    """

    schema: JsonSchema
    json_schema: ChatCompletionResponseFormatJsonSchema


# What comes out.
CompletionUsage: TypeAlias = _completion.CompletionUsage
CompletionChoice: TypeAlias = _completion.CompletionChoice
CompletionLogprobs: TypeAlias = _log_probs.CompletionLogprobs
Completion: TypeAlias = _completion.Completion
CompletionChunk: TypeAlias = _completion.CompletionChunk
ChatCompletion: TypeAlias = _chat.ChatCompletion
ChatCompletionChunk: TypeAlias = _chat.ChatCompletionChunk
CreateCompletionResponse: TypeAlias = Completion
CreateCompletionStreamResponse: TypeAlias = CompletionChunk
CreateChatCompletionResponse: TypeAlias = ChatCompletion
CreateChatCompletionStreamResponse: TypeAlias = ChatCompletionChunk
ChatCompletionStreamResponse: TypeAlias = ChatCompletionChunk
ChatCompletionResponseChoice: TypeAlias = _chat.ChatChoice
ChatCompletionChoice: TypeAlias = _chat.ChatChoice
ChatCompletionResponseMessage: TypeAlias = _chat.ChatMessage
ChatCompletionMessage: TypeAlias = _chat.ChatMessage
ChatCompletionStreamResponseChoice: TypeAlias = _chat.ChatChunkChoice
ChatCompletionChunkChoice: TypeAlias = _chat.ChatChunkChoice
ChatCompletionStreamResponseDelta: TypeAlias = _chat.ChatDelta
ChatCompletionChunkDelta: TypeAlias = _chat.ChatDelta
ChatCompletionMessageToolCalls: TypeAlias = list[ChatCompletionMessageToolCall]
ChatCompletionMessageToolCallChunk: TypeAlias = _chat.ToolCallDelta
ChatCompletionMessageToolCallChunkFunction: TypeAlias = _chat.FunctionDelta
ChatCompletionStreamResponseDeltaFunctionCall: TypeAlias = _chat.FunctionDelta
ChatCompletionResponseFunctionCall: TypeAlias = ChatCompletionMessageToolCallFunction
ChatCompletionFunctionCall: TypeAlias = ChatCompletionMessageToolCallFunction
ChatCompletionRequestAssistantMessageFunctionCall: TypeAlias = ChatCompletionMessageToolCallFunction
ChatCompletionToolFunction: TypeAlias = ChatCompletionFunction
ChatCompletionFunctions: TypeAlias = ChatCompletionFunction
ChatCompletionFunctionParameters: TypeAlias = JsonSchema
ChatCompletionFunctionCallOption: TypeAlias = ChatCompletionRequestFunctionCallOption
ChatCompletionLogprobs: TypeAlias = _log_probs.ChatLogprobs
ChatCompletionLogprobToken: TypeAlias = _log_probs.ChatTokenLogprob
ChatCompletionTopLogprobToken: TypeAlias = _log_probs.ChatTopLogprob
