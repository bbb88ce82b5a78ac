"""The commands of the chat: a table of names, what they take, what they do, what completes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ...errors import FileError, InvalidArgumentError
from ...models.cache import cached_models
from ...params import SamplingParams, WhenFull
from ...stream import native
from ..options import read_input
from ..runtime import status
from . import store

if TYPE_CHECKING:
    from .loop import Chat


@dataclass(frozen=True)
class Command:
    """run: with what follows the name, stripped. choices: what may stand there, for completion."""

    argument: str
    help: str
    run: Callable[[Chat, str], None]
    choices: Callable[[str], Iterable[str]] = lambda _typed: ()


def run(chat: Chat, line: str) -> None:
    """Runs "/NAME ARGUMENT". Raises InvalidArgumentError for an unknown one, and what it raises."""
    name, _, argument = line.partition(" ")
    command = COMMANDS.get(name)
    if command is None:
        raise InvalidArgumentError(f"there is no command {name}; /help lists them")
    if argument.strip() and not command.argument:
        raise InvalidArgumentError(f"{name} takes nothing, found {argument.strip()!r:.80}")
    command.run(chat, argument.strip())


def complete(typed: str) -> list[tuple[str, int]]:
    """Endings of a command that is being typed: (text, how many characters it replaces)."""
    if not typed.startswith("/"):
        return []
    name, space, argument = typed.partition(" ")
    if not space:
        return [(known, len(typed)) for known in COMMANDS if known.startswith(typed)]
    command = COMMANDS.get(name)
    known = command.choices(argument) if command else ()
    return [(choice, len(argument)) for choice in known if choice.startswith(argument)]


def _help(_chat: Chat, _argument: str) -> None:
    rows = [(f"{name} {command.argument}", command.help) for name, command in COMMANDS.items()]
    width = max(len(row[0]) for row in rows)
    for left, right in rows:
        click.echo(f"{left:<{width}}  {right}", err=True)
    click.echo(
        "Alt-Enter or \\ at the end of a line begins another line; Ctrl-R searches what was asked "
        "before.\nCtrl-C stops an answer, Ctrl-D leaves.",
        err=True,
    )


def _clear(chat: Chat, _argument: str) -> None:
    chat.conversation.clear()
    chat.attached.clear()
    status("a new conversation")


def _undo(chat: Chat, _argument: str) -> None:
    question = chat.conversation.undo()
    status(f"taken back with its answer: {question!r:.80}")


def _regen(chat: Chat, _argument: str) -> None:
    chat.ask(_last_question(chat), instead=True)


def _edit(chat: Chat, argument: str) -> None:
    question = _last_question(chat)
    if argument:
        chat.ask(argument, instead=True)
    elif chat.keyboard.can_edit:
        chat.draft = question
        status("change the question; Ctrl-C leaves all as it was")
    else:
        raise InvalidArgumentError("the question can be edited in a terminal only: /edit TEXT")


def _last_question(chat: Chat) -> str:
    question = chat.conversation.last_question
    if question is None:
        raise InvalidArgumentError("nothing was asked yet")
    return question


def _system(chat: Chat, argument: str) -> None:
    conversation = chat.conversation
    if argument:
        conversation.system = None if argument == "off" else argument
    if conversation.system is None:
        status("system message: the model's own")
    else:
        status(f"system message: {conversation.system}")


def _save(chat: Chat, argument: str) -> None:
    conversation = chat.conversation
    name = argument or conversation.name
    if name is None:
        raise InvalidArgumentError("the conversation has no name yet: /save NAME")
    if name == store.LAST:
        raise InvalidArgumentError(f"{name} is where each chat is kept by itself; take a name")
    if name != conversation.name and store.exists(name):
        raise InvalidArgumentError(f"there is a conversation {name} already; take another name")
    path = store.save(name, chat.as_saved())
    conversation.name = name
    status(f"saved as {name} ({path})")


def _load(chat: Chat, argument: str) -> None:
    if argument:
        chat.resume(argument)
    else:
        status(f"saved: {', '.join(store.names()) or 'none'}")


def _export(chat: Chat, argument: str) -> None:
    if not argument:
        raise InvalidArgumentError("name a file: /export FILE.md or FILE.json")
    status(f"written: {store.export(argument, chat.as_saved())}")


def _read(chat: Chat, argument: str) -> None:
    if not argument:
        raise InvalidArgumentError("name a file: /read FILE")
    path = Path(argument).expanduser()
    try:
        text = read_input(str(path)).decode("utf-8")
    except UnicodeDecodeError:
        raise FileError(f"{path} is not text in UTF-8") from None
    n_tokens = len(chat.conversation.engine.tokenizer.encode(text.encode(), False, False))
    chat.attached.append(f"{path.name}:\n\n{text.rstrip()}")
    status(f"{path.name}, {n_tokens} tokens, goes before your next question")


def _set(chat: Chat, argument: str) -> None:
    typed, _, text = argument.partition(" ")
    name = "temperature" if typed == "temp" else typed  # as the option is called
    if not text:
        known = _settings(chat)
        if name and name not in known:
            raise InvalidArgumentError(_unknown_setting(name))
        for key in [name] if name else known:
            click.echo(f"{key} {known[key]}", err=True)
        return
    conversation = chat.conversation
    params = conversation.params
    if name == "stats":
        chat.wants_stats = bool(_choice(name, text, ("off", "on")))
    elif name == "when_full":
        policies: tuple[WhenFull, ...] = ("stop", "shift", "error")
        conversation.params = replace(params, when_full=policies[_choice(name, text, policies)])
    elif name == "max_tokens":
        conversation.params = replace(params, max_tokens=max(int(_number(name, text, int)), -1))
    elif name in _SAMPLING:
        value = _number(name, text, _SAMPLING[name])
        changed: dict[str, Any] = {name: value}
        sampling = replace(params.sampling, **changed)
        native(sampling).check()
        conversation.params = replace(params, sampling=sampling)
        if name == "seed":
            conversation.reseed(int(value))
    else:
        raise InvalidArgumentError(_unknown_setting(name))
    status(f"{name} is {_settings(chat)[name]}")


_SAMPLING: dict[str, type] = {
    entry.name: {"int": int, "float": float}[str(entry.type)]
    for entry in fields(SamplingParams)
    if entry.type in ("int", "float")
}
_SETTINGS = (*_SAMPLING, "max_tokens", "when_full", "stats")


def _settings(chat: Chat) -> dict[str, object]:
    params = chat.conversation.params
    sampling = dataclasses.asdict(params.sampling)
    return {
        **{name: sampling[name] for name in _SAMPLING},
        "max_tokens": params.max_tokens,
        "when_full": params.when_full,
        "stats": "on" if chat.wants_stats else "off",
    }


def _unknown_setting(name: str) -> str:
    return f"there is no setting {name}; /set lists them"


def _number(name: str, text: str, kind: type) -> float:
    try:
        value: float = kind(text)
    except ValueError:
        wanted = "an integer" if kind is int else "a number"
        raise InvalidArgumentError(f"{name} must be {wanted}, found {text!r:.80}") from None
    return value


def _choice(name: str, text: str, choices: Sequence[str]) -> int:
    if text not in choices:
        raise InvalidArgumentError(f"{name} must be {' or '.join(choices)}, found {text!r:.80}")
    return choices.index(text)


def _model(chat: Chat, argument: str) -> None:
    if argument:
        chat.use_model(argument)
    else:
        status(f"{chat.model_name}, context {chat.conversation.engine.context.n_ctx} tokens")


def _stats(chat: Chat, _argument: str) -> None:
    if chat.conversation.last is None:
        raise InvalidArgumentError("there is no answer to measure yet")
    chat.show_stats()


def _tokens(chat: Chat, argument: str) -> None:
    conversation = chat.conversation
    if argument:
        ids = conversation.engine.tokenizer.encode(
            argument.encode("utf-8", "surrogateescape"), False, False
        )
        status(f"{len(ids)} tokens")
        return
    unseen = f"; the oldest {conversation.n_unseen} messages are not seen any more"
    status(
        f"{conversation.n_tokens()} of {conversation.engine.context.n_ctx} tokens"
        f"{unseen if conversation.n_unseen else ''}"
    )


def _exit(_chat: Chat, _argument: str) -> None:
    raise EOFError


def _files(typed: str) -> list[str]:
    folder, _, _ = typed.rpartition("/")
    base = Path(folder or ("/" if typed.startswith("/") else ".")).expanduser()
    try:
        found = sorted(base.iterdir())
    except OSError:
        return []
    prefix = typed[: len(folder) + 1] if "/" in typed else ""
    return [f"{prefix}{path.name}{'/' if path.is_dir() else ''}" for path in found]


COMMANDS = {
    "/help": Command("", "this list", _help),
    "/clear": Command("", "begin a new conversation", _clear),
    "/undo": Command("", "take back the last question and its answer", _undo),
    "/regen": Command("", "answer the last question again", _regen),
    "/edit": Command("[TEXT]", "change the last question and have it answered", _edit),
    "/system": Command("[TEXT]", "show or set the system message; off: the model's own", _system),
    "/save": Command("[NAME]", "save the conversation; a new name is a branch", _save),
    "/load": Command("[NAME]", "go on with a saved one; list them", _load, lambda _: store.names()),
    "/export": Command("FILE", "write it as Markdown (.md) or JSON (.json)", _export, _files),
    "/read": Command("FILE", "put a text file before the next question", _read, _files),
    "/set": Command(
        "[NAME VALUE]", "show or change how answers are made", _set, lambda _: _SETTINGS
    ),
    "/model": Command("[MODEL]", "show or change the model", _model, lambda _: cached_models()),
    "/stats": Command("", "speed of the last answer, and its share of the machine's limit", _stats),
    "/tokens": Command("[TEXT]", "tokens of the conversation, or of a text", _tokens),
    "/exit": Command("", "leave", _exit),
}
