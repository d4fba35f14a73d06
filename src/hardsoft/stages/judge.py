"""Stage judge: a judge that does not see the model's labels gives its own for the sampled skills."""

from collections import Counter

from hardsoft.config.preflight import check_judge, read_key
from hardsoft.config.schema import Config, OpenAIJudgeConfig, load_config
from hardsoft.core.errors import check_error_share
from hardsoft.core.files import read_text, to_json, to_jsonl, write_outputs
from hardsoft.core.progress import Progress
from hardsoft.core.runner import run
from hardsoft.core.tables import read_csv
from hardsoft.judging.base import Judge, JudgeOutcome, Verdict
from hardsoft.judging.reference import ReferenceJudge, read_reference


def make_judge(config: Config) -> Judge:
    """The judge that the configuration names."""
    if isinstance(config.judge, OpenAIJudgeConfig):
        from hardsoft.judging.llm import OpenAIJudge

        codebook = read_text("docs/codebook.md")
        return OpenAIJudge(config.judge, codebook, read_key(config.judge.api_key_env))
    return ReferenceJudge(read_reference(config.data.reference))


def main() -> None:
    config = load_config()
    check_judge(config)
    judge = make_judge(config)
    skills = read_csv("data/processed/sample.csv")["skill"].to_list()
    verdicts: dict[int, Verdict] = {}
    with Progress("judge", len(skills), "skills") as progress:

        def keep(row: int, verdict: Verdict) -> None:
            verdicts[row] = verdict
            progress.advance()

        judge.judge(skills, keep)
    rows = [
        {
            "skill": skill,
            "judge": judge.name,
            "repeat": 1,
            "verdict": verdicts[row].verdict,
            "outcome": verdicts[row].outcome,
            "rationale": verdicts[row].rationale,
            "usage": verdicts[row].usage,
        }
        for row, skill in enumerate(skills)
    ]
    if isinstance(config.judge, OpenAIJudgeConfig):
        failed = [verdict.rationale for verdict in verdicts.values() if verdict.outcome is JudgeOutcome.ERROR]
        check_error_share(failed, len(skills), config.judge.max_error_share, "judge.max_error_share", "`dvc repro` asks anew")
    outcomes = Counter(verdict.outcome for verdict in verdicts.values())
    usage = sum((Counter(verdict.usage) for verdict in verdicts.values()), Counter({"input_tokens": 0, "output_tokens": 0}))
    metrics = {
        "judge": judge.name,
        "skills": len(skills),
        "outcomes": {outcome: outcomes[outcome] for outcome in JudgeOutcome},
        "usage": {kind: usage[kind] for kind in ("input_tokens", "output_tokens")},
    }
    write_outputs({"data/processed/verdicts.jsonl": to_jsonl(rows), "metrics/judge.json": to_json(metrics)})


if __name__ == "__main__":
    run("judge", main)
