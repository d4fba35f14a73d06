"""The one exception that users see; knows nothing of how it is shown."""


class InputError(Exception):
    """Something a user can mend: the message is one line saying what, where, and what would be right."""
