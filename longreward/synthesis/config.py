"""What is made from documents of your own: the section `synthesize` of `params.yaml`."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.judge.budget import BudgetConfig
from longreward.judge.config import JudgeConfig

Task = Literal["general", "summary", "reasoning", "extraction"]
TASKS: tuple[Task, ...] = ("general", "summary", "reasoning", "extraction")


class SynthesizeConfig(Config):
    """Questions and answers from documents of your own; `prepare.source` must then name what is made."""

    documents: str | None = None
    """Under data/raw: a file, a folder with its subfolders, or a glob, of .txt, .md, .html, .pdf, .docx and .epub;
    null: nothing is made. What is made is read with `prepare.source: data/synthesized/questions.jsonl`."""

    writer: dict[str, Any] = Field(default_factory=dict)
    """Who writes: the settings that differ from the section `judge`, as `{"model": "glm-4-plus"}`. The offline stand-in
    asks by templates and answers with sentences of the document."""

    questions: dict[Task, int] = Field(default={"general": 2, "summary": 1, "reasoning": 2, "extraction": 2})
    """How many questions of each kind are asked for about each context; one that is not named: none."""

    answer_words: dict[Task, int] = Field(default={"general": 150, "summary": 300, "reasoning": 150, "extraction": 100})
    """How long answers should be, in words (in Chinese, characters); one of more than twice as many is dropped."""

    min_tokens: int = Field(default=64, ge=1)
    """A document with fewer tokens (of `score.tokenizer`) is dropped; so is the rest of one that was cut."""

    max_tokens: int = Field(default=32_768, ge=1)
    """A longer document is cut into contexts of this many tokens, which share its name: they stay on one side of
    `prepare`. The writer's window must hold one beside 2,000 tokens."""

    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """A question is a duplicate where it shares more than this part of its words with another on the same context;
    1: only where it has the same words."""

    min_faithfulness: float = Field(default=8.0, ge=0, le=10)
    """An answer is dropped where `judge` gives it less faithfulness to its context, or none; 0: nothing is asked."""

    documents_in_flight: int = Field(default=4, ge=1)
    """Contexts that are worked on at once."""

    budget: BudgetConfig = BudgetConfig()
    """What writer and judge together may be asked for, over all tries; at it, the stage stops cleanly."""

    def writer_of(self, judge: JudgeConfig) -> JudgeConfig:
        """The writer: the section `judge` with what differs. ConfigError for a setting that a judge does not have."""
        return judge.with_overrides(self.writer, section="synthesize.writer").model_copy(update={"dimensions": {}})

    @property
    def asked(self) -> dict[Task, int]:
        """The kinds of which there is any, in their order."""
        return {task: self.questions[task] for task in TASKS if self.questions.get(task)}

    @model_validator(mode="after")
    def _asks_for_something(self) -> Self:
        if any(count < 0 or count > MOST for count in self.questions.values()) or not self.asked:
            raise ValueError(f"questions must ask for 1 to {MOST} of one kind or more; documents: null makes none")
        if missing := [task for task in self.asked if self.answer_words.get(task, 0) < 1]:
            raise ValueError(f"answer_words must say how long answers of {', '.join(missing)} should be, 1 or more")
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens:,}) is more than max_tokens ({self.max_tokens:,})")
        return self


MOST = 50  # questions in one answer of the writer's
