"""From a skill and a prompt option to the chat that a model is given."""

from dataclasses import dataclass
from functools import cached_property

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

    def messages(self, skill: str) -> Chat:
        """The chat about one skill.

        Raises:
            InputError: the template is no valid Jinja, or uses a variable that it is not given.
        """
        given = {"skill": skill} if self.codebook is None else {"skill": skill, "codebook": self.codebook}
        try:
            user = self._compiled.render(given)
        except TemplateError as error:
            raise InputError(f"{self.name}: {error}; it may use {sorted(given)} (codebook with prompt.codebook: true)") from None
        chat = [{"role": "system", "content": self.system}, {"role": "user", "content": user.strip()}]
        return [*chat, {"role": "assistant", "content": self.prefill}] if self.prefill else chat


def read_prompt(option: PromptConfig) -> Prompt:
    """Read a prompt option's template, and the codebook where the option uses it."""
    codebook = read_text(CODEBOOK) if option.codebook else None
    return Prompt(option.system, read_text(option.template), option.prefill, codebook, option.template)
