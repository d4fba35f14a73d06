"""`python -m hardsoft.config [override ...]` writes params.yaml exactly as `dvc exp run` would.

But for what older options say otherwise, which is brought up to date. `--check` exits 1 and names the keys that differ, or the
option files that DVC cannot read as they are.
"""

import argparse
import sys
from pathlib import Path

from hardsoft.config.compose import compose_and_tell, drift
from hardsoft.config.load import PARAMS, outdated_options
from hardsoft.core.progress import note
from hardsoft.core.runner import run


def check(text: str) -> str | None:
    """What is wrong with conf/ or params.yaml, in one line; None if nothing is."""
    if outdated := outdated_options("conf"):
        return "; ".join(outdated)
    if Path(PARAMS).exists() and Path(PARAMS).read_text(encoding="utf-8") == text:
        return None
    keys = ", ".join(drift(text)) if Path(PARAMS).exists() else "the file is missing"
    return f"{PARAMS} differs from conf/ in: {keys or 'its layout'}; `python -m hardsoft.config` rewrites it"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.config", description="Compose conf/ into params.yaml.")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides such as prompt=zero_shot")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if params.yaml differs")
    arguments = parser.parse_args()
    text, changed = compose_and_tell(arguments.overrides)
    if arguments.check:
        if fault := check(text):
            sys.exit(f"config: {fault}")
        return
    Path(PARAMS).write_text(text, encoding="utf-8")
    if changed:
        note(f"{PARAMS}: {'; '.join(changed)}")


if __name__ == "__main__":
    run("config", main)
