"""What a judging will cost, and what it has: tokens and US dollars. Knows prices per million tokens, and no judge."""

from collections.abc import Sequence
from dataclasses import dataclass

from hardsoft.config.judges import LLMJudgeConfig, ModelPrice
from hardsoft.servers.replies import Usage

CHARACTERS_PER_TOKEN = 4.0
"""Of English text, roughly."""


@dataclass(frozen=True)
class Plan:
    """A run's calls before they are made."""

    calls: int
    stored: int
    """Verdicts that are there already, and cost nothing."""
    input_tokens: int
    """Estimated from the questions' length."""
    output_tokens: int
    """At so many tokens a verdict as the configuration expects."""
    price_usd: float | None
    """None where the model has no listed price."""

    def __str__(self) -> str:
        price = "at no listed price" if self.price_usd is None else f"about ${self.price_usd:.2f}"
        return (
            f"{self.calls} calls to the judge ({self.stored} verdicts are stored), about {self.input_tokens:,} tokens in and "
            f"{self.output_tokens:,} out, {price}"
        )


def price_of(judge: LLMJudgeConfig) -> ModelPrice | None:
    """The price of a judge's model, if it is listed and the address is the provider's."""
    listed = (price for price in judge.prices.models if price.model == judge.model)
    return next(listed, None) if not judge.base_url else None


def plan(questions: Sequence[str], stored: int, output_tokens: int, price: ModelPrice | None, share: float) -> Plan:
    """The plan of asking questions.

    Args:
        questions: their whole text.
        stored: verdicts that need not be asked for.
        output_tokens: expected of one verdict.
        price, share: see `cost`.
    """
    usage = Usage(input=round(sum(map(len, questions)) / CHARACTERS_PER_TOKEN), output=output_tokens * len(questions))
    return Plan(len(questions), stored, usage.input, usage.output, cost(usage, price, share))


def cost(usage: Usage, price: ModelPrice | None, share: float) -> float | None:
    """US dollars for tokens; None where there is no price.

    Args:
        share: of the price, what is paid: less than 1 in a batch.
    """
    if price is None:
        return None
    full = (usage.input - usage.cached_input) * price.input
    return share * (full + usage.cached_input * price.cached_input + usage.output * price.output) / 1e6
