"""A language model as judge: blind, rationale before verdict. Asks, and reads replies; knows neither the store nor any price.

It is asked for JSON by a schema; at a server that refuses that, for JSON; at one that refuses that too, in words. How a reply
is read is `prompting.verdicts`' business.
"""

import asyncio
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from hardsoft.config.judges import LLMJudgeConfig
from hardsoft.core.chat import Chat, FinishReason
from hardsoft.core.labels import Label
from hardsoft.judging.base import JudgeOutcome, Verdict
from hardsoft.prompting.verdicts import read_stated
from hardsoft.servers.client import Server
from hardsoft.servers.replies import Reply

DECIDES = """\
You label professional skills found in CVs by the codebook below.

{codebook}"""
DECISION = "Which label does the codebook give to the skill?"
INSTRUCTIONS = """\
You label professional skills found in CVs by the codebook below.
Give a rationale of one or two sentences first, then the verdict: Hard, Soft or Unknown.
Reply as JSON: {{"rationale": "...", "verdict": "..."}}

{codebook}"""


class Answer(BaseModel):
    """What the judge must return; the rationale comes first so that the verdict follows from it."""

    model_config = ConfigDict(extra="forbid")

    rationale: str
    verdict: Literal["Hard", "Soft", "Unknown"]


BY_SCHEMA = {"type": "json_schema", "json_schema": {"name": "Answer", "strict": True, "schema": Answer.model_json_schema()}}
FALLBACKS = {"response_format": ({"type": "json_object"}, None)}
"""How a reply is asked for where a server refuses a schema, and where it refuses that too."""


class LLMJudge:
    """Asks one question per skill, `concurrency` at a time."""

    def __init__(self, option: LLMJudgeConfig, codebook: str, key: str) -> None:
        """
        Args:
            codebook: the rules that it judges by.
            key: see `Server.key`.
        """
        self._option = option
        self._instructions = (DECIDES if option.endpoint == "decisions" else INSTRUCTIONS).format(codebook=codebook)
        refused = ("max_tokens", "temperature") if option.base_url is None else ("temperature",)
        self.server = Server(option.base_url, key, option.concurrency, option.timeout_s, option.max_retries, refused)

    def chat(self, skill: str, label: str) -> Chat:
        """The question about a skill; the label that it was given is shown only where the judge is not blind."""
        shown = f"Skill: {skill}" if self._option.blind else f"Skill: {skill}\nLabel given to it: {label}"
        return [{"role": "system", "content": self._instructions}, {"role": "user", "content": shown}]

    def announced(self) -> str | None:
        """What the server says of the model that a person should know before the run."""
        return asyncio.run(self.server.announced(self._option.model))

    def ask(
        self,
        chats: Iterable[Chat],
        on_reply: Callable[[int, Reply], None],
        on_failure: Callable[[int, str], None],
        may_fail: int = 0,
    ) -> None:
        """Ask questions; each ends in one call of on_reply or on_failure.

        Args:
            may_fail: questions whose failure ends no run.

        Raises:
            InputError: a rejected key or option, an unknown model, or no server.
        """
        asyncio.run(self.server.ask_all(chats, self._reply, on_reply, on_failure, may_fail))

    def body(self, chat: Chat) -> dict[str, Any]:
        """The request of a chat completion that asks a question, as a batch holds it."""
        return self.server.body(**self._question(chat))

    def _question(self, chat: Chat) -> dict[str, Any]:
        return {
            "max_tokens": self._option.max_completion_tokens,
            "model": self._option.model,
            "messages": chat,
            "response_format": BY_SCHEMA,
            "reasoning_effort": self._option.reasoning_effort,
        }

    async def _decide(self, chat: Chat) -> Reply:
        """A decision as the reply of a judge whose rationale is the probabilities."""
        reply = await self.server.decide(self._option.model, chat, DECISION, list(Label))
        if reply.finish_reason != "stop":
            return reply
        shares = ", ".join(f"{label} {math.exp(logprob):.2f}" for label, logprob in reply.first_token.items())
        return replace(reply, text=Answer(rationale=shares, verdict=Label(reply.text).value).model_dump_json(), first_token={})

    async def _reply(self, chat: Chat) -> Reply:
        if self._option.endpoint == "decisions":
            return await self._decide(chat)
        return await self.server.chat(fallbacks=FALLBACKS, **self._question(chat))


def read_verdict(text: str, finish_reason: FinishReason) -> Verdict:
    """The verdict that a reply states, see `prompting.verdicts`, or why it states none."""
    if finish_reason == "content_filter":
        return Verdict(None, JudgeOutcome.REFUSED, text)
    if stated := read_stated(text, finish_reason):
        return Verdict(stated.label, JudgeOutcome.ANSWERED, stated.rationale)
    if finish_reason == "length":
        return Verdict(None, JudgeOutcome.TRUNCATED)
    return Verdict(None, JudgeOutcome.UNPARSEABLE, text)
