"""Section sample of params.yaml: which skills are judged, one class a kind."""

from typing import Annotated, Literal, Self

from pydantic import Field, PositiveInt, model_validator

from hardsoft.config.fields import PositiveShare, RepositoryPath, Section, Share
from hardsoft.core.paths import NO_LABELS


class SampleSection(Section):
    """What all kinds have; `conf/base.yaml` has its defaults."""

    baseline: RepositoryPath = NO_LABELS
    """Of `frozen`, a variant's labels.csv whose labels the fractions go by."""
    dep: RepositoryPath
    """What the stage depends on beside the labels: the baseline."""

    @model_validator(mode="after")
    def _has_what_it_depends_on(self) -> Self:
        if self.baseline != NO_LABELS and not isinstance(self, FrozenSampleConfig):
            raise ValueError("baseline is for sample=frozen")
        if self.baseline not in (NO_LABELS, self.dep):
            raise ValueError(f"sample.dep must be {self.baseline}, what sample.baseline says; leave it out of options")
        return self


class PerLabelSampleConfig(SampleSection):
    kind: Literal["per_label"]
    per_label: PositiveInt
    """Skills of each label, on average."""
    allocation: Literal["equal", "neyman"]
    """As many of each label, or as many as make the population's accuracy most certain."""
    expected_precision: dict[Literal["Hard", "Soft"], Share]
    """What `neyman` goes by."""
    seed: int


class FrozenSampleConfig(SampleSection):
    kind: Literal["frozen"]
    fraction: PositiveShare
    """Of the skills, and of those that the baseline does not have."""
    fractions: dict[Literal["Hard", "Soft", "Unknown"], PositiveShare]
    """Of the skills with each of the baseline's labels; `fraction` where one is left out."""
    seed: int

    @property
    def variant(self) -> str | None:
        """The baseline, if there is one."""
        return None if self.baseline == NO_LABELS else self.baseline


class AllSampleConfig(SampleSection):
    kind: Literal["all"]


class ByMentionSampleConfig(SampleSection):
    kind: Literal["by_mention"]
    n: PositiveInt
    """Skills to draw, each with a probability proportional to how many candidates mention it."""
    seed: int


SampleConfig = Annotated[
    PerLabelSampleConfig | FrozenSampleConfig | AllSampleConfig | ByMentionSampleConfig, Field(discriminator="kind")
]
