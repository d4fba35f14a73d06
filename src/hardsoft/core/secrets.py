"""Keys in texts: a server may repeat what it was sent. Knows no key's name and no place where keys come from."""

import base64
import html
import json
from urllib.parse import quote, quote_plus

MASK = "***"


def mask(text: str, secret: str) -> str:
    """The text with `***` for a secret, in every form in which a text may hold it.

    Args:
        secret: a key; empty for none.
    """
    if not secret:
        return text
    forms = {secret, json.dumps(secret)[1:-1], repr(secret)[1:-1], html.escape(secret), quote(secret, safe=""), quote(secret)}
    forms |= {quote_plus(secret), base64.b64encode(secret.encode()).decode(), secret.encode().hex()}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, MASK)
    return text
