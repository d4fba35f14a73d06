"""Any OpenAI-compatible chat server as an engine: vLLM, SGLang, llama.cpp, Ollama, transformers serve."""

from collections.abc import Iterable

import openai
from openai.types.chat import ChatCompletion

from hardsoft.config.schema import ServerEngineConfig
from hardsoft.core.chat import Chat, Completion, FinishReason, opening
from hardsoft.engines.base import OnResults
from hardsoft.engines.memory import peak_memory_mb
from hardsoft.engines.openai_client import MalformedReplyError, Server

CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""How vLLM, SGLang and llama.cpp are asked to go on from the final assistant message; Ollama does so by itself."""


class ServerEngine:
    """Greedy completions over HTTP; no probabilities."""

    def __init__(self, option: ServerEngineConfig, max_new_tokens: int) -> None:
        self._option, self._max_new_tokens = option, max_new_tokens
        self._server = Server(option.base_url, option.concurrency, option.timeout_s, option.max_retries)

    @property
    def peak_memory_mb(self) -> float:
        """Megabytes of this process; the server's own memory is not seen from here."""
        return peak_memory_mb()

    def complete(self, chats: Iterable[Chat], on_results: OnResults) -> None:
        """Complete every chat; one that fails for good has the finish reason `error`, and its text says why.

        Raises:
            InputError: the server is down, or it refuses the key, the model or this kind of request.
        """
        self._server.ask_all(
            chats,
            self._complete,
            lambda row, completion: on_results([(row, completion)]),
            lambda row, reason: on_results([(row, Completion(reason, "error", 0))]),
        )

    async def _complete(self, client: openai.AsyncOpenAI, chat: Chat) -> Completion:
        start = opening(chat) if self._option.prefill else ""
        messages = chat if start or not opening(chat) else chat[:-1]
        try:
            reply = await client.chat.completions.create(
                model=self._option.model,
                messages=messages,  # type: ignore[arg-type]
                temperature=0,
                max_tokens=self._max_new_tokens,
                extra_body=CONTINUE if start else None,
            )
        except ValueError as error:  # the body is no JSON
            raise MalformedReplyError(f"the reply is no JSON: {error}") from None
        if not isinstance(reply, ChatCompletion) or not reply.choices or reply.choices[0].message is None:
            raise MalformedReplyError("the reply has no choice")
        choice = reply.choices[0]
        tokens = reply.usage.completion_tokens if reply.usage else 0
        if choice.finish_reason not in ("stop", "length"):
            return Completion(f"the server ended the message with {choice.finish_reason!r}", "error", tokens)
        finish_reason: FinishReason = choice.finish_reason
        return Completion(start + (choice.message.content or ""), finish_reason, tokens)
