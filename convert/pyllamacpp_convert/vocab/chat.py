"""How Meta's chat models expect a conversation: their own folders hold no template."""

from __future__ import annotations

import re
from pathlib import Path

from pyllamacpp_convert.vocab.model import Vocab

LLAMA2 = """\
{% if messages[0]['role'] == 'system' %}\
{% set intro = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}\
{% set turns = messages[1:] %}\
{% else %}\
{% set intro = '' %}\
{% set turns = messages %}\
{% endif %}\
{% for turn in turns %}\
{% if (turn['role'] == 'user') != (loop.index0 % 2 == 0) %}\
{{ raise_exception('roles must alternate: user, assistant, user, ...') }}\
{% endif %}\
{% if turn['role'] == 'user' %}\
{% set start = intro if loop.first else '' %}\
{{ bos_token + '[INST] ' + (start + turn['content']) | trim + ' [/INST]' }}\
{% else %}\
{{ ' ' + turn['content'] | trim + ' ' + eos_token }}\
{% endif %}\
{% endfor %}"""

LLAMA3 = """\
{{ bos_token }}\
{% for message in messages %}\
{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
{{ message['content'] | trim + '<|eot_id|>' }}\
{% endfor %}\
{% if add_generation_prompt %}\
{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\
{% endif %}"""

_LLAMA2_CHAT = re.compile(r"llama-?_?2.*chat|code-?_?llama.*instruct", re.IGNORECASE)
_LLAMA3_CHAT = re.compile(r"llama-?_?3.*instruct", re.IGNORECASE)


def add_published_template(vocab: Vocab, folder: Path) -> None:
    """Gives a vocabulary without a template the one Meta documents, if the folder's name is that of
    a chat model. Base models get none.
    """
    if vocab.chat_templates:
        return
    resolved = folder.resolve()
    name = resolved.parent.name if resolved.name == "original" else resolved.name
    if vocab.model == "llama" and _LLAMA2_CHAT.search(name):
        kind, template = "Llama 2 chat", LLAMA2
    elif vocab.pre == "llama-bpe" and _LLAMA3_CHAT.search(name):
        kind, template = "Llama 3 Instruct", LLAMA3
        # These answer in turns: as their published settings say, a turn's end ends the text.
        if vocab.eot is not None:
            vocab.eos, vocab.eot = vocab.eot, None
    else:
        return
    vocab.chat_templates["default"] = template
    vocab.notes.append(
        f"no chat template in the folder: by its name, {name}, it gets that of {kind}"
    )
