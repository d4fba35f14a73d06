"""What a job's chats have in common stays with the workers: only where a chat differs does it travel."""

import json
from collections.abc import Sequence

import pyarrow as pa

from hardsoft.core.chat import Chat
from hardsoft.core.sequences import common_prefix


class Frame:
    """The common head and tail of a job's chats."""

    def __init__(self, chats: Sequence[Chat]) -> None:
        """
        Args:
            chats: the first ones of the job; later ones that begin or end otherwise travel whole.
        """
        texts = [_text(chat) for chat in chats]
        self._head = texts[0][: common_prefix(texts)]
        rests = [text[len(self._head) :][::-1] for text in texts]
        self._tail = rests[0][: common_prefix(rests)][::-1]

    def pack(self, rows: Sequence[tuple[int, Chat]]) -> pa.Table:
        """Rows and their chats as a table: row, text, and whether the text is a whole chat."""
        texts = [_text(chat) for _, chat in rows]
        whole = [not self._holds(text) for text in texts]
        start, end = len(self._head), len(self._tail)
        parts = [text if all_of_it else text[start : len(text) - end] for text, all_of_it in zip(texts, whole, strict=True)]
        return pa.table({"row": [row for row, _ in rows], "text": parts, "whole": whole})

    def unpack(self, table: pa.Table) -> list[Chat]:
        """The chats of such a table."""
        pairs = zip(table["text"].to_pylist(), table["whole"].to_pylist(), strict=True)
        return [json.loads(text if whole else self._head + text + self._tail) for text, whole in pairs]

    def _holds(self, text: str) -> bool:
        shared = len(self._head) + len(self._tail)
        return len(text) >= shared and text.startswith(self._head) and text.endswith(self._tail)


def _text(chat: Chat) -> str:
    return json.dumps(chat, ensure_ascii=False)
