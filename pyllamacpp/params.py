"""What the arguments of `Llama` mean: which are honoured, which are hints, which are refused.

The names and defaults are llama-cpp-python's. Its default values never raise. A performance hint
that cannot be met gives one warning with the reason; an argument that would change the text and
cannot be honoured raises `UnsupportedError` naming it.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypedDict

from .encoding import BaseLlamaTokenizer
from .errors import ContextFullError, InvalidArgumentError, UnsupportedError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from . import _core

RANDOM_SEED = 0xFFFFFFFF
"""The seed that stands for "a random one"; every other value, 0 included, is itself."""

_KV_TYPES = {0: "f32", 1: "f16", 2: "q4_0", 8: "q8_0", 30: "bf16"}


@dataclass(frozen=True)
class SamplingParams:
    """How a token is drawn from logits: biases, the steps of `samplers` in their order, a draw.

    temperature: <= 0 is greedy: the best after biases, penalties and DRY, whatever else is set.
    top_k: <= 0 is all tokens. top_p: >= 1 is off. min_p: <= 0 is off. typical_p: >= 1 is off.
    tfs_z: tail free sampling: the tail of the tokens, best first, begins where the bends (absolute
    second differences) of their probabilities have come to more than this share; >= 1 is off.
    seed: 0 .. 2**64-1; the same seed, prompt and model give the same text.
    repeat_penalty: divides positive logits of recent tokens and multiplies others; 1 is off.
    frequency_penalty, presence_penalty: subtracted for each time, and once, that a token is recent.
    penalty_last_n: how many tokens are recent, the prompt's included; < 0 is all.
    unpenalized: tokens that these penalties leave alone.
    logit_bias: (token, what is added to its logit) pairs; an infinity forces or forbids.
    dynatemp_range: the temperature moves by this much up and down (not below 0) with the entropy
    of the distribution, normalised and to the power of dynatemp_exponent; 0 is off.
    mirostat_mode: 1 or 2 keep the surprise near mirostat_tau bits, corrected at the rate
    mirostat_eta, in place of top_k, tfs_z, typical_p, top_p and min_p (and not with xtc,
    top_n_sigma or adaptive_target); 0 is off.
    adaptive_target: adaptive-p: after the steps, tokens are drawn by how near their probability is
    to this, moved by as much as the average probability of those drawn is off it; < 0 is off.
    adaptive_decay: 0 .. 0.99: what a token counts in that average is times this per later token.
    dry_multiplier: a token that would lengthen a repetition of n tokens loses
    dry_multiplier * dry_base ** (n - dry_allowed_length), if n >= dry_allowed_length; 0 is off.
    Repetitions are looked for in the last dry_penalty_last_n tokens (< 0: all) and do not go
    across a string of dry_sequence_breakers.
    xtc_probability: how often, where several tokens have at least the probability xtc_threshold,
    all of them but the last are dropped; 0 is off, as is a threshold above 0.5.
    top_n_sigma: keeps logits at most this many standard deviations below the best; <= 0 is off.
    samplers: the steps, of "penalties", "dry", "top_n_sigma", "top_k", "tfs_z", "typ_p", "top_p",
    "min_p", "xtc" and "temperature"; one that is not listed is left out; None is all in that order.

    Raises InvalidArgumentError for a value of the wrong type; ranges are checked where the
    parameters are used.
    """

    temperature: float = 0.8
    top_k: int = 40
    top_p: float = 0.95
    min_p: float = 0.05
    seed: int = 0
    tfs_z: float = 1.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    penalty_last_n: int = 64
    unpenalized: tuple[int, ...] = ()
    logit_bias: tuple[tuple[int, float], ...] = ()
    dynatemp_range: float = 0.0
    dynatemp_exponent: float = 1.0
    mirostat_mode: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    adaptive_target: float = -1.0
    adaptive_decay: float = 0.9
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breakers: tuple[str, ...] = ("\n", ":", '"', "*")
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    top_n_sigma: float = -1.0
    samplers: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        for entry in fields(self):
            value = getattr(self, entry.name)
            if entry.type == "int" and entry.name != "seed":
                _check_int32(entry.name, value)
            elif entry.type == "float" and not isinstance(value, Real):
                raise InvalidArgumentError(f"{entry.name} must be a number, found {value!r:.80}")
        _check_seed(self.seed)
        _check_strings("dry_sequence_breakers", self.dry_sequence_breakers)
        if self.samplers is not None:
            _check_strings("samplers", self.samplers)


def _check_int32(name: str, value: object) -> None:
    if not isinstance(value, Integral) or not -(1 << 31) <= int(value) < 1 << 31:
        raise InvalidArgumentError(
            f"{name} must be an integer in -2**31 .. 2**31-1, found {value!r:.80}"
        )


def _check_strings(name: str, values: object) -> None:
    if not isinstance(values, tuple) or not all(isinstance(value, str) for value in values):
        raise InvalidArgumentError(f"{name} must be a list of strings, found {values!r:.80}")


def _check_seed(seed: object) -> None:
    if not isinstance(seed, Integral) or not 0 <= int(seed) < 1 << 64:
        raise InvalidArgumentError(f"seed must lie in 0 .. 2**64-1, found {seed}")


Adapters = tuple[tuple["_core.Adapter", float], ...]

WhenFull = Literal["stop", "error", "shift"]

LogitsProcessor = Callable[
    ["npt.NDArray[np.intc]", "npt.NDArray[np.single]"], "npt.NDArray[np.single]"
]
"""From the ids so far [n] and the logits [n_vocab], which it may change, to the logits to use."""

StoppingCriteria = Callable[["npt.NDArray[np.intc]", "npt.NDArray[np.single]"], bool]
"""From the ids so far [n], the new one included, and the logits [n_vocab]: whether to stop."""


class TokenFilter(Protocol):
    """What a text may be, token by token."""

    def fill(self, mask: npt.NDArray[np.uint32], /) -> bool:
        """Sets bit i % 32 of word i // 32 for each token i that may come next.

        False: every token may, and the mask is as it was.
        """

    def accept(self, token: int, /) -> None:
        """Takes note of the token that was chosen."""

    def done(self) -> bool:
        """Whether the text is complete: only an end-of-text token may come."""


class Drafter(Protocol):
    """Guesses the tokens that come next."""

    def guess(self, tokens: list[int], /) -> list[int]:
        """What may follow `tokens`; none where it has no idea."""


@dataclass(frozen=True)
class GenerationParams:
    """One completion: when it ends and how it is sampled.

    max_tokens: tokens to generate at most; < 0 is until the context is full.
    min_tokens: before so many tokens, end-of-text tokens are barred and stop strings do not count.
    stop: strings that end the text; the earliest in the text counts and is not returned.
    ignore_eos: end-of-text tokens end nothing.
    n_log_probs: each step has the log-probabilities of its token and of so many best ones; None is
        neither. prompt_log_probs: the prompt's tokens have them too; it is evaluated as a whole.
    when_full: the text that would outgrow the context ends ("stop"), raises ContextFullError
        ("error") or loses the older half of what comes after its first n_keep tokens ("shift").
    processors, criteria: called for every token, in order; see `LogitsProcessor`.
    token_filter: what the text may be; it serves one generation.
    drafter: guesses what comes next, to be checked together: the same text in less time.
    prompt_progress: told, as the prompt is evaluated, how many of its tokens are through, of how
        many.
    time_limit: seconds from the prompt's first evaluation on, after which the text ends with the
        token at hand, the first one at least; None: none.
    shown: control tokens that have text here, their names.
    adapters: LoRA adapters and what each counts; 1 is as it was trained.
    """

    max_tokens: int = -1
    stop: tuple[str, ...] = ()
    sampling: SamplingParams = field(default_factory=SamplingParams)
    min_tokens: int = 0
    ignore_eos: bool = False
    n_log_probs: int | None = None
    prompt_log_probs: bool = False
    when_full: WhenFull = "stop"
    n_keep: int = 0
    processors: tuple[LogitsProcessor, ...] = ()
    criteria: tuple[StoppingCriteria, ...] = ()
    token_filter: TokenFilter | None = None
    drafter: Drafter | None = None
    prompt_progress: Callable[[int, int], None] | None = None
    time_limit: float | None = None
    shown: tuple[int, ...] = ()
    adapters: Adapters = ()

    def __post_init__(self) -> None:
        for name in ("min_tokens", "n_keep", "n_log_probs"):
            value = getattr(self, name)
            if value is None:
                continue
            _check_int32(name, value)
            if value < 0:
                raise InvalidArgumentError(f"{name} must be >= 0, found {value}")
        limit: object = self.time_limit
        if limit is not None and not (isinstance(limit, int | float) and 0 <= limit < math.inf):
            raise InvalidArgumentError(f"time_limit must be seconds >= 0, found {limit!r:.80}")
        if self.when_full not in ("stop", "error", "shift"):
            raise InvalidArgumentError(
                f"when_full must be 'stop', 'error' or 'shift', found {self.when_full!r:.80}"
            )


class MoreArguments(TypedDict, total=False):
    """What completions take beside llama-cpp-python's arguments.

    lora: (adapter, scale) pairs for this call, in place of `set_lora`'s.
    json_schema: the text is JSON that this schema (text or an object) allows. regex: the text is
        what this regular expression matches as a whole. Both as `grammar`, one of which is enough.
    banned_strings: what the text may not contain: tokens that would complete one are barred. With a
        grammar beside it, InvalidArgumentError where that leaves none.
    n: texts for each prompt. best_of: generate so many and give out the n whose tokens have the
        highest mean log-probability.
    prompt_progress, min_tokens, ignore_eos, when_full, n_keep, time_limit: see
        `GenerationParams`; max_tokens and, unless when_full says otherwise, the context's size end
        a text in any case. With "shift" and no max_tokens only an end-of-text token or a stop
        string does.
    The others: see `SamplingParams`. Lists of strings may be any sequence; samplers may also be
    one string, parted by ";".
    """

    lora: Sequence[tuple[_core.Adapter, float]] | None
    json_schema: str | Mapping[str, Any] | bool | None
    regex: str | None
    banned_strings: Sequence[str] | None
    n: int
    best_of: int | None
    prompt_progress: Callable[[int, int], None] | None
    min_tokens: int
    ignore_eos: bool
    when_full: WhenFull
    n_keep: int
    time_limit: float | None
    dynatemp_range: float
    dynatemp_exponent: float
    adaptive_target: float
    adaptive_decay: float
    dry_multiplier: float
    dry_base: float
    dry_allowed_length: int
    dry_penalty_last_n: int
    dry_sequence_breakers: Sequence[str]
    xtc_probability: float
    xtc_threshold: float
    top_n_sigma: float
    samplers: Sequence[str] | str | None


def sampler_names(text: str) -> tuple[str, ...]:
    """The steps of one string, parted by ";" as llama.cpp writes them."""
    return tuple(name.strip() for name in text.split(";") if name.strip())


def flat_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The local variables of a method as its options, those in `more` among the others.

    Raises TypeError naming an argument that there is none of.
    """
    subjects = ("self", "prompt", "messages", "tokens", "more")
    options = {name: value for name, value in arguments.items() if name not in subjects}
    for name in arguments["more"]:
        if name not in MoreArguments.__annotations__:
            raise TypeError(f"got an unexpected keyword argument {name!r}")
    return {**options, **arguments["more"]}


def generation_params(
    options: Mapping[str, Any],
    *,
    seed: int,
    penalty_last_n: int,
    max_tokens: int,
    unpenalized: tuple[int, ...] = (),
    stop: Sequence[str] = (),
    drafter: Drafter | None = None,
    shown: tuple[int, ...] = (),
    token_filter: TokenFilter | None = None,
    adapters: Adapters = (),
) -> GenerationParams:
    """What the options of a call ask for; `stop` comes on top.

    Raises InvalidArgumentError for values of a wrong type.
    """
    n_log_probs = log_prob_count(options)
    own = {
        name: options[name]
        for name in ("min_tokens", "ignore_eos", "when_full", "n_keep", "time_limit")
        if name in options
    }
    return GenerationParams(
        max_tokens=max_tokens,
        stop=(*stop_strings(options.get("stop")), *stop),
        sampling=_sampling_params(options, seed, penalty_last_n, unpenalized),
        n_log_probs=n_log_probs,
        prompt_log_probs=n_log_probs is not None and bool(options.get("echo")),
        processors=_callables("logits_processor", options.get("logits_processor")),
        criteria=_callables("stopping_criteria", options.get("stopping_criteria")),
        drafter=drafter,
        prompt_progress=options.get("prompt_progress"),
        shown=shown,
        token_filter=token_filter,
        adapters=adapters,
        **own,
    )


def _sampling_params(
    options: Mapping[str, Any], seed: int, penalty_last_n: int, unpenalized: tuple[int, ...]
) -> SamplingParams:
    known = {entry.name for entry in fields(SamplingParams)} - {"seed", "logit_bias"}
    values = {name: options[name] for name in known & options.keys()}
    if isinstance(values.get("samplers"), str):
        values["samplers"] = sampler_names(values["samplers"])
    for name in ("samplers", "dry_sequence_breakers"):
        if isinstance(values.get(name), Sequence) and not isinstance(values[name], str):
            values[name] = tuple(values[name])
    bias = bias_pairs(options.get("logit_bias"))
    return SamplingParams(
        seed=seed,
        penalty_last_n=penalty_last_n,
        unpenalized=unpenalized,
        logit_bias=bias,
        **values,
    )


def _callables(name: str, value: Any) -> tuple[Any, ...]:
    """One function, or those of a list; a list that can be called itself is one."""
    if value is None:
        return ()
    if callable(value):
        return (value,)
    if isinstance(value, list | tuple) and all(callable(item) for item in value):
        return tuple(value)
    raise InvalidArgumentError(f"{name} must be a function or a list of them, found {value!r:.80}")


def log_prob_count(options: Mapping[str, Any]) -> int | None:
    """How many log-probabilities each token comes with; None: not even its own.

    A number in `logprobs` (completions), or True there and a number in `top_logprobs` (chats).
    Raises InvalidArgumentError for anything else.
    """
    wanted, top = options.get("logprobs"), options.get("top_logprobs")
    if wanted is None or wanted is False:
        if top is not None:
            raise InvalidArgumentError("top_logprobs needs logprobs=True")
        return None
    count = (top or 0) if wanted is True else wanted
    if not isinstance(count, int) or isinstance(count, bool) or count < 0:
        raise InvalidArgumentError(
            f"the number of log-probabilities must be at least 0, found {count!r:.80}"
        )
    return count


def text_counts(options: Mapping[str, Any]) -> tuple[int, int]:
    """`n` and `best_of`: texts given out, and generated, for each prompt.

    Raises InvalidArgumentError unless 1 <= n <= best_of <= 128, and for streams where they differ.
    """
    n, best_of = options.get("n", 1), options.get("best_of")
    best_of = n if best_of is None else best_of
    for name, value in (("n", n), ("best_of", best_of)):
        if not isinstance(value, int) or not 1 <= value <= _MOST_TEXTS:
            raise InvalidArgumentError(
                f"{name} must lie in 1 .. {_MOST_TEXTS}, found {value!r:.80}"
            )
    if best_of < n:
        raise InvalidArgumentError(f"best_of must be at least n ({n}), found {best_of}")
    if best_of > n and options.get("stream"):
        raise InvalidArgumentError("best_of cannot be streamed: the best is known at the end")
    return n, best_of


_MOST_TEXTS = 128


def stop_strings(stop: str | list[str] | None) -> tuple[str, ...]:
    """The stop strings of one OpenAI-style `stop` argument.

    Raises InvalidArgumentError for what is no string or empty.
    """
    strings: Sequence[object] = () if stop is None else [stop] if isinstance(stop, str) else stop
    checked = []
    for string in strings:
        if not isinstance(string, str) or not string:
            raise InvalidArgumentError(f"stop must hold non-empty strings, found {string!r}")
        checked.append(string)
    return tuple(checked)


def max_new_tokens(
    max_tokens: int | None, n_prompt: int, n_ctx: int, when_full: WhenFull = "stop"
) -> int:
    """llama-cpp-python's rule: prompt and text fit into n_ctx together; None or <= 0: all of it.

    Where a full context does not end the text: max_tokens, or -1 for no bound.

    Raises ContextFullError when the prompt leaves no room.
    """
    room = n_ctx - n_prompt
    if room <= 0:
        raise ContextFullError(f"Requested tokens ({n_prompt}) exceed context window of {n_ctx}")
    if when_full != "stop":
        return -1 if max_tokens is None or max_tokens <= 0 else max_tokens
    return room if max_tokens is None or max_tokens <= 0 else min(max_tokens, room)


def kv_type(name: str, value: int | str | None) -> str:
    """The type of the KV cache that `type_k` or `type_v` asks for: ggml's number or the name.

    None is f16. Raises UnsupportedError for any other than f32, f16, bf16, q8_0 and q4_0.
    """
    if value is None:
        return "f16"
    chosen = _KV_TYPES.get(value, "") if isinstance(value, int) else value.lower()
    if chosen not in _KV_TYPES.values():
        known = ", ".join(f"{label} ({number})" for number, label in _KV_TYPES.items())
        raise UnsupportedError(f"{name}={value!r:.80} is not supported; supported: {known}")
    return chosen


def bias_pairs(logit_bias: Mapping[int, float] | None) -> tuple[tuple[int, float], ...]:
    """OpenAI's `logit_bias` as pairs; its keys may be numbers in strings, as JSON has them.

    Raises InvalidArgumentError for a key or a value that is no number.
    """
    try:
        return tuple((int(token), float(bias)) for token, bias in (logit_bias or {}).items())
    except (TypeError, ValueError) as error:
        raise InvalidArgumentError(f"logit_bias must map token ids to numbers: {error}") from error


class SeedSource:
    """Seeds of completions that name none: a fixed chain from a fixed seed, else random ones."""

    def __init__(self, seed: int) -> None:
        self.set(seed)

    def set(self, seed: int) -> None:
        """Starts the chain of `seed`; `RANDOM_SEED` and -1 mean a random one.

        Raises InvalidArgumentError for a seed outside 0 .. 2**64-1.
        """
        chosen = random.SystemRandom().getrandbits(64) if seed in (-1, RANDOM_SEED) else seed
        _check_seed(chosen)
        self.seed = chosen
        self._chain = random.Random(chosen)

    def next(self, seed: int | None) -> int:
        """`seed` itself where given, else the next of the chain (0 .. 2**64-1).

        Raises InvalidArgumentError as `set`.
        """
        if seed in (-1, RANDOM_SEED):
            return random.SystemRandom().getrandbits(64)
        if seed is None:
            return self._chain.getrandbits(64)
        _check_seed(seed)
        return seed


_ONE_GPU = "layers run on one GPU and the CPU"

# Argument -> the values that ask for nothing, and why others cannot be met. offload_kqv is not
# here: it asks for something only of layers on a GPU.
_HINTS: dict[str, tuple[tuple[object, ...], str]] = {
    "split_mode": ((0, 1, None), _ONE_GPU),
    "tensor_split": ((None,), _ONE_GPU),
    "use_mmap": ((True, None), "the file is always memory-mapped"),
    "use_mlock": ((False, None), "memory is not locked"),
    "flash_attn": ((False, None), "attention always works block by block"),
    "swa_full": ((None,), "the cache always holds the whole context"),
    "numa": ((False, 0, None), "threads are not placed by NUMA node"),
    # Weights that llama.cpp once merged adapters into, as quantized ones would have rounded them.
    "lora_base": ((None, ""), "an adapter is applied beside the weights, whatever their type"),
}

# Without layers on a GPU.
_OP_OFFLOAD_HINT = ((None, False), "no layers run on a GPU (n_gpu_layers)")

# The core's name, the default (the file's setting) and whether it must be an integer.
_ROPE_ARGUMENTS: dict[str, tuple[str, float, bool]] = {
    "rope_scaling_type": ("scaling_type", -1, True),
    "rope_freq_base": ("freq_base", 0.0, False),
    "rope_freq_scale": ("freq_scale", 0.0, False),
    "yarn_ext_factor": ("ext_factor", -1.0, False),
    "yarn_attn_factor": ("attn_factor", 1.0, False),
    "yarn_beta_fast": ("beta_fast", 32.0, False),
    "yarn_beta_slow": ("beta_slow", 1.0, False),
    "yarn_orig_ctx": ("orig_ctx", 0, True),
}

# No arguments of llama-cpp-python (any more), but front ends pass them.
_OLD_ARGUMENTS: dict[str, tuple[object, ...]] = {
    "n_parts": (None, -1),
    "f16_kv": (None, True, False),
    "device": (None,),
}


def _is_one_of(value: object, neutral: tuple[object, ...]) -> bool:
    if isinstance(value, list | tuple | dict) and not value:
        return True  # an empty list of anything asks for nothing
    # Only plain values are compared: an array would answer == with an array.
    plain = isinstance(value, bool | int | float | str)
    return any(value is item or (plain and value == item) for item in neutral)


def check_load_arguments(arguments: Mapping[str, object]) -> None:
    """Refuses what cannot be honoured and warns once about each hint that cannot be met.

    Raises UnsupportedError naming the argument, InvalidArgumentError for sizes out of range.
    """
    if not _is_one_of(arguments["attention_type"], (None, -1, 0)):
        raise UnsupportedError(
            f"attention_type={arguments['attention_type']!r:.80} is not supported: a token attends "
            "to those before it only, which is LLAMA_ATTENTION_TYPE_CAUSAL (0) or the file's (-1)"
        )
    for name, least in (
        ("n_ctx", 0),
        ("n_batch", 1),
        ("n_ubatch", 1),
        ("last_n_tokens_size", 0),
        ("n_parallel", 1),
    ):
        value = arguments[name]
        if not isinstance(value, int) or value < least:
            raise InvalidArgumentError(f"{name} must be an integer >= {least}, found {value!r}")
    for name in ("n_threads", "n_threads_batch"):
        value = arguments[name]
        if value is not None and (not isinstance(value, int) or value < 0):
            raise InvalidArgumentError(f"{name} must be None or an integer >= 0, found {value!r}")
    overrides = arguments["kv_overrides"]
    if overrides is not None and not isinstance(overrides, Mapping):
        raise InvalidArgumentError(
            f"kv_overrides must be a mapping of metadata keys to values, found {overrides!r:.80}"
        )
    layers, main_gpu = arguments["n_gpu_layers"], arguments["main_gpu"]
    if layers != "auto" and not (isinstance(layers, int) and -1 <= layers < 1 << 31):
        raise InvalidArgumentError(
            f'n_gpu_layers must be an integer >= -1 or "auto", found {layers!r:.80}'
        )
    if not isinstance(main_gpu, int) or not 0 <= main_gpu < 1 << 31:
        raise InvalidArgumentError(f"main_gpu must be an integer >= 0, found {main_gpu!r:.80}")
    if layers and arguments["offload_kqv"] is False:
        raise UnsupportedError(
            "offload_kqv=False is not supported with n_gpu_layers: the keys and values of a layer "
            "are where the layer is"
        )
    op_offload = arguments["op_offload"]
    if not isinstance(op_offload, bool | None):
        raise InvalidArgumentError(
            f"op_offload must be True, False or None, found {op_offload!r:.80}"
        )
    if arguments["lora_path"] is None and arguments["lora_scale"] != 1.0:
        raise InvalidArgumentError("lora_scale needs lora_path")
    tokenizer = arguments["tokenizer"]
    if tokenizer is not None and not isinstance(tokenizer, BaseLlamaTokenizer):
        raise InvalidArgumentError(
            f"tokenizer must be a BaseLlamaTokenizer, as LlamaHFTokenizer, found {tokenizer!r:.80}"
        )
    draft_model = arguments["draft_model"]
    if draft_model is not None and not callable(draft_model):
        raise InvalidArgumentError(
            f"draft_model must be a function from ids to ids, found {draft_model!r:.80}"
        )
    hints = _HINTS if layers else {**_HINTS, "op_offload": _OP_OFFLOAD_HINT}
    for name, (neutral, reason) in hints.items():
        if not _is_one_of(arguments[name], neutral):
            # 3: the line that constructs the Llama.
            warnings.warn(
                f"{name}={arguments[name]!r} has no effect: {reason}", UserWarning, stacklevel=3
            )


def old_arguments(old: Mapping[str, object], arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What front ends send as n_parts, f16_kv and device, as arguments that replace others.

    Without f16_kv keys and values are float32 unless their types are named. Raises TypeError for
    any other name, UnsupportedError for another value.
    """
    for name in old:
        if name not in _OLD_ARGUMENTS:
            raise TypeError(f"Llama() got an unexpected keyword argument {name!r}")
        if not _is_one_of(old[name], _OLD_ARGUMENTS[name]):
            raise UnsupportedError(
                f"{name}={old[name]!r:.80} is not supported: it is known for the front ends that "
                "still send it, at its default"
            )
    if old.get("f16_kv") is not False:
        return {}
    return {name: "f32" for name in ("type_k", "type_v") if arguments[name] is None}


def rope_overrides(arguments: Mapping[str, Any]) -> _core.RopeOverrides:
    """The constructor's RoPE arguments; those at their defaults leave the file's settings.

    Raises InvalidArgumentError for what is no number; ranges are checked with the file's settings.
    """
    from . import _core

    values: dict[str, Any] = {}
    for name, (key, default, is_integer) in _ROPE_ARGUMENTS.items():
        value = arguments[name]
        if value is None or value == default:
            continue
        if isinstance(value, bool) or not isinstance(value, int if is_integer else int | float):
            kind = "an integer" if is_integer else "a number"
            raise InvalidArgumentError(f"{name} must be {kind}, found {value!r:.80}")
        if abs(value) >= 1 << 62:
            raise InvalidArgumentError(f"{name} is out of range: {value!r:.80}")
        values[key] = value
    return _core.RopeOverrides(**values)


def rope_warnings(arguments: Mapping[str, Any], rope_theta: float) -> list[str]:
    """Of a base below the file's: it stretches nothing, and LangChain sends 10000 to any model."""
    base = arguments["rope_freq_base"]
    if not base or base >= rope_theta * (1 - 1e-6):  # the file's are float32
        return []
    sentence = (
        f"rope_freq_base={base:g} is below the file's {rope_theta:g}, which spoils most models; "
        "0 keeps the file's"
    )
    return [sentence]
