"""What a model says aloud: its completion without reasoning, control tokens and markup. Knows nothing of answers.

All patterns are bounded, so that this takes time linear in the text's length.
"""

import re
import unicodedata

# Reasoning that a model is not meant to be read by: in tags, between tokens, or in a channel of its own.
_THOUGHT = (
    r"(?:seed:|ant)?(?:think(?:ing)?|thoughts?|reason(?:ing)?|reflections?|scratch_?pad|analysis|cot|rationale|planning|internal"
    r"|chain[_ -]of[_ -]thoughts?|inner[_ ](?:monologue|thoughts?)|(?:thought|thinking)[_ ]process)"
)
_THINK_TAG = re.compile(
    rf"[<\[◁]\s?(?P<close>/?)\s?{_THOUGHT}\s?[>\]▷]"
    r"|<\|(?P<end>/|end_of_|end_)?(?:begin_of_|start_of_|start_)?(?:thought|think|thinking)\|>"
    r"|(?P<unused><unused95>)|<unused94>(?:thought)?"
    r"|(?P<done>^\.{3}done thinking\.?)|^thinking\.{3}$"
    r"|(?P<details></details>)|<details>\s?<summary>\s?(?:thinking|reasoning|thoughts)\b[^<\n]{0,40}</summary>"
    r"|(?P<fence>^```\s?$)|^```(?:thinking|thought|reasoning)$",
    re.IGNORECASE | re.MULTILINE,
)
_MAY_THINK = re.compile(r"[<\[◁`]|thinking\.", re.IGNORECASE)
"""Whether there is anything that could mark reasoning: most completions have nothing, and need no closer look."""
_OPEN_AT_THE_END = re.compile(
    rf"(?:[<\[◁]{_THOUGHT}[>\]▷]|<\|(?:begin_of_|start_of_|start_)?think(?:ing)?\|>)\s{{0,4}}\Z", re.IGNORECASE
)
_FINAL_CHANNEL = re.compile(r"<\|channel\|>\s?final\b[^<]{0,40}<\|message\|>|assistantfinal(?=\W|[A-Z])")
_OTHER_CHANNEL = re.compile(r"\A\s?(?:<\|start\|>assistant)?(?:<\|channel\|>\s?(?:analysis|commentary)\b|analysis(?=[A-Z]))")
_TOKEN = re.compile(
    r"<\|[^<>|\n]{1,40}\|>|<｜[^<>｜\n]{1,40}｜>|\[\|[^\[\]|\n]{1,30}\|\]|</?s>|<(?:eos|bos|pad|unk|end|end_of_turn|start_of_turn)>"
    r"|<extra_id_\d{1,3}>|<0x0a>|\[(?:eos|done|/?inst|unused_token_\d{1,3})\]|<\|[a-z_]{0,30}\|?\Z",
    re.IGNORECASE,
)
_FENCE = re.compile(r"^\s{0,4}```[\w-]{0,20}\s?$", re.MULTILINE)
_TAGS = re.compile(r"</?(?:b|strong|i|em|u|p|br|span|div|code|mark|h[1-6]|li|ul)\s?/?>", re.IGNORECASE)
_BOX = re.compile(r"\\f?box(?:ed)?\s?\{")
_LATEX = re.compile(
    r"\\(?:text(?:bf|it|rm|sf|tt|color\s?\{\w{1,20}\})?|mathbf|mathrm|mathcal|mathit|emph|operatorname|large|Large|huge|Huge|bf)\b|\\[()\[\]]|\$"
)
_EMPHASIS = re.compile(r"[*`]{1,40}|(?<!\w)_{1,40}|_{1,40}(?!\w)")
_BLANKS = re.compile(r"[^\S\n]+")
_BLANK_LINES = re.compile(r"[^\S\n]?\n(?:[^\S\n]?\n)+")


def spoken_part(completion: str) -> str:
    """A completion with its reasoning removed, even if unfinished, cut at the first end token."""
    depth = start = 0
    opener = ""
    parts: list[str] = []
    tags = _THINK_TAG.finditer(completion) if _MAY_THINK.search(completion) else ()
    for tag in tags:
        closed = tag["close"] or tag["end"] or tag["unused"] or tag["done"] or tag["details"]
        if tag["fence"] or tag["details"]:
            if not depth or opener != tag[0][0]:  # of other code, within the reasoning or outside
                continue
            closed = "closed"
        if not closed:
            if not depth:
                parts.append(completion[start : tag.start()])
                opener = tag[0][0]
            depth += 1
        elif depth <= 1:
            if not depth:  # opened before the completion: all of it so far was reasoning
                parts.clear()
            depth, start = 0, tag.end()
        else:
            depth -= 1
    if not depth:
        parts.append(completion[start:])
    text = "".join(parts)
    if finals := list(_FINAL_CHANNEL.finditer(text)):
        text = text[finals[-1].end() :]
    elif _OTHER_CHANNEL.match(text):
        return ""
    begin = 0
    for token in _TOKEN.finditer(text):
        if text[begin : token.start()].strip():
            return text[begin : token.start()]
        begin = token.end()
    return text[begin:]


def open_reasoning(prompt: str) -> str:
    """The tag by which a prompt leaves the model inside its reasoning; empty if it does not."""
    opened = _OPEN_AT_THE_END.search(prompt[-60:])
    return opened[0] if opened else ""


def plain(text: str) -> str:
    """A text in NFKC without emphasis, code fences, inline tags, LaTeX and needless blanks; a box becomes an answer line."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
        text = "".join(character for character in text if unicodedata.category(character) != "Cf")
    text = _TAGS.sub(" ", _FENCE.sub("", text))
    if "\\" in text or "$" in text:
        text = _LATEX.sub("", _BOX.sub("\nAnswer: {", text))
    return _BLANK_LINES.sub("\n\n", _BLANKS.sub(" ", _EMPHASIS.sub("", text))).strip()
