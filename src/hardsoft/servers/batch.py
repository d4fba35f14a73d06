"""The provider's Batch API: many questions in a file, answered within a day at a share of the price. Knows no store, no price.

A batch's lines come back in any order, some perhaps twice, as errors, or never (it expired): each line stands for itself.
A batch costs money, so it is never created a second time unseen: not by the client's retries, and when a reply is lost only after
looking whether the provider has made it. What tells it is the file of its questions.
"""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Any

import openai
from openai.types.batch import Batch
from openai.types.chat import ChatCompletion

from hardsoft.core.errors import InputError
from hardsoft.core.secrets import mask
from hardsoft.servers.client import FIRST_PAUSE_S, LONGEST_PAUSE_S, NO_JSON, Server
from hardsoft.servers.faults import FILTER_CODES
from hardsoft.servers.replies import WITHHELD, MalformedReplyError, Reply, UnusableReplyError, read_reply

ENDED = ("completed", "failed", "expired", "cancelled")
GONE, LOST = "gone", "lost"
"""Of a batch that the provider does not know by this key, and of one that it knows while its answers are deleted."""
FILE_TIMEOUT_S = 3600.0
"""Seconds that a file of questions or answers may take, which may be as large as that."""
MOST_REQUESTS, MOST_BYTES = 50_000, 190_000_000
"""Of one batch, by the provider's limits."""
IN_DOUBT = (
    openai.APIConnectionError,
    openai.InternalServerError,
    openai.RateLimitError,
    openai.APIResponseValidationError,
    *NO_JSON,
)
"""Failures of a creation that are worth another try, and after most of which a batch may have been made."""


@dataclass(frozen=True)
class Results:
    """What came back of a batch, by the questions' ids."""

    status: str
    """How it ended: one of ENDED, GONE or LOST."""
    replies: dict[str, Reply]
    failures: dict[str, str]
    """Why a line is no reply."""
    reason: str = ""
    """Why the provider refused the whole of it."""


@dataclass(frozen=True)
class Batches:
    """Sends questions off, and collects what comes back."""

    server: Server
    endpoint: str
    """`/v1/chat/completions` or `/v1/responses`."""
    poll_s: float
    """Seconds between two looks at a batch."""

    def upload(self, bodies: Mapping[str, Mapping[str, Any]]) -> str:
        """Upload the file of one batch's questions, which costs nothing yet.

        Args:
            bodies: requests of chat completions by their ids, as many as `in_batches` gives.

        Returns:
            The file's id.

        Raises:
            InputError: no server, or a rejected key.
        """
        content = "".join(self._line(name, body) for name, body in bodies.items()).encode()
        return asyncio.run(self._upload(content))

    def create(self, file: str) -> str:
        """Send the batch of an uploaded file off, once.

        Returns:
            The batch's id.

        Raises:
            InputError: no server, a rejected key, no quota; the batch may have been made all the same, see `find`.
        """
        return asyncio.run(self._create(file))

    def find(self, files: Set[str]) -> dict[str, str]:
        """The batches that the provider has of files, by the file.

        Raises:
            InputError: no server, or a rejected key.
        """
        return asyncio.run(self._find_alone(files))

    def collect(self, batch: str, on_progress: Callable[[int, int], None]) -> Results:
        """Wait for a batch to end, and read what came back.

        Args:
            on_progress: called after each look with how many lines are done, and of how many.

        Raises:
            InputError: no server, or a rejected key.
        """
        return asyncio.run(self._collect(batch, on_progress))

    def in_batches(self, bodies: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Mapping[str, Any]]]:
        """Requests in as many parts as one batch may hold."""
        part: dict[str, Mapping[str, Any]] = {}
        size = 0
        for name, body in bodies.items():
            length = len(self._line(name, body).encode())
            if part and (len(part) == MOST_REQUESTS or size + length > MOST_BYTES):
                yield part
                part, size = {}, 0
            part[name] = body
            size += length
        if part:
            yield part

    def _line(self, name: str, body: Mapping[str, Any]) -> str:
        sent = body if self.endpoint == "/v1/chat/completions" else as_responses(body)
        return json.dumps({"custom_id": name, "method": "POST", "url": self.endpoint, "body": sent}) + "\n"

    async def _upload(self, content: bytes) -> str:
        async with self.server as client:
            patient = client.with_options(timeout=FILE_TIMEOUT_S)
            return (await patient.files.create(file=("questions.jsonl", content), purpose="batch")).id

    async def _create(self, file: str) -> str:
        endpoint: Any = self.endpoint
        pause, tries_left = FIRST_PAUSE_S, self.server.max_retries
        async with self.server as client:
            once = client.with_options(max_retries=0)
            while True:
                try:
                    return (await once.batches.create(input_file_id=file, endpoint=endpoint, completion_window="24h")).id
                except IN_DOUBT as error:
                    await asyncio.sleep(pause)
                    if made := await self._find(client, {file}):
                        return made[file]
                    if not tries_left:
                        raise InputError(f"{self.server.name}: no batch was made: {self.server.explain(error)}") from None
                pause, tries_left = min(2 * pause, LONGEST_PAUSE_S), tries_left - 1

    async def _find_alone(self, files: Set[str]) -> dict[str, str]:
        async with self.server as client:
            return await self._find(client, files)

    async def _find(self, client: openai.AsyncOpenAI, files: Set[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        async for batch in client.batches.list(limit=100):
            if batch.input_file_id in files:
                found[batch.input_file_id] = batch.id
            if len(found) == len(files):
                break
        return found

    async def _collect(self, name: str, on_progress: Callable[[int, int], None]) -> Results:
        replies: dict[str, Reply] = {}
        failures: dict[str, str] = {}
        async with self.server as client:
            try:
                batch = await client.batches.retrieve(name)
                while batch.status not in ENDED:
                    self._tell(batch, on_progress)
                    await asyncio.sleep(self.poll_s)
                    batch = await client.batches.retrieve(name)
            except openai.NotFoundError:
                return Results(GONE, {}, {})
            self._tell(batch, on_progress)
            for file in filter(None, (batch.output_file_id, batch.error_file_id)):
                try:
                    text = (await client.with_options(timeout=FILE_TIMEOUT_S).files.content(file)).text
                except openai.NotFoundError:
                    return Results(LOST, {}, {})
                for custom_id, answer in self._read(text.split("\n")):  # splitlines would split at U+2028 too
                    if isinstance(answer, Reply):
                        replies.setdefault(custom_id, answer)
                    else:
                        failures.setdefault(custom_id, answer)
        errors = batch.errors.data if batch.errors and batch.errors.data else []
        reason = mask("; ".join(str(error.message) for error in errors), self.server.secret)
        return Results(batch.status, replies, {row: why for row, why in failures.items() if row not in replies}, reason)

    def _tell(self, batch: Batch, on_progress: Callable[[int, int], None]) -> None:
        if counts := batch.request_counts:
            on_progress(counts.completed + counts.failed, counts.total)

    def _read(self, lines: Sequence[str]) -> Iterator[tuple[str, Reply | str]]:
        """Each line's question with its reply, or why it has none; what is no line of a batch is passed over."""
        for line in lines:
            try:
                value = json.loads(line)
                custom_id, response = str(value["custom_id"]), value.get("response") or {}
                error, body = value.get("error"), response.get("body") or {}
                if error is None and response.get("status_code") == 200:
                    yield custom_id, self._reply(body)
                    continue
                error = error or body.get("error") or {}
                words = mask(f"{error.get('code')}: {error.get('message')}", self.server.secret)
                yield custom_id, WITHHELD if error.get("code") in FILTER_CODES else words
            except (MalformedReplyError, UnusableReplyError) as fault:
                yield custom_id, mask(str(fault), self.server.secret)
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
                continue

    def _reply(self, body: dict[str, Any]) -> Reply:
        if self.endpoint == "/v1/responses":
            body = as_chat_completion(body)
        return self.server.masked(read_reply(ChatCompletion.construct(**body)))


def as_responses(body: Mapping[str, Any]) -> dict[str, Any]:
    """A request of chat completions as one of the Responses API."""
    wanted = body.get("response_format", {}).get("json_schema")
    effort = body.get("reasoning_effort")
    return {
        "model": body["model"],
        "input": body["messages"],
        "max_output_tokens": body.get("max_completion_tokens", body.get("max_tokens")),
        **({"text": {"format": {"type": "json_schema", **wanted}}} if wanted else {}),
        **({"reasoning": {"effort": effort}} if effort else {}),
    }


def as_chat_completion(body: Mapping[str, Any]) -> dict[str, Any]:
    """A reply of the Responses API as one of chat completions."""
    parts = [part for item in body["output"] if item.get("type") == "message" for part in item["content"]]
    text = "".join(part["text"] for part in parts if part["type"] == "output_text")
    refusal = "".join(part["refusal"] for part in parts if part["type"] == "refusal") or None
    reason = (body.get("incomplete_details") or {}).get("reason")
    finish = {"max_output_tokens": "length", "content_filter": "content_filter"}.get(reason or "", "stop")
    usage = body.get("usage") or {}
    counted = {
        "prompt_tokens": usage.get("input_tokens", 0),
        "completion_tokens": usage.get("output_tokens", 0),
        "prompt_tokens_details": usage.get("input_tokens_details"),
        "completion_tokens_details": usage.get("output_tokens_details"),
    }
    message = {"role": "assistant", "content": text, "refusal": refusal}
    return {"model": body.get("model"), "choices": [{"index": 0, "finish_reason": finish, "message": message}], "usage": counted}
