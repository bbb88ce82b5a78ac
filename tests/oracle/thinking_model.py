"""A random model that thinks: letters, which greedy sampling never ends by itself."""

from pathlib import Path

import numpy as np
from tiny_model import TinyModel

# In the manner of Qwen 3's: a thought is begun for the model, or turned off as an empty one.
TEMPLATE = """\
{%- for m in messages %}
{{- '<|' + m.role + '|>' }}
{%- if m.reasoning_content %}{{- '<think>' + m.reasoning_content + '</think>' }}{%- endif %}
{{- m.content }}
{%- endfor %}
{%- if reasoning_effort is defined %}{{- '[' + reasoning_effort + ']' }}{%- endif %}
{%- if add_generation_prompt %}
{{- '<|assistant|><think>\\n' }}
{%- if enable_thinking is defined and not enable_thinking %}{{- '\\n</think>\\n\\n' }}{%- endif %}
{%- endif %}
"""


def write_thinking_model(path: Path, template: str = TEMPLATE) -> Path:
    """Writes the file; <think> and </think> are control tokens of its vocabulary."""
    tiny = TinyModel(chat_template=template, control_tokens=("<think>", "</think>"))
    head = np.zeros((tiny.n_vocab, tiny.n_embd), np.float32)
    # After three tokens, the bytes. All other logits are 0, below the best of these.
    letters = [3 + byte for byte in range(ord("a"), ord("z") + 1)]
    head[letters] = np.random.default_rng(5).standard_normal((len(letters), tiny.n_embd))
    return TinyModel(
        chat_template=template, control_tokens=tiny.control_tokens, tensors={"output.weight": head}
    ).write(path)
