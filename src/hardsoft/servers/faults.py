"""What a failed request means: the end of the run, or of its question alone. Knows no client and no question."""

import errno
from dataclasses import dataclass

import httpx2
import openai

FATAL = (openai.AuthenticationError, openai.NotFoundError)
"""Every other question would fail as well: a rejected key, no such model or address."""
BAD_REQUEST = (openai.BadRequestError, openai.UnprocessableEntityError)
NO_QUOTA = "insufficient_quota"
"""The error code of an empty purse."""
FILTER_CODES = ("content_filter", "content_policy_violation")
"""Error codes of bad requests that are an answer: the provider will not speak of this question."""
OF_THE_QUESTION = ("context_length_exceeded", "invalid_prompt", "string_above_max_length")
"""Error codes of bad requests that tell nothing of other questions, even when nothing has been answered yet."""
FIRST_FAILURES = 2
"""So many failed questions before any was answered end the run; until then they are asked one by one."""
FAILURES_IN_A_ROW = 10
"""Or twice the questions that are under way at once: more failures than that without an answer between them end the run."""
UNSUPPORTED = ("unsupported", "not support", "unrecognized", "unknown", "unexpected", "not permitted", "not allowed")


@dataclass
class Failures:
    """Counts what became of a run's questions, and says when it is to end."""

    may_fail: int
    """Questions that may fail for good: as many end no run."""
    concurrency: int
    answered: int = 0
    failed: int = 0
    in_a_row: int = 0

    def note_answer(self) -> None:
        """A question was answered."""
        self.answered += 1
        self.in_a_row = 0

    def note_failure(self, error: Exception) -> str | None:
        """A question failed for good; why the run must end, if it must, empty where the error itself says so."""
        code = getattr(error, "code", None)
        if code in OF_THE_QUESTION:
            return None
        self.failed += 1
        self.in_a_row += 1
        if isinstance(error, FATAL) or code == NO_QUOTA or isinstance(error.__cause__, httpx2.ConnectError):
            return ""
        if isinstance(error, openai.PermissionDeniedError) and not self.answered:  # else it is one question that is not permitted
            return ""
        if self.failed <= self.may_fail:
            return None
        if not self.answered and self.failed >= FIRST_FAILURES:
            return f"{self.failed} questions failed before any was answered"
        if self.in_a_row > max(FAILURES_IN_A_ROW, 2 * self.concurrency):
            return f"{self.in_a_row} questions in a row failed"
        return None


def refuses(error: openai.APIStatusError, parameter: str) -> bool:
    """Whether a server refuses a request for one of its parameters, by whatever body the error has."""
    text = f"{error} {error.response.text}".lower()
    if parameter == "response_format":
        return parameter in text or "json" in text
    return getattr(error, "param", None) == parameter or (parameter in text and any(word in text for word in UNSUPPORTED))


def is_out_of_files(error: BaseException | None) -> bool:
    """Whether a connection failed because this process has too many files open."""
    if error is None:
        return False
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        return True
    causes = error.exceptions if isinstance(error, BaseExceptionGroup) else (error.__cause__ or error.__context__,)
    return any(map(is_out_of_files, causes))
