"""How a judge's reply is read: what is thought, drafted or said twice is no verdict, and how JSON is written does no harm."""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hardsoft.core.labels import Label
from hardsoft.judging.base import JudgeOutcome
from hardsoft.judging.llm import read_verdict

HARD = '{"rationale": "r", "verdict": "Hard"}'
SOFT = '{"rationale": "r", "verdict": "Soft"}'


@pytest.mark.parametrize(
    "reply",
    [
        HARD,
        f"```json\n{HARD}\n```",
        f"```json\n{HARD}",
        f"Here it is:\n\n  {HARD}\n\n",
        f"<think>Perhaps {SOFT}, no.</think>{HARD}",
        f"<think>Perhaps\n```json\n{SOFT}\n```\nno.</think>\n```json\n{HARD}\n```",
        f"Perhaps {SOFT}, no.</think>\n{HARD}",
        f"{HARD}\n{HARD}",
        f"[{HARD}]",
        '{"rationale": "r", "verdict": "hard"}',
        '{"rationale": "r", "verdict": " Hard"}',
        '{"rationale": "r", "verdict": "**Hard**"}',
        '{"rationale": "It is software.\nA tool.", "verdict": "Hard"}',
        '{"rationale": "r", "verdict": "Hard", "confidence": 0.9}',
        '{"rationale": "r", "verdict": "Hard",}',
        '{"rationale": "a, } b", "verdict": "Hard",\n}',
        '{"rationale": null, "verdict": "Hard"}',
        '{"verdict": "Hard"}',
        '{"Rationale": "r", "Verdict": "HARD"}',
        '{"rationale": "r", "label": "Hard"}',
        '{"answer": {"rationale": "r", "verdict": "Hard"}}',
        '{"rationale": "of <think> and {braces}", "verdict": "Hard"}',
        "It is C{++}.\nAnswer: Hard",
        "It is a tool.\n\nVerdict: Hard",
        "<think>Soft?</think>It is a tool.\nAnswer: Hard",
    ],
)
def test_a_verdict_is_read_however_it_is_written(reply: str) -> None:
    assert (read_verdict(reply, "stop").verdict, read_verdict(reply, "stop").outcome) == ("Hard", "answered")


@pytest.mark.parametrize(
    "reply",
    [
        f"<think>draft {SOFT} but no, since",
        f"<think>{SOFT}</think>",
        f"<think>Perhaps\n{SOFT}\n",
        f"<think>Perhaps:\n```\n{SOFT}\n```",
        f"{SOFT}</think>",
        f"A first draft: {SOFT}\n\nOn reflection that is wrong, since",
        f"A first draft:\n{SOFT}\n\nOn reflection that is wrong, since",
        f"An example reply for another skill is {SOFT}.",
        f"An example reply for another skill is {SOFT}",
        'An example is {"skill_type": "Soft"}.',
        "An example is {verdict: Soft}.",
        f"{SOFT}\n{HARD}",
        '{"rationale": "r", "verdict": "Soft", "verdict": "Hard"}',
        '{"rationale": "r", "verdict": "Soft", "label": "Hard"}',
        '{"rationale": "The answer is Hard", "verdict": "Hardish"}',
        '{"rationale": "Answer: Hard", "verd',
        '{"verdict": null}',
        '{"verdict": "Hard or Soft"}',
        "It is a tool.",
        "",
    ],
)
def test_what_is_thought_drafted_or_said_twice_is_no_verdict(reply: str) -> None:
    assert (read_verdict(reply, "stop").verdict, read_verdict(reply, "stop").outcome) == (None, "unparseable")
    assert (read_verdict(reply, "length").verdict, read_verdict(reply, "length").outcome) == (None, "truncated")


def test_a_cut_off_reply_counts_only_if_its_object_is_whole() -> None:
    assert read_verdict(f"<think>Hm.</think>{HARD}", "length").verdict == "Hard"
    assert read_verdict("It is a tool.\nAnswer: Hard", "length").outcome == "truncated"
    assert read_verdict(HARD, "content_filter").outcome == "refused"


def test_a_rationale_can_always_be_written() -> None:
    assert read_verdict('{"rationale": "half \\ud83d", "verdict": "Hard"}', "stop").rationale == "half ?"


MARKS = ["{", "}", '"', "\\", "\n", "```", "```json", "[", "<think>", "</think>", "Answer: Hard", ",", ":", "verdict", "<|"]
pieces = st.sampled_from([HARD, SOFT, *MARKS])
replies = st.text(max_size=100) | st.lists(pieces | st.text(max_size=5), max_size=12).map("".join)
finishes = st.sampled_from(["stop", "length", "content_filter", "error"])


@given(replies, finishes)
def test_any_reply_is_read_without_a_fault(reply: str, finish_reason: Any) -> None:
    verdict = read_verdict(reply, finish_reason)
    assert (verdict.verdict is None) == (verdict.outcome is not JudgeOutcome.ANSWERED)
    assert verdict.verdict is None or verdict.verdict in Label


@given(replies.filter(lambda reply: "think" not in reply.lower() and "<|" not in reply), st.sampled_from(["stop", "length"]))
@pytest.mark.parametrize("thought", [f"Perhaps {SOFT}, but", SOFT, f"\n{HARD}\n", "Answer: Soft\n", '{"', "```\n{"])
def test_thinking_in_front_of_a_reply_changes_no_verdict(thought: str, reply: str, finish_reason: Any) -> None:
    alone, behind = read_verdict(reply, finish_reason), read_verdict(f"<think>{thought}</think>\n{reply}", finish_reason)
    assert (alone.verdict, alone.outcome) == (behind.verdict, behind.outcome)


@pytest.mark.parametrize("run", ["{", '{"', "{}", '"\\', HARD, "\n{", ","])
def test_reading_takes_time_linear_in_the_length(run: str) -> None:
    def seconds(length: int) -> float:
        begin = time.process_time()
        read_verdict("{" + run * (length // len(run)), "stop")
        return time.process_time() - begin

    assert min(seconds(64_000) for _ in range(2)) <= 24 * max(min(seconds(8_000) for _ in range(2)), 0.002)
