"""From a skill and a prompt option to the chat that a model is given."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError
from jinja2.sandbox import SandboxedEnvironment

from hardsoft.config.schema import PromptConfig
from hardsoft.core.chat import Chat
from hardsoft.core.errors import InputError
from hardsoft.core.files import read_text
from hardsoft.core.paths import CODEBOOK


@dataclass(frozen=True)
class Prompt:
    """A prompt option, read: the text around a skill."""

    system: str
    template: str
    """Jinja source of the user turn; it may use `skill` and, if one is given, `codebook`."""
    prefill: str
    """How the assistant's turn begins; empty to leave that to the model."""
    codebook: str | None = None
    name: str = "prompt template"
    """What messages call the template: its path."""

    @cached_property
    def _compiled(self) -> Template:
        try:
            return SandboxedEnvironment(undefined=StrictUndefined).from_string(self.template)
        except TemplateSyntaxError as error:
            raise InputError(f"{self.name}: line {error.lineno}: {error.message}") from None

    @cached_property
    def _given(self) -> dict[str, Any]:
        """What the template may use beside the skill: the codebook if there is one, and Jinja's own functions."""
        codebook = {} if self.codebook is None else {"codebook": self.codebook}
        return {**self._compiled.globals, **codebook}

    def messages(self, skill: str) -> Chat:
        """The chat about one skill.

        Raises:
            InputError: the template is no valid Jinja, or uses a variable that it is not given.
        """
        # What `render` does, without copying Jinja's functions for every skill, which took most of its time.
        context = self._compiled.new_context({**self._given, "skill": skill}, shared=True)
        try:
            user = "".join(self._compiled.root_render_func(context))
        except TemplateError as error:
            known = ["skill"] if self.codebook is None else ["codebook", "skill"]
            raise InputError(f"{self.name}: {error}; it may use {known} (codebook with prompt.codebook: true)") from None
        chat = [{"role": "system", "content": self.system}, {"role": "user", "content": user.strip()}]
        return [*chat, {"role": "assistant", "content": self.prefill}] if self.prefill else chat


def read_prompt(option: PromptConfig) -> Prompt:
    """Read a prompt option's template, and the codebook where the option uses it."""
    codebook = read_text(CODEBOOK) if option.codebook else None
    return Prompt(option.system, read_text(option.template), option.prefill, codebook, option.template)
