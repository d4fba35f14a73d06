"""Stage judge: a judge that does not see the model's labels gives its own for the sampled skills."""

import argparse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import polars as pl

from hardsoft.config.preflight import check_judge, read_key
from hardsoft.config.schema import LLMJudgeConfig, load_config
from hardsoft.core.errors import InputError, check_error_share
from hardsoft.core.files import read_text, to_json, to_jsonl, write_outputs
from hardsoft.core.progress import Progress, note
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv
from hardsoft.engines.openai_client import NO_KEY, Reply, Usage
from hardsoft.judging.base import JudgeOutcome, Verdict
from hardsoft.judging.llm import LLMJudge, read_verdict
from hardsoft.judging.plan import cost, plan
from hardsoft.judging.reference import read_reference, reference_verdicts
from hardsoft.store.ask import OnValues, ask
from hardsoft.store.key import verdict_setting
from hardsoft.store.rows import Store, canonical, default_path

CODEBOOK = "docs/codebook.md"
Judged = list[tuple[Verdict, Usage]]


def check_budget(option: LLMJudgeConfig, price_usd: float | None) -> None:
    """Raise InputError if a planned run costs more than it may, or if nobody knows."""
    if option.budget_usd is None:
        return
    if price_usd is None:
        raise InputError(f"judge.prices lists no price of {option.model}; add it, or set judge.budget_usd=null for no limit")
    if price_usd > option.budget_usd:
        raise InputError(f"the plan exceeds judge.budget_usd, {option.budget_usd:g}; raise it, or sample fewer skills")


def judge_by_model(option: LLMJudgeConfig, sample: pl.DataFrame, store: Store) -> tuple[Judged, int]:
    """Verdicts of a language model for a sample's rows, and how many of them were stored before.

    Raises:
        InputError: over budget, no server or key, or more failures than may be; verdicts so far are stored.
    """
    judge = LLMJudge(option, read_text(CODEBOOK), read_key(option.api_key_env) or NO_KEY)
    chats = [judge.chat(skill, label) for skill, label in sample.select("skill", "label").iter_rows()]
    questions = [canonical({"messages": chat, "repeat": 1}) for chat in chats]
    errors: dict[int, str] = {}

    def answer(rows: Sequence[int], keep: OnValues) -> None:
        if warning := judge.announced():
            note(warning)
        planned = plan([questions[row] for row in rows], len(chats) - len(rows), option.expected_output_tokens, option.price())
        note(f"{planned}, by the prices of {option.prices.date}" if option.price() else str(planned))
        check_budget(option, planned.price_usd)
        with Progress("judge", len(rows), "skills") as progress:

            def on_reply(place: int, reply: Reply) -> None:
                keep([(rows[place], {**asdict(reply), "batch": False, "date": datetime.now(UTC).date().isoformat()})])
                progress.advance()

            def on_failure(place: int, reason: str) -> None:
                errors[rows[place]] = reason
                progress.advance()

            judge.ask((chats[row] for row in rows), on_reply, on_failure)

    answers = ask(store, verdict_setting(option), len(chats), questions.__getitem__, answer)
    kept = f"the other {len(chats) - len(errors)} verdicts are stored, and `dvc repro` goes on with the rest"
    check_error_share([errors[row] for row in sorted(errors)], len(chats), option.max_error_share, "judge.max_error_share", kept)
    judged: Judged = []
    for row, value in enumerate(answers.read()):
        if value is None:
            judged.append((Verdict(None, JudgeOutcome.ERROR, errors.get(row, "")), Usage()))
        else:
            judged.append((read_verdict(value["text"], value["finish_reason"]), Usage(**value["usage"])))
    return judged, len(chats) - len(answers.asked)


def spending(usages: Sequence[Usage], option: LLMJudgeConfig | None) -> dict[str, Any]:
    """Tokens and price of all verdicts used, be they stored before or not."""
    total = Usage(*(sum(kind) for kind in zip(*(asdict(usage).values() for usage in usages), strict=True))) if usages else Usage()
    price = cost(total, option.price()) if option else 0.0
    tokens = {f"{kind}_tokens": count for kind, count in asdict(total).items()}
    return {**tokens, "price_usd": price if price is None else round(price, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m hardsoft.stages.judge", description=__doc__)
    parser.add_argument("--no-store", action="store_true", help="neither read nor write the row store: ask for every verdict")
    no_store = parser.parse_args().no_store
    config = load_config()
    check_judge(config)
    sample = read_csv("data/processed/sample.csv")
    skills = sample["skill"].to_list()
    if isinstance(config.judge, LLMJudgeConfig):
        option, name, blind = config.judge, config.judge.model, config.judge.blind
        judged, stored = judge_by_model(option, sample, Store(None if no_store else default_path()))
    else:
        option, name, blind, stored = None, "reference", True, 0
        judged = [(verdict, Usage()) for verdict in reference_verdicts(read_reference(config.data.reference), skills)]
    rows = [
        {"skill": skill, "judge": name, "repeat": 1, **asdict(verdict), "usage": asdict(usage)}
        for skill, (verdict, usage) in zip(skills, judged, strict=True)
    ]
    outcomes = Counter(verdict.outcome for verdict, _ in judged)
    metrics = {
        "judge": name,
        "blind": blind,
        "skills": len(skills),
        "outcomes": {outcome: outcomes[outcome] for outcome in JudgeOutcome},
        "usage": spending([usage for _, usage in judged], option),
        "stored": stored,
    }
    write_outputs({"data/processed/verdicts.jsonl": to_jsonl(rows), "metrics/judge.json": to_json(metrics)})


if __name__ == "__main__":
    run("judge", main)
