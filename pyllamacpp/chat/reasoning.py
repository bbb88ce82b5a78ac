"""What reasoning models think before they answer: asked for, limited, and told from the answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArgumentError, UnsupportedError
from ..log import logger
from .calls import SPACE, undecided

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

OPENING, CLOSING = "<think>", "</think>"
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
FORMATS = ("none", "deepseek", "auto")
_EFFORT = "reasoning_effort"
# The variables of templates that turn thinking on and off: Qwen 3's and most, DeepSeek 3.1's.
_SWITCHES = ("enable_thinking", "thinking")
_OURS = ("messages", "tools", "add_generation_prompt")


@dataclass(frozen=True)
class Reasoning:
    """What a request says of thinking.

    effort: one of EFFORTS. parts: what is thought comes apart from the answer. limit: tokens that
    it may have, at least 1. variables: further ones of the template, JSON values by their names.
    None: nothing is said.
    """

    effort: str | None = None
    parts: bool = False
    limit: int | None = None
    variables: Mapping[str, Any] | None = None

    @staticmethod
    def of(
        reasoning_effort: object = None,
        reasoning_format: object = "none",
        thinking_budget_tokens: object = None,
        chat_template_kwargs: object = None,
    ) -> Reasoning:
        """The arguments of `create_chat_completion`. Raises InvalidArgumentError."""
        limit, variables = thinking_budget_tokens, chat_template_kwargs
        _check_one_of(_EFFORT, reasoning_effort, (None, *EFFORTS))
        _check_one_of("reasoning_format", reasoning_format, FORMATS)
        if limit is not None and (not isinstance(limit, int) or limit < 1):
            raise InvalidArgumentError(
                f"thinking_budget_tokens must be an integer >= 1, found {limit!r:.80}"
            )
        if variables is not None:
            _check_variables(variables)
        effort = reasoning_effort if isinstance(reasoning_effort, str) else None
        given = variables if isinstance(variables, Mapping) else None
        return Reasoning(effort, reasoning_format != "none", limit, given)

    @property
    def wanted(self) -> bool | None:
        """Whether the model is to think; None: as its template has it."""
        given = self.variables or {}
        for switch in _SWITCHES:
            if switch in given:
                return bool(given[switch])
        return None if self.effort is None else self.effort != "none"

    def for_template(self, known: frozenset[str], *, thinks: bool, bound: str) -> dict[str, Any]:
        """The variables that a template is given.

        known: those that it looks up. thinks: it has a word for thoughts. bound: what says how the
        whole answer is written, which leaves no place for thoughts and turns them off; "": nothing.
        Raises UnsupportedError for thoughts that cannot be had, InvalidArgumentError for a variable
        that the template does not look up. A level of effort that it does not look up is warned of.
        """
        found = {k: v for k, v in (self.variables or {}).items() if k not in _SWITCHES}
        for name in found:
            if name not in known:
                raise InvalidArgumentError(
                    f"chat_template_kwargs: the chat template has no variable {name!r:.80}"
                )
        wanted = self.wanted
        if bound:
            if wanted:
                raise UnsupportedError(
                    f"thinking is not supported beside {bound}: no token of the answer is free"
                )
            wanted = False
        if wanted is None:
            return found
        switches = [name for name in _SWITCHES if name in known]
        found |= dict.fromkeys(switches, wanted)
        if self.effort is not None and _EFFORT in known:
            return {_EFFORT: self.effort, **found}
        if wanted and not switches and not thinks:
            asked = f"reasoning_effort={self.effort!r}" if self.effort else "thinking"
            raise UnsupportedError(
                f"{asked} is not supported: the model's chat template knows no thinking"
            )
        if wanted and self.effort is not None:
            logger.warning(
                "reasoning_effort=%r: the chat template knows no levels, the model thinks as ever",
                self.effort,
            )
        return found

    def for_formatter(self) -> dict[str, Any]:
        """What a formatter of the user's is given: all that the request says."""
        found = dict(self.variables or {})
        if self.effort is not None:
            found = {_EFFORT: self.effort, "enable_thinking": self.wanted, **found}
        return found


def _check_one_of(name: str, value: object, known: tuple[str | None, ...]) -> None:
    if not (value is None or isinstance(value, str)) or value not in known:
        names = ", ".join(repr(one) for one in known)
        raise InvalidArgumentError(f"{name} must be one of {names}, found {value!r:.80}")


def _check_variables(variables: object) -> None:
    """Refuses what are no variables of a template."""
    if not isinstance(variables, Mapping) or not all(isinstance(name, str) for name in variables):
        raise InvalidArgumentError(
            f"chat_template_kwargs must be a dict by names, found {variables!r:.80}"
        )
    try:
        json.dumps(dict(variables), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidArgumentError(f"chat_template_kwargs is not JSON: {error!s:.200}") from None
    for name in _OURS:
        if name in variables:
            raise InvalidArgumentError(f"chat_template_kwargs cannot replace {name!r}")
    for name in _SWITCHES:
        if not isinstance(variables.get(name, True), bool):
            raise InvalidArgumentError(
                f"chat_template_kwargs: {name} must be true or false, found {variables[name]!r:.80}"
            )


def is_open(prompt: str) -> bool:
    """Whether a prompt ends where the model is to think."""
    return prompt.rstrip().endswith(OPENING)


def closed(prompt: str) -> str:
    """An open prompt with an empty thought, as Qwen 3's template writes one to turn it off."""
    return f"{prompt.rstrip()}\n\n{CLOSING}\n\n"


class ThoughtReader:
    """Tells what is thought at the start of an answer from the answer.

    A thought stands between OPENING and CLOSING; starts_inside: OPENING is the prompt's last word.
    Space around both is dropped. Text is passed on at once unless it may be a part of such a mark.
    The pieces together are the same however the answer was split.
    """

    def __init__(self, *, starts_inside: bool) -> None:
        self.is_over = False  # what follows is the answer
        self._is_inside = starts_inside
        self._has_thought = False
        self._buffer = ""  # not yet passed on

    def feed(self, text: str) -> tuple[str, str]:
        """Of some more text: what is certain to be thought, what to be the answer."""
        self._buffer += text
        return self._read(is_end=False)

    def finish(self) -> tuple[str, str]:
        """The rest, at the end of the answer."""
        return self._read(is_end=True)

    def _read(self, *, is_end: bool) -> tuple[str, str]:
        thought = ""
        if not self._is_inside and not self._has_thought and not self.is_over:
            start = self._buffer.lstrip(SPACE)
            if start.startswith(OPENING):
                self._is_inside = True
                self._buffer = start[len(OPENING) :]
            elif is_end or not OPENING.startswith(start):
                self.is_over = True
        if self._is_inside:
            thought = self._thought(is_end=is_end)
        if self._is_inside or not (self.is_over or self._has_thought):
            return thought, ""
        if not self.is_over:  # the space after a thought
            self._buffer = self._buffer.lstrip(SPACE)
            self.is_over = bool(self._buffer)
        answer, self._buffer = self._buffer, ""
        return thought, answer

    def _thought(self, *, is_end: bool) -> str:
        end = self._buffer.find(CLOSING)
        if end >= 0:
            thought = self._buffer[:end].rstrip(SPACE)
            self._buffer = self._buffer[end + len(CLOSING) :]
            self._is_inside = False
        else:
            text = self._buffer
            end = len(text.rstrip(SPACE)) if is_end else undecided(text, CLOSING)
            thought, self._buffer = text[:end], text[end:]
        if not self._has_thought:
            thought = thought.lstrip(SPACE)
        # An empty one counts too, once it is closed.
        self._has_thought = self._has_thought or bool(thought) or not self._is_inside
        return thought


@dataclass(frozen=True)
class ThoughtLimit:
    """How many tokens a thought may have.

    closing: the tokens of CLOSING. piece: the bytes of a token. starts_inside: as ThoughtReader's.
    """

    n_tokens: int
    closing: tuple[int, ...]
    piece: Callable[[int], bytes]
    starts_inside: bool

    def filter(self) -> ThoughtFilter:
        """For one text."""
        return ThoughtFilter(self)


class ThoughtFilter:
    """A `TokenFilter` that closes a thought which has had its tokens; else any token may come."""

    def __init__(self, limit: ThoughtLimit) -> None:
        self._limit = limit
        self._n_left = limit.n_tokens
        self._is_inside = limit.starts_inside
        self._is_over = False
        self._n_closed = 0  # tokens of the closing that have come by force
        self._text = b""  # the start of the answer, then the end of the thought

    def fill(self, mask: npt.NDArray[np.uint32]) -> bool:
        """See `TokenFilter`."""
        if self._is_over or not self._is_inside or self._n_left > 0:
            return False
        token = self._limit.closing[self._n_closed]
        mask[token // 32] |= 1 << (token % 32)
        return True

    def accept(self, token: int) -> None:
        """See `TokenFilter`."""
        if self._is_over:
            return
        if self._is_inside and self._n_left <= 0:
            self._n_closed += 1
            self._is_over = self._n_closed == len(self._limit.closing)
            return
        self._text += self._limit.piece(token)
        if self._is_inside:
            self._n_left -= 1
            self._is_over = CLOSING.encode() in self._text
            self._text = self._text[1 - len(CLOSING) :]
            return
        start = self._text.lstrip()
        self._is_inside = start.startswith(OPENING.encode())
        self._is_over = not self._is_inside and not OPENING.encode().startswith(start)

    def done(self) -> bool:
        """See `TokenFilter`."""
        return False
