"""What a verdict looks like, and what else is told apart by its looks: corrections, conditions, the next question.

Knows how models write, in some twenty languages, not which of several verdicts counts (`answers`). All patterns are bounded:
searching takes time linear in the text's length.
"""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """One way in which models say something."""

    name: str
    pattern: re.Pattern[str]
    """What it looks like in plain text; for a verdict, with a group `label`, or `declined` in its place."""
    example: str
    """A completion that this rule reads."""


def _rule(name: str, pattern: str, example: str) -> Rule:
    return Rule(name, re.compile(pattern, re.IGNORECASE | re.MULTILINE), example)


def _any(*words: str) -> str:
    """A group of alternatives: words, or patterns of them, with blanks between (one within a word is written \\x20)."""
    return rf"(?:{'|'.join(' '.join(words).split())})"


_OPEN = r"[\"'“”„«‹‘’(\[{<|「『《【\s]{0,8}"
_CLOSE = r"[\"'“”»›‘’)\]}>|」』》】]{0,8}"
_NAME = r"(?:hard|soft|unknown)"
_WRITTEN = rf"(?:(?-i:Hard|Soft|Unknown|HARD|SOFT|UNKNOWN)|(?<=[\"'“‘]){_NAME}(?=[\"'”’])|{_NAME}(?=\s?skills?\b))"
"""A label that is not just the adjective: with a capital letter, in quotes, or before "skill"."""
# "Hard or Soft", "Hard and/or Soft", "Hard, but also Soft" say neither.
_ALONE = (
    rf"(?!{_CLOSE}(?:[ ]skills?)?[ ]?"
    r"(?:[,(]?[ ]?(?:or|and|nor|&|but|yet|as well as|und|oder|et|ou|y|o|vs\.?|versus)\b[^\w\n]{0,3}|[/|,&+]{1,2}[ ]?)"
    rf"(?:or\b|also\b|partly\b|an?\b|\s|{_OPEN}){{0,3}}{_NAME}\b)"
)
# A label is followed by nothing, by punctuation, or by a reason: "Soft tissue massage" and "hard for me to tell" hold none.
_REASON = _any(
    r"because since as due given that which overall rather instead than with according based although though even\x20though",
    r"while unless weil da denn porque parce\x20que car perché reason explanation in\s(?:nature|this|my|the\ssense) 입니다 です",
)
_ENDED = (
    rf"{_CLOSE}(?:[ -]?(?:skills?|skill\s?set|competenc(?:e|y)|ability|classification|category|label)\b{_CLOSE})?"
    rf"(?=\s*$|\s*[.,;:!/)\]}}…✅✓]|\s+[-–—(\[]|\s*[–—→]|\s*=>|\s*--|\s*</?\w|\s*\||입니다|です|\s+{_REASON}\b|\s+\d)"
)
_LABEL = rf"{_OPEN}(?P<label>{_NAME})\b(?!-\w(?!kill)){_ALONE}{_ENDED}"
_WRITTEN_LABEL = rf"{_OPEN}(?P<label>{_WRITTEN})\b(?!-\w){_ALONE}{_ENDED}"
# What may stand between the verb and the label.
_ARTICLE = (
    "(?:"
    + _any(
        "a an the being as primarily mainly mostly more most rather likely definitely clearly purely simply best probably",
        "therefore thus",
    )
    + r"\s){0,3}"
)
_ANSWER = _any(
    "answer classification verdict label",
    "antwort klassifi(?:kation|zierung) einordnung",
    "réponse reponse étiquette respuesta etiqueta clasificación risposta classificazione resposta classificação",
    "odpowiedź klasyfikacja odpověď odpoveď odgovor antwoord svar(?:et)? vastaus válasz răspuns(?:ul)?",
    "ответ відповідь отговор одговор",
    r"cevap yanıt jawaban jawapan trả\slời đáp\sán",
    "απάντηση απαντηση תשובה الإجابة الجواب جواب उत्तर คำตอบ",
    "答案 回答 答え 答 정답 답변 결론 답 结论 結論 分类 分類 判定 标签 標籤",
)
_RESULT = _any(
    "categor(?:y|ization|isation) result conclusion decision class type output solution",
    "kategorie fazit lösung ergebnis catégorie résultat categoría conclusión resultado solución risultato 类别",
)
_SIGN = r"[:﹕∶꞉=>→⇒–—|-]{1,2}"
_IS = _any("is ist lautet est es è é este jest är er 是 为 為 は 은 는") + r"\b\s?:?"
_SEPARATOR = rf"(?:{_SIGN}|{_IS})"
_WOULD = r"(?:would|will|should|must)\sbe\b\s?:?|remains\b"
_DECLINED = _any(
    r"n\s?[/.]\s?a\b\.? null\b none\b neither\b no\s(?:label|skill|ability|answer|classification)\b non-skill\b",
    r"not\s(?:an?\s|really\san?\s|a\svalid\s)?(?:skills?|ability|applicable|clear|determinable|sure|classifiable|specified)\b(?!\s?,?\sbut)",
    _any(
        "unclear undetermined indeterminate undefined uncertain unsure unclassified unclassifiable ambiguous inconclusive",
        "invalid unspecified other",
    )
    + r"\b",
    r"can(?:not|['’]t)\s(?:be\s)?(?:determined?|classif(?:y|ied)|sa(?:y|id)|tell|told)\b",
    r"i\s(?:do\snot|don['’]t)\sknow\b i(?:\sam|['’]m)\s(?:not\ssure|unable)\b",
    r"unbekannt\b keine\s(?:fähigkeit|angabe)\b nicht\sbestimmbar\b",
    r"inconnu\b aucune\b desconocido\b ninguna\b sconosciuto\b nessuna\b desconhecido\b",
    r"nieznan[ye]\b неизвестно 未知 不是技能 不明 알\x20수\x20없음",
)
_LINE = r"^[\s#>=–—•✅-]{0,8}(?:\d{1,2}[.)]\s)?"
_HEAD = rf"{_LINE}(?:(?:so|thus|therefore|hence),?\s)?(?:the\s|my\s)?(?:final\s|correct\s|best\s|short\s|最终|最終)?"
_BEHIND = r"(?:\s(?:finale?|final|\d{1,2}|\((?:final|one word)\)|to the question|(?:for|of)\s[^:\n]{1,80}?))?"
_SUBJECT = r"(?:(?:this|it|the\sskill|this\sskill|i\swould\ssay(?:\sit)?)(?:\sis|['’]s)?\s)?(?:\(?[a-civx\d]{1,2}[.)]\s)?"

ANSWER_LINES = (
    _rule(
        "an answer after its name",
        rf"{_HEAD}{_ANSWER}{_BEHIND}{_CLOSE}\s{{0,2}}(?:(?:{_SIGN}|{_IS}|{_WOULD}){_OPEN}{_SUBJECT}{_ARTICLE}(?P<declined>{_DECLINED})"
        rf"|(?:{_SIGN}{_OPEN}{_SUBJECT}{_ARTICLE}{_OPEN}(?=(?-i:[a-z]))|(?:{_SIGN}|{_IS}|{_WOULD}){_OPEN}{_SUBJECT}{_ARTICLE}"
        rf"{_OPEN}(?={_WRITTEN})|{_IS}{_OPEN}(?={_WRITTEN})){_LABEL})",
        "Step 2: It is learned.\nAnswer: Hard",
    ),
    _rule(
        "a result after its name",
        rf"{_HEAD}(?:skill\s)?{_RESULT}{_BEHIND}{_CLOSE}\s{{0,2}}(?:{_SEPARATOR}|{_WOULD}){_OPEN}{_SUBJECT}{_ARTICLE}"
        rf"(?:{_WRITTEN_LABEL}|(?P<declined>{_DECLINED}))",
        "Category: Soft",
    ),
    _rule(
        "an answer below its heading",
        rf"{_HEAD}(?:{_ANSWER}|{_RESULT}){_CLOSE}:?{_CLOSE}[ ]?\n{{1,2}}[ •-]{{0,3}}{_SUBJECT}{_ARTICLE}"
        rf"(?:{_LABEL}(?!\W{{0,6}}\n\W{{0,6}}{_NAME}\b)|{_OPEN}(?P<declined>{_DECLINED}))",
        "## Answer\n\nSoft",
    ),
    _rule(
        "an answer that is a sentence",
        rf"{_HEAD}{_ANSWER}{_CLOSE}\s?:\s?"
        rf"(?:(?!\bnot\b|n['’]t\b|\bif\b|\bwhether\b|\bneither\b|\bor\b|\bas well\b)[^.\n]){{1,120}}?"
        rf"(?:\s(?:is|as)\s{_ARTICLE}|:\s|\s[-–—]\s){_WRITTEN_LABEL}",
        "Answer: Soft tissue massage is a Hard skill.",
    ),
    _rule(
        "an answer in a tag",
        rf"<(?P<tag>(?:final_)?answer|final|response|label|verdict|class|category|classification|result|output|skill_type)>{_OPEN}"
        rf"(?:(?P<label>{_NAME})(?:[ ]skill)?|(?P<declined>{_DECLINED})){_CLOSE}[.\s]{{0,3}}</(?P=tag)>",
        "<label> Hard </label>",
    ),
    _rule(
        "an answer in a cell behind its name",
        rf"\|\s?{_ANSWER}\s?\|\s?(?:(?P<label>{_NAME})(?:[ ]skill)?|(?P<declined>{_DECLINED}))\s?\|",
        "| Answer | Hard |",
    ),
)
"""Answers at the start of a line, and the like: the first counts."""

MENTIONS = (
    _rule(
        "an answer within a sentence",
        rf"(?:\b|(?<=_)){_ANSWER}{_BEHIND}{_CLOSE}\s{{0,2}}(?:{_SEPARATOR}|{_WOULD}){_OPEN}{_ARTICLE}(?:{_WRITTEN_LABEL}|(?P<declined>{_DECLINED}))",
        "It is about teeth, so the classification of the skill of Orthodontics is Hard",
    ),
)
"""Answers elsewhere, if neither negated nor hypothetical: the last counts."""

LEADING = _rule(
    "a label that the text begins with",
    rf"\A{_OPEN}(?:sure! |assistant: |✅ )?(?P<label>{_NAME})\b(?!-\w){_ALONE}{_CLOSE}(?:[ ]skill\b{_CLOSE})?"
    r"(?=\s*[.!:;]|,?\s+(?:because|since|as|due|given|rather|not)\b|, |\s*\n(?!skills?\b)|\s+[-–—(|]|\s*[–—→]|\s*=>|\s*--"
    r"|\s[^\w\s]{1,3}\s*$|\s+is the (?:correct )?(?:answer|label)\b|\s*\Z)",
    "Hard - it is learned and tested",
)
CLOSING = _rule(
    "a line that is the label alone, at the end",
    rf"^[ \t]?(?:[-•>#→=👉✅]{{1,4}}[ ]?)?{_OPEN}(?P<label>{_NAME})\b{_CLOSE}(?:[ ]skills?)?[.!]?{_CLOSE}"
    r"(?:\s[^\w\s]{1,3}|\n[-#=]{1,10})?\s?\Z",
    "It is learned.\n\n- Hard",
)

PROSE = (
    _rule(
        "what I classify it as",
        r"\bI(?:'d|’d| would| will| can)?(?: (?!hardly)\w+ly)? (?:classify|label|categori[sz]e|consider|call|rate|deem)\b"
        r"(?:[^.\n]|\.(?=\w)){0,160}?\bas(?: follows)?:?\s+"
        rf"(?:a\s+skill\s+that\s+(?:leans|is\s+leaning)\s+(?:more\s+)?towards?\s+)?{_ARTICLE}{_LABEL}",
        'I would classify Node.js as a skill that leans towards being "Hard" because',
    ),
    _rule(
        "what I would say it is",
        r"\bI(?:'d|’d| would) say\s+(?:that\s+)?(?:it(?:'s|’s| is)|this\s+is|[^.\n]{1,80}?\s+is)?\s?"
        rf"{_ARTICLE}{_WRITTEN_LABEL}",
        "I would say that it is Unknown.",
    ),
    _rule(
        "what it is best classified as",
        rf"\b(?:is|be)\s+(?:best\s+)?(?:classified|labell?ed|categori[sz]ed)\s+as\s+{_ARTICLE}{_WRITTEN_LABEL}",
        "It is best classified as a soft skill.",
    ),
    _rule(
        "what it leans towards",
        rf"\blean(?:s|ing)?\s+(?:more\s+)?towards?\s+{_ARTICLE}{_WRITTEN_LABEL}",
        "a mix of both, leaning more towards hard skills",
    ),
    _rule(
        "what it is after all",
        r"\b(?:therefore|thus|hence|in conclusion|in summary|overall|to conclude|conclusion)\b,?:?\s"
        rf"(?:(?!\bif\b|\bnot\b|n['’]t\b)[^.\n]){{0,100}}?\b(?:is|are)\s+{_ARTICLE}{_WRITTEN_LABEL}",
        "Therefore, V-Ray is a Hard skill.",
    ),
    _rule(
        "what that makes it",
        rf"\bmak(?:es?|ing)\s+(?:it|this)\s+{_ARTICLE}{_WRITTEN_LABEL}",
        'these are measurable, making it a "Hard" skill.',
    ),
)
VERDICTS = (*ANSWER_LINES, *MENTIONS, LEADING, CLOSING, *PROSE)

DECLINED = (
    _rule(
        "cannot classify",
        r"\b(?:can(?:['’]t|not| not)|unable to|not able to|won['’]t|will not|impossible to)\b.{0,60}"
        r"\b(?:classif|provide a|provide any|determine|categori|know|label|assist|help|say|tell)",
        "I can't provide a classification for this skill.",
    ),
    _rule("does not know", r"\bdo(?:n['’]t| not) know\b|\bhave no idea\b|\bunclear whether\b", "I don't know."),
    _rule(
        "refuses",
        r"\b(?:decline|refuse) to (?:answer|classify|label)\b|\bnot comfortable (?:answering|classifying)\b",
        "I must decline to answer.",
    ),
    _rule(
        "asks back",
        r"\bcould you (?:please )?(?:provide|clarify|specify)|\bplease (?:provide|clarify|specify)"
        r"|\bcan you (?:please )?(?:give|provide)\b"
        r"|\bneed (?:some )?more (?:context|information)\b",
        "Could you please provide a more specific skill?",
    ),
    _rule(
        "not a skill",
        r"\bis(?:n['’]t| not)\b(?! an? (?:hard|soft))[^.\n]{0,30}\bskill\b"
        r"|\b(?:does|do)(?:n['’]t| not) (?:appear|seem) to be an? \w{0,12} ?"
        r"(?:skill|ability)\b"
        r"|\bdoes(?:n['’]t| not) (?:describe|name) an? ability\b",
        '"Protein" is not a skill.',
    ),
    _rule(
        "neither of them",
        rf"\bneither\s(?:an?\s)?{_OPEN}hard{_CLOSE}\s(?:skill\s)?nor\s"
        r"|\b(?:no|neither) label (?:applies|fits)\b|\bnone of the labels\b",
        "It is neither Hard nor Soft.",
    ),
    _rule("no label at all", rf"\A{_OPEN}{_DECLINED}{_CLOSE}(?:[.!]?\s?\Z|\s?[(:–-]|\sof\s|\.\s)", "N/A - it is a molecule"),
    _rule(
        "too little to go by",
        r"\b(?:not enough|enough|insufficient|lack of|without (?:more|further)) (?:information|context|detail)",
        "There is not enough context to tell.",
    ),
)
CORRECTION = re.compile(
    r"[\s.!)\"'-]{0,6}(?:(?:wait|hmm+|no|actually|sorry|correction|scratch that|on second thou?ghts?|on reflection)\s?[,.:;!–—-]"
    r"|(?:let me|i) (?:reconsider|revise|correct|rethink|re-?evaluate|was wrong|made a mistake|take that back)"
    r"|my mistake|i apologi[sz]e)",
    re.IGNORECASE,
)
"""Words right behind an answer that make another one count, if there is one."""
HYPOTHETICAL = re.compile(
    r"\b(?:cannot|can|could|should|would be wrong|not|either|whether|if|when|might|may|unless|unlike|were|suppose"
    r"|assum(?:e|ing)|depending"
    r"|doubt|nobody|no longer|some would|at first|in case|e\.g\.|for example|(?:for|in) which|for \w+)\b"
    r"[^.\n]{0,60}$|n['’]t\b[^.\n]{0,60}$",
    re.IGNORECASE,
)

# A model that does not stop goes on to the next question: what follows is not about this skill.
_LINE_START = r"^[\s#*_>=-]{0,12}"
NEXT_QUESTION = re.compile(
    rf"(?:{_LINE_START}|(?<=>)\s?)(?:(?:the\s)?(?:next|new|another|second|following)\s|the\s|\d{{1,3}}\.\s)?"
    r"(?:skill(?:\s?(?:name|#?\d{1,3}|to classify))?|user|human|question|q|input|example(?:\s\d{1,3})?|task|system"
    r"|item(?:\s\d{1,3})?"
    r"|case(?:\s\d{1,3})?|prompt|request|problem|exercise|instruction|name|term|competenc[ey]|compétence|fertigkeit|next)\s?[:=–]"
    rf"|{_LINE_START}(?:the\s)?(?:next|new|another|following) (?:skill|question|example|one)\b"
    rf"|{_LINE_START}(?:now|let['’]s do another),? (?:classify|consider|for|let['’]s)\b"
    r"|^(?:user|human|assistant|system)$|<skill>",
    re.IGNORECASE | re.MULTILINE,
)
ANSWER_LINE = re.compile(
    rf"^[ \t\"'“”*_#>-]{{0,8}}(?:final[ ])?answer[\"'“”*_ \t]{{0,4}}[:：][\"'“”*_`\s]{{0,6}}"
    rf"{_NAME}[\"'“”*_`]{{0,4}}[ \t.]{{0,4}}\n",
    re.IGNORECASE | re.MULTILINE,
)
BEFORE_ANSWER = re.compile(r"\banswer[\"'“”*_\s]{0,6}:[\"'“”*_\s]{0,6}\Z", re.IGNORECASE)
JSON_KEY = re.compile(r"answer|label|verdict|class|category|type|result", re.IGNORECASE)
JSON_LABEL = re.compile(rf"\s?(?:(?P<label>{_NAME})(?:[ _-]?skill)?|(?P<declined>{_DECLINED}))[.\s]?\Z", re.IGNORECASE)
TABLE = re.compile(r"^\|(?P<head>[^\n]{1,200})\|\s?\n\|[\s:|-]{3,100}\|\s?\n\|(?P<row>[^\n]{1,400})\|", re.MULTILINE)
NAMED_ANSWER = re.compile(rf"\s?(?:{_ANSWER}|{_RESULT})\s?", re.IGNORECASE)
"""The head of a table's column that holds answers."""
LABEL_ABOVE = re.compile(rf"(?:^|\n)\W{{0,6}}{_NAME}\W{{0,6}}\n\W{{0,6}}\Z", re.IGNORECASE)
"""The end of a text before another label: a list of labels is no verdict."""

_TAUGHT_LINE = r"[A-Za-z0-9 ,.:()'/+-]+"
TAUGHT = re.compile(
    rf" ?(?:Step 1: )?It {_TAUGHT_LINE}(?:\nStep \d: {_TAUGHT_LINE})*\n(?P<answer>Answer: (?P<label>Hard|Soft|Unknown))"
)
"""The form that the prompts ask for, to the letter: none of its lines but the last can be an answer, so no rule is asked."""
