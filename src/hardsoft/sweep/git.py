"""What git says of this folder; knows no sweep."""

import subprocess


def run_git(*command: str) -> str | None:
    """What git prints; None if it fails."""
    done = subprocess.run(["git", *command], capture_output=True, text=True, check=False)
    return done.stdout if done.returncode == 0 else None
