"""Any OpenAI-compatible chat server as an engine: vLLM, SGLang, llama.cpp, Ollama, transformers serve."""

from collections.abc import Iterable

from hardsoft.config.schema import ServerEngineConfig
from hardsoft.core.chat import Chat, Completion, opening
from hardsoft.engines.base import OnResults
from hardsoft.engines.memory import peak_memory_mb
from hardsoft.engines.openai_client import Client, Server

CONTINUE = {"continue_final_message": True, "add_generation_prompt": False}
"""How vLLM, SGLang and llama.cpp are asked to go on from the final assistant message; Ollama does so by itself."""


class ServerEngine:
    """Greedy completions over HTTP; no probabilities."""

    def __init__(self, option: ServerEngineConfig, max_new_tokens: int, key: str) -> None:
        """
        Args:
            max_new_tokens: the limit of a completion.
            key: see `Server.key`.
        """
        self._option, self._max_new_tokens = option, max_new_tokens
        self._server = Server(option.base_url, key, option.concurrency, option.timeout_s, option.max_retries)

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

    async def _complete(self, client: Client, chat: Chat) -> Completion:
        start = opening(chat) if self._option.prefill else ""
        reply = await self._server.chat(
            client,
            self._max_new_tokens,
            model=self._option.model,
            messages=chat if start or not opening(chat) else chat[:-1],
            temperature=0,
            extra_body=CONTINUE if start else None,
        )
        return Completion(start + reply.text, reply.finish_reason, reply.usage.output)
