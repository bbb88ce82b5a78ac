"""Templates in the sandbox."""

import pytest

from pyllamacpp.chat import sandbox
from pyllamacpp.chat.named import CHATML
from pyllamacpp.chat.template import ChatTemplate
from pyllamacpp.errors import FormatError, InvalidArgumentError

HI = [{"role": "user", "content": "hi"}]


def render(source: str, messages=HI, **options) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages, **options)


def test_chatml() -> None:
    messages = [{"role": "system", "content": "S"}, *HI]
    expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    assert render(CHATML.template, messages, add_generation_prompt=False) == expected
    assert render(CHATML.template, messages) == expected + "<|im_start|>assistant\n"


def test_what_templates_of_the_ecosystem_use() -> None:
    assert render("{{ bos_token }}{{ eos_token }}") == "<s></s>"
    assert render("{{ {'a': 'é<'} | tojson }}") == '{"a": "é<"}'
    assert render("{{ [1, 2] | tojson(indent=1) }}") == "[\n 1,\n 2\n]"
    assert len(render("{{ strftime_now('%Y') }}")) == 4
    assert (
        render("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}")
        == "01"
    )
    assert render("{% generation %}{{ messages[0].content }}{% endgeneration %}!") == "hi!"
    assert render("{% if tools is defined %}tools{% endif %}{{ x is defined }}") == "False"
    assert render("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}") == "2"


def test_blocks_are_trimmed() -> None:
    source = (
        "{% for m in messages %}\n"
        "    {% if true %}\n"
        "{{ m.content }}\n"
        "    {% endif %}\n"
        "{% endfor %}\n"
    )
    assert render(source) == "hi\n"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__class__.__base__ }}",
        "{{ raise_exception.__globals__['os'] }}",
        "{{ strftime_now.__globals__.json.dumps({}) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{{ self._TemplateReference__context.environment.globals }}",
        "{{ (messages | map(attribute='__class__') | list)[0].__name__ }}",
        "{% set _ = messages.append(1) %}",
        "{% set _ = messages[0].update({'role': 'x'}) %}",
        "{% for i in range(99999999) %}{% endfor %}",
    ],
)
def test_escapes_are_refused(source: str) -> None:
    with pytest.raises(FormatError, match="chat template"):
        render(source)


def test_messages_are_not_changed() -> None:
    messages = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    assert render("{{ messages[0].content }}", messages) == "hi"
    assert isinstance(messages[0]["content"], list)


def test_a_template_may_refuse_the_messages() -> None:
    source = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(InvalidArgumentError, match="refuses these messages: roles must alternate"):
        render(source)


@pytest.mark.parametrize("source", ["{% if %}", "{{ 1", "{% unknown %}", "{% endfor %}"])
def test_a_template_that_does_not_compile(source: str) -> None:
    with pytest.raises(FormatError, match="cannot be compiled"):
        ChatTemplate(source)


@pytest.mark.parametrize("source", ["{{ 1 / 0 }}", "{{ x.y }}", "{{ 'a' + 1 }}", "{{ 1 | nope }}"])
def test_a_template_that_fails(source: str) -> None:
    with pytest.raises(FormatError, match="chat template"):
        render(source)


def test_blocks_nested_too_deep_are_refused() -> None:
    with pytest.raises(FormatError, match="cannot be compiled"):
        ChatTemplate("{% if true %}" * 200 + "x" + "{% endif %}" * 200)


def test_no_text_out_of_nothing() -> None:
    with pytest.raises(FormatError, match="lipsum"):
        ChatTemplate("{{ lipsum(n=10) }}").render([{"role": "user", "content": "x"}])


NEST = (
    "{% set ns = namespace(a=[], b=[]) %}{% for i in range(60) %}"
    "{% set ns.a = (ns.a, ns.a) %}{% set ns.b = (ns.b, ns.b) %}{% endfor %}"
)
DOUBLE = "{% set ns = namespace(s='a') %}{% for i in range(99) %}"
TWO_LOOPS = "{% for i in range(99999) %}{% for j in range(99999) %}"
STEPS = "more than 1,000,000 steps"
DATA = "of text and other data"
BOMBS = {
    TWO_LOOPS + "{% endfor %}{% endfor %}": STEPS,
    TWO_LOOPS + "{% if x %}{% endif %}" * 3000 + "{% endfor %}{% endfor %}": STEPS,
    TWO_LOOPS + "{% set n = [" + "0," * 40000 + "] %}{% endfor %}{% endfor %}": f"{STEPS}|{DATA}",
    "{% set x %}" + TWO_LOOPS + "x" * 90000 + "{% endfor %}{% endfor %}{% endset %}": DATA,
    "{% for j in range(999) %}{% for i in range(99999) if x %}{% endfor %}{% endfor %}": STEPS,
    "{% macro m(n) %}{% if n %}{{ m(n-1) }}{{ m(n-1) }}{% endif %}{% endmacro %}{{ m(60) }}": STEPS,
    "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}": "too deep",
    "{% for i in [1] recursive %}{{ loop(range(99999)) }}{% endfor %}": "too deep",
    "{{ '%1000000000d' % 1 }}": STEPS,
    "{{ '%*d' % (1000000000, 1) }}": STEPS,
    "{{ '%(())1000000000d' % {'()': 1} }}": STEPS,
    "{{ '%.999999999f' | format(1.5) }}": STEPS,
    "{{ '{:1000000000d}'.format(1) }}": STEPS,
    "{{ '{:{}d}'.format(1, 1000000000) }}": "computes a width",
    "{{ 'a' | center(10**9) }}": STEPS,
    "{{ 1 | center(10**9) }}": STEPS,
    "{{ ['%1000000000d'] | format(1) }}": STEPS,
    "{{ ['a' * 1000000] | replace('a', 'b' * 1000000) }}": STEPS,
    "{{ ('a' * 1000000) | join('x' * 1000) }}": STEPS,
    "{{ 'a' | round(9, 'ceil') }}": "rounds text",
    "{{ '%1000000000d' is odd }}": "whether text is odd",
    "{{ '%1000000000d' is divisibleby(1) }}": "whether text is divisibleby",
    "{{ 'a'.ljust(10**9) }}": STEPS,
    "{{ 'a' * 10**10 }}": STEPS,
    "{{ [1] * 10**10 }}": STEPS,
    "{{ 10 ** (10 ** 10) }}": "more than 4096 bits",
    "{{ 0x" + "f" * 9000 + " }}": "more than 4096 bits",
    "{{ " + "9" * 5000 + " }}": "chat template",
    "{{ 5 | round(-10**9) }}": "more than 1000 places",
    "{{ (1).to_bytes(10**9, 'big') }}": "to_bytes",
    "{{ [1] | batch(10**9, 1) | list }}": "batch",
    "{{ dict.fromkeys(range(99999)) }}": "fromkeys",
    "{{ ([[1]] * 99999) | sum(start=[]) }}": "not numbers",
    DOUBLE + "{% set ns.s = ns.s + ns.s %}{% endfor %}": DATA,
    DOUBLE + "{% set ns.s = ns.s ~ ns.s %}{% endfor %}": DATA,
    DOUBLE + "{% set ns.s = [ns.s, ns.s] | join %}{% endfor %}": DATA,
    "{{ range(99999) | join('x' * 1000000) }}": STEPS,
    "{{ ('x' * 1000000).join([''] * 99999) }}": STEPS,
    "{{ ('a' * 1000000) | replace('', 'b' * 1000000) }}": STEPS,
    "{{ ('a' * 1000000).replace('a', 'b' * 1000000) }}": STEPS,
    "{{ ('\\n' * 1000000) | indent(100000) }}": STEPS,
    "{{ [[1] * 99999] | tojson(indent=1000000) }}": STEPS,
    NEST + "{{ ns.a }}": STEPS,
    NEST + "{{ ns.a == ns.b }}": STEPS,
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}": "100 deep",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns | tojson }}": "100 deep",
    "{{ strftime_now('%c' * 1000000) }}{{ 'a' * 31000000 }}": DATA,
    "{{ " + "(" * 30000 + "1" + ")" * 30000 + " }}": "too deep",
    "{{ 1" + " + 1" * 20000 + " }}": "too deep",
    "x" * 100_001: "has 100,001 characters, the most is 100,000",
}


@pytest.mark.parametrize("source", BOMBS, ids=lambda source: source[:40])
def test_no_template_goes_on_for_ever(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sandbox, "MOST_STEPS", 1_000_000)  # a tenth, for a short test
    with pytest.raises(FormatError, match=BOMBS[source]):
        render(source)


@pytest.mark.parametrize("error", [MemoryError, RecursionError])
def test_what_python_runs_out_of(error: type[Exception]) -> None:
    class Content(dict):  # type: ignore[type-arg]
        def __str__(self) -> str:
            raise error

    with pytest.raises(FormatError, match=r"chat template fails: (there is not|it nests)"):
        render("{{ messages[0].x }}", [{**HI[0], "x": Content()}])


TOOLS = """{{- bos_token }}
{%- if messages[0]['role'] == 'system' %}
    {%- set system = messages[0]['content'] | trim %}{%- set messages = messages[1:] %}
{%- else %}{%- set system = "" %}{%- endif %}
{{- "Today: " + strftime_now("%Y") + "\\n\\n" + system }}
{%- set ns = namespace(last=messages | length - 1, tool=false) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if message.role == "user" and not ns.tool %}
        {%- set ns.tool = true %}{%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- set users = messages | selectattr("role", "equalto", "user") | list %}
{%- macro head(role) %}<|{{ role }}|>{% endmacro %}
{%- for message in messages %}
    {%- if message.role == 'assistant' and '</think>' in message.content %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\\n') %}
    {%- else %}{%- set content = message.content %}{%- endif %}
    {%- if 'tool_calls' in message %}
        {%- for call in message.tool_calls %}
            {{- call.function | tojson(indent=2) | indent(2) ~ "\\n" }}
        {%- endfor %}
    {%- elif message == users[-1] or loop.last %}
        {{- head(message.role) + content | trim | replace("a", "b") ~ "!" }}
    {%- else %}
        {{- head(message['role']) + '\\n' + content | trim + eos_token }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ head('assistant') }}{% endif %}"""


def test_long_conversations_are_within_the_budget() -> None:
    """As much as the longest context holds, in few and in many messages."""
    for count, text in ((10_000, "word " * 200), (20, "word " * 100_000), (10_000, "")):
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": f"{i}: {text}"} for i in range(count)]
        messages[1]["tool_calls"] = [{"function": {"name": "f", "arguments": {"a": [1, "é"]}}}]
        out = render(TOOLS, messages)
        assert sum(out.count(f"|>{end}{i}:") for i in range(10) for end in ("", "\n")) >= 8
        assert out.endswith("<|assistant|>")
        assert '"arguments": {' in out
        assert len(out) > (count - 1) * len(text.strip())
