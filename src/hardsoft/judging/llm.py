"""A model of OpenAI as judge: blind, rationale before verdict, structured output."""

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from hardsoft.config.schema import OpenAIJudgeConfig
from hardsoft.core.labels import Label
from hardsoft.engines.openai_client import Client, Server
from hardsoft.judging.base import JudgeOutcome, OnVerdict, Verdict

INSTRUCTIONS = """\
You label professional skills found in CVs by the codebook below.
Give a rationale of one or two sentences first, then the verdict.

{codebook}"""
MAX_RETRIES = 5
TIMEOUT_S = 600.0


class Answer(BaseModel):
    """What the judge must return; the rationale comes first so that the verdict follows from it."""

    model_config = ConfigDict(extra="forbid")

    rationale: str
    verdict: Literal["Hard", "Soft", "Unknown"]


class OpenAIJudge:
    """Asks one question per skill, `concurrency` at a time."""

    def __init__(self, option: OpenAIJudgeConfig, codebook: str, key: str) -> None:
        """
        Args:
            codebook: the rules that it judges by.
            key: see `Server.key`.
        """
        self.name = option.model
        self._option = option
        self._instructions = INSTRUCTIONS.format(codebook=codebook)
        self._server = Server(None, key, option.concurrency, TIMEOUT_S, MAX_RETRIES, refused={"max_tokens"})

    def judge(self, skills: Sequence[str], on_verdict: OnVerdict) -> None:
        """Judge every skill.

        Raises:
            InputError: no key, a rejected key or option, an unknown model, or no server.
        """
        self._server.ask_all(
            skills,
            self._verdict,
            on_verdict,
            lambda row, reason: on_verdict(row, Verdict(None, JudgeOutcome.ERROR, rationale=reason)),
        )

    async def _verdict(self, client: Client, skill: str) -> Verdict:
        schema = {"name": "Answer", "strict": True, "schema": Answer.model_json_schema()}
        reply = await self._server.chat(
            client,
            self._option.max_completion_tokens,
            model=self._option.model,
            messages=[{"role": "system", "content": self._instructions}, {"role": "user", "content": f"Skill: {skill}"}],
            response_format={"type": "json_schema", "json_schema": schema},
            reasoning_effort=self._option.reasoning_effort,
        )
        usage = {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens}
        if reply.finish_reason == "content_filter":
            return Verdict(None, JudgeOutcome.REFUSED, reply.text, usage)
        if reply.finish_reason == "length":
            return Verdict(None, JudgeOutcome.TRUNCATED, usage=usage)
        try:
            answer = Answer.model_validate_json(reply.text)
        except ValidationError:
            return Verdict(None, JudgeOutcome.UNPARSEABLE, usage=usage)
        return Verdict(Label(answer.verdict), JudgeOutcome.ANSWERED, answer.rationale, usage)
