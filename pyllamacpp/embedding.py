"""Texts to vectors: the hidden states of their tokens, pooled, laid out as OpenAI lays them out."""

from __future__ import annotations

import math
import threading
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import index
from typing import TYPE_CHECKING, Any, Literal, TypedDict, overload

from . import _core
from .errors import (
    CancelledError,
    ContextFullError,
    FormatError,
    InvalidArgumentError,
    UnsupportedError,
)
from .loading import require_room
from .log import logger

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Rows = npt.NDArray[np.float32]  # [n, n_embd]

# llama.cpp's numbers of what becomes of the vectors of a text's tokens.
LLAMA_POOLING_TYPE_UNSPECIFIED = -1  # what the file says, else none
LLAMA_POOLING_TYPE_NONE = 0  # all of them
LLAMA_POOLING_TYPE_MEAN = 1  # their mean
LLAMA_POOLING_TYPE_CLS = 2  # the first
LLAMA_POOLING_TYPE_LAST = 3  # the last
LLAMA_POOLING_TYPE_RANK = 4  # a score by a classifier's head: not supported

_POOLINGS = range(LLAMA_POOLING_TYPE_NONE, LLAMA_POOLING_TYPE_LAST + 1)

# Texts of one evaluation.
MOST_TEXTS = 64

Text = str | Sequence[int]
"""A text, or its token ids as they are."""

Vectors = list[float] | list[list[float]] | list[list[list[float]]]
"""One vector, or one per text or per token, or for each text one per token."""


class Embedding(TypedDict):
    """The vector of one input, or with pooling "none" the vectors of its tokens.

    With encoding_format="base64" each vector is its float32 values, little-endian, in base64.
    """

    object: Literal["embedding"]
    embedding: list[float] | list[list[float]] | str | list[str]
    index: int


class EmbeddingUsage(TypedDict):
    """Tokens evaluated, of all inputs."""

    prompt_tokens: int
    total_tokens: int


class CreateEmbeddingResponse(TypedDict):
    """What `create_embedding` returns."""

    object: Literal["list"]
    data: list[Embedding]
    model: str
    usage: EmbeddingUsage


def pooling_of(model: _core.Model, pooling_type: int) -> int:
    """The pooling that `pooling_type` means for a model: unspecified is the file's own, else none.

    Raises UnsupportedError for another than -1 to 3, FormatError where the file's is no number.
    """
    chosen: object = pooling_type
    where = "pooling_type"
    if pooling_type == LLAMA_POOLING_TYPE_UNSPECIFIED:
        key = f"{model.config.architecture}.pooling_type"
        chosen = model.metadata.get(key, LLAMA_POOLING_TYPE_NONE)
        where = f"{model.path}: {key}"
        if not isinstance(chosen, int):
            raise FormatError(f"{where} is {chosen!r:.80}, expected a number")
    if not isinstance(chosen, int) or chosen not in _POOLINGS:
        raise UnsupportedError(
            f"{where} is {chosen!r:.80}; supported are none (0), mean (1), cls (2) and last (3)"
        )
    return int(chosen)


class Embedder:
    """Vectors of texts, evaluated on a context of its own, which is made at the first use.

    A vector is the same to the last bit whatever else is in the batch, and whatever n_batch and
    n_threads are. Threads that share an embedder take turns.
    """

    def __init__(
        self,
        model: _core.Model,
        n_ctx: int = 0,
        n_batch: int = 512,
        n_threads: int = 0,
        pooling_type: int = LLAMA_POOLING_TYPE_UNSPECIFIED,
        *,
        type_k: str = "f16",
        type_v: str = "f16",
        rope: _core.RopeOverrides | None = None,
    ) -> None:
        """Takes note of what the context will be.

        n_ctx: tokens of one text at most; 0: as many as the model was made for.
        n_batch: tokens evaluated in one pass at most. n_threads: 0: a fitting number.
        pooling_type: one of the LLAMA_POOLING_TYPE_ numbers, see `pooling_of`.
        type_k, type_v: what the keys and values of a text are kept in while it is evaluated.
        rope: settings in place of the file's.
        """
        self.model = model
        self.tokenizer = model.tokenizer
        self.n_ctx = n_ctx or model.config.n_ctx_train
        self.pooling_type = pooling_of(model, pooling_type)
        self._n_batch = min(n_batch, self.n_ctx)
        self._n_threads = n_threads
        self._shape: dict[str, Any] = {"type_k": type_k, "type_v": type_v}
        if rope is not None:
            self._shape["rope"] = rope
        self._lock = threading.Lock()
        self._context: _core.Context | None = None
        self._has_room_for = 0  # tokens evaluated together, as far as memory was looked at

    @property
    def n_embd(self) -> int:
        """Values of a vector."""
        return self.model.config.n_embd

    def close(self) -> None:
        """Frees the context. A later call makes it again."""
        with self._lock:
            self._context = None
            self._has_room_for = 0

    @overload
    def embed(
        self,
        input: Text | Iterable[Text],
        normalize: bool = ...,
        truncate: bool = ...,
        return_count: Literal[False] = ...,
        *,
        dimensions: int | None = ...,
        is_cancelled: Callable[[], bool] = ...,
    ) -> Vectors: ...
    @overload
    def embed(
        self,
        input: Text | Iterable[Text],
        normalize: bool = ...,
        truncate: bool = ...,
        *,
        return_count: Literal[True],
        dimensions: int | None = ...,
        is_cancelled: Callable[[], bool] = ...,
    ) -> tuple[Vectors, int]: ...
    def embed(
        self,
        input: Text | Iterable[Text],  # noqa: A002  (llama-cpp-python's name)
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
        *,
        dimensions: int | None = None,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> Vectors | tuple[Vectors, int]:
        """The vector of a text, or a list of them for several; lists of n_embd floats.

        With pooling none, in place of each vector a list of those of the text's tokens.

        Args:
            input: a string, a list of token ids, or any number of these. Strings begin and end
                with the tokens that the vocabulary asks for; special tokens are not parsed.
            normalize: give each vector length 1 (one of zeros stays as it is).
            truncate: cut longer texts off at n_ctx tokens, with one logged warning.
            return_count: return also how many tokens there were, as (vectors, count).
            dimensions: only the first so many values of each vector, before normalizing.
            is_cancelled: asked before each batch; once it says True, no more is evaluated.

        Raises:
            CancelledError: is_cancelled said so.
            InvalidArgumentError: an input without tokens, a bad token id, a wrong type.
            ContextFullError: an input is longer than n_ctx, with truncate=False.
            OutOfMemoryError. FormatError: the weights give values that are not finite.
        """
        if dimensions is not None and not 1 <= dimensions <= self.n_embd:
            raise InvalidArgumentError(
                f"dimensions must lie in 1 .. {self.n_embd}, found {dimensions}"
            )
        texts, is_one = _as_texts(input)
        tokens = self._cut([self._tokens(text, i) for i, text in enumerate(texts)], truncate)
        vectors = [
            _as_floats(row[:dimensions], normalize)
            for rows in self._pooled(tokens, is_cancelled)
            for row in rows
        ]
        found: list[list[float]] | list[list[list[float]]] = vectors
        if self.pooling_type == LLAMA_POOLING_TYPE_NONE:
            left = iter(vectors)
            found = [[next(left) for _ in text] for text in tokens]
        result: Vectors = found[0] if is_one else found
        return (result, sum(map(len, tokens))) if return_count else result

    def create_embedding(
        self,
        input: Text | Iterable[Text],  # noqa: A002  (llama-cpp-python's name)
        model: str | None = None,
        *,
        encoding_format: Literal["float", "base64"] = "float",
        dimensions: int | None = None,
        normalize: bool = False,
        is_cancelled: Callable[[], bool] = lambda: False,
    ) -> CreateEmbeddingResponse:
        """The vectors of `embed` in OpenAI's layout.

        model: the name to state in the result; None: the file's path.
        encoding_format: "base64" packs each vector, see `Embedding`.
        """
        if encoding_format not in ("float", "base64"):
            raise InvalidArgumentError(
                f"encoding_format must be 'float' or 'base64', found {encoding_format!r:.80}"
            )
        texts, _ = _as_texts(input)
        vectors, n_tokens = self.embed(
            texts,
            normalize=normalize,
            return_count=True,
            dimensions=dimensions,
            is_cancelled=is_cancelled,
        )
        entries: Sequence[Any] = vectors
        if encoding_format == "base64":
            entries = [_packed(vector) for vector in entries]
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "embedding": entry, "index": i}
                for i, entry in enumerate(entries)
            ],
            "model": self.model.path if model is None else model,
            "usage": {"prompt_tokens": n_tokens, "total_tokens": n_tokens},
        }

    # -- texts -----------------------------------------------------------------------------------

    def _tokens(self, text: object, i: int) -> list[int]:
        if isinstance(text, str):
            # Lone surrogates stand for bytes that were no UTF-8 where the text came from.
            data = text.encode("utf-8", "surrogateescape")
            tokens = self.tokenizer.encode(data, True, False)
        else:
            tokens = _as_ids(text, i)
        if not tokens:
            raise InvalidArgumentError(f"input {i} is empty: it has no tokens to embed")
        n_vocab = self.model.config.n_vocab
        for token in (min(tokens), max(tokens)):
            if not 0 <= token < n_vocab:
                raise InvalidArgumentError(
                    f"token {token} of input {i} is outside the vocabulary of {n_vocab}"
                )
        return tokens

    def _cut(self, texts: list[list[int]], truncate: bool) -> list[list[int]]:
        """At most n_ctx tokens of each."""
        too_long = [i for i, text in enumerate(texts) if len(text) > self.n_ctx]
        if not too_long:
            return texts
        if not truncate:
            i = too_long[0]
            raise ContextFullError(
                f"Requested tokens ({len(texts[i])}) exceed context window of {self.n_ctx}: "
                f"input {i}"
            )
        logger.warning(
            "%d of %d inputs are longer than the context of %d tokens: %d tokens were dropped at "
            "their ends",
            len(too_long),
            len(texts),
            self.n_ctx,
            sum(len(texts[i]) - self.n_ctx for i in too_long),
        )
        return [text[: self.n_ctx] for text in texts]

    # -- evaluation ------------------------------------------------------------------------------

    def _pooled(self, texts: list[list[int]], is_cancelled: Callable[[], bool]) -> Iterator[Rows]:
        """Of each text in order: its vector, or its tokens' vectors, as rows."""
        import numpy as np

        if self.pooling_type == LLAMA_POOLING_TYPE_CLS:
            # No token changes what came before it: the first needs no other.
            texts = [text[:1] for text in texts]
        for group in _groups(texts, self._n_batch):
            for text, kept in zip(group, self._evaluate(group, is_cancelled), strict=True):
                rows = np.concatenate(kept)
                if self.pooling_type == LLAMA_POOLING_TYPE_MEAN:
                    rows = rows / len(text)
                if not np.isfinite(rows).all():
                    raise FormatError(
                        f"{self.model.path}: a vector has values that are not finite: "
                        "the model's weights are damaged"
                    )
                yield rows.astype(np.float32)

    def _evaluate(
        self, texts: list[list[int]], is_cancelled: Callable[[], bool]
    ) -> list[list[npt.NDArray[np.floating]]]:
        """What pooling needs of each text's hidden states."""
        kept: list[list[npt.NDArray[np.floating]]] = [[] for _ in texts]
        wants_all = self.pooling_type in (LLAMA_POOLING_TYPE_NONE, LLAMA_POOLING_TYPE_MEAN)
        with self._lock:
            context = self._open(sum(map(len, texts)))
            try:
                # A second round only for a text that is longer than a batch, which is alone.
                for start in range(0, max(map(len, texts)), context.n_batch):
                    if is_cancelled():
                        raise CancelledError("the embedding was cancelled")
                    parts = [text[start : start + context.n_batch] for text in texts]
                    rows = context.embed(
                        [(i, part, "all" if wants_all else "last") for i, part in enumerate(parts)]
                    )
                    n_done = 0
                    for own, part in zip(kept, parts, strict=True):
                        n = len(part) if wants_all else 1
                        self._keep(own, rows[n_done : n_done + n])
                        n_done += n
            finally:
                for i in range(len(texts)):
                    context.trim(i, 0)
        return kept

    def _keep(self, kept: list[npt.NDArray[np.floating]], rows: Rows) -> None:
        """Adds the rows that follow to what is kept of a text; for the mean, the sum so far."""
        import numpy as np

        if self.pooling_type == LLAMA_POOLING_TYPE_NONE:
            kept.append(rows)
        elif self.pooling_type == LLAMA_POOLING_TYPE_MEAN:
            if not kept:
                kept.append(np.zeros((1, self.n_embd)))
            for row in rows:  # one by one: where batches were cut must not show
                kept[0] += row
        else:
            kept[:] = [rows]

    def _open(self, n_tokens: int) -> _core.Context:
        """The context, with memory for n_tokens; more of it is touched only as texts fill it."""
        shape = {"n_batch": self._n_batch, **self._shape}
        if n_tokens > self._has_room_for:
            plan = _core.plan_context(self.model, n_ctx=n_tokens, **shape)
            require_room(f"{n_tokens} tokens of texts need", plan.own, plan.available)
            self._has_room_for = n_tokens
        if self._context is None:
            # A GPU's memory is taken at once.
            whole = {"n_ctx": self.n_ctx, "max_sequences": MOST_TEXTS, **shape}
            plan = _core.plan_context(self.model, **whole)
            needer = f"texts of up to {self.n_ctx} tokens need"
            require_room(needer, plan.gpu, plan.gpu_available, "the GPU's memory")
            self._context = _core.Context(
                self.model,
                n_ctx=self.n_ctx,
                n_batch=self._n_batch,
                n_threads=self._n_threads,
                n_threads_batch=self._n_threads,
                max_sequences=MOST_TEXTS,
                **self._shape,
            )
        return self._context


def _groups(texts: list[list[int]], n_batch: int) -> Iterator[list[list[int]]]:
    """Texts in order that fit into a batch together, or one that does not fit alone."""
    group: list[list[int]] = []
    n_tokens = 0
    for text in texts:
        if group and (n_tokens + len(text) > n_batch or len(group) == MOST_TEXTS):
            yield group
            group, n_tokens = [], 0
        group.append(text)
        n_tokens += len(text)
    if group:
        yield group


def _as_texts(inputs: object) -> tuple[list[Text], bool]:
    """The inputs as a list, and whether it is one input by itself."""
    if isinstance(inputs, str):
        return [inputs], True
    if not isinstance(inputs, Iterable) or isinstance(inputs, bytes | bytearray | Mapping):
        raise InvalidArgumentError(
            f"input must be a string, a list of token ids or a list of these, found {inputs!r:.80}"
        )
    items = list(inputs)
    is_one = bool(items) and hasattr(items[0], "__index__")
    return ([items], True) if is_one else (items, False)


def _as_ids(text: object, i: int) -> list[int]:
    try:
        if not isinstance(text, bytes | bytearray):
            return [index(token) for token in text]  # type: ignore[attr-defined]
    except TypeError:
        pass
    raise InvalidArgumentError(
        f"input {i} must be a string or a list of token ids, found {text!r:.80}"
    )


def _as_floats(row: Rows, normalize: bool) -> list[float]:
    import numpy as np

    if normalize:
        values = row.astype(np.float64)
        length = math.sqrt(float(np.add.reduce(values * values)))
        if length > 0:
            row = (values / length).astype(np.float32)
    floats: list[float] = row.tolist()
    return floats


def _packed(vectors: list[float] | list[list[float]]) -> str | list[str]:
    """A vector in base64, or each of a list of them."""
    import numpy as np

    rows = np.asarray(vectors, dtype="<f4")
    texts = [b64encode(row.tobytes()).decode("ascii") for row in np.atleast_2d(rows)]
    return texts if rows.ndim == 2 else texts[0]
