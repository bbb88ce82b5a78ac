"""Chat formats by name: for files that bring no template, or a wrong one.

Each is a Jinja template, written from what the makers of its models publish (model cards, the
templates of their repositories, FastChat's table for the older ones) and rendered as a file's own.
The names are those that llama-cpp-python registers.
"""

from __future__ import annotations

from dataclasses import dataclass

# `system`: the text of a system message at the start, "" without one; `turns`: what follows.
_SYSTEM_FIRST = (
    "{% set system = messages[0].content if messages[0].role == 'system' else '' %}"
    "{% set turns = messages[1:] if messages[0].role == 'system' else messages %}"
    "{% for m in turns if m.role not in ('user', 'assistant') %}"
    "{{ raise_exception('it has no place for the role ' ~ m.role ~ ' here') }}"
    "{% endfor %}"
    "{% if not turns %}{{ raise_exception('it needs a message of the user') }}{% endif %}"
)
# For formats that write the system message inside the user's first one.
_USER_FIRST = (
    "{% if system and turns[0].role != 'user' %}"
    "{{ raise_exception('it has a place for a system message in one of the user only') }}"
    "{% endif %}"
)


@dataclass(frozen=True)
class NamedFormat:
    """A template, and the strings that end an answer besides the model's own tokens."""

    template: str
    stop: tuple[str, ...] = ()


def _turns(body: str, *stop: str) -> NamedFormat:
    return NamedFormat(_SYSTEM_FIRST + body, stop)


CHATML = NamedFormat(
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    ("<|im_end|>",),
)
"""The format used for a file that brings no template."""

NAMED_FORMATS = {
    # Meta: https://github.com/meta-llama/llama, chat_completion
    "llama-2": _turns(
        _USER_FIRST + "{% for m in turns %}{% if m.role == 'user' %}"
        "{{ bos_token ~ '[INST] ' }}"
        "{% if loop.first and system %}{{ '<<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' }}{% endif %}"
        "{{ m.content | trim ~ ' [/INST]' }}"
        "{% else %}{{ ' ' ~ m.content | trim ~ ' ' ~ eos_token }}{% endif %}{% endfor %}"
    ),
    # Meta: https://github.com/meta-llama/llama3, ChatFormat
    "llama-3": NamedFormat(
        "{{ bos_token }}{% for m in messages %}"
        "{{ '<|start_header_id|>' ~ m.role ~ '<|end_header_id|>\\n\\n' }}"
        "{{ m.content | trim ~ '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}"
        "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
        ("<|eot_id|>",),
    ),
    # https://github.com/tatsu-lab/stanford_alpaca
    "alpaca": _turns(
        "{{ system or 'Below is an instruction that describes a task. "
        "Write a response that appropriately completes the request.' }}"
        "{% for m in turns %}{% if m.role == 'user' %}"
        "{{ '\\n\\n### Instruction:\\n' ~ m.content }}"
        "{% else %}{{ '\\n\\n### Response:\\n' ~ m.content ~ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\n\\n### Response:\\n' }}{% endif %}",
        "### Instruction:",
    ),
    # Alibaba: https://github.com/QwenLM/Qwen
    "qwen": _turns(
        "{{ '<|im_start|>system\\n' ~ (system or 'You are a helpful assistant.') }}"
        "{{ '<|im_end|>\\n' }}"
        "{% for m in turns %}"
        "{{ '<|im_start|>' ~ m.role ~ '\\n' ~ m.content ~ '<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
        *("<|im_end|>", "<|endoftext|>"),
    ),
    # LMSYS: https://github.com/lm-sys/FastChat/blob/main/docs/vicuna_weights_version.md, v1.1
    "vicuna": _turns(
        '{{ system or "A chat between a curious user and an artificial intelligence assistant. '
        "The assistant gives helpful, detailed, and polite answers to the user's questions.\" }}"
        "{{ ' ' }}{% for m in turns %}"
        "{% if m.role == 'user' %}{{ 'USER: ' ~ m.content ~ ' ' }}"
        "{% else %}{{ 'ASSISTANT: ' ~ m.content ~ eos_token }}{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    ),
    # FastChat's table
    "oasst_llama": _turns(
        "{% if system %}{{ '[INST] <<SYS>>\\n' ~ system ~ '\\n<</SYS>>\\n\\n' }}{% endif %}"
        "{% for m in turns %}"
        "{{ '<|prompter|>' if m.role == 'user' else '<|assistant|>' }}{{ m.content ~ eos_token }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        "<|prompter|>",
    ),
    # Baichuan: generation_utils.py beside the weights; the token numbers differ by version
    "baichuan": _turns(
        "{{ system }}{% for m in turns %}"
        "{{ '<reserved_102>' if m.role == 'user' else '<reserved_103>' }}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<reserved_103>' }}{% endif %}",
        "<reserved_102>",
    ),
    "baichuan-2": _turns(
        "{{ system }}{% for m in turns %}"
        "{{ '<reserved_106>' if m.role == 'user' else '<reserved_107>' }}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<reserved_107>' }}{% endif %}",
        "<reserved_106>",
    ),
    # https://github.com/OpenBuddy/OpenBuddy; their system prompt is the caller's to give
    "openbuddy": _turns(
        "{% if system %}{{ system ~ '\\n\\n' }}{% endif %}"
        "{% for m in turns %}{{ 'User' if m.role == 'user' else 'Assistant' }}"
        "{{ ': ' ~ m.content ~ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
    ),
    # Together: https://huggingface.co/togethercomputer/RedPajama-INCITE-7B-Chat
    "redpajama-incite": _turns(
        "{% if system %}{{ system ~ '\\n' }}{% endif %}"
        "{% for m in turns %}{{ '<human>' if m.role == 'user' else '<bot>' }}"
        "{{ ': ' ~ m.content ~ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<bot>:' }}{% endif %}",
        "<human>",
    ),
    # Nomic: https://github.com/nomic-ai/gpt4all, in FastChat's table
    "snoozy": _turns(
        "{{ '### Instruction:\\n' }}{{ system or 'The prompt below is a question to answer, a task "
        "to complete, or a conversation to respond to; decide which and write an appropriate "
        "response.' }}"
        "{% for m in turns %}{{ '\\n### Prompt: ' if m.role == 'user' else '\\n### Response: ' }}"
        "{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\n### Response:' }}{% endif %}",
        "###",
    ),
    # https://huggingface.co/Phind/Phind-CodeLlama-34B-v2
    "phind": _turns(
        "{{ '### System Prompt\\n' ~ (system or 'You are an intelligent programming assistant.') }}"
        "{% for m in turns %}"
        "{{ '\\n\\n### User Message\\n' if m.role == 'user' else '\\n\\n### Assistant\\n' }}"
        "{{ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '\\n\\n### Assistant\\n' }}{% endif %}",
        "### User Message",
    ),
    # https://huggingface.co/Intel/neural-chat-7b-v3-1
    "intel": _turns(
        "{% if system %}{{ '### System:\\n' ~ system ~ '\\n' }}{% endif %}"
        "{% for m in turns %}"
        "{{ '### User:\\n' if m.role == 'user' else '### Assistant:\\n' }}{{ m.content ~ '\\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '### Assistant:\\n' }}{% endif %}",
        "### User:",
    ),
    # https://huggingface.co/Open-Orca/OpenOrcaxOpenChat-Preview2-13B, in FastChat's table
    "open-orca": _turns(
        "{% if system %}{{ system ~ '<|end_of_turn|>\\n' }}{% endif %}"
        "{% for m in turns %}{{ 'User' if m.role == 'user' else 'Assistant' }}"
        "{{ ': ' ~ m.content ~ '<|end_of_turn|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}",
        "<|end_of_turn|>",
    ),
    # Amazon: https://huggingface.co/amazon/MistralLite
    "mistrallite": _turns(
        "{% if system %}{{ '<|system|>' ~ system ~ eos_token }}{% endif %}"
        "{% for m in turns %}{{ '<|prompter|>' if m.role == 'user' else '<|assistant|>' }}"
        "{{ m.content ~ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        "<|prompter|>",
    ),
    # https://huggingface.co/HuggingFaceH4/zephyr-7b-beta
    "zephyr": NamedFormat(
        "{% for m in messages %}"
        "{{ '<|' ~ m.role ~ '|>\\n' ~ m.content ~ eos_token ~ '\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>\\n' }}{% endif %}",
        ("</s>",),
    ),
    # https://huggingface.co/PygmalionAI/pygmalion-2-7b (Metharme)
    "pygmalion": _turns(
        "{% if system %}{{ '<|system|>' ~ system }}{% endif %}"
        "{% for m in turns %}{{ '<|user|>' if m.role == 'user' else '<|model|>' }}{{ m.content }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|model|>' }}{% endif %}",
        "<|user|>",
    ),
    "chatml": CHATML,
    # Mistral: https://docs.mistral.ai, tokenizer version 1
    "mistral-instruct": _turns(
        _USER_FIRST + "{{ bos_token }}{% for m in turns %}{% if m.role == 'user' %}"
        "{{ '[INST] ' }}{% if loop.first and system %}{{ system ~ '\\n\\n' }}{% endif %}"
        "{{ m.content ~ ' [/INST]' }}"
        "{% else %}{{ ' ' ~ m.content ~ eos_token }}{% endif %}{% endfor %}",
    ),
    # https://github.com/THUDM/ChatGLM3/blob/main/PROMPT_en.md
    "chatglm3": NamedFormat(
        "{% for m in messages %}{{ '<|' ~ m.role ~ '|>\\n ' ~ m.content }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}",
        ("<|user|>", "<|observation|>"),
    ),
    # https://huggingface.co/openchat/openchat_3.5
    "openchat": NamedFormat(
        "{{ bos_token }}{% for m in messages %}"
        "{{ 'GPT4 Correct ' ~ m.role.title() ~ ': ' ~ m.content ~ '<|end_of_turn|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ 'GPT4 Correct Assistant:' }}{% endif %}",
        ("<|end_of_turn|>",),
    ),
    # https://huggingface.co/IlyaGusev/saiga_mistral_7b
    "saiga": NamedFormat(
        "{% for m in messages %}"
        "{{ '<s>' ~ ('bot' if m.role == 'assistant' else m.role) ~ '\\n' }}"
        "{{ m.content ~ '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<s>bot' }}{% endif %}",
        ("</s>",),
    ),
    # Google: https://ai.google.dev/gemma/docs/core/prompt-structure, which has no system role and
    # puts such instructions into the first turn
    "gemma": _turns(
        _USER_FIRST + "{{ bos_token }}{% for m in turns %}"
        "{{ '<start_of_turn>' ~ ('user' if m.role == 'user' else 'model') ~ '\\n' }}"
        "{% if loop.first and system %}{{ system | trim ~ '\\n\\n' }}{% endif %}"
        "{{ m.content | trim ~ '<end_of_turn>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<start_of_turn>model\\n' }}{% endif %}",
        "<end_of_turn>",
    ),
    # There tools are offered in words, as to every template that knows none.
    "chatml-function-calling": CHATML,
}

REFUSED_FORMATS = dict.fromkeys(
    ("functionary", "functionary-v1", "functionary-v2"),
    "functionary's formats need its own tokenizer and grammar; use the file's own template "
    "(chat_format=None), which offers tools too",
)
