"""Saved texts: tokens, keys and values of a sequence, as docs/formats.md has them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import BytesIO
from typing import TYPE_CHECKING, Protocol

from . import _core
from .errors import ContextFullError, FormatError, InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

MAGIC = b"PYLLSTAT"
VERSION = 1
MOST_HEADER_BYTES = 65536
_DIGEST_BYTES = 32
_FIXED_BYTES = len(MAGIC) + 4


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> int:
        """Takes all of `data`."""


@dataclass(frozen=True)
class Origin:
    """What keys and values depend on besides the tokens.

    model: SHA-256 of `Model.identity`. kv_layout: of the context. computed_by: the kernels that
    made the numbers; others could read them, but make ones that differ in rounding.
    """

    model: str
    kv_layout: str
    computed_by: str

    @classmethod
    def of(cls, model: _core.Model, context: _core.Context) -> Origin:
        """That of a context's texts. Raises UnsupportedError where a GPU holds layers of them."""
        assert context.page_bytes > 0  # asked for what it raises
        return cls(
            hashlib.sha256(model.identity()).hexdigest(),
            context.kv_layout,
            f"{_core.isa()}, repack={model.repack}",
        )


@dataclass(frozen=True)
class Head:
    """What the header of a state says; all numbers are checked against the bytes there are.

    n_scores: rows of logits, the last ones. seed: of the `Llama` that saved it, -1: not known.
    """

    origin: Origin
    n_tokens: int
    n_scores: int
    n_vocab: int
    page_tokens: int
    page_bytes: int
    seed: int

    @property
    def n_pages(self) -> int:
        """Pages that the tokens take."""
        return -(-self.n_tokens // self.page_tokens)

    @property
    def body_bytes(self) -> int:
        """Bytes that follow the header."""
        scores = 4 * self.n_scores * self.n_vocab
        return 4 * self.n_tokens + scores + self.n_pages * self.page_bytes + _DIGEST_BYTES

    def to_bytes(self) -> bytes:
        """The start of a state, up to the tokens."""
        text = json.dumps({"version": VERSION, **asdict(self)}).encode()
        return MAGIC + len(text).to_bytes(4, "little") + text


def read_head(data: bytes, n_bytes: int, name: str) -> tuple[Head, int]:
    """The header of a state of n_bytes that begins with `data`, and where its tokens begin.

    Raises FormatError naming `name` for anything else, UnsupportedError for a later version.
    """
    if data[: len(MAGIC)] != MAGIC or len(data) < _FIXED_BYTES:
        raise FormatError(f"{name}: this is no saved state: it does not begin with {MAGIC!r}")
    n_header = int.from_bytes(data[len(MAGIC) : _FIXED_BYTES], "little")
    start = _FIXED_BYTES + n_header
    if n_header > MOST_HEADER_BYTES or start > len(data):
        raise FormatError(f"{name}: the header is damaged or cut off")
    try:
        found = json.loads(data[_FIXED_BYTES:start])
    except (ValueError, RecursionError):
        raise FormatError(f"{name}: the header is damaged") from None
    if not isinstance(found, dict) or not isinstance(found.get("version"), int):
        raise FormatError(f"{name}: the header states no version")
    if found["version"] != VERSION:
        raise UnsupportedError(
            f"{name}: version {found['version']} of the format; this release reads {VERSION}"
        )
    head = _head_of(found, name)
    if start + head.body_bytes != n_bytes:
        raise FormatError(
            f"{name}: {n_bytes} bytes, where the header says {start + head.body_bytes}"
        )
    return head, start


def _head_of(found: dict[str, object], name: str) -> Head:
    origin = found.get("origin")
    if not isinstance(origin, dict):
        raise FormatError(f"{name}: the header states no origin")
    words = {entry.name: origin.get(entry.name) for entry in fields(Origin)}
    numbers = {entry.name: found.get(entry.name) for entry in fields(Head)[1:]}
    least = {"seed": -1, "page_tokens": 1}
    for key, word in words.items():
        if not isinstance(word, str):
            raise FormatError(f"{name}: {key} of the header is no text")
    for key, number in numbers.items():
        if type(number) is not int or not least.get(key, 0) <= number < 1 << 64:
            raise FormatError(f"{name}: {key} of the header is out of range")
    head = Head(Origin(**words), **numbers)  # type: ignore[arg-type]
    if head.n_scores > head.n_tokens:
        raise FormatError(f"{name}: the header states more logits than tokens")
    return head


class LlamaState:
    """A text as `Llama.save_state` leaves it: its tokens with their keys and values.

    llama_state: all of it as bytes, whose copy in a file gives the same state again.
    """

    def __init__(self, llama_state: bytes) -> None:
        """Reads a state. Raises FormatError where the bytes are not as they were written."""
        name = "the state"
        self.llama_state = bytes(llama_state)
        self._head, self._start = read_head(self.llama_state, len(self.llama_state), name)
        body = memoryview(self.llama_state)[:-_DIGEST_BYTES]
        if hashlib.sha256(body).digest() != self.llama_state[-_DIGEST_BYTES:]:
            raise FormatError(f"{name}: the checksum does not fit: bytes were changed or lost")

    @classmethod
    def _written(cls, llama_state: bytes, head: Head) -> LlamaState:
        """Of bytes that were made from this header just now: there is nothing to check."""
        state = cls.__new__(cls)
        state.llama_state, state._head, state._start = llama_state, head, len(head.to_bytes())
        return state

    def __reduce__(self) -> tuple[type[LlamaState], tuple[bytes]]:
        return LlamaState, (self.llama_state,)

    @property
    def head(self) -> Head:
        """What the header says."""
        return self._head

    @property
    def llama_state_size(self) -> int:
        """Length of llama_state."""
        return len(self.llama_state)

    @property
    def n_tokens(self) -> int:
        """How many tokens the text has."""
        return self._head.n_tokens

    @property
    def seed(self) -> int:
        """Of the `Llama` that saved it; -1: not known."""
        return self._head.seed

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The tokens, int32 [n_tokens]."""
        import numpy as np

        return np.frombuffer(self.llama_state, "<i4", self.n_tokens, self._start)

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """The rows of logits there were, float32 [n, n_vocab]: of the last n tokens."""
        import numpy as np

        h = self._head
        start = self._start + 4 * h.n_tokens
        rows = np.frombuffer(self.llama_state, "<f4", h.n_scores * h.n_vocab, start)
        return rows.reshape(h.n_scores, h.n_vocab)

    def pages(self, n_tokens: int) -> memoryview:
        """Keys and values of the first n_tokens."""
        h = self._head
        start = self._start + 4 * (h.n_tokens + h.n_scores * h.n_vocab)
        n_bytes = -(-n_tokens // h.page_tokens) * h.page_bytes
        return memoryview(self.llama_state)[start : start + n_bytes]


def write_state(
    sink: Sink,
    context: _core.Context,
    sequence: int,
    head: Head,
    scores: npt.NDArray[np.single] | None = None,
) -> None:
    """Writes the first tokens of a sequence page by page, as the header says."""
    import numpy as np

    digest = hashlib.sha256()

    def write(data: bytes) -> None:
        digest.update(data)
        sink.write(data)

    write(head.to_bytes())
    write(np.array(context.tokens(sequence)[: head.n_tokens], dtype="<i4").tobytes())
    if scores is not None:
        write(scores.astype("<f4").tobytes())
    for page in range(head.n_pages):
        write(context.save_page(sequence, page, head.n_tokens))
    sink.write(digest.digest())


def head_of(
    context: _core.Context, origin: Origin, n_tokens: int, *, n_vocab: int, n_scores: int, seed: int
) -> Head:
    """The header of so many tokens of a context."""
    return Head(origin, n_tokens, n_scores, n_vocab, context.page_tokens, context.page_bytes, seed)


def state_of(
    context: _core.Context,
    sequence: int,
    head: Head,
    scores: npt.NDArray[np.single] | None = None,
) -> LlamaState:
    """The first tokens of a sequence as a state."""
    out = BytesIO()
    write_state(out, context, sequence, head, scores)
    return LlamaState._written(out.getvalue(), head)


def require_fit(state: LlamaState, origin: Origin, context: _core.Context) -> None:
    """Raises InvalidArgumentError or ContextFullError where the context cannot hold the state."""
    h = state.head
    if h.origin.model != origin.model:
        raise InvalidArgumentError("the state was saved with another model")
    if h.origin.kv_layout != origin.kv_layout:
        raise InvalidArgumentError(
            f"the state has {h.origin.kv_layout}; this context has {origin.kv_layout}"
        )
    if h.origin.computed_by != origin.computed_by:
        raise InvalidArgumentError(
            f"the state was computed by {h.origin.computed_by}; {origin.computed_by} here would go "
            "on in other roundings: evaluate its tokens again"
        )
    if (h.page_tokens, h.page_bytes) != (context.page_tokens, context.page_bytes):
        raise FormatError("the state's pages are not of the size that its layout has")
    if h.n_tokens > context.n_ctx:
        raise ContextFullError(
            f"Requested tokens ({h.n_tokens}) exceed context window of {context.n_ctx}"
        )


def common_length(a: Sequence[int] | npt.NDArray[np.intc], b: npt.NDArray[np.intc]) -> int:
    """How many tokens two texts begin with alike."""
    import numpy as np

    n = min(len(a), len(b))
    different = np.nonzero(np.asarray(a[:n], dtype=np.int64) != b[:n])[0]
    return int(different[0]) if len(different) else n
