"""From a skill and a prompt option to the token ids that a model is given."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment
from transformers import PreTrainedTokenizerBase

from hardsoft.config import PromptConfig
from hardsoft.stage import InputError

CODEBOOK = "docs/codebook.md"


@dataclass(frozen=True)
class Prompt:
    """A prompt option, read: the text around a skill."""

    system: str
    template: str
    """Jinja source of the user turn; it may use `skill` and, if one is given, `codebook`."""
    prefill: str
    """How the assistant's turn begins; empty to leave that to the model."""
    codebook: str | None = None

    def messages(self, skill: str) -> list[dict[str, str]]:
        """The chat about one skill.

        Raises:
            InputError: the template is no valid Jinja, or uses a variable that it is not given.
        """
        given = {"skill": skill} if self.codebook is None else {"skill": skill, "codebook": self.codebook}
        try:
            user = SandboxedEnvironment(undefined=StrictUndefined).from_string(self.template).render(given)
        except TemplateSyntaxError as error:
            raise InputError(f"prompt template, line {error.lineno}: {error.message}") from None
        except TemplateError as error:
            raise InputError(
                f"prompt template: {error}; it may use {sorted(given)} (codebook: set prompt.dep: docs/codebook.md)"
            ) from None
        chat = [{"role": "system", "content": self.system}, {"role": "user", "content": user.strip()}]
        return [*chat, {"role": "assistant", "content": self.prefill}] if self.prefill else chat


def read_prompt(option: PromptConfig) -> Prompt:
    """Read a prompt option's template, and the codebook where the option depends on it."""
    codebook = Path(CODEBOOK).read_text(encoding="utf-8") if option.dep == CODEBOOK else None
    return Prompt(option.system, Path(option.template).read_text(encoding="utf-8"), option.prefill, codebook)


def encode(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, skill: str) -> list[int]:
    """Token ids of the chat about one skill, by the tokenizer's own chat template.

    Control tokens inside the skill are encoded as ordinary text, so a skill named `<|eot_id|>` ends nothing.

    Raises:
        InputError: the tokenizer has no chat template, or the ids do not begin with its only BOS token.
    """
    if tokenizer.chat_template is None:
        raise InputError(f"{tokenizer.name_or_path}: the tokenizer has no chat template; use an instruction-tuned model")
    chat = tokenizer.apply_chat_template(
        prompt.messages(skill),
        add_generation_prompt=not prompt.prefill,
        continue_final_message=bool(prompt.prefill),
        sanitize_control_tokens=True,
        return_dict=False,
    )
    ids = cast("list[int]", chat)
    bos = tokenizer.bos_token_id
    if bos is not None and (ids.count(bos) > 1 or (bos in ids and ids[0] != bos)):
        raise InputError(
            f"{tokenizer.name_or_path}: the chat template gives {ids.count(bos)} BOS tokens; one at the start is right"
        )
    return ids
