"""A decoder whose shapes follow the rows: slots grow and shrink with them, and several tokens a step are guessed and checked."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from statistics import median_low

import torch
from torch import Tensor

from hardsoft.engines.local.cache import Slots
from hardsoft.engines.local.drafts import LONGEST_DRAFT, Drafts
from hardsoft.engines.local.loop import Read, Token
from hardsoft.engines.local.prefixed import PrefixedModel
from hardsoft.engines.local.rows import Generated, Job


class Eager:
    """See `loop.Decoder`; each launch is computed at once."""

    behind = 0

    def __init__(self, model: PrefixedModel, job: Job, drafts: Drafts | None = None) -> None:
        """
        Args:
            drafts: guesses at several tokens a step, which change none; None for a token a step.
        """
        self._model, self._job, self._drafts = model, job, drafts
        self._watch = list(job.watch)
        self._cache: Slots | None = None
        self._places: dict[int, int] = {}
        """Of the loop's slots in the cache, which holds no more than it needs."""

    def enter(self, rows: Mapping[int, Generated]) -> Read:
        """Prefill rows, and choose the first token of each."""
        prompts = [row.prompt for row in rows.values()]
        lengths = [self._model.own_tokens(prompt) for prompt in prompts]
        logits, filled = self._model.prefill(prompts)
        first = logits.argmax(-1)
        cache = self._cache = self._cache or Slots(filled)
        self._places |= {slot: slot for slot in rows}
        cache.make_room(1 + max(rows), max(lengths) + self._job.max_new_tokens + LONGEST_DRAFT)
        device = self._model.device
        cache.enter(torch.tensor(list(rows), device=device), filled, torch.tensor(lengths, device=device), first)
        return partial(self._read, rows, [[token] for token in first.tolist()], logits[:, None], range(len(rows)))

    def step(self, rows: Mapping[int, Generated]) -> Read:
        """Let rows take a step, of as many tokens as guesses were right."""
        assert self._cache is not None
        if 2 * len(rows) <= self._cache.count:  # no row waits any more: others would have entered
            self._cache.keep([self._places[slot] for slot in rows])
            self._places = {slot: place for place, slot in enumerate(rows)}
        places = [self._places[slot] for slot in rows]
        guesses = self._guesses(dict(zip(places, rows.values(), strict=True)))
        longest = max(self._model.own_tokens(row.prompt) + len(row.tokens) for row in rows.values())
        drafted = torch.tensor(guesses, dtype=torch.long, device=self._model.device).view(self._cache.count, len(guesses[0]))
        logits = self._model.step(self._cache, drafted, longest)
        chosen: list[list[int]] = logits.argmax(-1).tolist()
        counts, last, right = [0] * len(guesses), [0] * len(guesses), []
        for place in places:
            pairs = enumerate(zip(guesses[place], chosen[place], strict=False))
            taken = chosen[place][: 1 + next((at for at, (guess, token) in pairs if guess != token), len(guesses[place]))]
            counts[place], last[place] = len(taken), taken[-1]
            right.append(taken)
        self._cache.advance(counts, last)
        return partial(self._read, rows, right, logits, places)

    def _guesses(self, rows: Mapping[int, Generated]) -> list[list[int]]:
        """For every place of the cache, tokens that may follow: as many as the median of its rows has."""
        assert self._cache is not None
        found = {place: self._drafts.guess(row.tokens) if self._drafts else [] for place, row in rows.items()}
        length = median_low(map(len, found.values()))
        return [(found.get(place, []) + [0] * length)[:length] for place in range(self._cache.count)]

    def _read(
        self, rows: Mapping[int, Generated], tokens: Sequence[Sequence[int]], logits: Tensor, places: Sequence[int]
    ) -> Iterator[Token]:
        """The tokens of each row; what its row has taken is learnt from.

        Args:
            logits: [places, tokens, vocabulary].
        """
        for (slot, row), chosen, place in zip(rows.items(), tokens, places, strict=True):
            for at, token in enumerate(chosen):
                before = len(row.tokens)
                yield slot, token, partial(self._watched, logits, place, at)
                if len(row.tokens) == before:
                    break
                if self._drafts:
                    self._drafts.learn(row.tokens)

    def _watched(self, logits: Tensor, place: int, at: int) -> list[float]:
        values: list[float] = logits[place, at][self._watch].float().tolist()
        return values
