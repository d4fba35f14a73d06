"""The one exception that users see; knows nothing of how it is shown."""

from collections.abc import Sequence
from math import floor


class InputError(Exception):
    """Something a user can mend: the message is one line saying what, where, and what would be right."""


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def errors_allowed(share: float, count: int) -> int:
    """Of so many rows, those that may fail: a share of 0 to 1."""
    return floor(share * count)


def check_error_share(reasons: Sequence[str], count: int, allowed: float, key: str, kept: str) -> None:
    """Raise InputError where more rows failed than may: a fault of an hour must not become a reproducible result.

    Args:
        reasons: why rows failed, one for each that did.
        count: of all rows.
        allowed: the share of rows that may fail, 0 to 1.
        key: the configuration's key of that share.
        kept: what of the others stays.
    """
    if len(reasons) > errors_allowed(allowed, count):
        raise InputError(f"{len(reasons)} of {count} rows failed ({reasons[0]}), more than {key}: {allowed:g} lets pass; {kept}")
