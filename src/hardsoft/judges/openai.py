"""An OpenAI model as judge: blind, rationale before verdict, structured output; the client reads OPENAI_API_KEY itself."""

import asyncio
from collections.abc import Sequence
from typing import Literal

import openai
from openai.types.chat import ParsedChatCompletion
from pydantic import BaseModel, ValidationError

from hardsoft.config import OpenAIJudgeConfig
from hardsoft.judges import JudgeOutcome, OnVerdict, Verdict
from hardsoft.labels import Label
from hardsoft.stage import InputError

INSTRUCTIONS = """\
You label professional skills found in CVs by the codebook below.
Give a rationale of one or two sentences first, then the verdict.

{codebook}"""
MAX_RETRIES = 5
# One request with these faults means that every other has them too.
FATAL = (
    openai.AuthenticationError,
    openai.PermissionDeniedError,
    openai.NotFoundError,
    openai.BadRequestError,
    openai.APIConnectionError,
)


class Answer(BaseModel):
    """What the judge must return; the rationale comes first so that the verdict follows from it."""

    rationale: str
    verdict: Literal["Hard", "Soft", "Unknown"]


class OpenAIJudge:
    """Asks one question per skill, `concurrency` at a time; 408, 409, 429 and 5xx are retried with back-off by the client."""

    def __init__(self, option: OpenAIJudgeConfig, codebook: str) -> None:
        self.name = option.model
        self._option = option
        self._instructions = INSTRUCTIONS.format(codebook=codebook)

    def judge(self, skills: Sequence[str], on_verdict: OnVerdict) -> None:
        """Judge every skill.

        Raises:
            InputError: no key, a rejected key or option, an unknown model, or no server.
        """
        try:
            asyncio.run(self._judge_all(skills, on_verdict))
        except openai.OpenAIError as error:
            raise InputError(f"judge {self.name}: {type(error).__name__}: {error}") from None

    async def _judge_all(self, skills: Sequence[str], on_verdict: OnVerdict) -> None:
        places = asyncio.Semaphore(self._option.concurrency)
        async with openai.AsyncOpenAI(max_retries=MAX_RETRIES) as client:

            async def judge_one(row: int, skill: str) -> None:
                async with places:
                    on_verdict(row, await self._verdict(client, skill))

            tasks = [asyncio.create_task(judge_one(row, skill)) for row, skill in enumerate(skills)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()

    async def _verdict(self, client: openai.AsyncOpenAI, skill: str) -> Verdict:
        try:
            completion = await client.chat.completions.parse(
                model=self._option.model,
                messages=[
                    {"role": "system", "content": self._instructions},
                    {"role": "user", "content": f"Skill: {skill}"},
                ],
                response_format=Answer,
                reasoning_effort=self._option.reasoning_effort,
                max_completion_tokens=self._option.max_completion_tokens,
            )
        except FATAL:
            raise
        except openai.LengthFinishReasonError:
            return Verdict(None, JudgeOutcome.TRUNCATED)
        except openai.ContentFilterFinishReasonError:
            return Verdict(None, JudgeOutcome.REFUSED)
        except ValidationError:
            return Verdict(None, JudgeOutcome.UNPARSEABLE)
        except openai.OpenAIError as error:
            return Verdict(None, JudgeOutcome.ERROR, rationale=type(error).__name__)
        return _read(completion)


def _read(completion: ParsedChatCompletion[Answer]) -> Verdict:
    usage = {}
    if completion.usage:
        usage = {"input_tokens": completion.usage.prompt_tokens, "output_tokens": completion.usage.completion_tokens}
    message = completion.choices[0].message if completion.choices else None
    if message is None or (message.parsed is None and not message.refusal):
        return Verdict(None, JudgeOutcome.UNPARSEABLE, usage=usage)
    if message.parsed is None:
        return Verdict(None, JudgeOutcome.REFUSED, str(message.refusal), usage)
    return Verdict(Label(message.parsed.verdict), JudgeOutcome.ANSWERED, message.parsed.rationale, usage)
