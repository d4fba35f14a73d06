"""Many questions to an OpenAI-compatible server at once; knows neither completions nor verdicts.

The openai client does the transport: it retries timeouts, dropped connections, 408, 409, 429 (after its Retry-After) and 5xx with
back-off. Here it is decided what a failure that outlasts the retries means: the end of the run when every other question would
fail too, else of that question alone.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar

import httpx2
import openai

from hardsoft.core.errors import InputError

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Ask = Callable[[openai.AsyncOpenAI, Question], Awaitable[Answer]]

FATAL = (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError)
BAD_REQUEST = (openai.BadRequestError, openai.UnprocessableEntityError)
OF_THE_QUESTION = ("content_filter", "content_policy_violation", "context_length_exceeded", "invalid_prompt")
"""Error codes of bad requests that tell nothing of other questions, even when nothing has been answered yet."""
FAILURES_TO_GIVE_UP = 20
"""So many failed questions without a single answer end the run."""
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 8.0


class MalformedReplyError(Exception):
    """The server replied with something that is no chat completion."""


@dataclass(frozen=True)
class Server:
    """Where questions go, and how. The key is OPENAI_API_KEY in the environment; a server of one's own needs none."""

    base_url: str | None
    """None is OpenAI itself, or OPENAI_BASE_URL in the environment."""
    concurrency: int
    """Requests that are under way at once."""
    timeout_s: float
    """Seconds that one request may take."""
    max_retries: int

    def ask_all(
        self,
        questions: Iterable[Question],
        ask: Ask[Question, Answer],
        on_answer: Callable[[int, Answer], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        """Ask questions, `concurrency` at a time, taking them as there is room; each ends in one call of on_answer or on_failure.

        Raises:
            InputError: no server, no or a wrong key, an unknown model, or requests of a kind that the server refuses.
        """
        try:
            asyncio.run(self._ask_all(questions, ask, on_answer, on_failure))
        except openai.OpenAIError as error:
            hint = "; does it run, and is base_url right?" if isinstance(error, openai.APIConnectionError) else ""
            raise InputError(f"{self.base_url or 'OpenAI'}: {explain(error)}{hint}") from None

    async def _ask_all(
        self,
        questions: Iterable[Question],
        ask: Ask[Question, Answer],
        on_answer: Callable[[int, Answer], None],
        on_failure: Callable[[int, str], None],
    ) -> None:
        waiting = enumerate(questions)
        answered = failed = 0
        key = os.environ.get("OPENAI_API_KEY") or ("none" if self.base_url else None)
        async with openai.AsyncOpenAI(
            api_key=key, base_url=self.base_url, timeout=self.timeout_s, max_retries=self.max_retries
        ) as client:

            async def ask_one(position: int, question: Question) -> None:
                nonlocal answered, failed
                try:
                    answer = await self._patiently(client, ask, question)
                except (openai.OpenAIError, MalformedReplyError) as error:
                    if getattr(error, "code", None) not in OF_THE_QUESTION:
                        failed += 1
                        if _is_fatal(error) or (not answered and isinstance(error, BAD_REQUEST)):
                            raise
                        if not answered and failed >= FAILURES_TO_GIVE_UP:
                            raise InputError(
                                f"{self.base_url or 'OpenAI'}: {failed} questions failed before any was answered, "
                                f"the last by {explain(error)}"
                            ) from None
                    on_failure(position, explain(error))
                else:
                    answered += 1
                    on_answer(position, answer)

            async def ask_one_after_another() -> None:
                for position, question in waiting:
                    await ask_one(position, question)

            tasks = [asyncio.create_task(ask_one_after_another()) for _ in range(self.concurrency)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _patiently(self, client: openai.AsyncOpenAI, ask: Ask[Question, Answer], question: Question) -> Answer:
        """Ask again, after a growing pause, when the reply is malformed: the client retries all other faults itself."""
        pause = FIRST_PAUSE_S
        for _ in range(self.max_retries):
            try:
                return await ask(client, question)
            except (MalformedReplyError, openai.APIResponseValidationError):
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        return await ask(client, question)


def explain(error: Exception) -> str:
    """What went wrong, in one short line, without the key should a server repeat it."""
    text = str(error)
    if isinstance(error, openai.APIStatusError):
        text = f"HTTP {error.status_code}: {error.response.text}"
    elif isinstance(error, openai.APIConnectionError) and error.__cause__ is not None:
        text = f"{error} ({error.__cause__})"
    if key := os.environ.get("OPENAI_API_KEY"):
        text = text.replace(key, "***")
    return f"{type(error).__name__}: {' '.join(text.split())[:300]}"


def _is_fatal(error: Exception) -> bool:
    """Whether every other question would fail as well."""
    return isinstance(error, FATAL) or isinstance(error.__cause__, httpx2.ConnectError)
