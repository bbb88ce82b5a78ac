"""How fast an answer was, and what share of this machine's limits that is, as `bench` counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ... import _core
from ...engine import Engine
from ..options import EngineOptions
from .conversation import Answer

if TYPE_CHECKING:
    from ...eval.bench import Limits


def rates(answer: Answer) -> tuple[float | None, float | None]:
    """Tokens per second of the prompt's new part and of the answer; None: too few to tell."""
    n_new, n_decoded = answer.n_prompt - answer.n_reused, answer.n_tokens - 1
    prompt = n_new / answer.prompt_seconds if n_new and answer.prompt_seconds > 0 else None
    decode = n_decoded / answer.decode_seconds if n_decoded > 0 < answer.decode_seconds else None
    return prompt, decode


class Speed:
    """Of one loaded model. The machine's limits are measured when first asked for, some 2 s."""

    def __init__(self, engine: Engine, options: EngineOptions) -> None:
        self._engine = engine
        self._options = options
        self._known: tuple[Limits, _core.Work] | None = None

    def sentence(self, answer: Answer) -> str:
        """Tokens, tokens per second and shares of the limits, on one line."""
        prompt, decode = rates(answer)
        limits, work = self._measured()
        cached = f", {answer.n_reused} of them from the cache" if answer.n_reused else ""
        parts = [f"prompt {answer.n_prompt} tokens{cached}"]
        if prompt is not None:
            n_new = answer.n_prompt - answer.n_reused
            seconds = limits.prompt_seconds(work, n_new, answer.n_reused)
            share = seconds / answer.prompt_seconds
            parts[0] += f", {prompt:.1f} tokens/s ({share:.0%} of the machine's limit)"
        parts.append(f"answer {answer.n_tokens} tokens")
        if decode is not None:
            n_bytes = work.token_bytes(answer.n_tokens - 1, answer.n_prompt)
            share = n_bytes * decode / limits.read_bytes
            parts[1] += f", {decode:.1f} tokens/s ({share:.0%} of the machine's limit)"
        return "; ".join(parts)

    def _measured(self) -> tuple[Limits, _core.Work]:
        if self._known is None:
            # numpy comes with it.
            from ...eval.bench import measure_limits

            n_threads = self._engine.context.n_threads
            probe = _core.CpuLimitProbe(n_threads)
            work = _core.work_of(self._engine.model, self._options.type_k, self._options.type_v)
            self._known = measure_limits(probe), work
        return self._known
