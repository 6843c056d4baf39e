"""The judge's prompt: the published `prompt_fs.txt` where it is given, else ours."""

from pathlib import Path

from longreward.benchmarks.longbench_chat.cases import SHOTS
from longreward.errors import DataError
from longreward.judge.prompt_template import JudgePrompt, load_builtin_prompt, parse_positional_prompt

TEMPLATE = "longbench_chat"
EXAMPLES = tuple(name for number in range(1, SHOTS + 1) for name in (f"example_{number}", f"rating_{number}"))
SLOTS = ("question", "reference", *EXAMPLES, "answer")


def load_prompt(published: Path | None) -> JudgePrompt:
    """With the slots `question`, `reference`, `example_1`, `rating_1`, …, `answer`; DataError for another file."""
    if published is None:
        return load_builtin_prompt("longbench_chat", template=TEMPLATE)
    try:
        text = published.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"LongBench-Chat's judge prompt {published} cannot be read: {error}") from error
    return parse_positional_prompt(text, SLOTS, template=TEMPLATE, source=published)
