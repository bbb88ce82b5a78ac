"""Templates that offer tools, in the manner of those that come with the models.

Mistral's are made by mistral-common; of the others what matters here is as published: where tools
stand, how a call and a result are written, what is refused.
"""

from mistral_common.integrations.chat_templates.template_generator import (
    TemplateConfig,
    build_chat_template,
)
from mistral_common.tokens.tokenizers.base import TokenizerVersion

# Qwen 2.5; Hermes' differ in words only.
QWEN = """\
{%- if tools %}
{{- '<|im_start|>system\\n' }}
{{- messages[0].content if messages[0].role == 'system' else 'You are Qwen.' }}
{{- '\\n\\n# Tools\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\n<tool_call>\\n{"name": <name>, "arguments": <object>}\\n</tool_call>' }}
{{- '<|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}
{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'assistant' and not m.tool_calls) %}
{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}
{{- '<|im_start|>assistant' }}
{%- if m.content %}{{- '\\n' + m.content }}{%- endif %}
{%- for call in m.tool_calls %}
{{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
{{- call.function.arguments | tojson }}{{- '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

# Qwen 3 takes arguments either way, content never as None, and may begin an answer with <think>.
QWEN3 = QWEN.replace(
    "{{- call.function.arguments | tojson }}",
    "{{- call.function.arguments if call.function.arguments is string "
    "else call.function.arguments | tojson }}",
).replace("{%- if m.content %}", "{%- if '</think>' not in m.content and m.content %}")
THINKING = QWEN.replace(
    "assistant\\n' }}{%- endif %}\n", "assistant\\n<think>\\n' }}{%- endif %}\n"
)

# Arguments written as they are: strings.
AS_TEXT = QWEN.replace(
    "{{- call.function.arguments | tojson }}", "{{- '' + call.function.arguments }}"
)

LLAMA_31 = """\
{{- bos_token }}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- if messages[0].role == 'system' %}
{%- set system = messages[0].content %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = '' %}{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\n' }}
{%- if tools is not none %}{{- 'Environment: ipython\\n' }}{%- endif %}
{{- system + '<|eot_id|>' }}
{%- if tools is not none %}
{{- '<|start_header_id|>user<|end_header_id|>\\n\\n' }}
{{- 'Respond in the format {"name": function name, "parameters": dictionary}.\\n\\n' }}
{%- for tool in tools %}{{- tool | tojson(indent=4) }}{{- '\\n\\n' }}{%- endfor %}
{{- messages[0].content + '<|eot_id|>' }}
{%- set messages = messages[1:] %}
{%- endif %}
{%- for m in messages %}
{%- if not (m.role == 'tool' or 'tool_calls' in m) %}
{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' + m.content | trim + '<|eot_id|>' }}
{%- elif 'tool_calls' in m %}
{%- if m.tool_calls | length != 1 %}{{- raise_exception('one call at once') }}{%- endif %}
{%- set call = m.tool_calls[0].function %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{{- '{"name": "' + call.name + '", "parameters": ' }}{{- call.arguments | tojson }}
{{- '}<|eot_id|>' }}
{%- else %}
{{- '<|start_header_id|>ipython<|end_header_id|>\\n\\n' + m.content | tojson + '<|eot_id|>' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""


def mistral(version: str, *, spm: bool = False) -> str:
    """The template that mistral-common makes for a version of Mistral's tokenizers."""
    return build_chat_template(TemplateConfig(version=TokenizerVersion(version), spm=spm))


TEMPLATES = {
    "qwen": QWEN,
    "qwen-3": QWEN3,
    "thinking": THINKING,
    "as-text": AS_TEXT,
    "llama-3.1": LLAMA_31,
    "mistral-v3": mistral("v3"),
    "mistral-v3-spm": mistral("v3", spm=True),
    "mistral-v7": mistral("v7"),
    "mistral-v11": mistral("v11"),
    "mistral-v13": mistral("v13"),
}
