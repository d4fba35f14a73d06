"""How a label is read out of a completion.

A verdict must be stated: `Answer: X`, a label that the text begins or ends with, or prose that says so ("I would classify it
as X"). Text that merely mentions the words Hard and Soft is no verdict, and none is guessed. What a model thinks aloud, in
`<think>`, is not read, nor what it says of another skill. The first answer counts; a later one replaces it only behind words that
say so ("Wait", "Correction", "Final answer").

Knows text only, neither models nor tokens. All patterns are bounded: reading takes time linear in the text's length.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from hardsoft.core.chat import FinishReason
from hardsoft.core.labels import Label, Outcome


@dataclass(frozen=True)
class Reading:
    """A label, why it was given, and the words it was read from (empty if no verdict is stated)."""

    label: Label
    outcome: Outcome
    answer: str


@dataclass(frozen=True)
class Rule:
    """One way in which models say something."""

    name: str
    pattern: re.Pattern[str]
    """What it looks like; for a verdict, with a group `label`, or `declined` in its place."""
    example: str
    """A completion that this rule reads."""


def _rule(name: str, pattern: str, example: str) -> Rule:
    return Rule(name, re.compile(pattern, re.IGNORECASE | re.MULTILINE), example)


# What may stand around an answer or a label: quotes, emphasis, brackets, LaTeX.
_OPEN = r"(?:[\"'“”„«‘’`*_$(\[{<|#>\s]|\\(?:boxed|text|textbf|mathbf|mathrm|fbox)\b){0,12}"
_CLOSE = r"[\"'“”»‘’`*_$)\]}>|]{0,12}"
_NAME = r"(?:hard|soft|unknown)"
# "Hard or Soft", "Hard and/or Soft", "Hard, but also Soft" say neither.
_ALONE = (
    r"(?!(?:[ ]skills?)?\s{0,3}"
    r"(?:[,(]?\s{0,2}(?:or|and|nor|&|but|yet|und|oder|et|ou|y|o|vs\.?|versus)\b[^\w\n]{0,3}|[/|,&+]{1,2}\s?)"
    rf"(?:or\b|also\b|partly\b|an?\b|\s|{_OPEN}){{0,3}}{_NAME}\b)"
)
# A label is followed by nothing, by punctuation, or by a reason: "Soft tissue massage" and "hard for me to tell" hold none.
_ENDED = (
    rf"{_CLOSE}(?:[ ]?(?:skills?|skill\s?set|competenc(?:e|y)|classification|category|label)\b{_CLOSE})?"
    r"(?=\s*$|\s*[.,;:!/)\]}。，；！✅✓]|\s+[-–—(\[]|\s*[–—]\s|\s*\n|\s*</?\w|\s*[\"'”’*`]|\s*\|"
    r"|\s+(?:because|since|as|due|given|that|which|overall|rather|instead|than|with|according|based"
    r"|in\s+(?:nature|this|my|the\s+sense|general))\b)"
)
_LABEL = rf"{_OPEN}(?P<label>{_NAME})\b(?!-\w){_ALONE}{_ENDED}"
# What may stand between the verb and the label.
_ARTICLE = (
    r"(?:(?:a|an|the|being|as|primarily|mainly|mostly|more|rather|likely|definitely|clearly|purely|simply|best|probably)\s){0,3}"
)
_ANSWER = (
    r"(?:answer|classification|categor(?:y|ization|isation)|verdict|label|result|conclusion|decision|class|type|output"
    r"|antwort|ergebnis|réponse|reponse|respuesta|risposta|resposta|odpowiedź|odpověď|odpoveď|odgovor|antwoord|svar|vastaus|válasz"
    r"|răspuns|ответ|відповідь|отговор|одговор|cevap|yanıt|jawaban|trả\slời|đáp\sán|απάντηση|απαντηση|תשובה|الإجابة|الجواب|جواب"
    r"|उत्तर|คำตอบ|答案|回答|答え|答|결론|답변|정답|답|结论|結論|分类|分類)"
)
_SEPARATOR = r"(?:[:：﹕=＝>→⇒–—|-]|\s*(?:is|ist|est|es|è|é|jest|是|为|為|は)(?:\s*[:：])?)"
_DECLINED = (
    r"(?:n\s?/\s?a\b|none\b|neither\b|no\s+(?:label|skill|ability|answer)\b"
    r"|not\s+(?:an?\s+|really\s+an?\s+)?(?:skills?|ability|applicable|clear|determinable|sure|classifiable)\b"
    r"|(?:unclear|undetermined|indeterminate|undefined|uncertain|unsure|unclassified|unclassifiable)\b"
    r"|can(?:not|['’]t)\s+(?:be\s+)?(?:determined?|classif(?:y|ied)|sa(?:y|id)|tell|told)\b"
    r"|i\s+(?:do\s+not|don['’]t)\s+know\b|i(?:\s+am|['’]m)\s+not\s+sure\b"
    r"|unbekannt\b|inconnu\b|desconocido\b|sconosciuto\b|desconhecido\b|nieznan[ye]\b|неизвестно|未知)"
)

EXPLICIT = (
    _rule(
        "an answer after its name",
        rf"\b{_ANSWER}(?:\s\(final\))?(?:\s(?:for|of)\s[^:\n]{{1,80}}?)?{_CLOSE}\s{{0,2}}"
        rf"(?:{_SEPARATOR}|\s?(?:would|will|should)\sbe\b\s?[:：]?)"
        rf"{_OPEN}(?:(?:this|it|the\sskill|i\swould\ssay(?:\sit)?)(?:\s(?:is|['’]s))?\s)?(?:\(?[a-civx\d]{{1,2}}[.)]\s)?{_ARTICLE}"
        rf"(?:{_LABEL}|(?P<declined>{_DECLINED}))",
        "Step 2: It is learned.\nAnswer: Hard",
    ),
    _rule(
        "an answer below its heading",
        rf"^[\s#*_>-]{{0,8}}(?:final\s)?{_ANSWER}{_CLOSE}[:：]?{_CLOSE}[ ]?\n{{1,2}}"
        rf"(?:{_LABEL}|{_OPEN}(?P<declined>{_DECLINED}))",
        "## Answer\n\nSoft",
    ),
    _rule(
        "an answer that is a sentence",
        rf"^[\s#*_>-]{{0,8}}(?:final\s)?{_ANSWER}{_CLOSE}[ ]?[:：]{_CLOSE}[ ]"
        rf"(?:(?!\bnot\b|n['’]t\b|\bif\b|\bwhether\b|\bneither\b)[^.\n]){{1,120}}?\bis\s{_ARTICLE}{_OPEN}(?P<label>{_NAME})\sskill{_CLOSE}[.!]?$",
        "Answer: Soft tissue massage is a Hard skill.",
    ),
    _rule(
        "an answer in a box",
        rf"\\(?:boxed|fbox)\{{{_OPEN}(?:(?P<label>{_NAME})(?:[ ]skill)?{_CLOSE}\}}|(?P<declined>{_DECLINED}))",
        "Step 2: It is learned.\n\n$\\boxed{\\text{Hard}}$",
    ),
    _rule(
        "an answer in a tag",
        rf"<(?P<tag>answer|label|verdict|class|category|classification|result|output)>{_OPEN}"
        rf"(?:(?P<label>{_NAME})(?:[ ]skill)?|(?P<declined>{_DECLINED})){_CLOSE}[.\s]{{0,3}}</(?P=tag)>",
        "<label> Hard </label>",
    ),
)
"""Explicit answers: the first counts."""

LONE = (
    _rule(
        "a label that the text begins with",
        rf"\A{_OPEN}(?P<label>{_NAME})\b(?!-\w){_ALONE}{_CLOSE}(?:[ ]skills?\b{_CLOSE})?"
        r"(?=\s*[.!:;。]|\s*\n|\s+[-–—(]|\s*[–—]\s|,?\s+(?:because|since|as|due)\b|\s*\Z)",
        "Hard - it is learned and tested",
    ),
    _rule(
        "a line that is the label alone, at the end",
        rf"^[ \t]?(?:[-•>#→=]+[ ]?)?{_OPEN}(?:(?P<label>{_NAME})\b{_CLOSE}(?:[ ]skills?)?[.!。]?{_CLOSE})[ ]?\Z",
        "It is learned.\n\n- Hard",
    ),
)

PROSE = (
    _rule(
        "what I classify it as",
        r"\bI(?:'d|’d| would| will| can)?(?: \w+ly)? (?:classify|label|categori[sz]e|consider|call|rate|deem)\b"
        r"(?:[^.\n]|\.(?=\w)){0,160}?\bas(?: follows)?:?\s+"
        rf"(?:a\s+skill\s+that\s+(?:leans|is\s+leaning)\s+(?:more\s+)?towards?\s+)?{_ARTICLE}{_LABEL}",
        'I would classify Node.js as a skill that leans towards being "Hard" because',
    ),
    _rule(
        "what I would say it is",
        rf"\bI(?:'d|’d| would) say\s+(?:that\s+)?(?:it(?:'s|’s| is)|this\s+is|[^.\n]{{1,80}}?\s+is)?\s?{_ARTICLE}{_LABEL}",
        "I would say that it is Unknown.",
    ),
    _rule(
        "what it is best classified as",
        rf"\b(?:is|be)\s+(?:best\s+)?(?:classified|labell?ed|categori[sz]ed)\s+as\s+{_ARTICLE}{_LABEL}",
        "It is best classified as a soft skill.",
    ),
    _rule(
        "what it leans towards",
        rf"\blean(?:s|ing)?\s+(?:more\s+)?towards?\s+{_ARTICLE}{_LABEL}",
        "a mix of both, leaning more towards hard skills",
    ),
    _rule(
        "what it is after all",
        r"\b(?:therefore|thus|hence|in conclusion|in summary|overall|to conclude|conclusion)\b[^.\n]{0,100}?"
        rf"\b(?:is|are)\s+{_ARTICLE}{_LABEL}",
        "Therefore, V-Ray is a Hard skill.",
    ),
    _rule(
        "what that makes it",
        rf"\bmak(?:es|ing)\s+(?:it|this)\s+{_ARTICLE}{_LABEL}",
        'these are measurable, making it a "Hard" skill.',
    ),
)
VERDICTS = (*EXPLICIT, *LONE, *PROSE)

DECLINED = (
    _rule(
        "cannot classify",
        r"\b(?:can(?:['’]t|not| not)|unable to|not able to)\b.{0,60}"
        r"\b(?:classif|provide|determine|categori|know|label|assist|help|say|tell)",
        "I can't provide a classification for this skill.",
    ),
    _rule("does not know", r"\bdo(?:n['’]t| not) know\b", "I don't know."),
    _rule(
        "asks back",
        r"\bcould you (?:please )?(?:provide|clarify|specify)|\bplease (?:provide|clarify|specify)",
        "Could you please provide a more specific skill?",
    ),
    _rule("not a skill", r"\bis(?:n['’]t| not)\b[^.\n]{0,30}\bskill\b", '"Protein" is not a skill.'),
    _rule("neither of them", rf"\bneither\s{_OPEN}hard{_CLOSE}\s(?:skill\s)?nor\s", "It is neither Hard nor Soft."),
    _rule("no label at all", rf"\A{_OPEN}{_DECLINED}{_CLOSE}[.!]?\s?\Z", "N/A"),
    _rule(
        "too little to go by",
        r"\b(?:not enough|insufficient|lack of|without (?:more|further)) (?:information|context|detail)",
        "There is not enough context to tell.",
    ),
)
CORRECTIONS = re.compile(
    r"\b(?:wait|correction|corrected|revised|actually|instead|on second thou?ghts?|scratch that|sorry|apolog(?:ies|ize|ise)|no, "
    r"|let me (?:reconsider|revise|correct|rethink|re-?evaluate)|reconsider(?:ing)?"
    r"|i was wrong|i (?:made|take) (?:a mistake|that back)|my mistake|final(?:ly)?|ultimate(?:ly)?)\b",
    re.IGNORECASE,
)
"""Words between two answers that make the second one count."""

_HYPOTHETICAL = re.compile(
    r"\b(?:cannot|can['’]t|can|could(?:n['’]t)?|should(?:n['’]t)?|not|either|whether|if|might|may"
    r"|unless|unlike|were|suppose|depending|e\.g\.|(?:for|in) which)\b[^.\n]{0,60}$",
    re.IGNORECASE,
)
_CONTEXT = 300
"""Characters before a verdict that may make it hypothetical."""

# Reasoning that a model is not meant to be read by: in tags, or in a channel of its own.
_THINK = r"(?:think(?:ing)?|thought|reason(?:ing)?|reflection|scratchpad|analysis|seed:think)"
_THINK_TAG = re.compile(rf"(?:<|\[|◁)(?P<close>/?){_THINK}(?:>|\]|▷)", re.IGNORECASE)
_FINAL_CHANNEL = re.compile(r"(?:<\|channel\|>\s?final\b[^<]{0,40}<\|message\|>|assistantfinal(?=\W|[A-Z]))")
_OTHER_CHANNEL = re.compile(r"\A\s?(?:<\|start\|>assistant)?(?:<\|channel\|>\s?(?:analysis|commentary)\b|analysis(?=[A-Z]))")
_END_TOKEN = re.compile(
    r"<\|(?:im_end|eot_id|eom_id|endoftext|end|end_of_text|return|eot|end_of_turn|user|assistant|system|im_start|start_header_id)\|>"
    r"|</s>|<s>|<eos>|<end_of_turn>|<start_of_turn>|<｜[^｜>\n]{1,40}｜>|\[/?INST\]|<\|END_OF_TURN_TOKEN\|>"
)
# A model that does not stop goes on to the next question: what follows is not about this skill.
_LINE_START = r"^[\s#*_>=-]{0,12}"
_NEXT_QUESTION = re.compile(
    rf"(?:{_LINE_START}|(?<=>)\s?)(?:(?:next|new|another|second|\d{{1,3}}\.)\s)?"
    r"(?:skill(?:\s(?:name|\d{1,3}|to classify))?|user|human|question|q|input|example(?:\s\d{1,3})?|task|system)[*_]{0,3}\s?[:：]"
    rf"|{_LINE_START}(?:next|new|another) (?:skill|question|example|one)\b"
    rf"|{_LINE_START}now,? (?:classify|let['’]s classify)\b",
    re.IGNORECASE | re.MULTILINE,
)

_ANSWER_LINE = re.compile(
    rf"^[ \t\"'“”*_#>-]{{0,8}}(?:final[ ])?answer[\"'“”*_ \t]{{0,4}}[:：][\"'“”*_`\s]{{0,6}}"
    rf"{_NAME}[\"'“”*_`]{{0,4}}[ \t.]{{0,4}}\n",
    re.IGNORECASE | re.MULTILINE,
)
_BEFORE_ANSWER = re.compile(r"\banswer[\"'“”*_\s]{0,6}:[\"'“”*_\s]{0,6}\Z", re.IGNORECASE)


def read_answer(completion: str, finish_reason: FinishReason) -> Reading:
    """Read the verdict that a completion states.

    The first explicit answer wins (`EXPLICIT`), then a label that the text begins or ends with (`LONE`), then the last verdict in
    prose (`PROSE`).

    Args:
        completion: the assistant's whole message.
        finish_reason: stop (the model ended it), length (the token limit did), content_filter (the provider did) or error
            (there is none).

    Returns:
        The label with its outcome; Unknown with truncated, unparseable, abstained or error where no verdict is stated.
    """
    if finish_reason == "error":
        return Reading(Label.UNKNOWN, Outcome.ERROR, "")
    if finish_reason == "content_filter":
        return Reading(Label.UNKNOWN, Outcome.ABSTAINED, "")
    text = _own_part(spoken_part(completion))
    stated = _explicit(text) or _lone(text) or _last_prose(text, finish_reason)
    if stated:
        groups = stated.groupdict()
        label = Label(groups["label"].capitalize()) if groups["label"] else Label.UNKNOWN
        outcome = Outcome.ABSTAINED if label is Label.UNKNOWN else Outcome.ANSWERED
        return Reading(label, outcome, " ".join(stated[0].split()))
    if finish_reason == "length":
        return Reading(Label.UNKNOWN, Outcome.TRUNCATED, "")
    declined = any(rule.pattern.search(text) for rule in DECLINED)
    outcome = Outcome.ABSTAINED if declined else Outcome.UNPARSEABLE
    return Reading(Label.UNKNOWN, outcome, "")


def answer_is_complete(text: str) -> bool:
    """Whether a growing completion holds a whole line `Answer: X`, which the next token can no longer change."""
    return _ANSWER_LINE.search(spoken_part(text, growing=True)) is not None


def is_before_answer(text: str) -> bool:
    """Whether the next word of a growing completion is its answer: the text ends in `Answer:`."""
    return _BEFORE_ANSWER.search(text[-80:]) is not None and bool(spoken_part(text, growing=True).strip())


def spoken_part(completion: str, growing: bool = False) -> str:
    """What a model says aloud: without its reasoning in tags or in a channel of its own, and up to its end token.

    Args:
        growing: whether more may follow; runs of blanks then stay as they are.
    """
    text = completion
    depth = start = 0
    parts = []
    for tag in _THINK_TAG.finditer(text):
        if not tag["close"]:
            if not depth:
                parts.append(text[start : tag.start()])
            depth += 1
        elif depth <= 1:
            if not depth:  # opened before the completion: all of it so far was reasoning
                parts.clear()
            depth, start = 0, tag.end()
        else:
            depth -= 1
    if not depth:
        parts.append(text[start:])
    text = "".join(parts)
    if finals := list(_FINAL_CHANNEL.finditer(text)):
        text = text[finals[-1].end() :]
    elif _OTHER_CHANNEL.match(text):
        text = ""
    for end in _END_TOKEN.finditer(text):
        if text[: end.start()].strip():
            text = text[: end.start()]
            break
    return text if growing else _BLANK_LINES.sub("\n\n", _BLANKS.sub(" ", text)).strip()


_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"[^\S\n]?\n(?:[^\S\n]?\n)+")


def open_reasoning(prompt: str) -> str:
    """The tag by which a prompt leaves the model inside its reasoning; empty if it does not."""
    opened = re.search(rf"(?:<|\[|◁){_THINK}(?:>|\]|▷)\s{{0,4}}\Z", prompt[-40:], re.IGNORECASE)
    return opened[0] if opened else ""


def _own_part(text: str) -> str:
    """The text up to where it begins another question after an answer of its own."""
    stated = next(_answers(text), None) or LONE[0].pattern.search(text)
    for question in _NEXT_QUESTION.finditer(text):
        if not text[: question.start()].strip():
            continue
        own = text[: question.start()].rstrip(" \n-=*#_")
        if (stated and stated.end() <= question.start()) or LONE[1].pattern.search(own[-60:]):
            return own
    return text


def _answers(text: str) -> Iterator[re.Match[str]]:
    """Explicit answers that are neither negated nor hypothetical, from the first on."""
    matches = sorted((match for rule in EXPLICIT for match in rule.pattern.finditer(text)), key=lambda match: match.start())
    return (match for match in matches if not _is_hypothetical(match))


def _explicit(text: str) -> re.Match[str] | None:
    """The first explicit answer, or the last of those behind a correction."""
    stated: re.Match[str] | None = None
    for match in _answers(text):
        if stated is None or (match.start() >= stated.end() and CORRECTIONS.search(text, stated.end(), match.end())):
            stated = match
    return stated


def _lone(text: str) -> re.Match[str] | None:
    return next(filter(None, (rule.pattern.search(text) for rule in LONE)), None)


def _last_prose(text: str, finish_reason: FinishReason) -> re.Match[str] | None:
    """The last verdict in prose that is neither negated nor hypothetical; a word that the token limit cut off is none."""
    matches = [match for rule in PROSE for match in rule.pattern.finditer(text) if not _is_hypothetical(match)]
    if finish_reason == "length":  # "this makes it hard" may have been going on
        matches = [match for match in matches if match.end() < len(text) or match["label"][0].isupper()]
    return max(matches, key=lambda match: (match.end(), -match.start()), default=None)


def _is_hypothetical(match: re.Match[str]) -> bool:
    """Whether what precedes a match in its own sentence makes it a condition, a doubt or a denial."""
    before = match.string[max(0, match.start() - _CONTEXT) : match.start()].rpartition("\n")[2]
    return _HYPOTHETICAL.search(before.rpartition(". ")[2]) is not None
