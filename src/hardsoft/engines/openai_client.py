"""Many questions to an OpenAI-compatible server at once, and what such servers reply; knows neither completions nor verdicts.

The openai client does the transport: it retries timeouts, dropped connections, 408, 409, 429 (after its Retry-After) and 5xx with
back-off. Here it is decided what a failure that outlasts the retries means: the end of the run when every other question would
fail too, else of that question alone.
"""

import asyncio
import math
import os
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import httpx2
import openai
from openai.types import CompletionUsage
from openai.types.chat import ChatCompletion
from openai.types.chat.chat_completion import ChoiceLogprobs

from hardsoft.core.errors import InputError
from hardsoft.core.secrets import mask

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")
Client = openai.AsyncOpenAI
Ask = Callable[[Client, Question], Awaitable[Answer]]

NO_KEY = "none"
"""Sent to a server that wants no key: without one, the client would fall back on OPENAI_API_KEY."""
FATAL = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
BAD_REQUEST = (openai.BadRequestError, openai.UnprocessableEntityError)
REFUSED = ("content_filter", "content_policy_violation")
"""Error codes of bad requests that are an answer: the provider will not speak of this question."""
OF_THE_QUESTION = ("context_length_exceeded", "invalid_prompt", "string_above_max_length")
"""Error codes of bad requests that tell nothing of other questions, even when nothing has been answered yet."""
FAILURES_TO_GIVE_UP = 2
"""So many failed questions before any was answered end the run; until then they are asked one by one."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
PROXIES = ("ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")
STOPPED = ("stop", "eos", "eos_token", "stop_sequence", "end_turn", "completed", "finished", "")
CUT = ("length", "max_tokens", "model_length", "max_output_tokens")
FILTERED = ("content_filter", "safety", "refusal", "recitation")
"""Finish reasons, in lower case, as servers of several makes write them; none at all means stopped."""


class MalformedReplyError(Exception):
    """The server replied with something that is no chat completion."""


class UnusableReplyError(Exception):
    """A chat completion that cannot be used, and that would be no better if asked for again."""


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counts them; 0 where it does not."""

    input: int = 0
    cached_input: int = 0
    """Of `input`, those that the provider had read shortly before."""
    output: int = 0
    reasoning: int = 0
    """Of `output`, those that were not shown."""


@dataclass(frozen=True)
class Reply:
    """What a chat completion says."""

    text: str
    finish_reason: Literal["stop", "length", "content_filter"]
    usage: Usage
    model: str
    """The model that replied, as the server names it."""
    first_token: dict[str, float] = field(default_factory=dict)
    """Log-probabilities of the likeliest first tokens, or of the choices, where they were asked for and the server tells."""


@dataclass
class Server:
    """Where questions go, and how."""

    base_url: str | None
    """None is OpenAI itself, or OPENAI_BASE_URL in the environment."""
    key: str = field(repr=False)
    """`NO_KEY` for a server that wants none."""
    concurrency: int
    """Requests that are under way at once."""
    timeout_s: float
    """Seconds that one request may take."""
    max_retries: int
    refused: set[str] = field(default_factory=set)
    """Parameters that its models are known to refuse, and that are sent no more."""

    def ask_all(
        self,
        questions: Iterable[Question],
        ask: Ask[Question, Answer],
        on_answer: Callable[[int, Answer], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        """Ask questions, `concurrency` at a time, taking them as there is room; each ends in one call of on_answer or on_failure.

        Until one has been answered they are asked one by one, so that what would hit all of them is met by few.

        Raises:
            InputError: no server, no or a wrong key, an unknown model, or requests of a kind that the server refuses.
        """
        self.run(lambda client: self._ask_all(client, questions, ask, on_answer, on_failure))

    def run(self, work: Callable[[Client], Coroutine[Any, Any, Result]]) -> Result:
        """Do something with a client, and close it.

        Raises:
            InputError: what the client raised, in one line.
        """

        async def with_a_client() -> Result:
            async with self._client() as client:
                return await work(client)

        try:
            return asyncio.run(with_a_client())
        except openai.OpenAIError as error:
            hint = "; does it run, and is base_url right?" if isinstance(error, openai.APIConnectionError) else ""
            raise InputError(f"{self.name}: {self.explain(error)}{hint}") from None

    @property
    def name(self) -> str:
        """What messages call it."""
        return self.base_url or "OpenAI"

    async def chat(self, client: Client, max_tokens: int, **parameters: Any) -> Reply:
        """One chat completion, read; parameters that the model refuses (`max_tokens`, `temperature`) are replaced or left out.

        Raises:
            MalformedReplyError, UnusableReplyError, openai.OpenAIError: there is no usable reply.
        """
        while True:
            sent = self.body(max_tokens, **parameters)
            try:
                return self.read(await client.chat.completions.create(**sent))
            except BAD_REQUEST as error:
                if isinstance(error, openai.BadRequestError) and error.code in REFUSED:
                    return Reply("", "content_filter", Usage(), "")
                refused = next((name for name in ("max_tokens", "temperature") if name in sent and _refuses(error, name)), None)
                if refused is None:
                    raise
                self.refused.add(refused)
            except ValueError as error:  # the body is no JSON
                raise MalformedReplyError(f"the reply is no JSON: {error}") from None

    async def decide(self, client: Client, model: str, messages: Any, instructions: str, choices: Sequence[str]) -> Reply:
        """One decision between choices; its text is the choice, and a refused one has the finish reason `content_filter`.

        Raises:
            MalformedReplyError, openai.OpenAIError: there is no usable reply.
        """
        question: Any = {"type": "choice", "instructions": instructions, "choices": [{"value": one} for one in choices]}
        try:
            decision = await client.decisions.create(model=model, input=messages, questions=[question])
            (answer,), usage = decision.answers, decision.usage
            read = Usage(usage.input_tokens, usage.input_tokens_details.cached_tokens, usage.output_tokens)
            if answer.type == "refusal":
                return Reply("", "content_filter", read, decision.model)
            if answer.type != "choice" or answer.choice not in choices:
                raise MalformedReplyError("the reply is no choice of those given")
            shares = {str(one.value): math.log(max(one.probability, 1e-9)) for one in answer.probabilities}
            return Reply(str(answer.choice), "stop", read, decision.model, shares)
        except (ValueError, TypeError, AttributeError) as error:  # no JSON, or not of this protocol
            raise MalformedReplyError(f"the reply is no decision: {error}") from None

    def body(self, max_tokens: int, **parameters: Any) -> dict[str, Any]:
        """What is sent to ask for a chat completion: parameters that are set and not refused."""
        limit = "max_completion_tokens" if "max_tokens" in self.refused else "max_tokens"
        wanted = {limit: max_tokens} | parameters
        return {name: value for name, value in wanted.items() if value is not None and name not in self.refused}

    def announced(self, model: str) -> str | None:
        """What the server says of a model that a person should know before the run: that it lacks it, or will soon.

        A server that cannot tell is no error.
        """
        return self.run(lambda client: self._announced(client, model))

    async def _announced(self, client: Client, model: str) -> str | None:
        try:
            found = await client.with_options(max_retries=0).models.retrieve(model)
        except openai.NotFoundError:
            return f"{self.name} does not list the model {model}"
        except (openai.OpenAIError, ValueError):
            return None
        shutdown = getattr(found, "shutdown_date", None)
        return f"{self.name} announces that {model} shuts down on {mask(str(shutdown), self.secret)}" if shutdown else None

    def explain(self, error: Exception) -> str:
        """What went wrong, in one short line with the server's own words, without the key should it repeat that."""
        text = str(error)
        if isinstance(error, openai.APIStatusError):
            text = f"HTTP {error.status_code}: {error.response.text}"
        elif isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
            text = f"{error} ({error.__cause__})"
        return f"{type(error).__name__}: {' '.join(mask(text, self.secret).split())[:300]}"

    @property
    def secret(self) -> str:
        """The key, which no message may hold; empty where there is none."""
        return "" if self.key == NO_KEY else self.key

    async def _ask_all(
        self,
        client: Client,
        questions: Iterable[Question],
        ask: Ask[Question, Answer],
        on_answer: Callable[[int, Answer], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        waiting = enumerate(questions)
        answered = failed = 0

        async def ask_one(position: int, question: Question) -> None:
            nonlocal answered, failed
            try:
                answer = await self._patiently(client, ask, question)
            except (openai.OpenAIError, MalformedReplyError, UnusableReplyError) as error:
                if getattr(error, "code", None) not in OF_THE_QUESTION:
                    failed += 1
                    if _is_fatal(error):
                        raise
                    if not answered and failed >= FAILURES_TO_GIVE_UP:
                        reason = self.explain(error)
                        raise InputError(
                            f"{self.name}: {failed} questions failed before any was answered, the last by {reason}"
                        ) from None
                on_failure(position, self.explain(error))
            else:
                answered += 1
                on_answer(position, answer)

        async def ask_one_after_another() -> None:
            for position, question in waiting:
                await ask_one(position, question)

        for position, question in waiting:
            await ask_one(position, question)
            if answered:
                break
        tasks = [asyncio.create_task(ask_one_after_another()) for _ in range(self.concurrency)]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()

    def _client(self) -> Client:
        """The client, its address and proxies checked.

        Raises:
            InputError: a user name or password in the address, or a proxy that cannot be used.
        """
        try:
            client = openai.AsyncOpenAI(
                api_key=self.key, base_url=self.base_url, timeout=self.timeout_s, max_retries=self.max_retries
            )
        except (ImportError, ValueError) as error:
            named = next((name for name in PROXIES if os.environ.get(name)), "a proxy variable")
            raise InputError(
                f"{named} names a proxy that cannot be used ({str(error).partition(' URL(')[0].partition('. ')[0]}); unset it, "
                "or for a SOCKS proxy `pip install socksio` and write socks5://"
            ) from None
        if client.base_url.userinfo:
            raise InputError(
                "OPENAI_BASE_URL holds a user name or password; the key goes into the variable that api_key_env names"
            )
        return client

    async def _patiently(self, client: Client, ask: Ask[Question, Answer], question: Question) -> Answer:
        """Ask again, after a growing pause, when the reply is malformed: the client retries all other faults itself."""
        pause = FIRST_PAUSE_S
        for _ in range(self.max_retries):
            try:
                return await ask(client, question)
            except (MalformedReplyError, openai.APIResponseValidationError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        return await ask(client, question)

    def read(self, reply: ChatCompletion) -> Reply:
        """What a chat completion says.

        Raises:
            MalformedReplyError, UnusableReplyError: nothing that can be used.
        """
        if not isinstance(reply, ChatCompletion) or not reply.choices or reply.choices[0].message is None:
            words = getattr(reply, "error", None)
            said = words.get("message", words) if isinstance(words, dict) else words
            raise MalformedReplyError(f"the reply is an error: {said}" if said else "the reply has no choice")
        choice = reply.choices[0]
        message, given = choice.message, str(choice.finish_reason or "").lower()
        usage = _usage(reply.usage)
        text = mask(_text(message.content), self.secret)
        if given in FILTERED or getattr(message, "refusal", None):
            said = str(getattr(message, "refusal", None) or text)
            return Reply(mask(said, self.secret), "content_filter", usage, reply.model or "")
        if given not in (*STOPPED, *CUT):
            raise UnusableReplyError(f"the server ended the message with {choice.finish_reason!r}")
        thought = getattr(message, "reasoning_content", None) or getattr(message, "reasoning", None)
        if thought and not text and given not in CUT:
            raise UnusableReplyError("the reply has no content, only reasoning_content")
        return Reply(text, "length" if given in CUT else "stop", usage, reply.model or "", _first_token(choice.logprobs))


def _usage(usage: CompletionUsage | None) -> Usage:
    if usage is None:
        return Usage()
    read, written = usage.prompt_tokens_details, usage.completion_tokens_details
    return Usage(
        usage.prompt_tokens or 0,
        (read and read.cached_tokens) or 0,
        usage.completion_tokens or 0,
        (written and written.reasoning_tokens) or 0,
    )


def _first_token(logprobs: ChoiceLogprobs | None) -> dict[str, float]:
    told = (logprobs and logprobs.content) or []
    return {one.token: one.logprob for one in told[0].top_logprobs or []} if told else {}


def _text(content: Any) -> str:
    """A message's content as text, be it null, a list of parts, or with half a character in it."""
    if isinstance(content, list):
        parts = [part for part in content if isinstance(part, dict) and part.get("type", "text") in ("text", "output_text")]
        content = "".join(str(part.get("text") or "") for part in parts)
    return str(content or "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _refuses(error: openai.APIStatusError, parameter: str) -> bool:
    """Whether a server refuses a request for one of its parameters."""
    named = getattr(error, "param", None) == parameter or f"'{parameter}'" in str(error)
    return named and ("unsupported" in str(error).lower() or "not support" in str(error).lower())


def _is_fatal(error: Exception) -> bool:
    """Whether every other question would fail as well."""
    return isinstance(error, FATAL) or isinstance(error.__cause__, httpx2.ConnectError)
