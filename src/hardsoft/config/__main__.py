"""`python -m hardsoft.config [override ...]` writes params.yaml exactly as `dvc exp run` would.

`--check` exits 1 and names the keys that differ.
"""

import argparse
import sys
from pathlib import Path

from hardsoft.config.compose import compose, drift
from hardsoft.config.schema import PARAMS
from hardsoft.core.runner import run


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.config", description="Compose conf/ into params.yaml.")
    parser.add_argument("overrides", nargs="*", help="Hydra overrides such as prompt=zero_shot")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if params.yaml differs")
    arguments = parser.parse_args()
    text = compose(arguments.overrides)
    if not arguments.check:
        Path(PARAMS).write_text(text, encoding="utf-8")
    elif not Path(PARAMS).exists() or Path(PARAMS).read_text(encoding="utf-8") != text:
        keys = ", ".join(drift(text)) if Path(PARAMS).exists() else "the file is missing"
        sys.exit(f"config: {PARAMS} differs from conf/ in: {keys or 'its layout'}; `python -m hardsoft.config` rewrites it")


if __name__ == "__main__":
    run("config", main)
