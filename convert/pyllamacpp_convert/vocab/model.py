"""A vocabulary as the GGUF states it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from enum import IntEnum
from pathlib import Path

from pyllamacpp.errors import FormatError
from pyllamacpp_convert.writer import Value

# An embedding is often padded to a multiple of some power of two; beyond this many rows (or a tenth
# of them) the vocabulary is taken to be another model's.
_MOST_PADDING = 1024


class TokenType(IntEnum):
    """Values of tokenizer.ggml.token_type, and of the piece types of SentencePiece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class AddedToken:
    """A token beside the trained ones. special: never text, unless asked for."""

    text: str
    special: bool


@dataclass
class Vocab:
    """Tokens in the order of their ids, and what says how text is split into them.

    path: the file it came from; files: all that were read. model: "llama" (merges by scores) or
    "gpt2" (byte-level text, merges listed). n_trained: ids below it were trained, those above
    were added. pre: the pre-tokenizer's name. bos, eos, ...: ids. add_bos, ...: whether texts begin
    or end with those. chat_templates: by name, the usual one is "default". notes: one sentence
    each, for the user.
    """

    path: Path
    model: str
    tokens: list[str]
    types: list[int]
    n_trained: int
    scores: list[float] = field(default_factory=list)
    merges: list[str] = field(default_factory=list)
    pre: str = "default"
    bos: int | None = None
    eos: int | None = None
    eot: int | None = None
    unknown: int | None = None
    padding: int | None = None
    add_bos: bool = True
    add_eos: bool = False
    add_space_prefix: bool = False
    remove_extra_whitespaces: bool = False
    chat_templates: dict[str, str] = field(default_factory=dict)
    files: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, added: dict[int, AddedToken]) -> None:
        """Puts tokens at their ids; ids between them that nothing has become unused tokens.

        Raises FormatError for ids far beyond the tokens there are.
        """
        for i in sorted(added):
            token = added[i]
            kind = TokenType.CONTROL if token.special else TokenType.USER_DEFINED
            if not 0 <= i <= 2 * len(self.tokens) + 65536:
                raise FormatError(
                    f"{self.path}: the added token {token.text!r:.80} has the id {i}, but there "
                    f"are {len(self.tokens)} tokens"
                )
            self._pad(i + 1)
            if self.tokens[i] == token.text and self.types[i] == TokenType.UNKNOWN:
                continue
            self.tokens[i], self.types[i] = token.text, kind

    def find(self, text: str) -> int | None:
        """The id of a token."""
        try:
            return self.tokens.index(text)
        except ValueError:
            return None

    def fitted(self, n_rows: int) -> Vocab:
        """The vocabulary of a model with so many rows in its embedding, with notes on what changed.

        Raises FormatError where it cannot be that model's.
        """
        n = len(self.tokens)
        fitted = replace(
            self,
            tokens=self.tokens[:n_rows],
            types=self.types[:n_rows],
            scores=self.scores[:n_rows],
            notes=[*self.notes],
        )
        if n_rows < self.n_trained or n_rows - n > max(_MOST_PADDING, n_rows // 10):
            raise FormatError(
                f"{self.path} is not this model's vocabulary: it has {n} tokens, the model's "
                f"embedding {n_rows} rows; pass the model's own with --vocab"
            )
        if n < n_rows:
            fitted._pad(n_rows)
            fitted.notes.append(
                f"the embedding has {n_rows} rows, the vocabulary {n} tokens: the last "
                f"{n_rows - n} rows get unused tokens"
            )
        elif n > n_rows:
            names = ", ".join(repr(token) for token in self.tokens[n_rows : n_rows + 5])
            fitted.notes.append(
                f"the embedding has {n_rows} rows, the vocabulary {n} tokens: left out "
                f"{'is' if n - n_rows == 1 else 'are'} {names}{', ...' if n - n_rows > 5 else ''}"
            )
            for name in ("bos", "eos", "eot", "unknown", "padding"):
                if (getattr(fitted, name) or 0) >= n_rows:
                    setattr(fitted, name, None)
        return fitted

    def metadata(self, n_rows: int) -> dict[str, Value]:
        """The GGUF keys of the vocabulary, for a model with so many rows in its embedding.

        Raises FormatError where the vocabulary cannot be that model's, or holds what is not text.
        """
        fitted = self.fitted(n_rows)
        self.notes = fitted.notes
        fitted._check()
        out: dict[str, Value] = {
            "tokenizer.ggml.model": fitted.model,
            "tokenizer.ggml.pre": fitted.pre,
            "tokenizer.ggml.tokens": fitted.tokens,
            "tokenizer.ggml.token_type": [int(kind) for kind in fitted.types],
        }
        if fitted.model == "llama":
            out["tokenizer.ggml.scores"] = fitted.scores
            out["tokenizer.ggml.remove_extra_whitespaces"] = fitted.remove_extra_whitespaces
        if fitted.merges:
            out["tokenizer.ggml.merges"] = fitted.merges
        for name in ("bos", "eos", "eot", "unknown", "padding"):
            if (token_id := getattr(fitted, name)) is not None:
                out[f"tokenizer.ggml.{name}_token_id"] = token_id
        out["tokenizer.ggml.add_bos_token"] = fitted.add_bos and fitted.bos is not None
        out["tokenizer.ggml.add_eos_token"] = fitted.add_eos and fitted.eos is not None
        out["tokenizer.ggml.add_space_prefix"] = fitted.add_space_prefix
        for name, template in sorted(fitted.chat_templates.items()):
            if not _is_text(template):
                raise FormatError(f"{self.path}: the chat template {name!a:.80} is not text")
            if not (name.isascii() and name.isprintable() and 0 < len(name) <= 64):
                raise FormatError(
                    f"{self.path}: {name!a:.80} cannot be a chat template's name in a GGUF file"
                )
            key = "tokenizer.chat_template"
            out[key if name == "default" else f"{key}.{name}"] = template
        if others := sorted(fitted.chat_templates.keys() - {"default"}):
            out["tokenizer.chat_templates"] = others
        return out

    def _check(self) -> None:
        """Raises FormatError for what no engine can use."""
        for i, token in enumerate(self.tokens):
            if not _is_text(token):
                raise FormatError(f"{self.path}: token {i}, {token!a:.80}, is not text")
        if self.model != "llama":
            return
        for i, score in enumerate(self.scores):
            if math.isnan(score):
                raise FormatError(f"{self.path}: the score of token {i} is not a number")
        # What no token spells is spelled in bytes, or else is the unknown token.
        found = {t for t, kind in zip(self.tokens, self.types, strict=True) if kind == _BYTE}
        wrong = next(iter(found - _BYTES), None)
        if wrong is not None:
            raise FormatError(f"{self.path}: {wrong!r:.80} is marked as a byte, but spells none")
        if self.unknown is None and found != _BYTES:
            raise FormatError(
                f"{self.path} has neither a token for each byte nor an unknown token, so there is "
                "text that it cannot express"
            )

    def _pad(self, n: int) -> None:
        """Unused tokens up to `n` tokens."""
        ids = range(len(self.tokens), n)
        self.tokens += [f"[PAD{i}]" for i in ids]
        self.types += [TokenType.UNUSED for _ in ids]
        if self.model == "llama":
            self.scores += [LEAST_SCORE for _ in ids]


_BYTE = TokenType.BYTE
_BYTES = {f"<0x{byte:02X}>" for byte in range(256)}

# Of tokens that no merge should make: below every trained one's.
LEAST_SCORE = -1e9


def _is_text(text: str) -> bool:
    """False for strings with half a surrogate pair, which JSON can hold and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
