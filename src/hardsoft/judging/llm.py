"""An OpenAI model as judge: blind, rationale before verdict, structured output; the client reads OPENAI_API_KEY itself."""

from collections.abc import Sequence
from typing import Literal

import openai
from openai.types.chat import ParsedChatCompletion
from pydantic import BaseModel, ValidationError

from hardsoft.config.schema import OpenAIJudgeConfig
from hardsoft.core.labels import Label
from hardsoft.engines.openai_client import MalformedReplyError, Server
from hardsoft.judging.base import JudgeOutcome, OnVerdict, Verdict

INSTRUCTIONS = """\
You label professional skills found in CVs by the codebook below.
Give a rationale of one or two sentences first, then the verdict.

{codebook}"""
MAX_RETRIES = 5
TIMEOUT_S = 600.0


class Answer(BaseModel):
    """What the judge must return; the rationale comes first so that the verdict follows from it."""

    rationale: str
    verdict: Literal["Hard", "Soft", "Unknown"]


class OpenAIJudge:
    """Asks one question per skill, `concurrency` at a time."""

    def __init__(self, option: OpenAIJudgeConfig, codebook: str) -> None:
        self.name = option.model
        self._option = option
        self._instructions = INSTRUCTIONS.format(codebook=codebook)

    def judge(self, skills: Sequence[str], on_verdict: OnVerdict) -> None:
        """Judge every skill.

        Raises:
            InputError: no key, a rejected key or option, an unknown model, or no server.
        """
        server = Server(None, self._option.concurrency, TIMEOUT_S, MAX_RETRIES)
        server.ask_all(
            skills,
            self._verdict,
            on_verdict,
            lambda row, reason: on_verdict(row, Verdict(None, JudgeOutcome.ERROR, rationale=reason)),
        )

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
        except openai.LengthFinishReasonError:
            return Verdict(None, JudgeOutcome.TRUNCATED)
        except openai.ContentFilterFinishReasonError:
            return Verdict(None, JudgeOutcome.REFUSED)
        except ValidationError:
            return Verdict(None, JudgeOutcome.UNPARSEABLE)
        except ValueError as error:  # the body is no JSON
            raise MalformedReplyError(f"the reply is no JSON: {error}") from None
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
