"""Section judge of params.yaml: who gives verdicts, one class a kind, and what that may cost."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from hardsoft.config.fields import Address, AskedServer, Section


class ReferenceJudgeConfig(Section):
    kind: Literal["reference"]


class ModelPrice(Section):
    """US dollars per million tokens."""

    model: str
    input: NonNegativeFloat
    cached_input: NonNegativeFloat
    """Of input that the provider has read shortly before."""
    output: NonNegativeFloat
    """Reasoning included."""


class PricesConfig(Section):
    date: str
    """When they were read off the provider's page."""
    batch_share: float = Field(gt=0, le=1)
    """Of the price, what a verdict costs through the Batch API."""
    models: list[ModelPrice]


class LLMJudgeConfig(AskedServer):
    kind: Literal["llm"]
    base_url: Address | None
    """Null is OpenAI itself, or OPENAI_BASE_URL in the environment."""
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high", "xhigh"] | None
    """Null leaves it to the model, and is right for models that do not reason."""
    max_completion_tokens: PositiveInt
    blind: bool
    """False shows the judge the label that it checks, to measure how much that sways it."""
    budget_usd: NonNegativeFloat | None
    """US dollars that one run may cost by its plan; null sets no limit."""
    expected_output_tokens: PositiveInt
    """Tokens of a verdict, reasoning included, by which the plan reckons."""
    prices: PricesConfig
    repeats: PositiveInt
    """So often each skill is asked about; the majority counts."""
    batch: bool
    """Ask through the Batch API: for `prices.batch_share` of the price, within a day."""
    batch_endpoint: Literal["/v1/chat/completions", "/v1/responses"]
    """Which of the provider's endpoints a batch is for."""
    batch_poll_s: PositiveFloat
    """Seconds between two looks at a batch."""
    resubmit: bool = False
    """Ask, and pay, again where a batch that was sent off is not to be found, or its answers."""

    @model_validator(mode="after")
    def _one_by_one(self) -> Self:
        if self.batch and self.endpoint == "decisions":
            raise ValueError("batch: decisions are not made in batches; set judge.batch=false")
        return self


class PanelJudgeConfig(Section):
    kind: Literal["panel"]
    judges: dict[str, LLMJudgeConfig] = Field(min_length=1)
    """By the name that verdicts carry; the majority counts."""
    budget_usd: NonNegativeFloat | None = None
    """US dollars that one run of all of them may cost by their plans; null: the sum of what each may."""

    @model_validator(mode="after")
    def _each_once(self) -> Self:
        names: dict[tuple[Any, ...], str] = {}
        for name, judge in self.judges.items():
            if other := names.get(_asked_as(judge)):
                raise ValueError(
                    f"judges: {other} and {name} are one judge asked in one way, whose verdicts are stored once; "
                    f"give {name} another model, or leave it out and set judge.judges.{other}.repeats=2"
                )
            names[_asked_as(judge)] = name
        return self


def _asked_as(judge: LLMJudgeConfig) -> tuple[Any, ...]:
    """What tells a judge's verdicts from another's."""
    server = judge.identity or (judge.base_url or os.environ.get("OPENAI_BASE_URL"), judge.model)
    return server, judge.endpoint, judge.reasoning_effort, judge.max_completion_tokens, judge.blind


JudgeConfig = Annotated[ReferenceJudgeConfig | LLMJudgeConfig | PanelJudgeConfig, Field(discriminator="kind")]


def language_judges(judge: JudgeConfig) -> dict[str, LLMJudgeConfig]:
    """The language models that judge, by name; none where the judge is the reference."""
    if isinstance(judge, PanelJudgeConfig):
        return judge.judges
    return {judge.model: judge} if isinstance(judge, LLMJudgeConfig) else {}


def judge_key(judge: JudgeConfig, name: str) -> str:
    """Where params.yaml has the judge of a name."""
    return f"judge.judges.{name}" if isinstance(judge, PanelJudgeConfig) else "judge"
