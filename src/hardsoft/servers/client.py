"""Many questions to an OpenAI-compatible server at once, and what its failures mean; knows neither completions nor verdicts.

The openai client does the transport: it retries timeouts, dropped connections, 408, 409, 429 (after its Retry-After) and 5xx with
back-off. Here it is decided what a failure that outlasts the retries means: the end of the run when every other question would
fail too, else of that question alone.
"""

import asyncio
import os
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType, TracebackType
from typing import Any, TypeVar

import openai

from hardsoft.core.errors import InputError, first_line
from hardsoft.core.secrets import mask
from hardsoft.servers.faults import BAD_REQUEST, FILTER_CODES, Failures, is_out_of_files, refuses
from hardsoft.servers.replies import WITHHELD, MalformedReplyError, Reply, UnusableReplyError, read_decision, read_reply
from hardsoft.servers.transport import TimedClient, allow_connections

Q = TypeVar("Q")
"""A question."""
A = TypeVar("A")
"""What comes of it."""

NO_KEY = "none"
"""Sent to a server that wants no key: without one, the client would fall back on OPENAI_API_KEY."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0
PROXIES = ("ALL_PROXY", "all_proxy", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy")

NO_JSON = (ValueError, TypeError, AttributeError, RecursionError)
"""What the client raises at bodies that it cannot parse."""
Fallbacks = Mapping[str, Sequence[Any]]
"""Of parameters that a server may refuse, what is sent instead, one value after another; None leaves the parameter out."""
NO_FALLBACKS: Fallbacks = MappingProxyType({})
ALWAYS: Fallbacks = {"max_tokens": [None], "temperature": [None]}
"""New models refuse both; in the place of `max_tokens` goes `max_completion_tokens`."""
LAST_SUSPECTS = ("logprobs", "top_logprobs")
"""Parameters that a bad request refuses if it names no other one."""


class Server:
    """Where questions go, and how; within `async with` its client is open, and what that raises becomes one line."""

    def __init__(
        self,
        base_url: str | None,
        key: str,
        concurrency: int,
        timeout_s: float,
        max_retries: int,
        refused: Iterable[str] = (),
    ) -> None:
        """
        Args:
            base_url: None is OpenAI itself, or OPENAI_BASE_URL in the environment.
            key: `NO_KEY` for a server that wants none.
            concurrency: requests that are under way at once.
            timeout_s: seconds that one request may take.
            max_retries: of a request.
            refused: parameters that its models are known to refuse.
        """
        self.name = base_url or "OpenAI"
        """What messages call it."""
        self.secret = "" if key == NO_KEY else key
        """The key, which no message may hold; empty where there is none."""
        self._base_url, self._key, self._concurrency = base_url, key, concurrency
        self._timeout_s, self.max_retries = timeout_s, max_retries
        self._refusals = Counter(refused)
        """How many values of a parameter were refused: so many of its fallbacks are passed over."""

    async def __aenter__(self) -> openai.AsyncOpenAI:
        """Open the client.

        Raises:
            InputError: a user name or password in the address, or a proxy that cannot be used.
        """
        try:
            self._client = openai.AsyncOpenAI(
                api_key=self._key,
                base_url=self._base_url,
                timeout=self._timeout_s,
                max_retries=self.max_retries,
                http_client=TimedClient(),
            )
        except (ImportError, ValueError) as error:
            named = next((name for name in PROXIES if os.environ.get(name)), "a proxy variable")
            raise InputError(
                f"{named} names a proxy that cannot be used ({str(error).partition(' URL(')[0].partition('. ')[0]}); unset it, "
                "or for a SOCKS proxy `pip install socksio` and write socks5://"
            ) from None
        address = self._client.base_url
        if address.userinfo or address.query or address.fragment:
            held = "a user name or password" if address.userinfo else "a ? or #"
            raise InputError(f"OPENAI_BASE_URL holds {held}; the key goes into the variable that api_key_env names")
        allow_connections(self._concurrency)
        return self._client

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._client.close()
        if is_out_of_files(error):
            raise InputError(f"{self.name}: too many open files; lower concurrency, or raise `ulimit -n`") from None
        if isinstance(error, openai.OpenAIError):
            hint = "; does it run, and is base_url right?" if isinstance(error, openai.APIConnectionError) else ""
            raise InputError(f"{self.name}: {self.explain(error)}{hint}") from None

    async def ask_all(
        self,
        questions: Iterable[Q],
        ask: Callable[[Q], Awaitable[A]],
        on_answer: Callable[[int, A], None],
        on_failure: Callable[[int, str], None],
        may_fail: int,
    ) -> None:
        """Ask questions, `concurrency` at a time, taking them as there is room; each ends in one call of on_answer or on_failure.

        Until one has been answered they are asked one by one, so that what would hit all of them is met by few. When the run must
        end, what is under way may end as well.

        Args:
            may_fail: see `Failures`.

        Raises:
            InputError: no server, no or a wrong key, an empty purse, an unknown model, or failures without end.
        """
        waiting = enumerate(questions)
        failures, ended_by = Failures(may_fail, self._concurrency), list[Exception]()

        async def work(until_one_is_answered: bool) -> None:
            for position, question in waiting:
                try:
                    on_answer(position, await self._patiently(ask, question, ended_by))
                    failures.note_answer()
                except (openai.OpenAIError, MalformedReplyError, UnusableReplyError) as error:
                    if end := self._end(failures.note_failure(error), error):
                        ended_by.append(end)
                    else:
                        on_failure(position, self.explain(error))
                if ended_by or (until_one_is_answered and failures.answered):
                    return

        async with self:
            await work(until_one_is_answered=True)
            workers = 0 if ended_by else self._concurrency
            tasks = [asyncio.create_task(work(until_one_is_answered=False)) for _ in range(workers)]
            try:
                await self._all_end(tasks, ended_by)
            finally:
                for task in tasks:
                    task.cancel()
            if ended_by:
                raise ended_by[0]

    def _end(self, reason: str | None, error: Exception) -> Exception | None:
        """What ends the run; see `Failures.note_failure`."""
        words = f"{self.name}: {reason}, the last by {self.explain(error)}"
        return None if reason is None else InputError(words) if reason else error

    async def _all_end(self, tasks: Iterable[asyncio.Task[None]], ended_by: Sequence[Exception]) -> None:
        """Wait for tasks; once the run ends, for none of them longer than a try may take."""
        waiting = set(tasks)
        while waiting:
            limit = self._timeout_s if ended_by else None
            ended, waiting = await asyncio.wait(waiting, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            for task in ended:
                task.result()
            if not ended:
                return

    async def _patiently(self, ask: Callable[[Q], Awaitable[A]], question: Q, ended_by: Sequence[Exception]) -> A:
        """Ask again, after a growing pause, when the reply is malformed: the client retries all other faults itself.

        Args:
            ended_by: why the run ends; once it does, nothing is asked again.
        """
        pause = FIRST_PAUSE_S
        for _ in range(self.max_retries):
            try:
                return await ask(question)
            except (MalformedReplyError, openai.APIResponseValidationError):
                if ended_by:
                    raise
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        return await ask(question)

    async def chat(self, max_tokens: int, fallbacks: Fallbacks = NO_FALLBACKS, **parameters: Any) -> Reply:
        """One chat completion, read. What the server refuses is sent no more, neither now nor later.

        Args:
            fallbacks: see `Fallbacks`; `ALWAYS` goes without saying.
            parameters: of the request.

        Raises:
            MalformedReplyError, UnusableReplyError, openai.OpenAIError: there is no usable reply.
        """
        fallbacks = {**ALWAYS, **fallbacks}
        while True:
            sent, before = self.body(max_tokens, fallbacks, **parameters), self._refusals.copy()
            try:
                return self.masked(read_reply(await self._client.chat.completions.create(**sent)))
            except BAD_REQUEST as error:
                if isinstance(error, openai.BadRequestError) and error.code in FILTER_CODES:
                    return WITHHELD
                left = [name for name, others in fallbacks.items() if name in sent and before[name] < len(others)]
                refused = [name for name in left if refuses(error, name)]
                refused = refused or [name for name in left if name in LAST_SUSPECTS]
                if not refused:
                    raise
                for name in refused:
                    self._refusals[name] = max(self._refusals[name], before[name] + 1)
            except NO_JSON as error:
                raise MalformedReplyError(f"the reply is no JSON: {first_line(error)}") from None

    def body(self, max_tokens: int, fallbacks: Fallbacks = NO_FALLBACKS, **parameters: Any) -> dict[str, Any]:
        """What is sent to ask for a chat completion: parameters that are set and not refused."""
        wanted = {"max_tokens": max_tokens} | parameters
        chosen = {name: [value, *fallbacks.get(name, ALWAYS.get(name, ()))] for name, value in wanted.items()}
        sent = {name: values[min(self._refusals[name], len(values) - 1)] for name, values in chosen.items()}
        if sent["max_tokens"] is None:
            sent["max_completion_tokens"] = max_tokens
        return {name: value for name, value in sent.items() if value is not None}

    async def decide(self, model: str, messages: Any, instructions: str, choices: Sequence[str]) -> Reply:
        """One decision between choices; its text is the choice, and a refused one has the finish reason `content_filter`.

        Raises:
            MalformedReplyError, openai.OpenAIError: there is no usable reply.
        """
        question: Any = {"type": "choice", "instructions": instructions, "choices": [{"value": choice} for choice in choices]}
        try:
            decision = await self._client.decisions.create(model=model, input=messages, questions=[question])
        except NO_JSON as error:
            raise MalformedReplyError(f"the reply is no JSON: {first_line(error)}") from None
        return self.masked(read_decision(decision, choices))

    def masked(self, reply: Reply) -> Reply:
        """A reply without the key, should the server repeat it."""
        return replace(reply, text=mask(reply.text, self.secret), model=mask(reply.model, self.secret))

    async def announced(self, model: str) -> str | None:
        """What the server says of a model that a person should know before the run: that it lacks it, or will soon.

        A server that cannot tell is no error.

        Raises:
            InputError: see `__aenter__`.
        """
        async with self as client:
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
