"""tokenizer.json of Hugging Face: BPE on bytes (GPT-2's kind), or on characters (LLaMA's kind)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pyllamacpp.errors import FormatError, UnsupportedError
from pyllamacpp_convert.vocab.json_file import is_id, parse_object
from pyllamacpp_convert.vocab.model import LEAST_SCORE, AddedToken, TokenType, Vocab

_SPACE = "\u2581"
_BYTE = re.compile(r"<0x[0-9A-F]{2}>")

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CL100K = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}%s|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
# The beginning of DeepSeek LLM's letters: copies of its hundred ranges differ in normalization.
_DEEPSEEK_LETTERS = "\\s?[A-Za-z\u00b5\u00c0-\u00d6\u00d8-\u00f6\u00f8-\u01ba"
_DIGITS = "each digit"

# The steps that split text into words, one after the other, and the name of the whole.
_PRE = {
    (_GPT2,): "gpt-2",
    (_DIGITS, _GPT2): "smollm",
    (_CL100K % "{1,3}",): "llama-bpe",
    (_CL100K % "",): "qwen2",
    (
        "[\r\n]",
        _DEEPSEEK_LETTERS,
        "\\s?[!-/:-~\uff01-\uff0f\uff1a-\uff5e\u2018-\u201f\u3000-\u3002]+",
        r"\s+$",
        "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+",
        _DIGITS,
    ): "deepseek-llm",
}
# Words that are tokens are taken whole there, whatever the merges say.
_IGNORES_MERGES = ("llama-bpe",)


def read_tokenizer_json(path: Path, data: bytes) -> Vocab:
    """The vocabulary with its added tokens; special ids and templates are in other files.

    Raises FormatError when `data` is malformed, UnsupportedError naming what this release or the
    GGUF has no word for.
    """
    root = parse_object(path, data)
    if isinstance(root.get("vocab"), list) and "config" in root:
        raise UnsupportedError(
            f"{path} is a tekken vocabulary of Mistral's, which is not supported"
        )
    model = root.get("model")
    if not isinstance(model, dict) or not isinstance(model.get("vocab"), dict | list):
        raise FormatError(f"{path} is not a tokenizer.json: it has no model with a vocab")
    if model.get("type", "BPE") != "BPE" or isinstance(model["vocab"], list):
        raise UnsupportedError(
            f"{path} is a vocabulary of the kind {model.get('type')!r:.40}; supported is BPE"
        )
    for name in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(name):
            raise UnsupportedError(f"{path}: {name} {model[name]!r:.40} is not supported")
    tokens = _tokens(path, model["vocab"])
    merges = _merges(path, model)
    listed = root.get("added_tokens") or []
    added = _added_tokens(path, listed)
    steps = list(_nodes(path, root.get("pre_tokenizer")))
    if any(step["type"] == "ByteLevel" for step in steps):
        vocab = _byte_level(path, tokens, merges, root, steps)
    else:
        vocab = _characters(path, tokens, merges, root, steps, added)
    trained = tokens.keys() - added.keys()
    vocab.n_trained = max(trained, default=-1) + 1
    vocab.add(added)
    for name in ("lstrip", "rstrip", "single_word"):
        marked = [e["content"] for e in listed if e.get(name)]
        if marked:
            vocab.notes.append(
                f"{path.name} says {name} of {len(marked)} added tokens such as {marked[0]!r:.80}, "
                "for which a GGUF file has no place: white space beside them stays text"
            )
    vocab.unknown = _id_in(tokens, model.get("unk_token"))
    first, last = _ends_added(path, root.get("post_processor"))
    vocab.add_bos, vocab.add_eos = first is not None, last is not None
    vocab.bos, vocab.eos = _id_in(tokens, first), _id_in(tokens, last)
    return vocab


def _tokens(path: Path, vocab: dict[str, Any]) -> dict[int, str]:
    for token, i in vocab.items():
        if not is_id(i) or i > 2 * len(vocab) + 65536:
            raise FormatError(
                f"{path}: the token {token!r:.80} has the id {i!r:.40}, but there are "
                f"{len(vocab)} tokens"
            )
    tokens = {i: token for token, i in vocab.items()}
    if len(tokens) != len(vocab):
        i = next(i for token, i in vocab.items() if tokens[i] != token)
        raise FormatError(f"{path}: two tokens have the id {i}")
    if not tokens:
        raise FormatError(f"{path} has no tokens")
    return tokens


def _merges(path: Path, model: dict[str, Any]) -> list[tuple[str, str]]:
    """The pairs, each of them and what it makes a token."""
    listed = model.get("merges")
    if not isinstance(listed, list):
        raise FormatError(f"{path} has no list of merges")
    merges: list[tuple[str, str]] = []
    vocab = model["vocab"]
    for i, entry in enumerate(listed):
        pair = entry.split(" ") if isinstance(entry, str) else entry
        if (
            not isinstance(pair, list)
            or len(pair) != 2
            or not all(isinstance(part, str) and part in vocab for part in pair)
            or "".join(pair) not in vocab
        ):
            raise FormatError(f"{path}: merge {i}, {entry!r:.80}, is not two tokens that make one")
        merges.append((pair[0], pair[1]))
    return merges


def _added_tokens(path: Path, listed: object) -> dict[int, AddedToken]:
    added: dict[int, AddedToken] = {}
    if not isinstance(listed, list):
        raise FormatError(f"{path}: its added_tokens are no list")
    for entry in listed:
        if (
            not isinstance(entry, dict)
            or not is_id(entry.get("id"))
            or not isinstance(entry.get("content"), str)
        ):
            raise FormatError(f"{path}: the added token {entry!r:.80} has no id or no content")
        added[entry["id"]] = AddedToken(entry["content"], bool(entry.get("special")))
    return added


def add_listed_tokens(vocab: Vocab, path: Path, root: dict[str, Any]) -> None:
    """Gives a SentencePiece vocabulary the tokens that the tokenizer.json beside it adds.

    Raises FormatError when that is malformed.
    """
    vocab.add(_added_tokens(path, root.get("added_tokens") or []))
    model = root.get("model")
    listed = model.get("vocab") if isinstance(model, dict) else None
    for token, i in listed.items() if isinstance(listed, dict) else ():
        if not is_id(i) or i >= len(vocab.tokens) or vocab.tokens[i] != token:
            vocab.notes.append(
                f"{path} holds another vocabulary than {vocab.path}, which was taken: there token "
                f"{i!r:.20} is {token!r:.80}; pass that file with --vocab if it is the model's"
            )
            return


def _nodes(path: Path, node: object) -> Iterator[dict[str, Any]]:
    """The steps of a tokenizer's part, with those of nested sequences in their places."""
    if node is None:
        return
    if not isinstance(node, dict) or not isinstance(node.get("type"), str):
        raise FormatError(f"{path}: {node!r:.80} is no step of a tokenizer")
    if node["type"] != "Sequence":
        yield node
        return
    members = node.get("normalizers", node.get("pretokenizers", node.get("processors")))
    if not isinstance(members, list):
        raise FormatError(f"{path}: a sequence of steps in it is no list")
    for member in members:
        yield from _nodes(path, member)


def _byte_level(
    path: Path,
    tokens: dict[int, str],
    merges: list[tuple[str, str]],
    root: dict[str, Any],
    steps: list[dict[str, Any]],
) -> Vocab:
    """GPT-2's kind: words of bytes, each spelled as a printable character."""
    vocab = _vocab(path, "gpt2", tokens, [TokenType.NORMAL] * (max(tokens) + 1))
    vocab.merges = [f"{left} {right}" for left, right in merges]
    words = tuple(word for step in steps for word in _word_steps(path, step))
    name = _PRE.get(words)
    if name is None:
        shown = ", then ".join(word.replace("\r", r"\r").replace("\n", r"\n") for word in words)
        raise UnsupportedError(
            f"{path} splits text by {shown or 'nothing'}, a pre-tokenizer that is not supported; "
            f"supported are those named {', '.join(_PRE.values())}"
        )
    vocab.pre = name
    ignores = bool(root["model"].get("ignore_merges"))
    if ignores != (name in _IGNORES_MERGES):
        vocab.notes.append(
            f"{path.name} says ignore_merges {str(ignores).lower()}, which the pre-tokenizer "
            f"{name} does not: a few words can be split otherwise"
        )
    for node in _nodes(path, root.get("normalizer")):
        _note_normalizer(vocab, node)
    return vocab


def _word_steps(path: Path, step: dict[str, Any]) -> Iterator[str]:
    kind = step["type"]
    if kind == "ByteLevel":
        if step.get("add_prefix_space"):
            raise UnsupportedError(
                f"{path} puts a space before text (ByteLevel with add_prefix_space), which is not "
                "supported"
            )
        if step.get("use_regex", True):
            yield _GPT2
    elif kind == "Digits":
        yield _DIGITS if step.get("individual_digits") else "runs of digits"
    elif kind == "Split" and isinstance(step.get("pattern"), dict):
        pattern = step["pattern"].get("Regex")
        known = step.get("behavior") == "Isolated" and not step.get("invert")
        if known and isinstance(pattern, str):
            yield _DEEPSEEK_LETTERS if pattern.startswith(_DEEPSEEK_LETTERS) else pattern
        else:
            yield f"Split({step['pattern']!r:.200}, {step.get('behavior')!r:.40})"
    else:
        yield kind


def _characters(
    path: Path,
    tokens: dict[int, str],
    merges: list[tuple[str, str]],
    root: dict[str, Any],
    steps: list[dict[str, Any]],
    added: dict[int, AddedToken],
) -> Vocab:
    """LLaMA's kind: text with its spaces written as U+2581, merged from characters."""
    types = [TokenType.UNUSED] * (max(tokens) + 1)
    for i, token in tokens.items():
        types[i] = TokenType.BYTE if _BYTE.fullmatch(token) else TokenType.NORMAL
    vocab = _vocab(path, "llama", tokens, types)
    if (unknown := _id_in(tokens, root["model"].get("unk_token"))) is not None:
        vocab.types[unknown] = TokenType.UNKNOWN
    vocab.scores = _scores(path, tokens, merges, added)
    escapes = False
    for node in _nodes(path, root.get("normalizer")):
        if node["type"] == "Prepend" and node.get("prepend") == _SPACE:
            vocab.add_space_prefix = True
        elif node["type"] == "Replace" and node.get("content") == _SPACE:
            escapes = escapes or node.get("pattern") == {"String": " "}
        else:
            _note_normalizer(vocab, node)
    for step in steps:
        if step["type"] != "Metaspace" or step.get("replacement", _SPACE) != _SPACE:
            raise UnsupportedError(
                f"{path} splits text by {step['type']:.40}, a pre-tokenizer that is not supported "
                "for a vocabulary of characters"
            )
        escapes = True
        scheme = step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "")
        vocab.add_space_prefix = scheme in ("first", "always")
        inner = next((token for token in tokens.values() if _SPACE in token[1:]), None)
        if step.get("split", True) and inner is not None:
            raise UnsupportedError(
                f"{path} never merges across spaces (Metaspace with split), but has tokens such as "
                f"{inner!r:.40}: this is not supported"
            )
    if not escapes:
        raise UnsupportedError(
            f"{path} splits text neither into bytes nor at spaces written as U+2581: this kind of "
            "vocabulary is not supported"
        )
    return vocab


def _scores(
    path: Path,
    tokens: dict[int, str],
    merges: list[tuple[str, str]],
    added: dict[int, AddedToken],
) -> list[float]:
    """A score for each token, such that merging by scores does what the list of merges does.

    Merging by scores joins any two neighbours that make a token, the best token first. That is
    what the list says too when it has, token after token, every pair that makes it, as lists made
    from SentencePiece models have. (Of two overlapping places for one token the list may prefer
    another than the leftmost; SentencePiece, with which such models were trained, never does.)
    """
    rank: dict[str, int] = {}
    last = None
    for left, right in merges:
        made = left + right
        if made != last and made in rank:
            raise UnsupportedError(
                f"{path}: the merges that make {made!r:.80} lie apart, so its tokens cannot be "
                "stated as scores; pass the model's tokenizer.model with --vocab"
            )
        last = made
        rank.setdefault(made, len(rank))
    listed = set(merges)
    made_of = {t for t in tokens.values() if t in rank or len(t) == 1}
    for token in (token for i, token in tokens.items() if i not in added):
        for i in range(1, len(token)):
            pair = token[:i], token[i:]
            if pair not in listed and pair[0] in made_of and pair[1] in made_of:
                raise UnsupportedError(
                    f"{path}: the tokens {pair[0]!r:.80} and {pair[1]!r:.80} make one but are not "
                    "merged, so its tokens cannot be stated as scores; pass the model's "
                    "tokenizer.model with --vocab"
                )
    scores = [LEAST_SCORE] * (max(tokens) + 1)
    for i, token in tokens.items():
        scores[i] = -float(rank.get(token, len(rank) + i))
    return scores


def _vocab(path: Path, model: str, tokens: dict[int, str], types: list[TokenType]) -> Vocab:
    n = max(tokens) + 1
    texts = [tokens.get(i, f"[PAD{i}]") for i in range(n)]
    kinds = [int(kind if i in tokens else TokenType.UNUSED) for i, kind in enumerate(types)]
    return Vocab(path, model, texts, kinds, n_trained=n)


def _note_normalizer(vocab: Vocab, node: dict[str, Any]) -> None:
    kind = node["type"]
    if kind not in ("NFC", "NFKC", "Precompiled", "Replace"):
        raise UnsupportedError(
            f"{vocab.path} normalizes text by {kind:.40}, which is not supported"
        )
    vocab.notes.append(
        f"the vocabulary normalizes text ({kind}), which is not done here: other spellings of a "
        "character give other tokens than in training"
    )


def _id_in(tokens: dict[int, str], text: object) -> int | None:
    return next((i for i, token in tokens.items() if token == text), None)


def _ends_added(path: Path, post_processor: object) -> tuple[object, object]:
    """The special tokens that are put before and after a text, if any."""
    for node in _nodes(path, post_processor):
        single = node.get("single")
        if node["type"] != "TemplateProcessing" or not isinstance(single, list):
            continue
        parts = [part.get("SpecialToken") for part in single if isinstance(part, dict)]
        names = [part.get("id") if isinstance(part, dict) else None for part in parts]
        if len(names) > 1:
            return names[0], names[-1]
    return None, None
