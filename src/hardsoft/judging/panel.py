"""A language model of a panel: what it will be asked, what the store has of it, what it costs, and the asking."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime

import polars as pl

from hardsoft.config.judges import LLMJudgeConfig
from hardsoft.core.errors import InputError, errors_allowed
from hardsoft.core.progress import Progress, note
from hardsoft.judging.base import JudgeOutcome, Verdict
from hardsoft.judging.llm import LLMJudge, read_verdict
from hardsoft.judging.plan import cost, plan, price_of
from hardsoft.servers.batch import GONE, LOST, Batches, Results
from hardsoft.servers.client import NO_KEY
from hardsoft.servers.replies import Reply, Usage
from hardsoft.store.batches import BatchLog
from hardsoft.store.key import batch_setting, verdict_setting
from hardsoft.store.lookup import StoredRows
from hardsoft.store.rows import Store, canonical, setting_name


class Panelist:
    """One judge with its questions: each sampled skill's, once for every repeat."""

    def __init__(
        self, name: str, where: str, option: LLMJudgeConfig, sample: pl.DataFrame, codebook: str, key: str, store: Store
    ) -> None:
        """
        Args:
            name: what its verdicts carry.
            where: its key in params.yaml.
            sample: columns skill, label.
            codebook: the rules that it judges by.
            key: its server's; empty for none.
        """
        self.name, self.where, self.option = name, where, option
        self.planned_usd: float | None = 0.0
        """What it will cost by its plan; None where nobody knows."""
        self.errors: dict[int, str] = {}
        """Why questions have no verdict, by their row."""
        self._store = store
        self._judge = LLMJudge(option, codebook, key or NO_KEY)
        chats = [self._judge.chat(skill, label) for skill, label in sample.select("skill", "label").iter_rows()]
        self._chats = [chat for chat in chats for _ in range(option.repeats)]
        self._questions = [
            canonical({"messages": chat, "repeat": row % option.repeats + 1}) for row, chat in enumerate(self._chats)
        ]
        self.replied_by: set[str] = set()
        """Names of other models than the one asked for, of the verdicts read."""
        self._asked: set[int] = set()
        """Rows that this run has asked."""
        self._rows: list[int] = []
        """Rows that it is about to ask."""
        self._others: dict[str, list[str]] = {}
        """Batches of other runs that it waits for, with their questions."""
        self._sent: dict[str, list[str]] = {}
        """Batches that it has sent itself, with their questions."""
        self._look_up()
        self._batches = Batches(self._judge.server, option.batch_endpoint, option.batch_poll_s)
        self._log = BatchLog(store, batch_setting(option))
        self._row_of = {_name(question): row for row, question in enumerate(self._questions)}

    @property
    def missing(self) -> bool:
        """Whether a question has no verdict, and was not asked in this run."""
        return any(row not in self._asked for row in self._stored.missing)

    @property
    def stored(self) -> int:
        """Verdicts that this run has not asked for."""
        return len(self._questions) - len(self._asked)

    @property
    def lock(self) -> str:
        """What must be held by the one who plans and asks: no other run then asks for the same."""
        return setting_name({**verdict_setting(self.option), "blind": self.option.blind})

    def prepare(self) -> None:
        """Look up what is stored, and what is under way in batches of other runs; say what the rest will cost.

        Raises:
            InputError: more than it may cost, or nobody knows; or no server.
        """
        self._look_up()
        missing = [row for row in self._stored.missing if row not in self._asked]
        self._others = self._under_way(missing)
        held = {name for names in self._others.values() for name in names}
        self._rows, option = [row for row in missing if _name(self._questions[row]) not in held], self.option
        if not self._rows:
            return
        if warning := self._judge.announced():
            note(warning)
        planned = plan(
            [self._questions[row] for row in self._rows],
            len(self._questions) - len(self._stored.missing),
            option.expected_output_tokens,
            price_of(option),
            option.prices.batch_share if option.batch else 1.0,
        )
        note(f"{self.name}: {planned}" + (f", by the prices of {option.prices.date}" if price_of(option) else ""))
        prices = (self.planned_usd, planned.price_usd)
        self.planned_usd = None if None in prices else sum(price or 0.0 for price in prices)
        check_budget([self], option.budget_usd, self.where)

    def send(self) -> None:
        """Send what it asks in batches off; none is waited for.

        Raises:
            InputError: no server, a rejected key, or no quota.
        """
        bodies = {_name(self._questions[row]): self._judge.body(self._chats[row]) for row in self._rows}
        for part in self._batches.in_batches(bodies):
            file = self._batches.upload(part)
            self._log.announce(file, list(part))
            batch = self._batches.create(file)
            self._log.add(batch, file, list(part))
            note(f"{self.name}: batch {batch} has {len(part)} questions; a killed run goes on waiting for it")
            self._sent[batch] = list(part)
        self._asked.update(self._rows)

    def ask(self) -> None:
        """Ask at once; each verdict is stored as it arrives.

        Raises:
            InputError: no server, a rejected key or option, an unknown model, or no quota.
        """
        self._asked.update(self._rows)
        if self._rows:
            self._ask_now(self._rows)

    def collect(self) -> None:
        """Wait for the batches that hold its questions, and store their verdicts.

        Raises:
            InputError: no server, or a batch that is refused as a whole, or not to be found, or whose answers are not.
        """
        for batch in self._others:
            self._collect(batch)
        for batch in list(self._sent):
            names, results = self._sent.pop(batch), self._collect(batch)
            if results.status == "failed":
                raise InputError(f"batch {batch} failed: {results.reason or 'the provider gives no reason'}")
            for name in names:
                if name not in results.replies:
                    missing = f"the batch ended as {results.status} without an answer to it"
                    self.errors[self._row_of[name]] = results.failures.get(name, missing)
        self._look_up()

    def verdicts(self) -> list[tuple[Verdict, Usage, float | None]]:
        """Each question's verdict, its tokens and its price in US dollars, None without a listed price."""
        result: list[tuple[Verdict, Usage, float | None]] = []
        for row, value in enumerate(self._stored.read()):
            if value is None:
                result.append((Verdict(None, JudgeOutcome.ERROR, self.errors.get(row, "")), Usage(), 0.0))
                continue
            if not _is_one_model(self.option.model, value["model"]):
                self.replied_by.add(value["model"])
            usage, share = Usage.of(value["usage"]), self.option.prices.batch_share if value["batch"] else 1.0
            price = cost(usage, price_of(self.option), share)
            result.append((read_verdict(value["text"], value["finish_reason"]), usage, price))
        if self.replied_by:
            note(f"{self.name}: asked for {self.option.model}, and was answered by {', '.join(sorted(self.replied_by))}")
        return result

    def _look_up(self) -> None:
        setting, questions = verdict_setting(self.option), self._questions
        self._stored = StoredRows(self._store, setting, questions)

    def _keep(self, row: int, reply: Reply, batch: bool) -> None:
        value = {**asdict(reply), "batch": batch, "date": datetime.now(UTC).date().isoformat()}
        self._stored.keep([(row, value)])

    def _ask_now(self, rows: Sequence[int]) -> None:
        may_fail = errors_allowed(self.option.max_error_share, len(self._questions))
        with Progress(f"judge {self.name}", len(rows), "verdicts") as progress:

            def on_reply(place: int, reply: Reply) -> None:
                self._keep(rows[place], reply, batch=False)
                progress.advance()

            def on_failure(place: int, reason: str) -> None:
                self.errors[rows[place]] = reason
                progress.advance()

            self._judge.ask((self._chats[row] for row in rows), on_reply, on_failure, may_fail)

    def _under_way(self, rows: Sequence[int]) -> dict[str, list[str]]:
        """Other runs' batches that hold questions, by their ids, with all that they hold."""
        wanted = {_name(self._questions[row]) for row in rows}
        doubtful = self._log.in_doubt(wanted)
        for file, batch in self._batches.find(doubtful.keys()).items() if doubtful else ():
            self._log.add(batch, file, doubtful[file])
        others = self._log.holding(wanted)
        for batch in others:
            note(f"{self.name}: batch {batch} is an earlier run's, and paid for; this one waits for it")
        return others

    def _collect(self, batch: str) -> Results:
        """Wait for a batch, and store its verdicts."""
        with Progress(f"judge {self.name}", 0, "verdicts") as progress:
            results = self._batches.collect(batch, progress.reach)
        if results.status in (GONE, LOST):
            found = "is not to be found" if results.status == GONE else "has ended, but its answers are not to be found"
            words = f"{self.name}: batch {batch} {found} with this key"
            if not self.option.resubmit:
                raise InputError(f"{words}, see {self.option.api_key_env}; {self.where}.resubmit=true asks and pays again")
            note(f"{words}; its questions are asked again")
        for name, reply in results.replies.items():
            if name in self._row_of:
                self._keep(self._row_of[name], reply, batch=True)
        self._log.settle(batch)
        return results


def check_budget(panel: Sequence[Panelist], budget_usd: float | None, where: str) -> None:
    """Hold judges' plans against what they may cost together.

    Args:
        budget_usd: US dollars, None for no limit.
        where: the section of params.yaml whose `budget_usd` that is.

    Raises:
        InputError: more than it may cost, or nobody knows.
    """
    if budget_usd is None:
        return
    planned = 0.0
    for judge in panel:
        if judge.planned_usd is None:
            raise InputError(
                f"{judge.where}.prices lists no price of {judge.option.model} there, so {where}.budget_usd cannot be held; "
                f"add the price, or set {where}.budget_usd=null for no limit"
            )
        planned += judge.planned_usd
    if planned > budget_usd:
        names = ", ".join(judge.name for judge in panel)
        raise InputError(
            f"{names}: the plan, ${planned:.4g}, exceeds {where}.budget_usd, {budget_usd:g}; raise it, or sample fewer skills"
        )


def _is_one_model(one: str, other: str) -> bool:
    """Whether two names are one model's: a provider adds a date to it, or takes it away."""
    return one.startswith(other) or other.startswith(one)


def _name(question: str) -> str:
    """What a batch calls a question."""
    return hashlib.sha256(question.encode()).hexdigest()
