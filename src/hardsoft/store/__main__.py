"""`python -m hardsoft.store` shows what the row store holds; `--prune DAYS` drops what was not used for so long."""

import argparse
import contextlib
from typing import Any

from hardsoft.core.errors import InputError
from hardsoft.core.runner import run
from hardsoft.store.rows import Setting, Store, default_path


def describe(setting: Setting) -> str:
    """One line about a setting: the strings and numbers in it, without hashes."""
    parts: list[str] = []

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            for key in sorted(value):
                if key not in ("files", "format", "libraries", "revision"):
                    collect(value[key])
        elif isinstance(value, str | int) and not isinstance(value, bool):
            parts.append(str(value))

    collect(setting)
    return " ".join(parts)


def days_of(text: str) -> float:
    """Read a number of days.

    Raises:
        InputError: it is no number, or negative.
    """
    with contextlib.suppress(ValueError):
        if float(text) >= 0:
            return float(text)
    raise InputError(f"--prune: {text!r} is no number of days; 0 or more")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.store", description="Show or prune the row store.")
    parser.add_argument("--prune", metavar="DAYS", type=days_of, help="delete rows of settings not used for so many days; 0: all")
    arguments = parser.parse_args()
    path = default_path()
    if not path.exists():
        print(f"{path}: no rows stored yet")
        return
    store = Store(path)
    if arguments.prune is not None:
        print(f"{store.prune(arguments.prune)} rows deleted")
    print(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
    print(f"{'rows':>8} {'kB':>8}  {'unused':>9}  setting")
    for held in store.summary():
        print(f"{held.rows:>8} {held.size / 1e3:>8.0f}  {held.unused:>4.0f} days  {describe(held.setting)}")


if __name__ == "__main__":
    run("store", main)
