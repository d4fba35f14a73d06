"""Keys in texts: a server may repeat what it was sent. Knows no key's name and no place where keys come from."""

import base64
import html
import json
import re
from collections.abc import Iterator
from urllib.parse import quote, quote_plus

MASK = "***"
FEWEST_SIGNS = 8
"""Of base64, below which they may as well be a part of a word: those of a short key are masked where they are all of it."""


def mask(text: str, secret: str) -> str:
    """The text with `***` for a secret, in every form in which a text may hold it.

    Args:
        secret: a key; empty for none.
    """
    if not secret:
        return text
    escaped = json.dumps(secret)[1:-1]
    forms = {secret, escaped, escaped.replace("/", "\\/"), repr(secret)[1:-1], html.escape(secret)}
    quoted = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    forms |= quoted | {re.sub("%..", lambda code: code[0].lower(), form) for form in quoted}
    forms |= {
        base64.b64encode(secret.encode()).decode(),
        secret.encode().hex(),
        secret.encode().hex().upper(),
        *_in_base64(secret.encode()),
    }
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text


def _in_base64(secret: bytes) -> Iterator[str]:
    """What base64 writes of a secret wherever it stands in a longer text, such as `Bearer KEY` or `user:KEY`.

    Three bytes are four signs, so there are three ways; signs that hold a part of a neighbour are left out.
    """
    for before in range(3):
        signs = base64.b64encode(bytes(before) + secret).decode()
        core = signs[-(-before * 8 // 6) : (before + len(secret)) * 8 // 6]
        if len(core) >= FEWEST_SIGNS:
            yield from (core, core.replace("+", "-").replace("/", "_"))
