"""A loaded model with its context, as `Llama` builds on it."""

from __future__ import annotations

import os
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast

from . import _core, log
from .embedding import CreateEmbeddingResponse, Embedder, Text, Vectors, pooling_of
from .encoding import GivenTokenizer, InfillTokens
from .engine import Engine
from .errors import (
    FileError,
    InvalidArgumentError,
    ModelFileError,
    NotEnabledError,
    PyllamacppError,
    UnsupportedError,
)
from .llama_cache import BaseLlamaCache, PromptCache
from .loading import GpuLayers, MetaOverrides, add_context, load
from .lora import adapter_bytes, adapter_pairs, load_adapter
from .models.resolve import resolve_model
from .params import (
    RANDOM_SEED,
    SeedSource,
    check_load_arguments,
    kv_type,
    old_arguments,
    rope_overrides,
    rope_warnings,
)
from .state import LlamaState

if TYPE_CHECKING:
    from types import TracebackType

    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Self

    from .drafting import DraftModel

_T = TypeVar("_T")
# Constructor arguments that contexts of one model share.
_OF_THE_WEIGHTS = ("model_path", "vocab_only", "n_gpu_layers", "main_gpu", "kv_overrides")


@dataclass(frozen=True)
class ContextParams:
    """Sizes of a context, in tokens, and the threads for single tokens and for prompts."""

    n_ctx: int
    n_batch: int
    n_threads: int
    n_threads_batch: int


class Session:
    """A loaded model with its context: loading, tokens, evaluation, what the model is."""

    _model: _core.Model | None = None
    _engine: Engine | None = None
    _embedder: Embedder | None = None
    _metadata: dict[str, str] | None = None
    cache: BaseLlamaCache | None = None

    def __init__(
        self,
        model_path: str | os.PathLike[str],
        *,
        n_gpu_layers: GpuLayers = 0,
        split_mode: int = 1,
        main_gpu: int = 0,
        tensor_split: list[float] | None = None,
        vocab_only: bool = False,
        use_mmap: bool = True,
        use_mlock: bool = False,
        kv_overrides: MetaOverrides | None = None,
        seed: int = RANDOM_SEED,
        n_ctx: int = 512,
        n_batch: int = 512,
        n_ubatch: int = 512,
        n_threads: int | None = None,
        n_threads_batch: int | None = None,
        rope_scaling_type: int | None = -1,
        pooling_type: int = -1,
        attention_type: int = -1,
        rope_freq_base: float = 0.0,
        rope_freq_scale: float = 0.0,
        yarn_ext_factor: float = -1.0,
        yarn_attn_factor: float = 1.0,
        yarn_beta_fast: float = 32.0,
        yarn_beta_slow: float = 1.0,
        yarn_orig_ctx: int = 0,
        logits_all: bool = False,
        embedding: bool = False,
        offload_kqv: bool = True,
        flash_attn: bool = False,
        op_offload: bool | None = None,
        swa_full: bool | None = None,
        no_perf: bool = False,
        last_n_tokens_size: int = 64,
        lora_base: str | None = None,
        lora_scale: float = 1.0,
        lora_path: str | None = None,
        numa: bool | int = False,
        chat_format: str | None = None,
        chat_handler: object | None = None,
        draft_model: DraftModel | None = None,
        tokenizer: object | None = None,
        type_k: int | str | None = None,
        type_v: int | str | None = None,
        spm_infill: bool = False,
        verbose: bool = True,
        n_parallel: int = 1,
        progress_callback: Callable[[float], bool | None] | None = None,
        **old: object,
    ) -> None:
        """Loads a model.

        Args:
            model_path: a GGUF file, or the name of a model fetched with `pyllamacpp pull`.
            n_gpu_layers: how many layers run on the GPU, counted from the end, the head being one;
                -1: all; "auto": as many as fit. If fewer can, one UserWarning says why, except for
                "auto". The GPU holds keys and values as f16, q8_0 or q4_0 and takes no LoRA
                adapters; states of layers there cannot be saved.
            main_gpu: number of the GPU as `pyllamacpp devices` lists them, unless PYLLAMACPP_DEVICE
                names one.
            op_offload: True lets long prompts stream the feed-forward weights of layers on the CPU
                through the GPU, where a measurement while loading says that it is faster. Logits
                then depend, within rounding, on how a prompt is split.
            vocab_only: load the tokenizer and the metadata alone.
            seed: of the completions that name none; any value but 0xFFFFFFFF (random) is itself.
            n_ctx: tokens in the context; 0: as many as the model was made for.
            n_batch, n_ubatch: tokens evaluated in one pass at most (the least of both).
            n_threads, n_threads_batch: for single tokens and for prompts; None: a fitting number.
            type_k, type_v: what the KV cache holds: "f32", "f16" (None), "bf16", "q8_0", "q4_0" or
                ggml's number of it.
            last_n_tokens_size: tokens that the penalties look back at.
            logits_all: keep the logits of every token in `scores`.
            embedding: allow `embed` and `create_embedding`.
            pooling_type: LLAMA_POOLING_TYPE_NONE (0), _MEAN (1), _CLS (2) or _LAST (3): what they
                make of a text's tokens; -1: what the file says, else none.
            chat_format: None: the file's own template; "chat_template.NAME": a named template of
                the file; a name registered with `llama_chat_format` or one of
                `llama_chat_format.known_formats()`.
            chat_handler: answers conversations in place of a format: a formatter's
                `to_chat_handler()`, or a function as `LlamaChatCompletionHandler`.
            verbose: turn on the `pyllamacpp` logger.
            no_perf: leave timings out of it.
            lora_path: a LoRA adapter, GGUF or a folder as PEFT saves it, which counts lora_scale
                times; `set_lora` changes that, and `lora` of a call.
            n_parallel: how many texts of n_ctx tokens the KV cache has room for at a time; shorter
                ones share it, and those that find no room wait.
            draft_model: called with the ids so far, an array, it gives ids that may come next,
                which are checked together (`LlamaPromptLookupDecoding`, `SmallModelDrafting`). The
                text stays the same.
            progress_callback: told the share of the weights that is loaded, 0 to 1; False ends
                loading with CancelledError.
            rope_freq_base (> 1), rope_freq_scale (> 0: 1 / how many times longer),
                rope_scaling_type (a LLAMA_ROPE_SCALING_TYPE_ number), yarn_beta_fast,
                yarn_beta_slow, yarn_orig_ctx (tokens): in place of the file's; at their defaults
                the file's count.
            yarn_ext_factor: the share of its own that a fast dimension keeps; more than 0 makes
                YaRN of linear scaling. yarn_attn_factor (> 0): times the file's.
            kv_overrides: metadata in place of the file's, of the same type; a key that the file
                has not is added.
            tokenizer: makes the ids of texts in the file's place, chats and embeddings included, a
                `LlamaHFTokenizer` for example; generated ids are text by the file's pieces.
            spm_infill: to a model that fills in, show what follows before what precedes.
            old: what front ends still pass: n_parts=-1, device=None; f16_kv=False asks for a
                float32 KV cache.

        The other arguments are llama-cpp-python's. Hints that cannot be met here (several
        GPUs, mlock, NUMA, ...) give one UserWarning each; what would change the text raises.

        Raises:
            ModelFileError: no such model, or not a readable file (a ValueError and an OSError).
            FormatError: the file is not a sound GGUF. UnsupportedError: an argument, an
            architecture or a type that this release lacks. OutOfMemoryError.
        """
        arguments = {name: value for name, value in locals().items() if name not in ("self", "old")}
        arguments |= old_arguments(old, arguments)
        check_load_arguments(arguments)
        self._set_up(arguments)
        started = perf_counter()
        notes: list[str] = []
        n_adapter_bytes = 0 if lora_path is None else adapter_bytes(lora_path)
        if vocab_only:
            self._model = self._open(
                lambda: _core.Model(self.model_path, vocab_only=True, overrides=self._overrides())
            )
        else:
            self._model, context = self._open(
                lambda: load(
                    self.model_path,
                    n_gpu_layers=n_gpu_layers,
                    main_gpu=main_gpu,
                    progress=progress_callback,
                    warn=notes.append,
                    overrides=self._overrides(),
                    adapters=n_adapter_bytes,
                    op_offload=bool(op_offload),
                    **self._shape(),
                )
            )
            notes += rope_warnings(arguments, self._model.config.rope_theta)
            for note in notes:
                warnings.warn(note, UserWarning, stacklevel=2)
            self._engine = Engine(self._model, context, logits_all=logits_all)
            self._embedder = self._make_embedder(self._model)
            if lora_path is not None:
                self.set_lora([(self.load_lora(lora_path), lora_scale)])
        if verbose:
            took = "" if no_perf else f" in {perf_counter() - started:.2f} s"
            log.logger.info("loaded %s%s (%s)", self.model_path, took, _core.isa())
        self._check_draft_model()
        self._check_infill()

    @classmethod
    def from_pretrained(
        cls,
        repo_id: str,
        filename: str | None,
        additional_files: Sequence[str] | None = None,
        local_dir: str | os.PathLike[str] | None = None,
        local_dir_use_symlinks: bool | Literal["auto"] = "auto",
        cache_dir: str | os.PathLike[str] | None = None,
        **kwargs: Any,
    ) -> Self:
        """Loads a model of the Hugging Face hub, fetched unless it is there.

        Args:
            repo_id: OWNER/REPO.
            filename: a file there, or a pattern as a shell's that one file matches; of a split
                model all parts are fetched.
            additional_files: names or patterns of files to fetch beside it.
            local_dir: a folder to put them into. cache_dir: another cache than the hub's.
            local_dir_use_symlinks: files in local_dir are always files; True gives a warning.
            kwargs: the constructor's arguments.

        Raises:
            InvalidArgumentError: none or several files match. UnsupportedError: huggingface-hub is
            not installed. ModelFileError: the hub has no such file or refuses it. FileError: the
            network or the disk fails.
        """
        from .models import hub

        if local_dir_use_symlinks is True:
            warnings.warn(
                "local_dir_use_symlinks=True has no effect: files are put into local_dir",
                UserWarning,
                stacklevel=2,
            )
        options: dict[str, Any] = {"show_progress": sys.stderr.isatty()}
        if local_dir is not None:
            options["local_dir"] = local_dir
        if cache_dir is not None:
            options["cache_dir"] = cache_dir
        path = hub.fetch_matching(repo_id, filename, **options)
        for name in additional_files or ():
            hub.fetch_matching(repo_id, name, **options)
        return cls(path, **kwargs)

    def _set_up(self, arguments: dict[str, Any]) -> None:
        """Everything but the model and its context."""
        a = arguments
        n_ctx: int = a["n_ctx"]
        self._arguments = a
        self.verbose: bool = a["verbose"]
        self.chat_format: str | None = a["chat_format"]
        self.chat_handler: object | None = a["chat_handler"]
        self.n_batch: int = min(a["n_batch"], n_ctx) if n_ctx else a["n_batch"]
        self.last_n_tokens_size: int = a["last_n_tokens_size"]
        self.draft_model: DraftModel | None = a["draft_model"]
        self._reports_timing = self.verbose and not a["no_perf"]
        self._n_ctx = n_ctx
        self._seeds = SeedSource(a["seed"])
        if self.verbose:
            log.turn_on()
        self.model_path = str(resolve_model(a["model_path"]))

    def _shape(self) -> dict[str, Any]:
        """What the arguments say of the context."""
        a = self._arguments
        return {
            "n_ctx": a["n_ctx"],
            "n_batch": min(self.n_batch, a["n_ubatch"]),
            "n_threads": a["n_threads"] or 0,
            "n_threads_batch": a["n_threads_batch"] or 0,
            "type_k": kv_type("type_k", a["type_k"]),
            "type_v": kv_type("type_v", a["type_v"]),
            "n_parallel": a["n_parallel"],
            "rope": rope_overrides(a),
        }

    def _overrides(self) -> MetaOverrides:
        return self._arguments["kv_overrides"] or {}

    def new_context(self, **changes: Any) -> Self:
        """Another one like this over the same weights, with a context of its own.

        changes: constructor arguments that differ; those of the weights (model_path, vocab_only,
        n_gpu_layers, main_gpu, kv_overrides) cannot.

        Raises OutOfMemoryError when it does not fit, and what the constructor raises.
        """
        for name in changes:
            if name not in self._arguments or name in _OF_THE_WEIGHTS:
                raise TypeError(f"new_context() cannot change {name!r}")
        model = self.engine.model
        arguments = {**self._arguments, **changes}
        check_load_arguments(arguments)
        other = object.__new__(type(self))
        other._set_up(arguments)
        context = add_context(model, **other._shape())
        other._model = model
        other._engine = Engine(model, context, logits_all=arguments["logits_all"])
        other._embedder = other._make_embedder(model)
        if "lora_path" in changes or "lora_scale" in changes:
            path, scale = arguments["lora_path"], arguments["lora_scale"]
            other.set_lora([] if path is None else [(other.load_lora(path), scale)])
        else:
            other.set_lora(self.engine.adapters)
        other._check_draft_model()
        other._check_infill()
        other.set_cache(self.cache)
        return other

    def _make_embedder(self, model: _core.Model) -> Embedder | None:
        if not self._arguments["embedding"]:
            return None
        shape = self._shape()
        embedder = Embedder(
            model,
            shape["n_ctx"],
            shape["n_batch"],
            shape["n_threads_batch"] or shape["n_threads"],
            self._arguments["pooling_type"],
            type_k=shape["type_k"],
            type_v=shape["type_v"],
            rope=shape["rope"],
        )
        embedder.tokenizer = self._encoder
        return embedder

    def load_lora(self, path: str | os.PathLike[str]) -> _core.Adapter:
        """A LoRA adapter of this model, for `set_lora` and the `lora` of a call.

        path: a GGUF adapter file, or a folder as PEFT saves it. Raises as `lora.load_adapter`.
        """
        return load_adapter(self.engine.model, path)

    def set_lora(self, adapters: Sequence[tuple[_core.Adapter, float]]) -> None:
        """The (adapter, scale) pairs of the calls from now on, none for the model as it is.

        Raises InvalidArgumentError for what is no such pair.
        """
        self.engine.adapters = adapter_pairs(adapters)

    def _check_infill(self) -> None:
        if self._arguments["spm_infill"] and InfillTokens.of(self.model) is None:
            raise UnsupportedError(f"spm_infill: {self.model_path} has no tokens to fill in with")

    def _check_draft_model(self) -> None:
        check = getattr(self.draft_model, "check_vocabulary", None)
        if check is not None:
            check(self.model)

    def _open(self, open_model: Callable[[], _T]) -> _T:
        try:
            return open_model()
        except FileError as error:
            raise ModelFileError(str(error)) from error

    # -- lifetime ------------------------------------------------------------------------------

    def close(self) -> None:
        """Frees the model and its context. Calls that need them raise PyllamacppError then."""
        if self._engine is not None:
            self._engine.close()
        if self._embedder is not None:
            self._embedder.close()
        self._engine = None
        self._embedder = None
        self._model = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        """The constructor's arguments: unpickling loads the model again."""
        return self._arguments

    def __setstate__(self, state: dict[str, Any]) -> None:
        arguments = dict(state)
        self.__init__(arguments.pop("model_path"), **arguments)  # type: ignore[misc]

    @property
    def model(self) -> _core.Model:
        """The loaded model. Raises PyllamacppError once closed."""
        if self._model is None:
            raise PyllamacppError("this Llama is closed")
        return self._model

    @property
    def engine(self) -> Engine:
        """The model with its context. Raises PyllamacppError once closed or with vocab_only."""
        if self._engine is None:
            if self.model.vocab_only:
                raise PyllamacppError("this Llama holds a vocabulary only (vocab_only=True)")
            raise PyllamacppError("this Llama is closed")
        return self._engine

    # -- tokens --------------------------------------------------------------------------------

    def tokenize(self, text: bytes, add_bos: bool = True, special: bool = False) -> list[int]:
        """Ids of `text`, any bytes.

        add_bos: begin with the beginning-of-sequence token where the vocabulary asks for one.
        special: parse special tokens in the text.
        """
        return self._encoder.encode(text, add_bos, special)

    @property
    def _encoder(self) -> _core.Tokenizer:
        """What makes ids of texts: the vocabulary, or the constructor's tokenizer in its form."""
        own, given = self.model.tokenizer, self._arguments["tokenizer"]
        return own if given is None else cast("_core.Tokenizer", GivenTokenizer(given, own))

    def detokenize(
        self, tokens: Sequence[int], prev_tokens: Sequence[int] | None = None, special: bool = False
    ) -> bytes:
        """Bytes of `tokens`, which may end inside a character.

        prev_tokens: what came before, so that a space at the start is not lost.
        special: give the names of control tokens, not nothing.
        """
        given = self._arguments["tokenizer"]
        if given is not None:
            return given.detokenize(tokens, prev_tokens, special)  # type: ignore[no-any-return]
        if prev_tokens:
            before = self.detokenize(prev_tokens, special=special)
            return self.detokenize([*prev_tokens, *tokens], special=special)[len(before) :]
        tokenizer = self.model.tokenizer
        text = b"".join(tokenizer.piece(token, special) for token in tokens)
        # The space that SentencePiece vocabularies put before a text.
        if len(tokens) > 0 and tokens[0] == tokenizer.bos and text.startswith(b" "):
            return text[1:]
        return text

    def token_bos(self) -> int:
        """The beginning-of-sequence token, -1 if there is none."""
        return _or_minus_one(self.model.tokenizer.bos)

    def token_eos(self) -> int:
        """The end-of-sequence token, -1 if there is none."""
        return _or_minus_one(self.model.tokenizer.eos)

    def token_nl(self) -> int:
        """The token of a line feed (the last one, if it takes several)."""
        return self.model.tokenizer.encode(b"\n", False, False)[-1]

    # -- evaluation ----------------------------------------------------------------------------

    def eval(self, tokens: Sequence[int]) -> None:
        """Appends tokens to the context and evaluates them.

        Their logits are in `scores`: with logits_all one row each, else the last token's only.
        Raises ContextFullError when they do not fit; then nothing is appended.
        """
        self.engine.evaluate(tokens)

    def reset(self) -> None:
        """Empties the context."""
        self.engine.trim(0)

    def set_seed(self, seed: int) -> None:
        """Starts the chain of seeds for completions that name none."""
        self._seeds.set(seed)

    # -- what outlives the context -----------------------------------------------------------------

    def save_state(self) -> LlamaState:
        """The text in the context: tokens, keys and values, and the last logits of `eval`.

        Its seed is the one that the chain of seeds began with. Raises UnsupportedError for a text
        with LoRA adapters.
        """
        return self.engine.save_state(self._seeds.seed)

    def load_state(self, state: LlamaState) -> None:
        """Puts a saved text into the context, and starts the chain of seeds anew.

        Raises InvalidArgumentError for a state of another model, with other types of keys and
        values, or of another tier of kernels, whose rounding differs; ContextFullError where it
        does not fit.
        """
        if not isinstance(state, LlamaState):
            raise InvalidArgumentError(f"a state is a LlamaState, found {type(state).__name__}")
        self.engine.load_state(state)
        if state.seed >= 0:
            self._seeds.set(state.seed)

    def set_cache(self, cache: BaseLlamaCache | None) -> None:
        """Where prompts are looked up and texts are kept, besides the context; None: nowhere.

        Texts do not depend on it. Those with adapters, and with logits_all the prompts, go without.
        """
        if cache is not None and not isinstance(cache, BaseLlamaCache):
            raise InvalidArgumentError(f"a cache is a BaseLlamaCache, found {type(cache).__name__}")
        engine = self.engine
        engine.store = None if cache is None else PromptCache(cache, engine.model, engine.context)
        self.cache = cache

    @property
    def n_tokens(self) -> int:
        """How many tokens the context holds; setting a smaller number forgets the rest."""
        return self.engine.length

    @n_tokens.setter
    def n_tokens(self, length: int) -> None:
        if not 0 <= length <= self.engine.length:
            raise InvalidArgumentError(
                f"n_tokens must lie in 0 .. {self.engine.length}, found {length}"
            )
        self.engine.trim(length)

    @property
    def input_ids(self) -> npt.NDArray[np.intc]:
        """The ids in the context, int32 [n_ctx]; the first n_tokens count, the rest is 0."""
        import numpy as np

        ids = np.zeros(self.n_ctx(), dtype=np.intc)
        ids[: self.n_tokens] = self.engine.tokens
        return ids

    @property
    def scores(self) -> npt.NDArray[np.single]:
        """Logits, float32 [n_ctx, n_vocab]; row i belongs to the i-th token in the context.

        With logits_all=True every evaluated token has its row; otherwise the last one of each
        `eval` call. Rows never written are 0.
        """
        return self.engine.scores.rows

    @property
    def eval_tokens(self) -> deque[int]:
        """The ids in the context."""
        return deque(self.engine.tokens, maxlen=self.n_ctx())

    @property
    def eval_logits(self) -> deque[list[float]]:
        """Rows of logits: of all tokens with logits_all=True, else of the last one."""
        n_tokens = self.n_tokens
        first = 0 if self.engine.logits_all else max(0, n_tokens - 1)
        return deque(self.scores[first:n_tokens].tolist())

    # -- embeddings ----------------------------------------------------------------------------

    @property
    def embedder(self) -> Embedder:
        """What embeds texts. Raises NotEnabledError where it was not asked for at loading."""
        if self._embedder is None:
            self.engine  # noqa: B018  (raises if there is no model)
            raise NotEnabledError(
                "Llama model must be created with embedding=True to call this method"
            )
        return self._embedder

    def embed(
        self,
        input: Text | Iterable[Text],  # noqa: A002  (llama-cpp-python's name)
        normalize: bool = False,
        truncate: bool = True,
        return_count: bool = False,
    ) -> Vectors | tuple[Vectors, int]:
        """The vector of a text, or a list of them for several: see `Embedder.embed`."""
        if return_count:
            return self.embedder.embed(input, normalize, truncate, return_count=True)
        return self.embedder.embed(input, normalize, truncate)

    def create_embedding(
        self,
        input: Text | Iterable[Text],  # noqa: A002  (llama-cpp-python's name)
        model: str | None = None,
        *,
        encoding_format: Literal["float", "base64"] = "float",
        dimensions: int | None = None,
        normalize: bool = False,
    ) -> CreateEmbeddingResponse:
        """The vectors of `embed` in OpenAI's layout: see `Embedder.create_embedding`."""
        return self.embedder.create_embedding(
            input,
            self.model_path if model is None else model,
            encoding_format=encoding_format,
            dimensions=dimensions,
            normalize=normalize,
        )

    def pooling_type(self) -> int:
        """The pooling of `embed`: a LLAMA_POOLING_TYPE_ number from 0 on."""
        return pooling_of(self.model, self._arguments["pooling_type"])

    # -- the model -----------------------------------------------------------------------------

    def n_ctx(self) -> int:
        """Tokens that the context holds at most."""
        if self._engine is not None:
            return self._engine.context.n_ctx
        return self._n_ctx or self.model.config.n_ctx_train

    @property
    def context_params(self) -> ContextParams:
        """What the context was made with."""
        context = self.engine.context
        return ContextParams(
            context.n_ctx, context.n_batch, context.n_threads, context.n_threads_batch
        )

    def n_vocab(self) -> int:
        """Entries of the vocabulary."""
        return self.model.tokenizer.size

    def n_embd(self) -> int:
        """Width of the model."""
        return self.model.config.n_embd

    @property
    def metadata(self) -> dict[str, str]:
        """The file's metadata as strings, without its arrays."""
        if self._metadata is None:
            self._metadata = {
                key: _as_text(value)
                for key, value in self.model.metadata.items()
                if not isinstance(value, list)
            }
        return self._metadata


def _or_minus_one(token: int | None) -> int:
    return -1 if token is None else token


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return f"{value:.8g}" if isinstance(value, float) else str(value)
