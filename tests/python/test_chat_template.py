"""Templates in the sandbox."""

import pytest

from pyllamacpp.chat.template import CHATML, ChatTemplate
from pyllamacpp.errors import FormatError, InvalidArgumentError

HI = [{"role": "user", "content": "hi"}]


def render(source: str, messages=HI, **options) -> str:
    return ChatTemplate(source, bos="<s>", eos="</s>").render(messages, **options)


def test_chatml() -> None:
    messages = [{"role": "system", "content": "S"}, *HI]
    expected = "<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n"
    assert render(CHATML, messages, add_generation_prompt=False) == expected
    assert render(CHATML, messages) == expected + "<|im_start|>assistant\n"


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
