"""Vocabularies: tokenizer.model (SentencePiece's or tiktoken's) and tokenizer.json."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from pyllamacpp.errors import FileError, FormatError
from pyllamacpp_convert.vocab.chat import add_published_template
from pyllamacpp_convert.vocab.companions import Companions, apply_companions
from pyllamacpp_convert.vocab.json_file import parse_object, read_bytes
from pyllamacpp_convert.vocab.model import Vocab
from pyllamacpp_convert.vocab.sentencepiece import read_sentencepiece
from pyllamacpp_convert.vocab.tiktoken import read_tiktoken
from pyllamacpp_convert.vocab.tokenizer_json import add_listed_tokens, read_tokenizer_json

__all__ = ["Vocab", "find_vocab", "read_vocab"]

_MODEL, _JSON = "tokenizer.model", "tokenizer.json"
_TIKTOKEN = re.compile(rb"\s*[A-Za-z0-9+/]+={0,2} [0-9]+\s")


def find_vocab(weights_folder: Path, given: Path | None = None) -> Path:
    """The vocabulary of a model: the file given, or one in the folder given, or else one beside the
    weights or one level above them, where LLaMA 1 and Llama 2 have it.

    Raises FileError, saying where was looked, when there is none.
    """
    if given is not None and not given.is_dir():
        if given.is_file():
            return given
        raise FileError(f"the vocabulary {given} does not exist")
    weights = weights_folder.resolve()
    folders = [weights, weights.parent] if given is None else [given]
    for folder in folders:
        found = [path for name in (_MODEL, _JSON) if (path := folder / name).is_file()]
        if not found:
            continue
        # tokenizer.json knows the tokens that were added to it; for SentencePiece's model, whose
        # scores only it has, they are read from there.
        return found[-1] if _TIKTOKEN.match(_head(found[0])) else found[0]
    searched = " and ".join(str(folder) for folder in folders)
    raise FileError(
        f"no vocabulary: looked for {_MODEL} and {_JSON} in {searched}; pass the file, or the "
        "folder it lies in, with --vocab"
    )


def read_vocab(path: Path, weights_folder: Path | None = None, *, checksum: bool = True) -> Vocab:
    """Reads a vocabulary, whose kind its content tells, and the files beside it.

    weights_folder: its files are read too where the vocabulary's folder lacks them; its name may
    tell a chat model of Meta's, and its params.json whether a Llama 3 is a 3.1.
    checksum: compare the file with the tokenizer_checklist.chk beside it, if there is one.
    Raises FileError when a file cannot be read, FormatError when it is malformed and
    UnsupportedError when it is something that this release or the GGUF cannot express.
    """
    try:
        return _read_vocab(path, weights_folder or path.parent, checksum)
    except RecursionError as error:
        raise FormatError(f"{path} or a file beside it nests too deeply") from error


def _read_vocab(path: Path, weights: Path, checksum: bool) -> Vocab:
    data = read_bytes(path)
    companions = Companions(_folders(path.parent, weights))
    if checksum:
        _check_sum(path, data)
    if _TIKTOKEN.match(data):
        params = companions.json("params.json")
        nested = params.get("model")
        params = nested if isinstance(nested, dict) else params
        vocab = read_tiktoken(path, data, v31=params.get("use_scaled_rope") is True)
    elif data.lstrip()[:1] == b"{":
        vocab = read_tokenizer_json(path, data)
    elif data[:1] == b"\n":  # a message's first field, of some length
        vocab = read_sentencepiece(path, data)
        beside = path.with_name(_JSON)
        if beside.is_file():
            vocab.files.append(beside)
            add_listed_tokens(vocab, beside, parse_object(beside, read_bytes(beside)))
    else:
        raise FormatError(
            f"{path} is no vocabulary: neither a SentencePiece model nor lines of tiktoken nor a "
            "tokenizer.json"
        )
    apply_companions(vocab, companions)
    add_published_template(vocab, weights)
    vocab.files = [path, *vocab.files, *companions.used]
    return vocab


def _check_sum(path: Path, data: bytes) -> None:
    """Raises FormatError when the list of checksums beside a vocabulary has another for it."""
    listed = path.with_name("tokenizer_checklist.chk")
    if not listed.is_file():
        return
    for line in read_bytes(listed).decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) != 2 or words[1].lstrip("*") != path.name:
            continue
        found = hashlib.md5(data, usedforsecurity=False).hexdigest()
        if words[0].lower() != found:
            raise FormatError(
                f"{path} is damaged: its md5 is {found}, {listed.name} says {words[0]:.40}; "
                "download it again"
            )


def _head(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1024)
    except OSError as error:
        raise FileError(f"cannot read {path}: {error.strerror or error}") from error


def _folders(*given: Path) -> list[Path]:
    """Folders whose files tell about a vocabulary, each once."""
    out: list[Path] = []
    for folder in given:
        out.append(folder)
        # Meta's files lie in a subfolder of Hugging Face's.
        if folder.resolve().name == "original":
            out.append(folder.resolve().parent)
    return list(dict.fromkeys(out))
