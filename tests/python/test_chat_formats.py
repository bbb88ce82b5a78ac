"""Chat formats by name against what their makers publish, and formats of the user's own."""

import json
import sys
from pathlib import Path

import pytest

sys.path += [str(Path(__file__).parents[1] / folder) for folder in ("convert", "text", "oracle")]
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from pyllamacpp_convert.vocab import read_vocab
from tiny_model import TinyModel
from vocab_cases import real, tokenizer_of

from pyllamacpp import _core, llama_types
from pyllamacpp.chat.format import ChatFormat
from pyllamacpp.chat.handler import ChatHandler, chat_handler
from pyllamacpp.chat.named import NAMED_FORMATS, REFUSED_FORMATS
from pyllamacpp.chat.template import ChatTemplate
from pyllamacpp.chat_completion import ChatCompletion
from pyllamacpp.errors import InvalidArgumentError, ModelFileError, UnsupportedError
from pyllamacpp.llama_chat_format import (
    ChatFormatterResponse,
    Jinja2ChatFormatter,
    hf_autotokenizer_to_chat_completion_handler,
    hf_autotokenizer_to_chat_formatter,
    hf_tokenizer_config_to_chat_formatter,
    known_formats,
    register_chat_completion_handler,
    register_chat_format,
    unregister_chat_format,
)

SYSTEM = {"role": "system", "content": "SYS"}
TURNS = [
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
]
ALPACA = (
    "Below is an instruction that describes a task. Write a response that appropriately completes "
    "the request."
)
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the user's questions."
)
SNOOZY = (
    "The prompt below is a question to answer, a task to complete, or a conversation to respond "
    "to; decide which and write an appropriate response."
)
TWO_TURNS = "<|im_start|>user\nU1<|im_end|>\n<|im_start|>assistant\nA1<|im_end|>\n"
CHATML = TWO_TURNS + "<|im_start|>user\nU2<|im_end|>\n<|im_start|>assistant\n"
CHATML_SYSTEM = "<|im_start|>system\nSYS<|im_end|>\n"

# name: with a system message, without one.
PUBLISHED = {
    "llama-2": (
        "<s>[INST] <<SYS>>\nSYS\n<</SYS>>\n\nU1 [/INST] A1 </s><s>[INST] U2 [/INST]",
        "<s>[INST] U1 [/INST] A1 </s><s>[INST] U2 [/INST]",
    ),
    "llama-3": tuple(
        "<s>"
        + system
        + "<|start_header_id|>user<|end_header_id|>\n\nU1<|eot_id|>"
        + "<|start_header_id|>assistant<|end_header_id|>\n\nA1<|eot_id|>"
        + "<|start_header_id|>user<|end_header_id|>\n\nU2<|eot_id|>"
        + "<|start_header_id|>assistant<|end_header_id|>\n\n"
        for system in ("<|start_header_id|>system<|end_header_id|>\n\nSYS<|eot_id|>", "")
    ),
    "alpaca": tuple(
        f"{system}\n\n### Instruction:\nU1\n\n### Response:\nA1</s>"
        "\n\n### Instruction:\nU2\n\n### Response:\n"
        for system in ("SYS", ALPACA)
    ),
    "qwen": (
        CHATML_SYSTEM + CHATML,
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n" + CHATML,
    ),
    "vicuna": tuple(
        f"{system} USER: U1 ASSISTANT: A1</s>USER: U2 ASSISTANT:" for system in ("SYS", VICUNA)
    ),
    "oasst_llama": tuple(
        f"{system}<|prompter|>U1</s><|assistant|>A1</s><|prompter|>U2</s><|assistant|>"
        for system in ("[INST] <<SYS>>\nSYS\n<</SYS>>\n\n", "")
    ),
    "baichuan": tuple(
        f"{system}<reserved_102>U1<reserved_103>A1<reserved_102>U2<reserved_103>"
        for system in ("SYS", "")
    ),
    "baichuan-2": tuple(
        f"{system}<reserved_106>U1<reserved_107>A1<reserved_106>U2<reserved_107>"
        for system in ("SYS", "")
    ),
    "openbuddy": tuple(
        f"{system}User: U1\nAssistant: A1\nUser: U2\nAssistant:" for system in ("SYS\n\n", "")
    ),
    "redpajama-incite": tuple(
        f"{system}<human>: U1\n<bot>: A1\n<human>: U2\n<bot>:" for system in ("SYS\n", "")
    ),
    "snoozy": tuple(
        f"### Instruction:\n{system}\n### Prompt: U1\n### Response: A1\n### Prompt: U2"
        "\n### Response:"
        for system in ("SYS", SNOOZY)
    ),
    "phind": tuple(
        f"### System Prompt\n{system}\n\n### User Message\nU1\n\n### Assistant\nA1"
        "\n\n### User Message\nU2\n\n### Assistant\n"
        for system in ("SYS", "You are an intelligent programming assistant.")
    ),
    "intel": tuple(
        f"{system}### User:\nU1\n### Assistant:\nA1\n### User:\nU2\n### Assistant:\n"
        for system in ("### System:\nSYS\n", "")
    ),
    "open-orca": tuple(
        f"{system}User: U1<|end_of_turn|>\nAssistant: A1<|end_of_turn|>\n"
        "User: U2<|end_of_turn|>\nAssistant:"
        for system in ("SYS<|end_of_turn|>\n", "")
    ),
    "mistrallite": tuple(
        f"{system}<|prompter|>U1</s><|assistant|>A1</s><|prompter|>U2</s><|assistant|>"
        for system in ("<|system|>SYS</s>", "")
    ),
    "zephyr": tuple(
        f"{system}<|user|>\nU1</s>\n<|assistant|>\nA1</s>\n<|user|>\nU2</s>\n<|assistant|>\n"
        for system in ("<|system|>\nSYS</s>\n", "")
    ),
    "pygmalion": tuple(
        f"{system}<|user|>U1<|model|>A1<|user|>U2<|model|>" for system in ("<|system|>SYS", "")
    ),
    "chatml": (CHATML_SYSTEM + CHATML, CHATML),
    "chatml-function-calling": (CHATML_SYSTEM + CHATML, CHATML),
    "mistral-instruct": tuple(
        f"<s>[INST] {system}U1 [/INST] A1</s>[INST] U2 [/INST]" for system in ("SYS\n\n", "")
    ),
    "chatglm3": tuple(
        f"{system}<|user|>\n U1<|assistant|>\n A1<|user|>\n U2<|assistant|>"
        for system in ("<|system|>\n SYS", "")
    ),
    "openchat": tuple(
        f"<s>{system}GPT4 Correct User: U1<|end_of_turn|>GPT4 Correct Assistant: A1<|end_of_turn|>"
        "GPT4 Correct User: U2<|end_of_turn|>GPT4 Correct Assistant:"
        for system in ("GPT4 Correct System: SYS<|end_of_turn|>", "")
    ),
    "saiga": tuple(
        f"{system}<s>user\nU1</s><s>bot\nA1</s><s>user\nU2</s><s>bot"
        for system in ("<s>system\nSYS</s>", "")
    ),
    "gemma": tuple(
        f"<s><start_of_turn>user\n{system}U1<end_of_turn>\n<start_of_turn>model\nA1<end_of_turn>\n"
        "<start_of_turn>user\nU2<end_of_turn>\n<start_of_turn>model\n"
        for system in ("SYS\n\n", "")
    ),
}


def test_every_name_has_its_published_text() -> None:
    assert PUBLISHED.keys() == NAMED_FORMATS.keys()


@pytest.mark.parametrize("name", PUBLISHED)
def test_what_is_published(name: str) -> None:
    template = ChatTemplate(NAMED_FORMATS[name].template, bos="<s>", eos="</s>")
    with_system, without = PUBLISHED[name]
    assert template.render([SYSTEM, *TURNS]) == with_system
    assert template.render(TURNS) == without
    assert without.startswith(template.render(TURNS[:1], add_generation_prompt=False))


@pytest.mark.parametrize("name", ["llama-2", "vicuna", "gemma", "alpaca"])
def test_what_a_format_has_no_place_for_is_refused(name: str) -> None:
    template = ChatTemplate(NAMED_FORMATS[name].template, bos="<s>", eos="</s>")
    for messages in ([*TURNS, SYSTEM], [SYSTEM], [{"role": "tool", "content": "x"}]):
        with pytest.raises(InvalidArgumentError, match="refuses these messages"):
            template.render(messages)


def test_mistrals_own_tokens(tmp_path: Path) -> None:
    metadata = read_vocab(real("mistral-common", "tokenizer.model.v1")).metadata(32000)
    tokenizer = tokenizer_of(metadata, tmp_path / "x.gguf")
    template = ChatTemplate(NAMED_FORMATS["mistral-instruct"].template, bos="<s>", eos="</s>")
    theirs = MistralTokenizer.v1()
    for messages in (TURNS, [SYSTEM, *TURNS], TURNS[:1]):
        kinds = {"system": SystemMessage, "user": UserMessage, "assistant": AssistantMessage}
        request = ChatCompletionRequest(
            messages=[kinds[m["role"]](content=m["content"]) for m in messages]
        )
        text = template.render(messages)
        ids = tokenizer.encode(text.encode(), False, True)
        assert ids == theirs.encode_chat_completion(request).tokens


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> _core.Model:
    path = tmp_path_factory.mktemp("formats") / "tiny.gguf"
    tiny = TinyModel(chat_template="{{ messages[0].content }}!", control_tokens=("<|im_end|>",))
    return _core.Model(str(tiny.write(path)), vocab_only=True)


def text_of(handler: object, messages=TURNS) -> str:
    assert isinstance(handler, ChatHandler)
    return handler.format.text(messages)


def test_who_answers(model: _core.Model) -> None:
    """The handler given, the file's own template, then what is registered, then our table."""
    assert text_of(chat_handler(model, None)) == "U1!"
    assert text_of(chat_handler(model, "chat_template.default")) == "U1!"
    assert text_of(chat_handler(model, "chatml")) == CHATML
    given = Jinja2ChatFormatter("given", eos_token="</s>", bos_token="<s>").to_chat_handler()
    assert text_of(chat_handler(model, "chatml", given)) == "given"

    def answers_itself(**_):
        raise AssertionError

    assert chat_handler(model, "chatml", answers_itself) is answers_itself
    with pytest.raises(InvalidArgumentError, match="chat_handler must be callable"):
        chat_handler(model, None, "chatml")


def test_unknown_names_are_told_the_known_ones(model: _core.Model) -> None:
    with pytest.raises(UnsupportedError, match=r"'llama-9' is not known.*chatml.*zephyr"):
        chat_handler(model, "llama-9")
    with pytest.raises(UnsupportedError, match="holds no template of that name"):
        chat_handler(model, "chat_template.other")
    for name in REFUSED_FORMATS:
        with pytest.raises(UnsupportedError, match="the file's own template"):
            chat_handler(model, name)


def test_a_format_of_ones_own(model: _core.Model) -> None:
    def is_end(_ids, _logits) -> bool:
        return False

    @register_chat_format("of-ones-own")
    def written(messages, **_) -> ChatFormatterResponse:
        text = "".join(f"{m['role']}={m['content']}<|im_end|>" for m in messages)
        return ChatFormatterResponse(text, stop="=", stopping_criteria=is_end, added_special=True)

    try:
        assert "of-ones-own" in known_formats()
        handler = chat_handler(model, "of-ones-own")
        assert isinstance(handler, ChatHandler)
        prepared = handler.prepare([{"role": "user", "content": "a<|im_end|>b"}])
        assert prepared.stop == ("=",)
        assert prepared.stopping_criteria is is_end
        end = model.tokenizer.size - 1
        assert prepared.tokens.count(end) == 1  # the format's, not the message's
        assert model.tokenizer.bos not in prepared.tokens
        with pytest.raises(InvalidArgumentError, match="already registered"):
            register_chat_format("of-ones-own")(written)
    finally:
        unregister_chat_format("of-ones-own")
    assert "of-ones-own" not in known_formats()
    with pytest.raises(InvalidArgumentError, match="already registered"):
        register_chat_format("chatml")(written)
    with pytest.raises(InvalidArgumentError, match="no chat format named 'of-ones-own'"):
        unregister_chat_format("of-ones-own")


def test_a_formatter_must_return_its_response(model: _core.Model) -> None:
    format_ = ChatFormat.of_formatter(lambda **_: "text", model.tokenizer)
    with pytest.raises(InvalidArgumentError, match="must return ChatFormatterResponse"):
        format_.encode(TURNS)


def test_a_handler_of_ones_own(model: _core.Model) -> None:
    @register_chat_completion_handler("answers-itself")
    def answers(**_):
        raise AssertionError

    try:
        assert chat_handler(model, "answers-itself") is answers
        with pytest.raises(UnsupportedError, match="a handler that answers by itself"):
            ChatFormat.of_model(model, "answers-itself")
    finally:
        unregister_chat_format("answers-itself")


def test_a_formatter_of_a_template() -> None:
    source = "{{ bos_token }}{{ messages[0].content }}{% if add_generation_prompt %}:{% endif %}"
    formatter = Jinja2ChatFormatter(source, "</s>", "<s>", stop_token_ids=[7])
    response = formatter(messages=TURNS)
    assert response.prompt == "<s>U1:"
    assert response.added_special
    assert response.stop == ["</s>"]
    assert response.stopping_criteria is not None
    assert [response.stopping_criteria([1, last], None) for last in (7, 8)] == [True, False]
    silent = Jinja2ChatFormatter(source, "</s>", "<s>", add_generation_prompt=False)
    assert silent(messages=TURNS).prompt == "<s>U1"
    assert silent(messages=TURNS).stopping_criteria is None


def test_a_formatter_of_a_tokenizer_config() -> None:
    config = {
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "bos_token": "<s>",
        "eos_token": {"content": "</s>", "special": True},
    }
    assert hf_tokenizer_config_to_chat_formatter(config)(messages=TURNS).prompt == "<s>U1</s>"
    with pytest.raises(InvalidArgumentError, match="bos_token of a tokenizer config"):
        hf_tokenizer_config_to_chat_formatter({**config, "bos_token": None})


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    config = {
        "chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}",
        "bos_token": "<s>",
        "eos_token": "</s>",
    }
    path = tmp_path / "tokenizer_config.json"
    with pytest.raises(ModelFileError, match=r"there is no tokenizer_config\.json in"):
        hf_autotokenizer_to_chat_formatter(tmp_path)
    path.write_text(json.dumps(config))
    for formatter in (
        hf_autotokenizer_to_chat_formatter(tmp_path),
        hf_autotokenizer_to_chat_completion_handler(str(tmp_path)).formatter,
    ):
        assert formatter(messages=TURNS).prompt == "<s>U1</s>"
    # Newer folders have the template in a file of its own.
    path.write_text(json.dumps({**config, "chat_template": None}))
    with pytest.raises(InvalidArgumentError, match="chat_template"):
        hf_autotokenizer_to_chat_formatter(tmp_path)
    del config["chat_template"]
    path.write_text(json.dumps(config))
    (tmp_path / "chat_template.jinja").write_text("{{ messages[-1].content }}")
    assert hf_autotokenizer_to_chat_formatter(tmp_path)(messages=TURNS).prompt == "U2"
    for text, sentence in (("{", "is no JSON"), ("[]", "is no object")):
        path.write_text(text)
        with pytest.raises(InvalidArgumentError, match=sentence):
            hf_autotokenizer_to_chat_formatter(tmp_path)


def test_types_make_messages(model: _core.Model) -> None:
    message = llama_types.ChatCompletionRequestUserMessage(role="user", content="hi")
    assert text_of(chat_handler(model, None), [message]) == "hi!"
    assert llama_types.CreateChatCompletionResponse is ChatCompletion
