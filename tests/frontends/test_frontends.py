"""Adapters for llama-cpp-python, unchanged, on the alias. `.ci/full` installs the packages."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from pyllamacpp import Llama

pytestmark = [pytest.mark.frontends, pytest.mark.filterwarnings("ignore")]

PROMPT = "The capital of France is"
QUESTION = "Name the capital city of France."
SIZES = {"n_ctx": 512, "verbose": False}


@pytest.fixture(scope="module")
def own(default_model: Path) -> Iterator[Llama]:
    import pyllamacpp.as_llama_cpp  # noqa: F401 - the adapters import llama_cpp

    with Llama(str(default_model), embedding=True, **SIZES) as llm:
        yield llm


def test_langchain(own: Llama, default_model: Path) -> None:
    from langchain_community.chat_models import ChatLlamaCpp
    from langchain_community.embeddings import LlamaCppEmbeddings
    from langchain_community.llms import LlamaCpp
    from langchain_core.messages import HumanMessage

    options = {"model_path": str(default_model), "rope_freq_base": 0.0, **SIZES}
    llm = LlamaCpp(temperature=0.0, max_tokens=8, repeat_penalty=1.0, **options)
    text = own(PROMPT, temperature=0.0, max_tokens=8)["choices"][0]["text"]
    assert llm.invoke(PROMPT) == "".join(llm.stream(PROMPT)) == text

    chat = ChatLlamaCpp(temperature=0.0, max_tokens=16, **options)
    assert "Paris" in chat.invoke([HumanMessage(QUESTION)]).content
    assert len(list(chat.stream([HumanMessage(QUESTION)]))) > 3

    # Its default, which replaces the file's 100000.
    with pytest.warns(UserWarning, match="rope_freq_base=10000 is below the file's 100000"):
        sent = LlamaCpp(model_path=str(default_model), temperature=0.0, max_tokens=8, **SIZES)
    with pytest.warns(UserWarning, match="rope_freq_base"):
        base = Llama(str(default_model), rope_freq_base=10000.0, **SIZES)
    expected = base(PROMPT, temperature=0.0, max_tokens=8, repeat_penalty=1.1)
    assert sent.invoke(PROMPT) == expected["choices"][0]["text"] != text

    embeddings = LlamaCppEmbeddings(model_path=str(default_model), f16_kv=True, **SIZES)
    # The file states no pooling: there is a vector for each token, and LangChain takes the first.
    assert embeddings.embed_query(QUESTION) == own.embed(QUESTION)[0]


def test_llama_index(own: Llama, default_model: Path) -> None:
    from llama_index.llms.llama_cpp import LlamaCPP

    llm = LlamaCPP(
        model_path=str(default_model),
        temperature=0.0,
        max_new_tokens=8,
        context_window=512,
        verbose=False,
    )
    text = own(PROMPT, temperature=0.0, max_tokens=8)["choices"][0]["text"]
    assert llm.complete(PROMPT, formatted=True).text == text
    assert "".join(r.delta for r in llm.stream_complete(PROMPT, formatted=True)) == text
    assert llm.metadata.context_window == 512


def test_instructor(own: Llama) -> None:
    import instructor
    from pydantic import BaseModel

    class Person(BaseModel):
        name: str
        age: int

    create = instructor.patch(
        create=own.create_chat_completion_openai_v1, mode=instructor.Mode.JSON_SCHEMA
    )
    person = create(
        messages=[{"role": "user", "content": "Anna is 31 years old. Who is she?"}],
        response_model=Person,
        temperature=0.0,
        max_tokens=64,
    )
    assert (person.name, person.age) == ("Anna", 31)
