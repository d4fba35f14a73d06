"""How answers are read: from what models really write, and never by guessing."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hardsoft.core.labels import Label, Outcome
from hardsoft.prompting.answers import _read_any, answer_is_complete, is_before_answer, read_answer
from hardsoft.prompting.patterns import CORRECTION, DECLINED, VERDICTS, Rule

STUDY = Path(__file__).parents[2] / "shared/study/cot_records.jsonl"
OURS = [json.loads(line) for line in Path(__file__).with_name("completions.jsonl").read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(
    ("completion", "label"),
    [
        ("Answer: Hard", "Hard"),
        ("Step 1: …\nStep 2: …\n\nAnswer: Soft", "Soft"),
        ("**Answer:** Hard", "Hard"),
        ("Answer: **Soft**.", "Soft"),
        ("answer - soft", "Soft"),
        ('The final answer is: "Soft"', "Soft"),
        ("Answer:\nHard", "Hard"),
        ("Answer: a Hard skill", "Hard"),
        ("<answer>Hard</answer>", "Hard"),
        ("Label: Unknown (not a skill)", "Unknown"),
        ("Hard", "Hard"),
        (" soft.", "Soft"),
        ("It is learned.\n\n- Hard", "Hard"),
        ("“Unknown”", "Unknown"),
        ("Therefore, the classification of the skill of Orthodontics is Hard", "Hard"),
        ("Therefore, I would classify Agency Management as: Soft", "Soft"),
        ('I would classify the skill "Memos" as Soft, since it is about behaviour and', "Soft"),
        ('I would classify Node.js as a skill that leans towards being "Hard" because', "Hard"),
        ("I'd classify it as soft", "Soft"),
        ("a mix of both hard and soft skills, but leaning more towards hard skills due to the", "Hard"),
        ("I would say it's Unknown. Here's my reasoning:", "Unknown"),
        ('these are measurable, making it a "Hard" skill.', "Hard"),
        # Self-correction: the last answer counts.
        ("Answer: Hard. Wait, no.\nAnswer: Soft", "Soft"),
        # The next question is not about this skill.
        ("Answer: Hard\n\nSkill: Empathy\nStep 1: …\nAnswer: Soft", "Hard"),
        # A final answer outranks prose.
        ("It leans towards soft skills.\nAnswer: Hard", "Hard"),
    ],
)
def test_a_stated_verdict_is_read(completion: str, label: str) -> None:
    reading = read_answer(completion, "stop")
    assert reading.label == label
    assert reading.outcome == (Outcome.ABSTAINED if label == "Unknown" else Outcome.ANSWERED)
    assert label.lower() in reading.answer.lower()


@pytest.mark.parametrize("rule", VERDICTS, ids=lambda rule: rule.name)
def test_each_rule_reads_its_example(rule: Rule) -> None:
    match = rule.pattern.search(rule.example)
    assert match is not None
    reading = read_answer(rule.example, "stop")
    assert reading.label == match["label"].capitalize()
    assert reading.answer == " ".join(match[0].split())


@pytest.mark.parametrize("rule", DECLINED, ids=lambda rule: rule.name)
def test_each_way_to_decline_is_abstaining(rule: Rule) -> None:
    assert rule.pattern.search(rule.example)
    assert read_answer(rule.example, "stop").outcome == Outcome.ABSTAINED


@pytest.mark.parametrize(
    "completion",
    [
        "",
        "Answer:",
        "Answer: Hard or Soft",
        "Answer: Hard, Soft or Unknown",
        "Answer: Hard/Soft",
        "Answer: Hard skills and soft skills",
        "Answer: Hard to say",
        "Answer: Hardly",
        "Answer: hard-working",
        "Answer: Not Hard",
        "You must answer hard questions",
        "I would not classify this as Soft",
        "It can be classified as either Hard or Soft",
        "If it were a method, I would classify it as Hard",
        'I would classify it as a combination of both hard and soft skills. However, I would lean towards "',
        "It involves hard work and soft skills",
        "It is hard to say; soft skills matter",
    ],
)
def test_words_that_are_no_verdict_are_not_guessed(completion: str) -> None:
    assert read_answer(completion, "stop") == read_answer("Nothing is said.", "stop")
    assert read_answer(completion, "stop").label == Label.UNKNOWN
    assert read_answer(completion, "length").outcome == Outcome.TRUNCATED


@pytest.mark.parametrize(
    "completion",
    [
        'I can\'t provide a classification for the skill "Hepatitis" as it is a medical condition.',
        '"Protein" is not a skill. Could you please provide a more specific skill?',
        "I don't know.",
    ],
)
def test_declining_is_abstaining(completion: str) -> None:
    assert read_answer(completion, "stop").outcome == Outcome.ABSTAINED


def test_a_failed_row_is_an_error_whatever_it_says() -> None:
    assert read_answer("Answer: Hard", "error").outcome == Outcome.ERROR
    assert read_answer("Answer: Hard", "error").label == Label.UNKNOWN


# Situations out of public bug reports: a label, or Unknown with its outcome.
REPORTED = [
    # A draft inside the model's reasoning.
    ("<think>\nCould be soft: people use it. Answer: Soft? Hmm, no, it is software.\n</think>\n\nHard", "Hard"),
    ("<think>I might say\nAnswer: Soft\nbut it is a tool.</think>\n\n**Hard**", "Hard"),
    ("Maybe Answer: Soft, but tools count.\n</think>\n\nHard", "Hard"),
    ("<think>One <think>inner</think> thought. Answer: Soft</think>Answer: Hard", "Hard"),
    ("[THINK]Answer: Soft[/THINK]Hard", "Hard"),
    ("<|channel|>analysis<|message|>Answer: Soft<|end|><|start|>assistant<|channel|>final<|message|>Hard<|return|>", "Hard"),
    ("analysisMaybe Answer: SoftassistantfinalHard", "Hard"),
    ("<think>\nAnswer: Soft\nor rather", "unparseable"),
    # Boxes, tags, tables, headings, code, JSON.
    ("Step 1: A tool.\n\n\\boxed{Hard}", "Hard"),
    ("Answer: \\boxed{\\text{Soft}}", "Soft"),
    ("The final answer is $\\boxed{Soft}$.", "Soft"),
    ("<answer>\nHard\n</answer>", "Hard"),
    ("| Answer | Hard |", "Hard"),
    ("### Answer\n**Soft**", "Soft"),
    ("Answer: `Hard`", "Hard"),
    ("Answer: [Hard]", "Hard"),
    ('{"reasoning": "about people", "label": "Soft"}', "Soft"),
    ('{"label":"Hard","reasoning":"the label would be: Soft only for dealing with people"}', "Hard"),
    # The label first, then the reason.
    ("Hard. It is a renderer that one learns.", "Hard"),
    ("**Hard**\n\nV-Ray is a renderer that one learns.", "Hard"),
    ("Hard - it is learned and tested", "Hard"),
    ("Soft — dealing with people", "Soft"),
    ("Hard (technical knowledge)", "Hard"),
    # A contrast, a condition or a rule after the answer, or before it.
    ("Answer: Hard\n\nIf the skill were about people, the answer would be: Soft", "Hard"),
    ("The answer is Hard. A Soft skill would be, for example, Empathy. Its label would be Soft.", "Hard"),
    ("Answer: Hard\nReason: unlike 'Empathy', for which the answer is Soft, this one is a tool.", "Hard"),
    ("It depends on whether the answer is Soft, consider", "unparseable"),
    ("If it were about people, the answer would be: Soft.\nAnswer: Hard", "Hard"),
    # Corrections.
    ("Answer: Soft\nOn second thought, it is learned.\nAnswer: Hard", "Hard"),
    ("My first answer: Soft.\nFinal answer: Hard", "Hard"),
    # The next skill.
    ("Answer: Hard\n\n---\n\nSkill name: Empathy\nStep 1: people\nAnswer: Soft", "Hard"),
    ("Answer: Hard\n\n## Next skill\nEmpathy\nWait.\nAnswer: Soft", "Hard"),
    ("<answer>Hard</answer>Human: Next skill: Empathy\n<answer>Soft</answer>", "Hard"),
    ("It is learned.\nHard\n\nSkill: Empathy\nSoft", "Hard"),
    # Other languages and signs.
    ("Schritt 2: Es wird gelernt.\nAntwort: Hard", "Hard"),
    ("Réponse : Soft", "Soft"),
    ("Respuesta: Soft", "Soft"),
    ("步骤2：需要学习。\n答案：Hard", "Hard"),
    ("Answer：Hard", "Hard"),
    ("Ответ: Soft.", "Soft"),
    # An end token left behind.
    ("Step 2: It is learned.\nHard<|im_end|>", "Hard"),
    ("Step 2: It is learned.\nHard</s>", "Hard"),
    ("Answer: Hard<|eot_id|>", "Hard"),
    ("Answer: Hard<|im_end|>\n<|im_start|>user\nEmpathy<|im_end|>\nWait. Answer: Soft", "Hard"),
    # Declined.
    ("Answer: N/A", "abstained"),
    ("Answer: None", "abstained"),
    ("Answer: Not a skill", "abstained"),
    ("Answer: Neither", "abstained"),
    ("I'm sorry, but I can't help with that.", "abstained"),
    ("It is neither Hard nor Soft.", "abstained"),
    # More of these kinds, from a reading by other eyes.
    ("Answer: Hard\n\n2. Empathy\nFinal answer: Soft", "Hard"),
    ("Answer: Hard\n\nFinally, note that for Empathy the answer is Soft.", "Hard"),
    ("Answer: Hard\n\nuser\nEmpathy\nassistant\nWait. Answer: Soft", "Hard"),
    ("Answer: Soft\nCorrection: Hard", "Hard"),
    ("Hard\n\nActually, on reflection it is about people.\n\nSoft", "Soft"),
    ("I would classify V-Ray as Hard.\n\nSkill: Empathy\nAnswer: Soft", "Hard"),
    ("I cannot classify this.\n\nSkill: V-Ray\nAnswer: Hard", "abstained"),
    ("**Hard**\n\n**Empathy**\nAnswer: Soft", "Hard"),
    (
        "<|begin_of_thought|>\nAnswer: Soft\n<|end_of_thought|>\n\n<|begin_of_solution|>\nAnswer: Hard\n<|end_of_solution|>",
        "Hard",
    ),
    ("Thinking...\nAnswer: Soft\n...done thinking.\n\nHard", "Hard"),
    ("<details>\n<summary>Thinking</summary>\nAnswer: Soft\n</details>\n\nAnswer: Hard", "Hard"),
    ("<|START_THINKING|>Answer: Soft<|END_THINKING|><|START_RESPONSE|>Hard<|END_RESPONSE|>", "Hard"),
    ("```thinking\nAnswer: Soft\n```\nAnswer: Hard", "Hard"),
    ("Step 1: The decision is hard.\nAnswer: Soft", "Soft"),
    ("The decision is hard because both fit.", "unparseable"),
    ("Overall, the learning curve is hard.", "unparseable"),
    ("This makes it hard, because people differ.", "unparseable"),
    ("**Soft skills:** none involved.\n**Hard skills:** rendering.\n\nTherefore, V-Ray is a Hard skill.", "Hard"),
    ("Hard: technical abilities. Soft: personal abilities.", "unparseable"),
    ("The three labels are:\nHard\nSoft\nUnknown", "unparseable"),
    ('Answer: "Hard" or "Soft"', "unparseable"),
    ("I don't think the answer is Hard.", "unparseable"),
    ("Some would say the answer is Soft. However, it's a tool.\nAnswer: Hard", "Hard"),
    ('{"reasoning": "people skills have label: Soft, this is a tool", "label": "Hard"}', "Hard"),
    ('{"final_answer": "Hard"}', "Hard"),
    ('{"label": null}', "abstained"),
    ("| Skill | Label |\n|---|---|\n| V-Ray | Hard |", "Hard"),
    ("Answer: V-Ray is a **Hard** skill.", "Hard"),
    ("Answer: <b>Hard</b>", "Hard"),
    ("Réponse finale : Hard", "Hard"),
    ("最终答案：Soft", "Soft"),
    ("答案：「Hard」", "Hard"),
    ("Answer：Ｈａｒｄ", "Hard"),
    ("Answer:\u200bHard", "Hard"),
    ("It is software.\nHard<|im_end|", "Hard"),
    ("It is neither a Hard nor a Soft skill.", "abstained"),
    ("Antwort: Keine Angabe", "abstained"),
    # Words that are no label.
    ("Answer: Soft tissue massage is a Hard skill.", "Hard"),
    ("Answer: hard for me to tell", "unparseable"),
    ("Answer: Hard and/or Soft", "unparseable"),
    ("Answer: Hard, but also Soft", "unparseable"),
    ("Answer: Hard? Soft?", "unparseable"),
    ("The category: soft drinks", "unparseable"),
    ("Hard skills, such as V-Ray, are learned.", "unparseable"),
    ("This is a hard skill to learn.", "unparseable"),
    ("The label Hard is for tools.", "unparseable"),
]


@pytest.mark.parametrize(("completion", "expected"), REPORTED)
def test_answers_that_were_reported_as_misread_are_read_right(completion: str, expected: str) -> None:
    reading = read_answer(completion, "stop")
    assert expected in ((reading.label,) if expected in ("Hard", "Soft") else (reading.outcome,))


@pytest.mark.parametrize("completion", ["this makes it hard for", "this makes it hard", "I'd classify it as soft"])
def test_a_word_that_the_limit_cut_off_is_no_label(completion: str) -> None:
    assert read_answer(completion, "length").outcome == Outcome.TRUNCATED


RUNS = (
    "\n",
    " ",
    "*",
    "_",
    "\n#",
    "answer ",
    "Answer: ",
    "I would classify ",
    "<think>",
    "</think>",
    '"',
    "Skill: x\n",
    "I would say it is hard if ",
)


@pytest.mark.parametrize("run", RUNS)
def test_reading_takes_time_linear_in_the_length(run: str) -> None:
    """Of a text eight times as long, at most about eight times as much; quadratic would be 64."""

    def seconds(length: int) -> float:
        text = "Step 1: x." + run * (length // len(run))
        begin = time.process_time()
        read_answer(text, "length")
        answer_is_complete(text)
        return time.process_time() - begin

    assert min(seconds(64_000) for _ in range(3)) <= 24 * max(min(seconds(8_000) for _ in range(3)), 0.002)


text_without_labels = st.text(max_size=200).filter(
    lambda text: not any(word in text.lower() for word in ("hard", "soft", "unknown"))
)


@given(text_without_labels, st.sampled_from(["stop", "length"]))
def test_no_label_is_ever_made_up(text: str, finish_reason: str) -> None:
    reading = read_answer(text, finish_reason)  # type: ignore[arg-type]
    assert reading.label == Label.UNKNOWN
    assert reading.answer == ""


@given(text_without_labels, st.sampled_from(list(Label)))
def test_a_final_answer_line_is_always_read(reasoning: str, label: Label) -> None:
    assert read_answer(f"{reasoning}\nAnswer: {label}", "stop").label == label


@given(st.sampled_from(list(Label)), st.text(max_size=200) | st.text(alphabet='HardSoftUnkwAnsweris:. \n"*', max_size=200))
def test_what_follows_a_complete_answer_line_changes_nothing_but_as_a_correction(label: Label, following: str) -> None:
    assume(not CORRECTION.search(following) and "</" not in following)
    assert read_answer(f"Step 1: It is so.\nAnswer: {label}\n{following}", "stop").label == label
    assert answer_is_complete(f"Step 1: It is so.\nAnswer: {label}\n{following}")


@given(st.text(max_size=300), st.sampled_from(["think", "thinking", "reasoning"]))
def test_decoding_never_stops_inside_reasoning(text: str, tag: str) -> None:
    assume("</" not in text)
    assert not answer_is_complete(f"<{tag}>{text}\nAnswer: Hard\n")


@given(st.text(alphabet='Hardsoftunkw AnswerI:.\n"*or-to/classify as', max_size=300))
def test_any_text_gives_a_consistent_reading(text: str) -> None:
    reading = read_answer(text, "stop")
    assert (reading.outcome == Outcome.ANSWERED) == (reading.label != Label.UNKNOWN)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("Step 2: It is learned.\nAnswer: Hard\n", True),
        ("**Answer:** Soft.\nAnd so on", True),
        ("Answer: Hard", False),
        ("Answer: Hardly\n", False),
        ("Answer: Hard or Soft\n", False),
        ("Answer: Hard, Soft or Unknown\n", False),
        ("Step 1: Its category: Soft\n", False),
        ("Step 1: The label is Hard\n", False),
        ("Step 1: The answer: Hard\n", False),
    ],
)
def test_an_answer_is_complete_when_its_line_is(text: str, complete: bool) -> None:
    assert answer_is_complete(text) == complete


def test_the_place_of_the_answer() -> None:
    assert is_before_answer("Step 2: It is learned.\nAnswer:")
    assert is_before_answer("**Answer:** ")
    assert not is_before_answer("Step 2: It is")
    assert not is_before_answer("Answer: Hard")


@pytest.mark.parametrize("record", OURS, ids=lambda record: record["skill"])
def test_completions_in_the_shapes_of_the_studys(record: dict[str, Any]) -> None:
    """Of the project's own making; this much is checked where the study's completions are not."""
    reading = read_answer(record["completion"], record["finish_reason"])
    assert (reading.label, reading.outcome) == (record["label"], record["outcome"])


@pytest.mark.skipif(not STUDY.exists(), reason="the study's completions are not here (../shared/study)")
def test_stopping_at_a_complete_answer_changes_no_label_of_the_study() -> None:
    for record in STUDY.read_text(encoding="utf-8").splitlines():
        lines = json.loads(record)["completion"].splitlines(keepends=True)
        parts = ["".join(lines[:count]) for count in range(1, len(lines) + 1)]
        stopped = next(filter(answer_is_complete, parts), parts[-1])
        assert read_answer(stopped, "stop").label == read_answer(parts[-1], "stop").label


@pytest.mark.skipif(not STUDY.exists(), reason="the study's completions are not here (../shared/study)")
def test_the_studys_completions() -> None:
    """774 completions of Llama 3.1 8B: the 724 that end in a label are read as it, and of the others those that state one."""
    records = [json.loads(line) for line in STUDY.read_text(encoding="utf-8").splitlines()]
    last_word = {record["skill"]: record["completion"].split()[-1] for record in records}
    read = {record["skill"]: read_answer(record["completion"], "stop") for record in records}
    assert len(read) == 774

    ends_in_label = [skill for skill, word in last_word.items() if word in set(Label)]
    assert len(ends_in_label) == 724
    assert [skill for skill in ends_in_label if read[skill].label != last_word[skill]] == []

    stated = {skill: read[skill].label for skill in read.keys() - set(ends_in_label) if read[skill].answer}
    hard = {
        "Parkinson's Disease (Professional Expertise)",
        "Landfill",
        "Electromyography",
        "Real Estate Investing",
        "Product Management",
        "Nursing Management",
        "Fences",
        "Commercial Off-The-Shelf",
        "LinkedIn Marketing",
        "Truss",
        "Sales Analytics",
    }
    soft = {"Bricolage", "Memos", "Synergetics", "Field Marketing"}
    assert stated == dict.fromkeys(hard, "Hard") | dict.fromkeys(soft, "Soft") | {"Television": "Unknown"}


WORDS = [
    "names",
    "a hard",
    "soft",
    "Unknown",
    "skill:",
    "the answer is",
    "Answer: Soft",
    "not",
    "Category: Hard",
    "I would say",
    "-",
    "It",
]


@given(
    st.lists(
        st.lists(st.sampled_from([*WORDS, "tools", "class", "(no)", "next skill"]), min_size=1, max_size=6),
        min_size=1,
        max_size=4,
    ),
    st.sampled_from(["Hard", "Soft", "Unknown"]),
    st.sampled_from(["", " ", " Step 1: "]),
)
def test_the_form_that_is_asked_for_is_read_as_any_other(lines: list[list[str]], label: str, lead: str) -> None:
    """The short way and the long one agree, whatever words stand in the steps."""
    steps = [f"Step {number}: {' '.join(words)}" for number, words in enumerate(lines[1:], start=2)]
    text = "\n".join([f"{lead}It {' '.join(lines[0])}", *steps, f"Answer: {label}"])
    assert read_answer(text, "stop") == _read_any(text, "stop")
    assert read_answer(text, "length") == _read_any(text, "length")
