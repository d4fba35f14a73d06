"""Stage judge: judges that do not see the model's labels give their own for the sampled skills."""

import argparse
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

import polars as pl

from hardsoft.config.judges import JudgeConfig, PanelJudgeConfig, judge_key, language_judges
from hardsoft.config.load import load_config
from hardsoft.config.preflight import check_judge, read_key
from hardsoft.core import paths
from hardsoft.core.errors import check_error_share
from hardsoft.core.files import read_text, to_json, to_jsonl, write_outputs
from hardsoft.core.runner import run
from hardsoft.judging.base import JudgeOutcome
from hardsoft.judging.panel import Panelist, check_budget
from hardsoft.judging.reference import read_reference, reference_verdicts
from hardsoft.servers.replies import Usage
from hardsoft.stages import tables
from hardsoft.statistics.agreement import Ratings, raters_agreement
from hardsoft.store.rows import Store, default_path

Rows = list[dict[str, Any]]


def judge_by_reference(path: str, skills: Sequence[str]) -> Rows:
    """A verdict for each skill that the reference labels have."""
    verdicts = reference_verdicts(read_reference(path), skills)
    usage = {**asdict(Usage()), "price_usd": 0.0}
    return [
        {"skill": skill, "judge": "reference", "repeat": 1, **asdict(verdict), "usage": usage}
        for skill, verdict in zip(skills, verdicts, strict=True)
    ]


def ask_panel(panel: Sequence[Panelist], budget_usd: float | None, store: Store) -> None:
    """Ask for what is missing, once; a batch of another run that answers not all of it leaves some for the next call.

    Who plans and asks holds the judge's lock, so that experiments side by side pay once for the skills that they share. A batch
    is waited for without it, and holds up nobody.

    Args:
        budget_usd: what all of them may cost together; None for no limit.
    """
    with ExitStack() as asking:
        with ExitStack() as sending:
            for judge in sorted(panel, key=lambda judge: judge.lock):
                (sending if judge.option.batch else asking).enter_context(store.alone(judge.lock))
            for judge in panel:
                judge.prepare()
            check_budget(panel, budget_usd, "judge")
            for judge in panel:
                if judge.option.batch:
                    judge.send()
        for judge in panel:
            if not judge.option.batch:
                judge.ask()
    for judge in panel:
        judge.collect()


def judge_by_models(option: JudgeConfig, sample: pl.DataFrame, store: Store) -> tuple[Rows, int, list[str]]:
    """The verdicts of language models, how many of them were stored before, and the names of other models that gave some.

    All plans come before the first call.

    Raises:
        InputError: over budget, no server or key, or more failures than may be; verdicts so far are stored.
    """
    codebook, judges = read_text(paths.CODEBOOK), language_judges(option)

    panel = [
        Panelist(name, judge_key(option, name), judge, sample, codebook, read_key(judge.api_key_env), store)
        for name, judge in judges.items()
    ]
    if any(judge.missing for judge in panel):
        check_judge(judges)
    while any(judge.missing for judge in panel):
        ask_panel(panel, option.budget_usd if isinstance(option, PanelJudgeConfig) else None, store)
    rows: Rows = []
    for judge in panel:
        verdicts = judge.verdicts()
        kept = f"the other {len(verdicts) - len(judge.errors)} verdicts are stored, and `dvc repro` goes on with the rest"
        reasons = [judge.errors[row] for row in sorted(judge.errors)]
        check_error_share(reasons, len(verdicts), judge.option.max_error_share, f"{judge.where}.max_error_share", kept)
        for row, (verdict, usage, price) in enumerate(verdicts):
            skill, repeat = sample["skill"][row // judge.option.repeats], row % judge.option.repeats + 1
            paid = {**asdict(usage), "price_usd": price}
            rows.append({"skill": skill, "judge": judge.name, "repeat": repeat, **asdict(verdict), "usage": paid})
    return rows, sum(judge.stored for judge in panel), sorted({name for judge in panel for name in judge.replied_by})


def spending(rows: Rows) -> dict[str, Any]:
    """Tokens and price of all verdicts used, be they stored before or not; no price where one of them has none."""
    usages = [row["usage"] for row in rows]
    prices = [usage["price_usd"] for usage in usages]
    tokens = {f"{kind}_tokens": sum(usage[kind] for usage in usages) for kind in asdict(Usage())}
    return {**tokens, "price_usd": None if None in prices else round(sum(prices), 4)}


def ratings(rows: Rows) -> Ratings:
    """Each judge's and repeat's verdicts, in the order of skills."""
    given: Ratings = {}
    for row in rows:
        given.setdefault((row["judge"], row["repeat"]), []).append(row["verdict"])
    return given


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.stages.judge", description=__doc__)
    parser.add_argument("--no-store", action="store_true", help="neither read nor write the row store: ask for every verdict")
    no_store = parser.parse_args().no_store
    config = load_config()
    sample = tables.sample()
    judges = language_judges(config.judge)
    if judges:
        rows, stored, others = judge_by_models(config.judge, sample, Store(None if no_store else default_path()))
    else:
        rows, stored, others = judge_by_reference(config.data.reference, sample["skill"].to_list()), 0, []
    rows.sort(key=lambda row: (row["skill"], row["judge"], row["repeat"]))
    outcomes = Counter(row["outcome"] for row in rows)
    metrics: dict[str, Any] = {
        "judge": ", ".join(judges) or "reference",
        "blind": all(judge.blind for judge in judges.values()),
        "skills": sample.height,
        "outcomes": {outcome: outcomes[outcome] for outcome in JudgeOutcome if outcome is not JudgeOutcome.TIED},
        "usage": spending(rows),
        "stored": stored,
    }
    if others:
        metrics["replied_by"] = others
    if len(given := ratings(rows)) > 1:
        metrics["agreement"] = raters_agreement(given)
    write_outputs({paths.VERDICTS: to_jsonl(rows), paths.JUDGE_METRICS: to_json(metrics)})


if __name__ == "__main__":
    run("judge", main)
