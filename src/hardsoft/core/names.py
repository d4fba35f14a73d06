"""When two spellings are the same skill: case, blanks, Unicode form, invisible characters and web forms' escapes do not count."""

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from urllib.parse import unquote_to_bytes

import ftfy
import polars as pl
from ftfy.badness import is_bad

BLANKS = "\t\n\v\f\r\x1c\x1d\x1e\x1f\x85\u2800\u3164\uffa0"
"""Characters that look like a blank, beside those of Unicode's categories Z."""
IGNORED = {0x34F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x2065, *range(0x180B, 0x1810), *range(0xFE00, 0xFE10), *range(0xFFF0, 0xFFF9)}
IGNORED |= set(range(0xE0100, 0xE01F0))
"""Code points that show nothing, beside those of Unicode's categories Cf and Cc: joiners, fillers, variation selectors."""
SAME = str.maketrans({**dict.fromkeys("‘’‚‛ʼ′`´", "'"), **dict.fromkeys("“”„‟″«»", '"'), **dict.fromkeys("‐‑‒–—―−﹣", "-")})
"""Quotes and dashes that name the same."""
_BULLET = re.compile(r"^(?:[•·‣▪▫◦●○■□◆►▶✓✔➢➤❖⁃∙♦\uf0b7\uf0a7\uf076]\s*|[*–—-](?:\s+|$))+")
_ESCAPES = re.compile(r"(?<![\d%])(?:%[0-9A-Fa-f]{2})+")
_HYPHENATION = re.compile(r"\u00ad\s*\n\s*")
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


def key(name: str) -> str:
    """What names are compared by; empty for one that is nothing but blanks."""
    return fold(clean(name))


@lru_cache(KEPT)
def fold(cleaned: str) -> str:
    """The key of a clean name."""
    text = " ".join(cleaned.replace("`", "'").lower().split()) if cleaned.isascii() else _fold_letters(cleaned)
    while (stripped := text.strip("\"' ").rstrip(".,;: ")) != text:
        text = stripped
    return text


def _fold_letters(cleaned: str) -> str:
    """A name's letters, quotes, dashes and blanks as names are compared by them."""
    text = unicodedata.normalize("NFKC", cleaned.translate(SAME)).casefold().replace("i\u0307", "i").translate(SAME)
    return " ".join(unicodedata.normalize("NFKC", text).split())


def clean_name(name: pl.Expr) -> pl.Expr:
    """`clean` of a column; null if nothing is left."""
    return _of_each(name, clean)


def name_key(name: pl.Expr) -> pl.Expr:
    """`key` of a column; null if nothing is left."""
    return _of_each(name, key)


def clean_key(name: pl.Expr) -> pl.Expr:
    """`key` of a column of clean names; null if nothing is left."""
    return _of_each(name, fold)


def _of_each(name: pl.Expr, function: Callable[[str], str]) -> pl.Expr:
    """A function of a column's texts, each different one computed once; null where it is empty."""

    def values(column: pl.Series) -> pl.Series:
        different = column.drop_nulls().unique()
        results = pl.Series([function(text) or None for text in different], dtype=pl.String)
        return column.replace_strict(different, results, default=None, return_dtype=pl.String)

    return name.map_batches(values, return_dtype=pl.String)


def _clean_once(name: str) -> str:
    if name.isascii() and name.isprintable() and "%" not in name and "&" not in name:  # as most are: nothing to repair
        return _BULLET.sub("", " ".join(name.split()))
    if "%" in name:
        name = _ESCAPES.sub(_unescaped, name)
    if "&" in name or is_bad(name):
        name = ftfy.fix_text(name.replace("\x85", " "), unescape_html=True, uncurl_quotes=False, fix_character_width=False)
    if not (name.isascii() and name.isprintable()):
        name = "".join(map(_shown, _HYPHENATION.sub("", name)))
    return _BULLET.sub("", unicodedata.normalize("NFC", " ".join(name.split())))


def _unescaped(escapes: re.Match[str]) -> str:
    """What percent escapes stand for, in UTF-8; they themselves where they are none."""
    try:
        return unquote_to_bytes(escapes[0]).decode("utf-8")
    except UnicodeDecodeError:
        return escapes[0]


def _shown(character: str) -> str:
    """A character, a blank for one of many kinds, or nothing for one that shows nothing."""
    category = unicodedata.category(character)
    if character in BLANKS or category in ("Zs", "Zl", "Zp"):
        return " "
    return "" if category in ("Cc", "Cf", "Cs") or ord(character) in IGNORED else character
