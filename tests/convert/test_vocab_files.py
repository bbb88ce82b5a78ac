"""Where a vocabulary is looked for, what the files beside it add, and what is refused."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyllamacpp_convert.vocab import find_vocab, read_vocab
from text_cases import ALPHABET, BYTE, CONTROL, NORMAL, USER_DEFINED
from vocab_cases import (
    LLAMA3,
    METASPACE,
    NORMALIZER,
    PIECES,
    TRAINER,
    added,
    byte_level_json,
    byte_level_step,
    characters_json,
    sentencepiece_model,
    split_step,
    tiktoken_file,
    tokenizer_of,
    write_json,
)

from pyllamacpp.chat.template import ChatTemplate
from pyllamacpp.errors import FileError, FormatError, PyllamacppError, UnsupportedError

N = len(PIECES)


def folder_with(path: Path, **files: object) -> Path:
    """A folder with a SentencePiece model, and the given JSON files (named without .json)."""
    path.mkdir(exist_ok=True)
    (path / "tokenizer.model").write_bytes(sentencepiece_model())
    for name, value in files.items():
        write_json(path / f"{name}.json", value)
    return path / "tokenizer.model"


def test_found_beside_the_weights_or_above(tmp_path: Path) -> None:
    weights = tmp_path / "ROOT" / "7B"
    weights.mkdir(parents=True)
    with pytest.raises(FileError, match=r"no vocabulary: looked for .*7B and .*ROOT; .*--vocab"):
        find_vocab(weights)
    above = folder_with(tmp_path / "ROOT")
    assert find_vocab(weights) == above
    beside = write_json(weights / "tokenizer.json", {})
    assert find_vocab(weights) == beside
    assert find_vocab(weights, tmp_path / "ROOT") == above
    assert find_vocab(weights, above) == above
    with pytest.raises(FileError, match="nowhere does not exist"):
        find_vocab(weights, tmp_path / "nowhere")
    with pytest.raises(FileError, match=r"no vocabulary: looked for .* in \S+; pass"):
        find_vocab(weights, tmp_path)


def test_of_two_the_one_that_says_more(tmp_path: Path) -> None:
    folder_with(tmp_path)
    write_json(tmp_path / "tokenizer.json", {})
    assert find_vocab(tmp_path).name == "tokenizer.model"
    (tmp_path / "tokenizer.model").write_bytes(tiktoken_file())
    assert find_vocab(tmp_path).name == "tokenizer.json"


def test_nothing_beside_it(tmp_path: Path) -> None:
    vocab = read_vocab(folder_with(tmp_path))
    assert (vocab.bos, vocab.eos, vocab.unknown, vocab.padding) == (1, 2, 0, None)
    assert (vocab.add_bos, vocab.add_eos, vocab.add_space_prefix) == (True, False, True)
    assert vocab.chat_templates == {}
    assert vocab.notes == []


def test_tokenizer_config(tmp_path: Path) -> None:
    config = {
        "bos_token": {"content": "<s>"},
        "eos_token": "<|im_end|>",
        "pad_token": "[PAD]",
        "unk_token": None,
        "add_bos_token": False,
        "add_eos_token": True,
        "add_prefix_space": False,
        "added_tokens_decoder": {
            "1": {"content": "<s>", "special": True},
            str(N): {"content": "<|im_end|>", "special": False},
            str(N + 2): {"content": "<tool>", "special": False},
        },
    }
    path = folder_with(tmp_path, tokenizer_config=config, added_tokens={"[PAD]": N + 1})
    vocab = read_vocab(path)
    assert vocab.tokens[N:] == ["<|im_end|>", "[PAD]", "<tool>"]
    assert vocab.types[N:] == [CONTROL, CONTROL, USER_DEFINED]
    assert vocab.scores[N:] == [-1e9] * 3
    assert (vocab.bos, vocab.eos, vocab.unknown, vocab.padding) == (1, N, 0, N + 1)
    assert (vocab.add_bos, vocab.add_eos, vocab.add_space_prefix) == (False, True, False)
    assert {file.name for file in vocab.files} == {
        *("tokenizer.model", "tokenizer_config.json", "added_tokens.json")
    }
    ours = tokenizer_of(vocab.metadata(N + 3), tmp_path / "x.gguf")
    assert ours.encode(b"ab<|im_end|><tool>", True, True) == [N - 6, N, N + 2, N]


def test_what_is_put_around_a_text(tmp_path: Path) -> None:
    root = characters()
    root["added_tokens"] = [added(i, text) for i, text in enumerate(("<unk>", "<s>"))]
    processor: dict[str, Any] = {"type": "TemplateProcessing", "single": [{"Sequence": {}}]}
    root["post_processor"] = {"type": "Sequence", "processors": [{"type": "ByteLevel"}, processor]}
    path = tmp_path / "tokenizer.json"

    def read() -> tuple[object, ...]:
        vocab = read_vocab(write_json(path, root))
        return vocab.add_bos, vocab.bos, vocab.add_eos, vocab.eos

    assert read() == (False, None, False, None)
    processor["single"].insert(0, {"SpecialToken": {"id": "<s>"}})
    assert read() == (True, 1, False, None)
    processor["single"].append({"SpecialToken": {"id": "</s>"}})
    assert read() == (True, 1, True, 2)
    write_json(tmp_path / "tokenizer_config.json", {"add_bos_token": False})
    assert read() == (False, 1, True, 2)


def test_added_tokens_json_does_not_undo_tokenizer_json(tmp_path: Path) -> None:
    root = characters()
    root["added_tokens"].append(added(8, "<|tool|>"))
    write_json(tmp_path / "added_tokens.json", {"<|tool|>": 8, "<more>": 9})
    vocab = read_vocab(write_json(tmp_path / "tokenizer.json", root))
    assert vocab.types[8:] == [CONTROL, USER_DEFINED]


def test_alpaca(tmp_path: Path) -> None:
    """One token added for padding, the embedding grown by one row, as early fine-tunes have it."""
    special = {"bos_token": "</s>", "eos_token": "</s>", "pad_token": "[PAD]", "unk_token": "</s>"}
    path = folder_with(tmp_path, added_tokens={"[PAD]": N}, special_tokens_map=special)
    vocab = read_vocab(path)
    metadata = vocab.metadata(N + 1)
    assert (vocab.tokens[N], vocab.types[N], vocab.padding, vocab.eos) == ("[PAD]", CONTROL, N, 2)
    assert vocab.notes == []
    assert metadata["tokenizer.ggml.padding_token_id"] == N
    # The fine-tune's tokenizer with the base model's weights.
    metadata = vocab.metadata(N)
    assert "tokenizer.ggml.padding_token_id" not in metadata
    assert vocab.notes == [
        f"the embedding has {N} rows, the vocabulary {N + 1} tokens: left out is '[PAD]'"
    ]


def test_wrong_ids_of_early_conversions_do_not_count(tmp_path: Path) -> None:
    names = dict.fromkeys(("bos_token", "eos_token", "unk_token"), "")
    ids = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": -1}
    vocab = read_vocab(folder_with(tmp_path, tokenizer_config=names, config=ids))
    assert (vocab.bos, vocab.eos, vocab.unknown, vocab.padding) == (1, 2, 0, None)


def test_a_named_token_that_is_not_there(tmp_path: Path) -> None:
    vocab = read_vocab(folder_with(tmp_path, tokenizer_config={"pad_token": "[PAD]"}))
    assert vocab.padding is None
    assert vocab.notes == ["the pad token '[PAD]' is not in the vocabulary"]


@pytest.mark.parametrize(
    ("ends", "eot", "notes"),
    [
        (2, None, 0),
        ([2], None, 0),
        ([2, N], N, 0),  # <|eot_id|>: the one of them that ends a turn
        ([N + 1, 2, N], N, 0),
        ([2, N + 1], None, 0),  # </s> by name; known to every reader
        ([2, N + 2], N + 2, 0),  # a name nobody knows
        ([2, N, N + 2], N, 1),
        ([2, -1, 10**9, "x", None], None, 0),
    ],
)
def test_several_ends(ends: object, eot: int | None, notes: int, tmp_path: Path) -> None:
    more = {"<|eot_id|>": N, "<|eom_id|>": N + 1, "<bye>": N + 2}
    path = folder_with(tmp_path, added_tokens=more, generation_config={"eos_token_id": ends})
    vocab = read_vocab(path)
    assert (vocab.eos, vocab.eot, len(vocab.notes)) == (2, eot, notes)


def test_tokenizer_json_beside_a_sentencepiece_model(tmp_path: Path) -> None:
    path = folder_with(tmp_path)
    root = characters_json(read_vocab(path))
    root["added_tokens"].append(added(N, "<|tool|>", special=False))
    write_json(tmp_path / "tokenizer.json", root)
    vocab = read_vocab(path)
    assert vocab.notes == []
    assert (vocab.tokens[N], vocab.types[N], len(vocab.files)) == ("<|tool|>", USER_DEFINED, 2)
    root["model"]["vocab"] = {"other": 0}
    write_json(tmp_path / "tokenizer.json", root)
    assert "there token 0 is 'other'" in read_vocab(path).notes[0]


def test_meta_files_in_a_subfolder_of_hugging_face(tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    path = tmp_path / "original" / "tokenizer.model"
    path.write_bytes(tiktoken_file())
    n = 259
    write_json(tmp_path / "generation_config.json", {"eos_token_id": [n + 1, n + 9]})
    config = {"eos_token": "<|eot_id|>", "chat_template": "t"}
    write_json(tmp_path / "tokenizer_config.json", config)
    vocab = read_vocab(path)
    assert (vocab.eos, vocab.eot) == (n + 9, None)
    assert vocab.chat_templates == {"default": "t"}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"tokenizer_config.json": {"chat_template": "A"}}, {"": "A"}),
        (
            {
                "tokenizer_config.json": {
                    "chat_template": [
                        {"name": "default", "template": "A"},
                        {"name": "tool_use", "template": "B"},
                    ]
                }
            },
            {"": "A", ".tool_use": "B"},
        ),
        ({"chat_template.json": {"chat_template": "C"}}, {"": "C"}),
        ({"tokenizer_config.json": {"chat_template": "A"}, "chat_template.jinja": "D"}, {"": "D"}),
        ({"tokenizer_config.json": {"chat_template": None}}, {}),
    ],
)
def test_chat_templates(files: dict[str, Any], expected: dict[str, str], tmp_path: Path) -> None:
    path = folder_with(tmp_path)
    for name, value in files.items():
        text = value if isinstance(value, str) else json.dumps(value)
        (tmp_path / name).write_text(text, encoding="utf-8")
    metadata = read_vocab(path).metadata(N)
    key = "tokenizer.chat_template"
    found = {k: v for k, v in metadata.items() if k == key or k.startswith(f"{key}.")}
    assert found == {key + name: text for name, text in expected.items()}
    named = metadata.get("tokenizer.chat_templates")
    assert named == (["tool_use"] if ".tool_use" in expected else None)


TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " Hi "},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye"},
]


@pytest.mark.parametrize("name", ["llama-2-7b-chat", "Llama-2-70b-chat", "CodeLlama-7b-Instruct"])
def test_template_of_llama2_chat(name: str, tmp_path: Path) -> None:
    # The vocabulary lies above the weights, whose folder has the name.
    weights = tmp_path / name
    weights.mkdir()
    vocab = read_vocab(folder_with(tmp_path), weights)
    assert len(vocab.notes) == 1
    assert name in vocab.notes[0]
    template = ChatTemplate(vocab.chat_templates["default"], bos="<s>", eos="</s>")
    assert template.render(TALK) == (
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi [/INST] Hello. </s><s>[INST] Bye [/INST]"
    )
    assert template.render(TALK[1:]) == "<s>[INST] Hi [/INST] Hello. </s><s>[INST] Bye [/INST]"
    with pytest.raises(PyllamacppError, match="must alternate"):
        template.render(TALK[2:])


@pytest.mark.parametrize("name", ["Meta-Llama-3-8B-Instruct", "Llama3.2-1B-Instruct"])
@pytest.mark.parametrize("inside", ["", "original"])
def test_template_of_llama3_instruct(name: str, inside: str, tmp_path: Path) -> None:
    folder = tmp_path / name / inside
    folder.mkdir(parents=True)
    (folder / "tokenizer.model").write_bytes(tiktoken_file())
    vocab = read_vocab(folder / "tokenizer.model")
    assert name in vocab.notes[-1]
    assert vocab.eos is not None
    assert vocab.tokens[vocab.eos] == "<|eot_id|>"
    template = ChatTemplate(vocab.chat_templates["default"], bos="<|begin_of_text|>")
    assert template.render(TALK[:2]) == (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


@pytest.mark.parametrize("name", ["llama-2-7b", "Meta-Llama-3-8B", "7B", "my-chat"])
def test_base_models_get_no_template(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    assert read_vocab(folder_with(folder)).chat_templates == {}
    (folder / "tokenizer.model").write_bytes(tiktoken_file())
    assert read_vocab(folder / "tokenizer.model").chat_templates == {}


@pytest.mark.parametrize("rows", [N - 1, N - 6, 1, 0, N + 1025, 128256])
def test_another_models_vocabulary(rows: int, tmp_path: Path) -> None:
    vocab = read_vocab(folder_with(tmp_path))
    with pytest.raises(FormatError, match=rf"has {N} tokens, .* embedding {rows} rows.* --vocab"):
        vocab.metadata(rows)


def with_piece(i: int, piece: tuple[str, float, int]) -> bytes:
    return sentencepiece_model([*PIECES[:i], piece, *PIECES[i + 1 :]])


@pytest.mark.parametrize(
    ("data", "error", "sentence"),
    [
        (b"", FormatError, "is no vocabulary"),
        (b"GGUF\3\0\0\0", FormatError, "is no vocabulary: neither"),
        (b"PK\3\4", FormatError, "is no vocabulary"),
        (b"\n", FormatError, "not a SentencePiece model"),
        (b"\n\x05abc", FormatError, "ends in the middle of a field"),
        (b"\n\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", FormatError, "has no end"),
        (sentencepiece_model([]), FormatError, "is no vocabulary"),
        (sentencepiece_model(trainer={3: 1}), UnsupportedError, "of the kind unigram; .* is BPE"),
        (sentencepiece_model(trainer={}), UnsupportedError, "of the kind unigram"),
        (sentencepiece_model(trainer={3: 9}), UnsupportedError, "of the kind 9"),
        (with_piece(5, ("a", 0.0, 7)), FormatError, "its piece 5 is malformed"),
        (with_piece(5, ("x", 0.0, BYTE)), FormatError, "'x' is marked as a byte"),
        (with_piece(N - 1, ("b", float("nan"), NORMAL)), FormatError, "score of token .* not a"),
        (
            sentencepiece_model([p for p in PIECES[3:] if p[0] != "<0x41>"], TRAINER | {40: -1}),
            FormatError,
            "neither a token for each byte nor an unknown token",
        ),
        (tiktoken_file()[7:], FormatError, "no line has the rank 0"),
        (tiktoken_file() + b"YWI= 300\n", FormatError, "no line has the rank 259"),
        (tiktoken_file() + b"YWJj 258\n", FormatError, "has the rank 258 again"),
        (tiktoken_file() + b"YWI= 259\n", FormatError, "two lines have the same token"),
        (tiktoken_file() + b"YWI 259\n", FormatError, "line 260, 'YWI 259', is not"),
        (tiktoken_file() + b"x\n", FormatError, "line 260"),
        (b"YWI= 0\n", FormatError, "no line has the byte 0x00"),
        (tiktoken_file() + b"YWI= 99999999999999999999\n", FormatError, "line 260"),
        (tiktoken_file([b"%06d" % i for i in range(128000)]), UnsupportedError, "128256 ranks"),
        (b"{", FormatError, "not valid JSON"),
        (b'{"a":' * 100_000, FormatError, "not valid JSON|nests too deeply"),
        (b"{}", FormatError, "not a tokenizer.json"),
        (b'{"model": {"vocab": {"a": %s}}}' % (b"9" * 5000), FormatError, "not valid JSON"),
        (b'{"config": {}, "vocab": []}', UnsupportedError, "tekken"),
    ],
)
def test_refused_files(data: bytes, error: type[Exception], sentence: str, tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    path.write_bytes(data)
    with pytest.raises(error, match=sentence) as caught:
        read_vocab(path).metadata(N)
    assert str(path) in str(caught.value)


def byte_level(**changes: object) -> dict[str, Any]:
    tokens = [*ALPHABET, "ab"]
    steps = [split_step(LLAMA3), byte_level_step(use_regex=False)]
    return byte_level_json(tokens, ["a b"], ["<|end|>"], steps, ignore_merges=True, **changes)


def characters() -> dict[str, Any]:
    tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "ab", "▁ab"]
    return {
        "added_tokens": [added(i, tokens[i]) for i in range(3)],
        "pre_tokenizer": METASPACE,
        "model": {
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": ["a b", "▁ ab"],
            "unk_token": "<unk>",
        },
    }


Change = Callable[[dict[str, Any]], object]


def at(*keys: str | int, value: object) -> Change:
    def change(root: Any) -> None:
        for key in keys[:-1]:
            root = root[key]
        root[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("make", "change", "error", "sentence"),
    [
        (byte_level, at("model", "type", value="Unigram"), UnsupportedError, "kind 'Unigram'"),
        (byte_level, at("model", "vocab", value=[]), UnsupportedError, "kind 'BPE'|kind"),
        (byte_level, at("model", "vocab", value={}), FormatError, "no tokens|not two tokens"),
        (byte_level, at("model", "vocab", "a", value=1 << 40), FormatError, "has the id 10995"),
        (byte_level, at("model", "vocab", "a", value=1 << 30), FormatError, "has the id 10737"),
        (byte_level, at("model", "vocab", "a", value=-1), FormatError, "has the id -1"),
        (byte_level, at("model", "vocab", "a", value=True), FormatError, "has the id True"),
        (byte_level, at("model", "vocab", "a", value=0), FormatError, "two tokens have the id 0"),
        (byte_level, at("model", "vocab", "\ud800", value=258), FormatError, "is not text"),
        (byte_level, at("model", "merges", value=None), FormatError, "no list of merges"),
        (byte_level, at("model", "merges", 0, value="a c"), FormatError, "merge 0, 'a c'"),
        (byte_level, at("model", "merges", 0, value=["a", []]), FormatError, "merge 0"),
        (byte_level, at("model", "end_of_word_suffix", value="</w>"), UnsupportedError, "</w>"),
        (byte_level, at("added_tokens", 0, "id", value=10**9), FormatError, "the id 1000000000"),
        (byte_level, at("added_tokens", 0, "content", value=3), FormatError, "no id or no content"),
        (
            byte_level,
            at("pre_tokenizer", "pretokenizers", 0, value=split_step(r"\w+")),
            UnsupportedError,
            r"splits text by \\w\+, a pre-tokenizer .* named gpt-2, smollm",
        ),
        (
            byte_level,
            at("pre_tokenizer", "pretokenizers", 0, "behavior", value="Removed"),
            UnsupportedError,
            "Removed",
        ),
        (
            byte_level,
            at("pre_tokenizer", "pretokenizers", 1, "add_prefix_space", value=True),
            UnsupportedError,
            "a space before text",
        ),
        (byte_level, at("pre_tokenizer", value=7), FormatError, "7 is no step"),
        (byte_level, at("pre_tokenizer", "pretokenizers", value=7), FormatError, "is no list"),
        (byte_level, at("normalizer", value={"type": "Lowercase"}), UnsupportedError, "Lowercase"),
        (characters, at("pre_tokenizer", value=None), UnsupportedError, "neither into bytes"),
        (characters, at("pre_tokenizer", value={"type": "BertX"}), UnsupportedError, "by BertX"),
        (
            characters,
            at("model", "merges", value=["a b"]),
            UnsupportedError,
            "'▁' and 'ab' make one but are not merged",
        ),
        (
            characters,
            at("model", "vocab", value={"▁": 0, "a": 1, "aa": 2, "aaa": 3, "▁a": 4}),
            FormatError,
            "merge 0, 'a b'",
        ),
        (characters, at("model", "unk_token", value=None), FormatError, "neither a token for each"),
    ],
)
def test_refused_tokenizer_json(
    make: Callable[[], dict[str, Any]],
    change: Change,
    error: type[Exception],
    sentence: str,
    tmp_path: Path,
) -> None:
    root = copy.deepcopy(make())
    path = write_json(tmp_path / "tokenizer.json", root)
    read_vocab(path).metadata(300)
    change(root)
    write_json(path, root)
    with pytest.raises(error, match=sentence) as caught:
        read_vocab(path).metadata(300)
    assert str(path) in str(caught.value)


def test_merges_that_scores_cannot_state(tmp_path: Path) -> None:
    root = characters()
    tokens = ["<unk>", "<s>", "</s>", "▁", "a", "aa", "aaa"]
    root["model"]["vocab"] = {token: i for i, token in enumerate(tokens)}
    root["model"]["merges"] = ["a aa", "a a", "aa a"]
    path = write_json(tmp_path / "tokenizer.json", root)
    with pytest.raises(UnsupportedError, match="make 'aaa' lie apart"):
        read_vocab(path)
    root["model"]["merges"] = ["a a", "a aa", "aa a"]
    write_json(path, root)
    assert read_vocab(path).scores[4:] == [-6.0, -0.0, -1.0]


def test_metaspace_that_splits(tmp_path: Path) -> None:
    root = characters()
    root["pre_tokenizer"] = METASPACE | {"split": True}
    path = write_json(tmp_path / "tokenizer.json", root)
    assert read_vocab(path).add_space_prefix
    root["pre_tokenizer"]["prepend_scheme"] = "never"
    write_json(path, root)
    assert not read_vocab(path).add_space_prefix
    root["model"]["vocab"]["▁▁"] = 8
    root["model"]["merges"].append("▁ ▁")
    write_json(path, root)
    with pytest.raises(UnsupportedError, match=r"never merges across spaces .* '▁▁'"):
        read_vocab(path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (at("normalizer", value={"type": "NFC"}), "normalizes text (NFC)"),
        (at("model", "ignore_merges", value=False), "ignore_merges false"),
        (at("added_tokens", 0, "lstrip", value=True), "says lstrip of 1 added tokens"),
    ],
)
def test_what_a_gguf_cannot_state_is_noted(change: Change, sentence: str, tmp_path: Path) -> None:
    root = byte_level()
    change(root)
    vocab = read_vocab(write_json(tmp_path / "tokenizer.json", root))
    assert len(vocab.notes) == 1
    assert sentence in vocab.notes[0]


def test_a_text_without_an_end_is_noted(tmp_path: Path) -> None:
    root = byte_level()
    assert read_vocab(write_json(tmp_path / "tokenizer.json", root)).notes == []
    root["added_tokens"][0]["content"] = "<pad>"
    vocab = read_vocab(write_json(tmp_path / "tokenizer.json", root))
    assert ["which token ends a text" in note for note in vocab.notes] == [True]


def test_normalization_of_sentencepiece_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.model"
    changed = {1: b"nmt_nfkc", 2: b"\0\0\0\0", 3: 0, 4: 1}
    path.write_bytes(sentencepiece_model(normalizer=NORMALIZER | changed))
    vocab = read_vocab(path)
    assert ["nmt_nfkc" in note for note in vocab.notes] == [False, True]
    assert "several spaces as one" in vocab.notes[0]
    assert not vocab.add_space_prefix
    assert vocab.remove_extra_whitespaces


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("added_tokens.json", '{"x": -1}', "has the id -1"),
        ("added_tokens.json", '{"x": 1e3}', "has the id 1000.0"),
        ("added_tokens.json", '{"x": 999999999}', "has the id 999999999, but there are"),
        ("added_tokens.json", "[]", "holds no JSON object"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"x": {}}}', "added token x"),
        ("tokenizer_config.json", '{"added_tokens_decoder": {"²": {"content": ""}}}', "no id"),
        ("tokenizer_config.json", '{"chat_template": "\\ud800"}', "template 'default' is not text"),
        (
            "tokenizer_config.json",
            '{"chat_template": [{"name": "\\n", "template": ""}]}',
            "cannot be a chat template's name",
        ),
        ("generation_config.json", "nonsense", "not valid JSON"),
        ("chat_template.jinja", b"\xff", "not UTF-8"),
    ],
)
def test_refused_companions(name: str, text: str | bytes, sentence: str, tmp_path: Path) -> None:
    path = folder_with(tmp_path)
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(FormatError, match=sentence):
        read_vocab(path).metadata(N)


def test_checksum(tmp_path: Path) -> None:
    path = folder_with(tmp_path)
    found = hashlib.md5(path.read_bytes()).hexdigest()
    listed = tmp_path / "tokenizer_checklist.chk"
    listed.write_text(f"{'0' * 32}  other\n{found}  tokenizer.model\n")
    assert read_vocab(path).notes == []
    listed.write_text(f"{'0' * 32}  tokenizer.model\n")
    assert read_vocab(path, checksum=False).notes == []
    with pytest.raises(FormatError, match=f"its md5 is {found}, tokenizer_checklist.chk says 0000"):
        read_vocab(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="cannot read"):
        read_vocab(tmp_path)
    with pytest.raises(FileError, match="cannot read"):
        read_vocab(tmp_path / "absent")
