"""Guesses at what comes next, by what came next before; knows token ids only."""

CONTEXT = 3
"""Tokens that a guess goes by."""
LONGEST_DRAFT = 4
"""Tokens of the longest guess."""
LIKELY = 0.6
"""The probability with which all tokens of a guess should be right."""
MEMORY = 200
"""Tokens over which the accuracy of guesses is averaged."""


class Drafts:
    """Guesses at a row's next tokens, from what rows have generated after the same few tokens before.

    Reasoning about one label after another is formulaic. A row's guessed tokens go through the network in one step, and those
    that the network itself would have chosen are kept, so nothing changes but the number of steps (Stern et al. 2018, arXiv
    1811.03115; Yang et al. 2023, arXiv 2304.04487).
    """

    def __init__(self) -> None:
        self._next: dict[tuple[int, ...], int] = {}
        self._accuracy = 0.0

    def guess(self, tokens: list[int]) -> list[int]:
        """What may follow a row's tokens: as many as are likely to be all right, going by the recent guesses; often none."""
        length = 0
        while length < LONGEST_DRAFT and self._accuracy ** (length + 1) >= LIKELY:
            length += 1
        context = tuple(tokens[-CONTEXT:])
        guessed: list[int] = []
        while len(guessed) < length and context in self._next:
            guessed.append(self._next[context])
            context = (*context[1:], guessed[-1])
        return guessed

    def learn(self, tokens: list[int]) -> None:
        """A row's newest token is the last of these."""
        context = tuple(tokens[-CONTEXT - 1 : -1])
        right = self._next.get(context) == tokens[-1]
        self._accuracy += (right - self._accuracy) / MEMORY
        self._next[context] = tokens[-1]
