"""When two spellings are the same skill: case, blanks, Unicode form, invisible characters and web forms' escapes do not count."""

import re
import unicodedata
from functools import lru_cache
from urllib.parse import unquote

import ftfy
import polars as pl

INVISIBLE = {"\u034f", "\u115f", "\u1160", "\u3164", "\uffa0", *map(chr, range(0xFE00, 0xFE10))}
"""Characters that show nothing, beside those of Unicode's category Cf: joiners, fillers, variation selectors."""
SAME = str.maketrans({**dict.fromkeys("‘’‚‛ʼ′`´", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−﹣", "-")})
"""Quotes and dashes that name the same."""
_BULLET = re.compile(r"^(?:[•·‣▪▫◦●○■□◆►▶✓✔➢➤*–—-]\s+)+")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
DEEPEST = 5
"""Times that a name may have been escaped or spoilt."""
KEPT = 2**17
"""Spellings that are remembered: the same ones come again and again."""


@lru_cache(KEPT)
def clean(name: str) -> str:
    """A name as it is shown: repaired, in Unicode NFC, without invisible characters, bullets and needless blanks; maybe empty."""
    for _ in range(DEEPEST):
        cleaned = _clean_once(name)
        if cleaned == name:
            break
        name = cleaned
    return name


def _clean_once(name: str) -> str:
    if "%" in name and _ESCAPE.search(name):
        decoded = unquote(name)
        name = name if "\ufffd" in decoded else decoded
    if not name.isascii() or "&" in name:
        name = ftfy.fix_text(name, unescape_html=True, uncurl_quotes=False, fix_character_width=False)
    name = "".join(map(_shown, name))
    return _BULLET.sub("", unicodedata.normalize("NFC", " ".join(name.split())))


def _shown(character: str) -> str:
    """A character, a blank for one of many kinds, or nothing for one that shows nothing."""
    category = unicodedata.category(character)
    if category in ("Cc", "Zs", "Zl", "Zp"):
        return " "
    return "" if category == "Cf" or character in INVISIBLE else character


@lru_cache(KEPT)
def key(name: str) -> str:
    """What names are compared by; empty for one that is nothing but blanks."""
    folded = unicodedata.normalize("NFKC", clean(name)).casefold().translate(SAME)
    return " ".join(unicodedata.normalize("NFKC", folded).strip("\"' ").rstrip(".,;: ").split())


def clean_name(name: pl.Expr) -> pl.Expr:
    """`clean` of a column; null if nothing is left."""
    return name.map_elements(lambda one: clean(one) or None, return_dtype=pl.String)


def name_key(name: pl.Expr) -> pl.Expr:
    """`key` of a column; null if nothing is left."""
    return name.map_elements(lambda one: key(one) or None, return_dtype=pl.String)
