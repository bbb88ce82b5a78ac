"""What a type checker sees of the package: a user's program passes mypy --strict."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

from pyllamacpp import Llama
from pyllamacpp.arguments import ChatArguments, CompletionArguments
from pyllamacpp.params import MoreArguments

PROGRAM = """
import asyncio

import numpy as np
import numpy.typing as npt

from pyllamacpp import Llama, LlamaRAMCache, LogitsProcessorList, UnsupportedError
from pyllamacpp.llama_chat_format import ChatFormatterResponse, register_chat_format

llm = Llama("model.gguf", n_ctx=2048, seed=7)
answer = llm("The capital of France is", max_tokens=8, temperature=0.0, n=2)
text = answer["choices"][0]["text"]
reveal_type(text)  # str
for chunk in llm("Once", stream=True, xtc_probability=0.5):
    reveal_type(chunk["choices"][0]["text"])  # str
stream = llm.create_completion(["one", "two"], stream=True)
stream.cancel()
said = llm.create_chat_completion([{"role": "user", "content": "Hello"}], top_logprobs=2)
reveal_type(said["choices"][0]["message"]["content"])  # str | None
reveal_type(llm.tokenize(b"Hello"))  # list[int]
reveal_type(llm.save_state().n_tokens)  # int


def first(ids: npt.NDArray[np.intc], scores: npt.NDArray[np.single]) -> npt.NDArray[np.single]:
    return scores


try:
    llm("Once", logits_processor=LogitsProcessorList([first]), tfs_z=0.5)
except UnsupportedError as error:
    print(error)
llm.set_cache(LlamaRAMCache())


@register_chat_format("plain")
def plain(*, messages: list[dict[str, str]], **kwargs: object) -> ChatFormatterResponse:
    return ChatFormatterResponse("\\n".join(m["content"] for m in messages))


async def later() -> None:
    reveal_type((await llm.acreate_completion("Once"))["usage"]["total_tokens"])  # int
    reveal_type((await llm.acreate_embedding("Once"))["usage"]["total_tokens"])  # int
    async for chunk in await llm.acreate_chat_completion([], stream=True):
        reveal_type(chunk["model"])  # str


asyncio.run(later())
with Llama("other.gguf", embedding=True) as other:
    reveal_type(other.n_ctx())  # int
    reveal_type(other.longest_token_prefix([1, 2], [1, 3]))  # int
llm("Once", max_token=8)  # error
llm("Once", temperature="hot")  # error
"""


def test_a_program_of_a_user(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM, encoding="utf-8")
    command = [sys.executable, "-m", "mypy", "--strict", "--hide-error-context"]
    command += ["--cache-dir", str(tmp_path / "cache"), str(program)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    found: dict[int, str] = {}
    for line in done.stdout.splitlines():
        message = re.match(
            r".*program\.py:(\d+): (?:note: Revealed type is \"(.*)\"|error: .*)", line
        )
        if message:
            found[int(message[1])] = message[2] or "error"
    expected = {
        number: line.partition("  # ")[2]
        for number, line in enumerate(PROGRAM.splitlines(), 1)
        if "  # " in line
    }
    assert found == expected, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("method", "arguments", "others"),
    [
        (Llama.create_completion, CompletionArguments, ("prompt", "suffix", "max_tokens")),
        (Llama.create_chat_completion, ChatArguments, ("messages",)),
    ],
)
def test_the_types_name_all_arguments(method, arguments, others) -> None:
    names = {*inspect.signature(method).parameters} - {"self", "stream", "more", *others}
    assert arguments.__optional_keys__ == names | MoreArguments.__optional_keys__
