"""`Llama`, as in llama-cpp-python: an import line is all that a user changes."""

from __future__ import annotations

from collections.abc import (
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import fields
from operator import index
from typing import TYPE_CHECKING, Any, Literal, cast, overload

from . import _core
from .banned import BannedStrings
from .chat.format import ChatFormat
from .chat.handler import ChatHandler, Prepared, chat_handler
from .chat.reasoning import Reasoning
from .chat.registry import FormatterHandler, LlamaChatCompletionHandler
from .chat_completion import ChatChunks, ChatCompletion, ChatCompletionChunk, as_chat
from .completion import Completion, CompletionChunk, Prompt, Run, Shape
from .drafting import Guesser
from .embedding import CreateEmbeddingResponse, Text, Vectors
from .encoding import InfillTokens
from .errors import ContextFullError, InvalidArgumentError, UnsupportedError
from .jobs import ChunkIterator, Job, acall, acall_while_wanted, achunks, aiterate, aresult
from .llama_tokenizer import LlamaTokenizer
from .log_prob_text import LogProbText
from .lora import adapter_pairs
from .params import (
    GenerationParams,
    SamplingParams,
    flat_arguments,
    generation_params,
    log_prob_count,
    max_new_tokens,
    text_counts,
)
from .processors import LogitsProcessorList as LogitsProcessorList
from .processors import StoppingCriteriaList as StoppingCriteriaList
from .session import Session
from .stream import native

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from typing_extensions import Unpack

    from .arguments import ChatArguments, CompletionArguments
    from .grammar import LlamaGrammar
    from .params import Adapters, LogitsProcessor, MoreArguments, StoppingCriteria, TokenFilter

Prompts = str | list[int] | list[str] | list[list[int]]
_Fill = Callable[[bytes], list[int]]


class Llama(Session):
    """A model and its context.

    Calls from several threads, and open streams, are evaluated together and share the weights.
    """

    _chat: ChatHandler | LlamaChatCompletionHandler | None = None

    @overload
    def create_completion(
        self,
        prompt: Prompts,
        suffix: str | None = None,
        max_tokens: int | None = 16,
        *,
        stream: Literal[False] = False,
        **arguments: Unpack[CompletionArguments],
    ) -> Completion: ...
    @overload
    def create_completion(
        self,
        prompt: Prompts,
        suffix: str | None = None,
        max_tokens: int | None = 16,
        *,
        stream: Literal[True],
        **arguments: Unpack[CompletionArguments],
    ) -> ChunkIterator[CompletionChunk]: ...
    @overload
    def create_completion(
        self,
        prompt: Prompts,
        suffix: str | None = None,
        max_tokens: int | None = 16,
        *,
        stream: bool,
        **arguments: Unpack[CompletionArguments],
    ) -> Completion | ChunkIterator[CompletionChunk]: ...
    def create_completion(
        self,
        prompt: Prompts,
        suffix: str | None = None,
        max_tokens: int | None = 16,
        temperature: float = 0.8,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        logprobs: int | None = None,
        echo: bool = False,
        stop: str | list[str] | None = None,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        top_k: int = 40,
        stream: bool = False,
        seed: int | None = None,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        stopping_criteria: StoppingCriteria | Sequence[StoppingCriteria] | None = None,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        grammar: LlamaGrammar | str | None = None,
        logit_bias: Mapping[int, float] | None = None,
        **more: Unpack[MoreArguments],
    ) -> Completion | ChunkIterator[CompletionChunk]:
        """Continues a text, or several together.

        Args:
            prompt: text (special tokens in it are parsed) or token ids (used as they are), or a
                list of either: choice number i * n + j is the j-th text of prompt i.
            suffix: text that comes after. A model that can fill in is shown it, and the result is
                what is between; for others it is put behind the result. Special tokens of a prompt
                that is filled in are not parsed.
            max_tokens: None or <= 0: until the context is full, which is where it ends in any case.
            temperature, top_p, min_p, typical_p, tfs_z, top_k: see `SamplingParams`, as for the
                penalties, which look at the constructor's last_n_tokens_size tokens.
            logprobs: how many of the likeliest tokens to name for each one; 0: its own
                log-probability alone.
            logit_bias: token id to what is added to its logit.
            echo: put the prompt in front of the text, and with logprobs its tokens too.
            stop: strings that end the text and are not part of it; the earliest counts.
            stream: return an iterator of chunks; the last of a text has none and the finish
                reason. Its `cancel()` ends it at any time, from any thread.
            seed: None: the next of the constructor's chain. The j-th text of a prompt has seed + j.
            model: the name to state in the result; None: the file's path.
            mirostat_mode, mirostat_tau, mirostat_eta: see `SamplingParams`.
            grammar: a `LlamaGrammar`, or GBNF: what the text must follow.
            stopping_criteria, logits_processor: see the types of `params`; called for each token.
            more: what llama-cpp-python does not have: see `MoreArguments`.

        Raises:
            ContextFullError: the prompt leaves no room. InvalidArgumentError: a value out of
            range. UnsupportedError: what the model or a grammar cannot do. CancelledError.
        """
        job = self._completion(prompt, flat_arguments(locals()))
        return ChunkIterator(job) if stream else job.finish()

    __call__ = create_completion

    @overload
    async def acreate_completion(
        self,
        prompt: Prompts,
        *,
        suffix: str | None = None,
        max_tokens: int | None = 16,
        stream: Literal[False] = False,
        **arguments: Unpack[CompletionArguments],
    ) -> Completion: ...
    @overload
    async def acreate_completion(
        self,
        prompt: Prompts,
        *,
        suffix: str | None = None,
        max_tokens: int | None = 16,
        stream: Literal[True],
        **arguments: Unpack[CompletionArguments],
    ) -> AsyncIterator[CompletionChunk]: ...
    async def acreate_completion(
        self, prompt: Prompts, **arguments: Any
    ) -> Completion | AsyncIterator[CompletionChunk]:
        """`create_completion` for asyncio; cancelling the task ends the evaluation.

        With stream=True an async iterator of chunks.
        """
        job = self.start_completion(prompt, **arguments)
        if arguments.get("stream"):
            return achunks(job)
        return await aresult(job)

    @overload
    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = False,
        **arguments: Unpack[ChatArguments],
    ) -> ChatCompletion: ...
    @overload
    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[True],
        **arguments: Unpack[ChatArguments],
    ) -> ChunkIterator[ChatCompletionChunk]: ...
    @overload
    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: bool,
        **arguments: Unpack[ChatArguments],
    ) -> ChatCompletion | ChunkIterator[ChatCompletionChunk]: ...
    def create_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        functions: Sequence[Mapping[str, Any]] | None = None,
        function_call: str | Mapping[str, Any] | None = None,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: str | Mapping[str, Any] | None = None,
        temperature: float = 0.2,
        top_p: float = 0.95,
        top_k: int = 40,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        stream: bool = False,
        stop: str | list[str] | None = None,
        seed: int | None = None,
        response_format: Mapping[str, Any] | None = None,
        max_tokens: int | None = None,
        presence_penalty: float = 0.0,
        frequency_penalty: float = 0.0,
        repeat_penalty: float = 1.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        model: str | None = None,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        grammar: LlamaGrammar | str | None = None,
        logit_bias: Mapping[int, float] | None = None,
        logprobs: bool | None = None,
        top_logprobs: int | None = None,
        parallel_tool_calls: bool = True,
        reasoning_effort: str | None = None,
        reasoning_format: str = "none",
        thinking_budget_tokens: int | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
        **more: Unpack[MoreArguments],
    ) -> ChatCompletion | ChunkIterator[ChatCompletionChunk]:
        """Answers a conversation, in the format that the constructor's chat_format says.

        Args:
            messages: dicts with "role" and "content" (a string, or OpenAI's list of text parts),
                calls and their results among them; see `llama_types`.
            tools, tool_choice: what the answer may ("auto"), must ("required", or one of them) or
                may not ("none") call. Every model can: a template that offers tools does so, for
                others they are offered in words. A call is in the message's `tool_calls`, and the
                finish reason is "tool_calls"; one that the model began as one but wrote otherwise,
                or of a tool that is not there, is text.
            parallel_tool_calls: False leaves the first call of an answer alone.
            functions, function_call: the same in OpenAI's older form.
            response_format: {"type": "json_object"}, or "json_schema" with the answer's schema.
            stream: return an iterator of chunks: the role, text and calls as they come, the finish
                reason.
            logprobs: state the log-probability of each token; top_logprobs: and of so many of
                the likeliest in its place.
            chat_template_kwargs: further variables of the template, JSON values by their names:
                {"enable_thinking": False}, say. Nothing that asks for thinking can be had beside a
                response_format, a grammar or a call that is required, which turn it off.
            reasoning_effort: OpenAI's: "none" turns thinking off, "minimal" to "max" turn it on;
                the template is given it as it is too, and one without levels is warned of.
            reasoning_format: "deepseek" or "auto": what the model thinks at the start of its
                answer, in <think></think>, is the message's `reasoning_content`; "none": it is left
                in the text.
            thinking_budget_tokens: so many tokens of thinking are followed by </think>.
            The others are as in `create_completion`.

        Raises:
            InvalidArgumentError: the template refuses the messages, or tools, a choice or a format
            are none, or the template has no such variable. UnsupportedError: thinking is asked of a
            template that knows none. FormatError: the template is broken. Otherwise as
            `create_completion`.
        """
        arguments = flat_arguments(locals())
        handler = self._chat_handler()
        if not isinstance(handler, ChatHandler):
            return cast(
                "ChatCompletion | ChunkIterator[ChatCompletionChunk]",
                _answered_by(handler, self, messages, arguments)(),
            )
        job = self._chat_completion(handler, messages, arguments)
        return ChunkIterator(job) if stream else job.finish()

    def create_chat_completion_openai_v1(self, *args: Any, **arguments: Any) -> Any:
        """`create_chat_completion` with objects of the openai package: `ChatCompletion`, or an
        iterator of `ChatCompletionChunk`.

        Raises UnsupportedError where that package is not installed.
        """
        try:
            from openai.types import chat
        except ImportError:
            raise UnsupportedError(
                "create_chat_completion_openai_v1 needs the openai package: pip install openai"
            ) from None
        answer = self.create_chat_completion(*args, **arguments)
        if isinstance(answer, Mapping):
            return chat.ChatCompletion.model_validate(answer)
        return map(chat.ChatCompletionChunk.model_validate, answer)

    def create_chat_completion_with(
        self,
        handler: FormatterHandler,
        messages: Sequence[Mapping[str, Any]],
        **arguments: Any,
    ) -> ChatCompletion | Iterator[ChatCompletionChunk]:
        """`create_chat_completion` in a handler's format, whatever the constructor's is."""
        job = self._chat_completion(
            ChatHandler(ChatFormat.of_formatter(handler.formatter, self._encoder)),
            messages,
            _with_defaults(Llama.create_chat_completion, arguments),
        )
        return ChunkIterator(job) if arguments.get("stream") else job.finish()

    @overload
    async def acreate_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[False] = False,
        **arguments: Unpack[ChatArguments],
    ) -> ChatCompletion: ...
    @overload
    async def acreate_chat_completion(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        stream: Literal[True],
        **arguments: Unpack[ChatArguments],
    ) -> AsyncIterator[ChatCompletionChunk]: ...
    async def acreate_chat_completion(
        self, messages: Sequence[Mapping[str, Any]], **arguments: Any
    ) -> ChatCompletion | AsyncIterator[ChatCompletionChunk]:
        """`create_chat_completion` for asyncio, as `acreate_completion`."""
        options = _with_defaults(Llama.create_chat_completion, arguments)
        handler = self._chat_handler()
        if not isinstance(handler, ChatHandler):
            answer = await acall(_answered_by(handler, self, messages, options))
            return aiterate(iter(answer)) if arguments.get("stream") else answer
        job = self._chat_completion(handler, messages, options)
        if arguments.get("stream"):
            return achunks(job)
        return await aresult(job)

    async def aembed(
        self,
        input: Text | Iterable[Text],  # noqa: A002  (llama-cpp-python's name)
        normalize: bool = False,
        truncate: bool = True,
    ) -> Vectors:
        """`embed` for asyncio; cancelling the task ends the evaluation with the batch at hand."""
        embedder = self.embedder
        return await acall_while_wanted(
            lambda is_over: embedder.embed(input, normalize, truncate, is_cancelled=is_over)
        )

    async def acreate_embedding(
        self,
        input: Text | Iterable[Text],  # noqa: A002  (llama-cpp-python's name)
        model: str | None = None,
        *,
        encoding_format: Literal["float", "base64"] = "float",
        dimensions: int | None = None,
        normalize: bool = False,
    ) -> CreateEmbeddingResponse:
        """`create_embedding` for asyncio, as `aembed`."""
        embedder = self.embedder
        return await acall_while_wanted(
            lambda is_over: embedder.create_embedding(
                input,
                self.model_path if model is None else model,
                encoding_format=encoding_format,
                dimensions=dimensions,
                normalize=normalize,
                is_cancelled=is_over,
            )
        )

    def start_completion(
        self, prompt: Prompts, **arguments: Any
    ) -> Job[Completion, CompletionChunk]:
        """`create_completion` as a job, to be finished, read or cancelled."""
        return self._completion(prompt, _with_defaults(Llama.create_completion, arguments))

    def start_chat_completion(
        self, messages: Sequence[Mapping[str, Any]], **arguments: Any
    ) -> Job[ChatCompletion, ChatCompletionChunk]:
        """`create_chat_completion` as a job, as `start_completion`."""
        options = _with_defaults(Llama.create_chat_completion, arguments)
        return self._chat_completion(self.chat(), messages, options)

    def chat(self) -> ChatHandler:
        """What makes prompts of conversations.

        Raises UnsupportedError where chat_format names a handler that answers by itself.
        """
        handler = self._chat_handler()
        if not isinstance(handler, ChatHandler):
            raise UnsupportedError(f"{self.chat_format!r} is a handler that answers by itself")
        return handler

    # -- what both are made of -----------------------------------------------------------------

    def _completion(
        self, prompt: Prompts, arguments: dict[str, Any]
    ) -> Job[Completion, CompletionChunk]:
        fill = self._fill(prompt, arguments)
        prompts = self._prompts(prompt, bool(arguments["echo"]), fill)
        if fill is not None:
            arguments = {**arguments, "suffix": None}
        run = self._run(prompts, arguments, LogProbText.completion_layout)
        return Job(run, lambda completion: completion, None)

    def _chat_handler(self) -> ChatHandler | LlamaChatCompletionHandler:
        if self._chat is None:
            self._chat = chat_handler(
                self.model, self.chat_format, self.chat_handler, self._encoder
            )
        return self._chat

    def _chat_completion(
        self,
        handler: ChatHandler,
        messages: Sequence[Mapping[str, Any]],
        arguments: dict[str, Any],
    ) -> Job[ChatCompletion, ChatCompletionChunk]:
        tools = ("tools", "tool_choice", "functions", "function_call", "parallel_tool_calls")
        thinking = ("reasoning_effort", "reasoning_format", "thinking_budget_tokens")
        reasoning = Reasoning.of(
            **{name: arguments[name] for name in (*thinking, "chat_template_kwargs")}
        )
        request = {name: arguments[name] for name in (*tools, "response_format")}
        bound = "".join(_notations(arguments)[:1])
        prepared = handler.prepare(messages, **request, reasoning=reasoning, bound=bound)
        options = {**arguments, "stopping_criteria": prepared.stopping_criteria}
        prompt = Prompt(prepared.tokens, "", [])
        run = self._run([prompt], options, LogProbText.chat_layout, prepared)
        return Job(
            run,
            lambda completion: as_chat(completion, prepared),
            lambda: ChatChunks(prepared).of,
        )

    def _run(
        self,
        prompts: list[Prompt],
        arguments: dict[str, Any],
        layout: Any,
        chat: Prepared | None = None,
    ) -> Run:
        n, best_of = text_counts(arguments)
        new_filter = self._filters(arguments, chat)
        n_ctx, when_full = self.engine.context.n_ctx, arguments.get("when_full", "stop")
        seeds = [self._seeds.next(arguments.get("seed")) for _ in prompts]

        def params_of(i: int, j: int) -> GenerationParams:
            n_prompt = len(prompts[i].tokens)
            return generation_params(
                arguments,
                seed=(seeds[i] + j) % (1 << 64),
                penalty_last_n=self.last_n_tokens_size,
                max_tokens=max_new_tokens(arguments["max_tokens"], n_prompt, n_ctx, when_full),
                stop=() if chat is None else chat.stop,
                drafter=self._drafter(),
                shown=() if chat is None else chat.shown,
                token_filter=new_filter(),
                adapters=self._adapters(arguments),
            )

        model = arguments.get("model")
        return Run(
            self.engine,
            prompts,
            params_of,
            Shape(self.model_path if model is None else model),
            n=n,
            best_of=best_of,
            echo=bool(arguments.get("echo")),
            suffix=arguments.get("suffix") or "",
            layout=None if log_prob_count(arguments) is None else layout,
            keeps_up=bool(arguments.get("stream")),
            reports=self._reports_timing,
        )

    def _fill(self, prompt: Prompts, arguments: Mapping[str, Any]) -> _Fill | None:
        """What makes ids of a text that the model is to fill in up to the call's suffix.

        None: there is no suffix, the model cannot, or the prompts are ids.
        """
        suffix: str | None = arguments["suffix"]
        texts = [prompt] if isinstance(prompt, str) else prompt
        if not suffix or not all(isinstance(text, str) for text in texts):
            return None
        infill = InfillTokens.of(self.model)
        if infill is None:
            return None
        if arguments["echo"] and log_prob_count(arguments) is not None:
            raise UnsupportedError("logprobs cannot be echoed of a prompt that is filled in")
        after = suffix.encode("utf-8", "surrogateescape")
        suffix_first = bool(self._arguments["spm_infill"])
        return lambda before: infill.prompt(self._encoder, before, after, suffix_first=suffix_first)

    def _prompts(self, prompt: Prompts, echo: bool, fill: _Fill | None) -> list[Prompt]:
        """One prompt, or each of a list; with its text where it is echoed."""
        if isinstance(prompt, str):
            return [self._prompt(prompt, echo, fill)]
        items = list(prompt)
        if items and isinstance(items[0], str | list | tuple):
            return [self._prompt(cast("str | list[int]", item), echo, fill) for item in items]
        return [self._prompt(cast("list[int]", items), echo, None)]

    def _prompt(self, prompt: str | list[int], echo: bool, fill: _Fill | None) -> Prompt:
        if isinstance(prompt, str):
            data = prompt.encode("utf-8", "surrogateescape")
            if fill is not None:
                return Prompt(fill(data), prompt if echo else "", [])
            tokens = self.tokenize(data, special=True)
        else:
            try:
                tokens = [index(token) for token in prompt]
            except TypeError:
                raise InvalidArgumentError(
                    f"a prompt must be a string or a list of token ids, found {prompt!r:.80}"
                ) from None
        if not echo:
            return Prompt(tokens, "", [])
        tokenizer = self.model.tokenizer
        pieces = [tokenizer.piece(token, isinstance(prompt, str)) for token in tokens]
        if tokens and tokens[0] == tokenizer.bos:
            pieces[0] = b""
            # The space that SentencePiece vocabularies put before a text.
            pieces[1:2] = [piece.removeprefix(b" ") for piece in pieces[1:2]]
        text = b"".join(pieces).decode("utf-8", "replace")
        return Prompt(tokens, prompt if isinstance(prompt, str) else text, pieces)

    def _filters(
        self, arguments: Mapping[str, Any], chat: Prepared | None = None
    ) -> Callable[[], TokenFilter | None]:
        """Makes what each text must follow."""
        structure = None if chat is None else chat.structure
        strings = arguments.get("banned_strings")
        if strings:
            banned = BannedStrings(strings, self.model)
            inner = self._filters({**arguments, "banned_strings": None}, chat)
            return lambda: banned.filter(inner())
        wanted = _notations(arguments)
        if not wanted and structure is None:
            limit = None if chat is None else chat.limit
            return (lambda: None) if limit is None else limit.filter
        if wanted and structure is not None:
            raise InvalidArgumentError(
                f"{wanted[0]} cannot be given beside response_format or calls that are required"
            )
        from .grammar import GrammarFilter, grammar_of, json_schema_grammar, lark_grammar

        grammar = grammar_of(arguments)
        if structure is not None:
            if structure.lark is not None:
                grammar = lark_grammar(structure.lark)
            elif structure.json_schema is not None:
                grammar = json_schema_grammar(structure.json_schema)
        assert grammar is not None
        return lambda: GrammarFilter(grammar, self.model)

    def _adapters(self, arguments: Mapping[str, Any]) -> Adapters:
        """What the call asks for, else what `set_lora` says."""
        wanted = arguments.get("lora")
        return self.engine.adapters if wanted is None else adapter_pairs(wanted)

    def _unpenalized(self, penalize_nl: bool) -> tuple[int, ...]:
        return () if penalize_nl else (self.token_nl(),)

    def _drafter(self) -> Guesser | None:
        return None if self.draft_model is None else Guesser(self.draft_model)

    def close(self) -> None:
        """Frees the model and its context. Calls that need them raise PyllamacppError then."""
        self._chat = None
        super().close()

    def tokenizer(self) -> LlamaTokenizer:
        """The model's tokenizer as an object, from text to ids and back."""
        return LlamaTokenizer(self)

    # -- token by token ------------------------------------------------------------------------

    def generate(
        self,
        tokens: Sequence[int],
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        reset: bool = True,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_tau: float = 5.0,
        mirostat_eta: float = 0.1,
        penalize_nl: bool = True,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        stopping_criteria: StoppingCriteria | Sequence[StoppingCriteria] | None = None,
        grammar: LlamaGrammar | str | None = None,
        **more: Unpack[MoreArguments],
    ) -> Generator[int, Sequence[int] | None, None]:
        """Yields token ids that continue `tokens`, without end; end-of-text ids are yielded too.

        reset: False: continue what the context holds, then `tokens`. `.send(ids)` puts ids after
        the token last yielded. penalize_nl: False: the penalties leave line feeds alone.
        stopping_criteria end it, as does a grammar whose text is complete.
        Raises ContextFullError when the context is full, UnsupportedError as `create_completion`
        and for n and best_of.
        """
        arguments = flat_arguments(locals())
        if text_counts(arguments) != (1, 1):
            raise UnsupportedError("generate() makes one text: n and best_of are not supported")
        is_bound = bool(_notations(arguments))
        prompt = [*([] if reset else self.engine.tokens), *tokens]
        n_ctx = self.n_ctx()
        seed = self._seeds.next(None)
        # Each pass is one generation: it ends at an end-of-text token or when ids are sent.
        while True:
            params = generation_params(
                {**arguments, "temperature": temp},
                seed=seed,
                penalty_last_n=self.last_n_tokens_size,
                max_tokens=-1,
                unpenalized=self._unpenalized(penalize_nl),
                drafter=self._drafter(),
                token_filter=self._filters(arguments)(),
                adapters=self._adapters(arguments),
            )
            steps = self.engine.start(prompt, params)
            try:
                for step in steps:
                    token, sent = step.token, None
                    if token is not None:
                        prompt.append(token)
                        sent = yield token
                    if sent is not None:
                        prompt.extend(sent)
                        break
                    is_end = token is not None and steps.tokenizer.ends_generation(token)
                    if step.finish_reason == "stop" and (is_bound or not is_end):
                        return
                    if step.finish_reason == "length":
                        if len(prompt) <= n_ctx:
                            return  # time_limit is over
                        raise ContextFullError(
                            f"Requested tokens ({n_ctx + 1}) exceed context window of {n_ctx}"
                        )
            finally:
                steps.cancel()
            seed = self._seeds.next(None)

    def sample(
        self,
        top_k: int = 40,
        top_p: float = 0.95,
        min_p: float = 0.05,
        typical_p: float = 1.0,
        temp: float = 0.8,
        repeat_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        tfs_z: float = 1.0,
        mirostat_mode: int = 0,
        mirostat_eta: float = 0.1,
        mirostat_tau: float = 5.0,
        penalize_nl: bool = True,
        logits_processor: LogitsProcessor | Sequence[LogitsProcessor] | None = None,
        grammar: LlamaGrammar | str | None = None,
        idx: int | None = None,
        **more: Unpack[MoreArguments],
    ) -> int:
        """A token from the logits of the last `eval`, or with logits_all of the token at `idx`.

        Raises InvalidArgumentError where nothing was evaluated or idx has no logits.
        """
        options = flat_arguments({**locals(), "temperature": temp})
        names = {entry.name for entry in fields(SamplingParams)}
        for name in ("grammar", *more):
            if name not in names and options[name] is not None:
                raise UnsupportedError(f"sample() takes no {name}: it draws a token, not a text")
        n_tokens = self.n_tokens
        place = n_tokens - 1 if idx is None else idx
        if not 0 <= place < n_tokens or (place < n_tokens - 1 and not self.engine.logits_all):
            raise InvalidArgumentError(
                f"there are no logits of token {place}: {n_tokens} tokens are in the context, "
                f"logits_all is {self.engine.logits_all}"
            )
        ids, logits = self.input_ids[: place + 1], self.scores[place].copy()
        params = generation_params(
            options,
            seed=self._seeds.next(None),
            penalty_last_n=self.last_n_tokens_size,
            max_tokens=1,
            unpenalized=self._unpenalized(penalize_nl),
        )
        for processor in params.processors:
            logits = processor(ids, logits)
        return _core.Sampler(native(params.sampling)).sample(logits, ids.tolist())

    @staticmethod
    def logits_to_logprobs(
        logits: npt.NDArray[np.single] | Sequence[float] | Sequence[Sequence[float]],
        axis: int = -1,
    ) -> npt.NDArray[np.single]:
        """The log-probabilities of logits, float32 of their shape, along `axis`."""
        import numpy as np

        values = np.asarray(logits, dtype=np.float64)
        values = values - values.max(axis=axis, keepdims=True)
        sums = np.exp(values).sum(axis=axis, keepdims=True)
        found: npt.NDArray[np.single] = (values - np.log(sums)).astype(np.single)
        return found

    @staticmethod
    def longest_token_prefix(a: Sequence[int], b: Sequence[int]) -> int:
        """How many tokens at their beginnings are the same in both."""
        pairs = enumerate(zip(a, b, strict=False))
        return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _answered_by(
    handler: LlamaChatCompletionHandler,
    llama: Llama,
    messages: Sequence[Mapping[str, Any]],
    arguments: dict[str, Any],
) -> Callable[[], Any]:
    """A call of a handler that answers by itself."""
    return lambda: handler(llama=llama, messages=list(messages), **arguments)


def _notations(arguments: Mapping[str, Any]) -> list[str]:
    """The arguments that say what a text must be as a whole, of those given."""
    names = ("grammar", "json_schema", "regex")
    return [name for name in names if arguments.get(name) is not None]


def _with_defaults(function: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    """All arguments of a function but self and the first, where not given at their defaults."""
    from inspect import Parameter, signature

    parameters = list(signature(function).parameters.values())[2:]
    named = {p.name: p.default for p in parameters if p.kind is not Parameter.VAR_KEYWORD}
    more = {name: value for name, value in arguments.items() if name not in named}
    return flat_arguments({**named, **arguments, "more": more})
