"""The loop of the chat: questions and commands in, answers out, the last conversation kept."""

from __future__ import annotations

import dataclasses

import click

from ...chat.format import ChatFormat
from ...errors import CancelledError, PyllamacppError
from ..options import EngineOptions
from ..runtime import find_model, open_engine, status
from . import commands, store
from .conversation import Answer, Conversation
from .keyboard import open_keyboard
from .screen import Screen
from .speed import Speed

_STOPPED = "stopped before the first word: the question is not kept"


class Chat:
    """What commands act on. attached: texts that go before the next question. draft: what stands
    in the line to be edited, to be asked instead of the last question.
    """

    def __init__(
        self, conversation: Conversation, screen: Screen, options: EngineOptions, wants_stats: bool
    ) -> None:
        self.conversation = conversation
        self.attached: list[str] = []
        self.draft = ""
        self.wants_stats = wants_stats
        self._screen = screen
        self._options = options
        self._speed = Speed(conversation.engine, options)
        self._keeps_last = True

    @property
    def model_name(self) -> str:
        """Name of the model's file."""
        return find_model(self._options.model).stem

    def run(self) -> None:
        """Runs until the user leaves."""
        self.keyboard = open_keyboard(commands.complete)
        status("type a question; /help lists the commands, Ctrl-D leaves")
        while True:
            draft, self.draft = self.draft, ""
            try:
                line = self.keyboard.read(draft).strip()
                if line.startswith("/"):
                    commands.run(self, line)
                elif line:
                    self.ask(line, instead=bool(draft))
            except EOFError:
                return
            except KeyboardInterrupt:
                if self.keyboard.was_sent:
                    status(_STOPPED)
            except (PyllamacppError, OSError, MemoryError, ImportError) as error:
                status(str(error) or type(error).__name__)

    def ask(self, question: str, *, instead: bool = False) -> None:
        """Shows the answer; what was attached goes before the question once it is answered."""
        if not instead:
            question = "\n\n".join([*self.attached, question])
        answer = None
        try:
            answer = self.conversation.ask(question, self._screen, instead=instead)
        except KeyboardInterrupt:  # while the prompt was made: the conversation is as it was
            pass
        finally:
            self._screen.end(answer)
        if answer is None:
            status(_STOPPED)
            return
        if not instead:
            self.attached.clear()
        if answer.finish_reason == "interrupted":
            status("stopped; what was said so far stays in the conversation")
        self._report(answer)
        self._keep_last()

    def answer_once(self, question: str) -> None:
        """Shows the answer to one question.

        Raises ContextFullError when it does not fit, KeyboardInterrupt for Ctrl-C.
        """
        answer: Answer | None = None
        try:
            answer = self.conversation.ask(question, self._screen)
        finally:
            self._screen.end(answer)
        if answer is None or answer.finish_reason == "interrupted":
            raise KeyboardInterrupt
        self._report(answer)

    def _report(self, answer: Answer) -> None:
        if answer.finish_reason == "length":
            status(self.conversation.cut_sentence(answer))
        if self.wants_stats:
            self.show_stats()

    def show_stats(self) -> None:
        """Speed of the last answer."""
        if self.conversation.last is not None:
            status(self._speed.sentence(self.conversation.last))

    def resume(self, name: str) -> None:
        """Goes on with a saved conversation, and shows how it ended."""
        saved = store.load(name)
        # The one that is kept by itself has no name: it is not to be branched from unsaid.
        self.conversation.set(saved.system, saved.messages, None if name == store.LAST else name)
        n_questions = len(saved.messages) // 2
        status(f"{name}: {n_questions} questions and answers, held with {saved.model}")
        if saved.messages:
            click.echo(f"{saved.messages[-2]['content']}\n", err=True)
            self._screen.text(saved.messages[-1]["content"])
            self._screen.end(None)

    def as_saved(self) -> store.Saved:
        """The conversation as it is now."""
        conversation = self.conversation
        return store.Saved(conversation.system, conversation.messages, self.model_name)

    def use_model(self, model: str) -> None:
        """Goes on with another model, once it is loaded.

        Raises what loading raises, CancelledError for Ctrl-C, and all is then as it was.
        """
        options = dataclasses.replace(self._options, model=model)
        try:
            engine = open_engine(options)
        except KeyboardInterrupt:
            raise CancelledError(f"loading {model} was cancelled") from None
        self.conversation.use(engine, ChatFormat.of_model(engine.model))
        self._options, self._speed = options, Speed(engine, options)

    def _keep_last(self) -> None:
        if not self._keeps_last:
            return
        try:
            store.save(store.LAST, self.as_saved())
        except PyllamacppError as error:
            self._keeps_last = False
            status(f"the conversation is not kept: {error}")
