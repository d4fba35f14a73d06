"""Any OpenAI-compatible chat server as an engine: vLLM, SGLang, llama.cpp, Ollama, transformers serve."""

import asyncio
import math
from collections.abc import Iterable, Mapping
from typing import Any

from hardsoft.config.engines import ServerEngineConfig
from hardsoft.config.machine import ELSEWHERE
from hardsoft.core.chat import Chat, Completion, Probabilities, opening, scored_completion
from hardsoft.core.labels import Label
from hardsoft.engines.base import OnResults
from hardsoft.engines.memory import peak_memory_mb
from hardsoft.servers.client import Server

CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""How vLLM, SGLang and llama.cpp are asked to go on from the final assistant message; Ollama does so by itself."""
DECISION = "Which label does the skill get?"
SCORED = {"logprobs": True, "top_logprobs": 20}
"""How a server is asked for the likeliest first tokens, as many as OpenAI's protocol allows."""
UNSCORED = {"logprobs": [None], "top_logprobs": [None]}
"""What is sent instead where it refuses that."""
LABELS_SHARE = 0.5
"""Of the mass of the first tokens that a server tells, the least that must be the labels'.

Below it the model would more likely say something else, and the labels' shares of what is left are not those of its answer.
"""


class ServerEngine:
    """Greedy completions over HTTP, or the labels' probabilities where the server tells those of its first token."""

    def __init__(
        self,
        option: ServerEngineConfig,
        base_url: str,
        max_new_tokens: int,
        key: str,
        score_labels: bool = False,
        may_fail: int = 0,
    ) -> None:
        """
        Args:
            base_url: the server's address, one of the option's.
            max_new_tokens: the limit of a completion.
            key: see `Server.key`.
            may_fail: chats whose failure ends no run.
            score_labels: ask for one token and its probabilities; a server that gives none is asked for a completion.
        """
        self._option, self._max_new_tokens, self._score_labels, self._may_fail = option, max_new_tokens, score_labels, may_fail
        self._server = Server(base_url, key, option.concurrency, option.timeout_s, option.max_retries)

    @property
    def peak_memory_mb(self) -> float:
        """Megabytes of this process; the server's own memory is not seen from here."""
        return peak_memory_mb()

    @property
    def workers(self) -> list[str]:
        """The servers that answer."""
        return [ELSEWHERE]

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Complete every chat; one that fails for good has the finish reason `error`, and its text says why.

        Raises:
            InputError: the server is down, or it refuses the key, the model or this kind of request.
        """
        asyncio.run(
            self._server.ask_all(
                chats,
                self._complete,
                lambda row, completion: on_results([(row, completion)]),
                lambda row, reason: on_results([(row, Completion(reason, "error", 0))]),
                self._may_fail,
            )
        )

    async def _complete(self, chat: Chat) -> Completion:
        if self._option.endpoint == "decisions":
            return await self._decide(chat)
        start = opening(chat) if self._option.prefill else ""
        question: dict[str, Any] = {
            "model": self._option.model,
            "messages": chat if start or not opening(chat) else chat[:-1],
            "temperature": 0,
            "extra_body": {**self._option.parameters, **(CONTINUE if start else {})} or None,
        }
        if self._score_labels and (probabilities := await self._scores(question)):
            return scored_completion(start, probabilities)
        reply = await self._server.chat(self._max_new_tokens, **question)
        return Completion(start + reply.text, reply.finish_reason, reply.usage.output)

    async def _decide(self, chat: Chat) -> Completion:
        start = opening(chat)
        asked = chat[:-1] if start else chat
        reply = await self._server.decide(self._option.model, asked, DECISION, list(Label))
        if probabilities := label_probabilities(reply.first_token):
            return scored_completion(start, probabilities)
        return Completion(start + reply.text, reply.finish_reason, reply.usage.output)

    async def _scores(self, question: Mapping[str, Any]) -> Probabilities | None:
        """The probabilities of the labels as the next word; None if others are likelier, or the server does not tell."""
        reply = await self._server.chat(1, fallbacks=UNSCORED, **question, **SCORED)
        if reply.finish_reason != "content_filter" and not reply.first_token:
            self._score_labels = False  # a server that does not tell now never does
        return label_probabilities(reply.first_token)


def label_probabilities(first_token: Mapping[str, float]) -> Probabilities | None:
    """The probabilities of the labels, by their first letters, normalised over the three; one that is not among the tokens has 0.

    Args:
        first_token: log-probabilities of the likeliest first tokens.

    Returns:
        None if the likeliest token begins no label, or all that do have less than `LABELS_SHARE`.
    """
    mass = dict.fromkeys(Label, 0.0)
    for token, logprob in first_token.items():
        for label in _begun_by(token):
            mass[label] += math.exp(logprob)
    total, told = sum(mass.values()), sum(map(math.exp, first_token.values()))
    if not told or total < LABELS_SHARE * told or not _begun_by(max(first_token, key=first_token.__getitem__)):
        return None
    return (mass[Label.HARD] / total, mass[Label.SOFT] / total, mass[Label.UNKNOWN] / total)


def _begun_by(token: str) -> list[Label]:
    """The labels that a token begins, whatever its case and the blanks around it."""
    start = token.strip().lower()
    return [label for label in Label if start and label.lower().startswith(start)]
