"""EleutherAI's evaluation harness (the package lm-eval) on a `Llama`.

Importing this module imports lm_eval, which nothing else here needs: pip install lm-eval. It
registers the model "pyllamacpp"; `python -m pyllamacpp.eval.harness` is the harness' own command
with that model among the others.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import _core
from ..errors import ContextFullError, InvalidArgumentError
from ..llama import Llama
from ..log import logger
from ..models.resolve import resolve_model
from ..params import GenerationParams, SamplingParams

try:
    from lm_eval.api.model import TemplateLM
    from lm_eval.api.registry import register_model
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window
    from tqdm import tqdm
except ImportError as error:
    sentence = f"the evaluation harness needs one more package: pip install lm-eval ({error})"
    if __name__ == "__main__":
        raise SystemExit(sentence) from None
    raise ImportError(sentence) from error

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

    from ..completion import Completion, CompletionChunk
    from ..engine import Stream
    from ..jobs import Job

# The context where none is asked for: the model's own, up to this.
_MOST_CTX = 4096
_AUTO_BATCH = 16

LogLikelihood = tuple[float, bool]
"""The sum of the tokens' log-probabilities (natural), and whether each was the likeliest."""


@register_model("pyllamacpp")
class PyllamacppLM(TemplateLM):
    """Log-likelihoods and generated texts of a `Llama`, in the harness' form.

    Texts are evaluated batch_size at a time, which changes no bit of a result.
    """

    def __init__(
        self,
        model: str | os.PathLike[str] | Llama | None = None,
        *,
        batch_size: int | str = "auto",
        max_batch_size: int | None = None,
        max_gen_toks: int = 256,
        device: str | None = None,
        **options: Any,
    ) -> None:
        """Loads a model, or takes one that is loaded.

        Args:
            model: as for `Llama`, None: the default model; or a `Llama`, which stays open.
            batch_size: texts evaluated together; "auto": 16, or max_batch_size if that is less.
            max_gen_toks: tokens of a generated text where the task does not say.
            device: "cpu", or "cuda:0", which the harness' command passes where nothing is said:
                layers go to a GPU by n_gpu_layers.
            options: the constructor's arguments of `Llama`; n_ctx is the model's own here, up to
                4096.

        Raises:
            InvalidArgumentError for a value out of range, and what loading raises.
        """
        super().__init__()
        if device not in (None, "cpu", "cuda:0"):
            raise InvalidArgumentError(
                f"device={device!r} is not known here: n_gpu_layers says what runs on a GPU"
            )
        if batch_size == "auto" or str(batch_size).startswith("auto:"):
            batch_size = min(_AUTO_BATCH, max_batch_size or _AUTO_BATCH)
        try:
            self.batch_size = int(batch_size)
        except ValueError:
            self.batch_size = 0
        if self.batch_size < 1:
            raise InvalidArgumentError(
                f'batch_size must be a number of at least 1 or "auto", found {batch_size!r}'
            )
        if isinstance(model, Llama):
            if options:
                raise InvalidArgumentError(
                    f"{next(iter(options))} cannot be given beside a Llama that is loaded"
                )
            self.llama = model
        else:
            path = resolve_model(model)
            options.setdefault("n_ctx", min(_core.plan_memory(str(path)).n_ctx, _MOST_CTX))
            options.setdefault("verbose", False)
            self.llama = Llama(path, **options)
        self.max_gen_toks = max_gen_toks

    @property
    def max_length(self) -> int:
        """Tokens that a prediction can depend on: one less than the context holds."""
        return self.llama.n_ctx() - 1

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        return self.llama.token_eos()

    @property
    def prefix_token_id(self) -> int:
        """The token before a text that has nothing before it: its beginning, else an end."""
        tokenizer = self.llama.model.tokenizer
        return self.eot_token_id if tokenizer.bos is None else tokenizer.bos

    @property
    def tokenizer_name(self) -> str:
        """What tells prompts of this model from others' in the harness' cache."""
        return f"{Path(self.llama.model_path).name}-{self.llama.chat_format or 'default'}"

    def tok_encode(
        self, string: str, add_special_tokens: bool | None = None, **_: object
    ) -> list[int]:
        """Ids of a text, special tokens in it parsed.

        add_special_tokens: put the beginning before it; None: as the vocabulary says, unless the
        text has it.
        """
        tokenizer = self.llama.model.tokenizer
        data = string.encode("utf-8", "surrogateescape")
        ids = tokenizer.encode(data, add_special_tokens is not False, True)
        if add_special_tokens is None and len(ids) > 1 and ids[0] == ids[1] == tokenizer.bos:
            return ids[1:]
        return ids

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The conversation as text, in the model's chat format.

        add_generation_prompt: end where an answer begins; else within the last message.
        """
        text = self.llama.chat().format.text
        if add_generation_prompt:
            return text(chat_history)
        return text(chat_history[:-1]) + chat_history[-1]["content"]

    def chat_template(self, chat_template: bool | str = False) -> str:
        """The template that `apply_chat_template` follows; a name of another is refused."""
        if isinstance(chat_template, str):
            raise InvalidArgumentError(
                f"the chat template {chat_template!r} is chosen by chat_format when loading"
            )
        source = self.llama.model.metadata.get("tokenizer.chat_template")
        return source if isinstance(source, str) and self.llama.chat_format is None else ""

    def _loglikelihood_tokens(
        self,
        requests: Sequence[tuple[tuple[str, str] | None, list[int], list[int]]],
        disable_tqdm: bool = False,
        **_: object,
    ) -> list[LogLikelihood]:
        """Of (key of the cache, context, continuation), the sums of the continuations."""
        found: list[LogLikelihood] = []
        for batch in self._batches(requests, "log-likelihoods", disable_tqdm):
            with _ended_together() as streams:
                for _, context, text in batch:
                    streams.append(self._scored(context, text))
                for (key, _, text), stream in zip(batch, streams, strict=True):
                    found.append(_sum_of(text, stream))
                    if key is not None:
                        self.cache_hook.add_partial("loglikelihood", key, found[-1])
        return found

    def _scored(self, context: list[int], continuation: list[int]) -> Stream:
        """Evaluates both, as far as they fit; the context's beginning is cut off."""
        n_ctx = self.llama.n_ctx()
        if len(continuation) >= n_ctx:
            raise ContextFullError(
                f"a continuation of {len(continuation)} tokens does not fit behind a context's "
                f"last token into {n_ctx} tokens"
            )
        tokens = [*context, *continuation]
        if len(tokens) > n_ctx:
            logger.warning("%d of %d tokens are cut off", len(tokens) - n_ctx, len(tokens))
        params = GenerationParams(
            max_tokens=1,
            sampling=SamplingParams(temperature=0.0),
            n_log_probs=1,
            prompt_log_probs=True,
            adapters=self.llama.engine.adapters,
        )
        return self.llama.engine.start(tokens[-n_ctx:], params, keeps_up=False)

    def loglikelihood_rolling(
        self, requests: list[Instance], disable_tqdm: bool = False
    ) -> list[float]:
        """The log-likelihood of whole texts; long ones in windows of the context."""
        texts = [request.args[0] for request in requests]
        windows: list[tuple[None, list[int], list[int]]] = []
        n_windows = []
        for text in texts:
            ids = self.tok_encode(text, add_special_tokens=False)
            rolling = get_rolling_token_windows(ids, self.prefix_token_id, self.max_length, 1)
            own = [(None, *make_disjoint_window(window)) for window in rolling]
            windows += own
            n_windows.append(len(own))
        parts = iter(self._loglikelihood_tokens(windows, disable_tqdm))
        found = []
        for text, n in zip(texts, n_windows, strict=True):
            found.append(sum(next(parts)[0] for _ in range(n)))
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), found[-1])
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Continues texts, greedily unless the task's generation_kwargs ask for sampling.

        Other generation_kwargs than the harness' own are arguments of `create_completion`. A
        context that leaves no room for max_gen_toks loses its beginning. Raises TypeError for an
        unknown one.
        """
        found: list[str] = []
        asked = [request.args for request in requests]
        for batch in self._batches(asked, "texts", disable_tqdm):
            with _ended_together() as jobs:
                for context, kwargs in batch:
                    jobs.append(self._started(context, kwargs))
                for arguments, job in zip(batch, jobs, strict=True):
                    found.append(job.finish()["choices"][0]["text"])
                    self.cache_hook.add_partial("generate_until", arguments, found[-1])
        return found

    def _started(self, context: str, kwargs: Mapping[str, Any]) -> Job[Completion, CompletionChunk]:
        options = _completion_options(kwargs, self.max_gen_toks)
        room = self.llama.n_ctx() - options["max_tokens"]
        if room < 1:
            raise ContextFullError(
                f"max_gen_toks of {options['max_tokens']} leave no room in a context of "
                f"{self.llama.n_ctx()} tokens"
            )
        tokens = self.tok_encode(context)
        if len(tokens) > room:
            logger.warning("%d of %d tokens are cut off", len(tokens) - room, len(tokens))
        return self.llama.start_completion(tokens[-room:], **options)

    def _batches(self, items: Sequence[Any], what: str, is_quiet: bool) -> Iterator[Sequence[Any]]:
        with tqdm(total=len(items), desc=f"pyllamacpp: {what}", disable=is_quiet) as progress:
            for start in range(0, len(items), self.batch_size):
                batch = items[start : start + self.batch_size]
                yield batch
                progress.update(len(batch))


@contextmanager
def _ended_together() -> Iterator[list[Any]]:
    """A list of what runs, all of which ends when an error leaves the block."""
    running: list[Any] = []
    try:
        yield running
    finally:
        for one in running:
            one.cancel()


def _sum_of(continuation: list[int], stream: Stream) -> LogLikelihood:
    for _ in stream:
        pass
    scored = stream.prompt_log_probs[-len(continuation) :] if continuation else []
    is_greedy = all(
        top[0][0] == token for token, (_, top) in zip(continuation, scored, strict=True)
    )
    return sum(chosen for chosen, _ in scored), is_greedy


def _completion_options(kwargs: Mapping[str, Any], max_gen_toks: int) -> dict[str, Any]:
    """The harness' generation_kwargs as arguments of `create_completion`.

    Sampling is from all tokens unless they say otherwise.
    """
    options = dict(kwargs)
    until = options.pop("until", None)
    max_tokens = max_gen_toks
    for name in ("max_completion_tokens", "max_tokens", "max_new_tokens", "max_gen_toks"):
        max_tokens = options.pop(name, max_tokens)
    samples = options.pop("do_sample", None)
    temperature = options.pop("temperature", 1.0 if samples else 0.0)
    return {
        "top_k": 0,
        "top_p": 1.0,
        "min_p": 0.0,
        **options,
        "stop": until,
        "max_tokens": max_tokens,
        "temperature": 0.0 if samples is False else temperature,
    }


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
