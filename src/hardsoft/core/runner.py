"""How a command ends: a fault that a user can mend is one line and exit code 1. Knows nothing of what the command does."""

import sys
from collections.abc import Callable
from io import TextIOWrapper

from hardsoft.core.errors import InputError


def run(name: str, main: Callable[[], None]) -> None:
    """Run a command; an InputError or a failing disk becomes one line on stderr and exit code 1, Ctrl-C one and 130.

    Args:
        name: what the line begins with.
        main: the command.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # names are in any language, and terminals not
            stream.reconfigure(errors="backslashreplace")
    try:
        main()
    except InputError as error:
        sys.exit(f"{name}: {' '.join(str(error).split())}")
    except KeyboardInterrupt:
        print(f"{name}: interrupted; rows stored so far are kept", file=sys.stderr)
        sys.exit(130)
    except OSError as error:
        sys.exit(f"{name}: {error.filename or 'input or output'}: {error.strerror or error}")
