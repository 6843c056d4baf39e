"""What is created from documents of your own: the section `synthesize` of `params.yaml`."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from longreward.config import Config
from longreward.judge.budget import BudgetConfig
from longreward.judge.config import JudgeConfig

Task = Literal["general", "summary", "reasoning", "extraction"]
TASKS: tuple[Task, ...] = ("general", "summary", "reasoning", "extraction")
MAX_QUESTIONS = 50  # in one reply of the writer


class SynthesizeConfig(Config):
    """Questions and answers from documents of your own. `prepare.source` must then name the created file."""

    documents: str | None = None
    """Below data/raw: a file, a folder with its subfolders, or a glob, of .txt, .md, .html, .pdf, .docx and .epub;
    null: nothing is created. Read the result with `prepare.source: data/synthesized/questions.jsonl`."""

    writer: dict[str, Any] = Field(default_factory=dict)
    """The model that writes: settings that differ from the section `judge`, such as `{"model": "glm-4-plus"}`. The
    offline writer fills templates and answers with sentences of the document."""

    questions: dict[Task, int] = Field(default={"general": 2, "summary": 1, "reasoning": 2, "extraction": 2})
    """Questions of each kind per context; a kind that is not listed: none."""

    answer_words: dict[Task, int] = Field(default={"general": 150, "summary": 300, "reasoning": 150, "extraction": 100})
    """Target length of answers in words (in Chinese, characters). An answer of more than twice the length is
    dropped."""

    min_tokens: int = Field(default=64, ge=1)
    """A document with fewer tokens (of `score.tokenizer`) is dropped, as is a shorter last part of a long one."""

    max_tokens: int = Field(default=32_768, ge=1)
    """A longer document is split into contexts of this many tokens. They share its name, so `prepare` keeps them in
    one split. The writer's window must hold one context and 2,000 further tokens."""

    max_similarity: float = Field(default=0.7, gt=0, le=1)
    """A question is a duplicate if it shares more than this fraction of its words with another one on the same context;
    1: only if it has the same words."""

    min_faithfulness: float = Field(default=8.0, ge=0, le=10)
    """An answer is dropped if `judge` gives it less faithfulness to its context, or no score; 0: it is not scored."""

    documents_in_flight: int = Field(default=4, ge=1)
    """Contexts that are processed concurrently."""

    budget: BudgetConfig = BudgetConfig()
    """Limits for writer and judge together, over all runs. The stage stops cleanly when one is reached."""

    def writer_config(self, judge: JudgeConfig) -> JudgeConfig:
        """Return the writer's settings: those of `judge` with `writer`; raises ConfigError for an unknown setting."""
        return judge.with_overrides(self.writer, section="synthesize.writer").model_copy(update={"dimensions": {}})

    @property
    def requested(self) -> dict[Task, int]:
        """The number of questions by kind, without kinds that are not requested."""
        return {task: self.questions[task] for task in TASKS if self.questions.get(task)}

    @model_validator(mode="after")
    def _check_values(self) -> Self:
        if not self.requested or not all(0 <= count <= MAX_QUESTIONS for count in self.questions.values()):
            raise ValueError(
                f"questions must request 1 to {MAX_QUESTIONS} of at least one kind; documents: null creates none"
            )
        if missing := [task for task in self.requested if self.answer_words.get(task, 0) < 1]:
            raise ValueError(f"answer_words must set the length of answers of {', '.join(missing)}, 1 or more")
        if self.min_tokens > self.max_tokens:
            raise ValueError(f"min_tokens ({self.min_tokens:,}) is more than max_tokens ({self.max_tokens:,})")
        return self
