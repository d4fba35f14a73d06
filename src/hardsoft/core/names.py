"""When two spellings are the same skill: Unicode form, white space and case do not count."""

import polars as pl


def clean_name(name: pl.Expr) -> pl.Expr:
    """A name as it is shown: Unicode NFC, runs of white space as one blank, none at the ends; null if nothing is left."""
    blanks = r"[\s\p{Cc}\p{Zs}\u{200B}\u{FEFF}]+"
    tidy = name.str.normalize("NFC").str.replace_all(blanks, " ").str.strip_chars()
    return pl.when(tidy != "").then(tidy)


def name_key(name: pl.Expr) -> pl.Expr:
    """What names are compared by: the clean name in lower case."""
    return clean_name(name).str.to_lowercase()
