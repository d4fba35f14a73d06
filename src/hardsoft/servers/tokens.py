"""What a reply tells of its first token: the likeliest ones and their log-probabilities, however servers write them. Asks nobody.

A token is a text, or a piece as a vocabulary writes it: byte-level BPE has a blank as Ġ, SentencePiece as ▁, a byte as <0x20>.
What cannot be read is not guessed: the whole probability then belongs to `UNREAD`.
"""

import math
import re
from contextlib import suppress
from typing import Any

UNREAD = ""
"""The token that nobody can read, in the place of all those that cannot be."""
MOST_MASS = 1.1
"""More than probabilities add up to, rounding included: numbers that do are something else."""

_PIECES = str.maketrans({"Ġ": " ", "▁": " ", "Ċ": "\n", "č": "\r", "ĉ": "\t"})
_BYTES = re.compile(r"(?:<0x[0-9A-Fa-f]{2}>)+")


def read_first_token(logprobs: Any) -> dict[str, float]:
    """Log-probabilities of the likeliest first tokens, by their texts.

    Args:
        logprobs: a choice's `logprobs`, of whatever form.

    Returns:
        Empty if nothing is told where OpenAI's protocol has it; `UNREAD` with probability 1 if that is told in another form.
    """
    content = _field(logprobs, "content")
    told = _field(content[0], "top_logprobs") if isinstance(content, list) and content else None
    if not told:
        return {}
    mass: dict[str, float] = {}
    for token in _distinct(told) if isinstance(told, list) else [None]:
        logprob = _field(token, "logprob")
        if isinstance(logprob, bool) or not isinstance(logprob, int | float) or not logprob <= MOST_MASS - 1:
            return {UNREAD: 0.0}
        text = _text(token)
        mass[text] = mass.get(text, 0.0) + math.exp(max(logprob, -700.0))
    if sum(mass.values()) > MOST_MASS:
        return {UNREAD: 0.0}
    return {text: math.log(share) for text, share in mass.items()}


def _distinct(tokens: list[Any]) -> list[Any]:
    """Tokens without those that are listed twice."""
    return list({(str(_field(token, "token")), str(_field(token, "bytes"))): token for token in tokens}.values())


def _field(value: Any, name: str) -> Any:
    """A field of an object as a library or as JSON has it; None if there is none."""
    return value.get(name) if isinstance(value, dict) else getattr(value, name, None)


def _text(token: Any) -> str:
    """What a token adds to the text: by its bytes where they are given, else by its name; `UNREAD` if neither can be read."""
    codes, name = _field(token, "bytes"), _field(token, "token")
    text = name if isinstance(name, str) else UNREAD
    if isinstance(codes, list) and codes:
        with suppress(ValueError, TypeError):  # no bytes, or a part of a character
            text = bytes(codes).decode()
    text = _BYTES.sub(lambda codes: bytes.fromhex(re.sub("<0x|>", "", codes[0])).decode(errors="replace"), text)
    return text.translate(_PIECES).removesuffix("</w>")
