"""The judge's prompt: the published one, a file in ChatML, or our own."""

from pathlib import Path

from longreward.errors import DataError
from longreward.judge.prompt_template import JudgePrompt, load_builtin_prompt, parse_marked_prompt

TEMPLATE = "alpaca_eval"
SLOTS = {"{instruction}": "instruction", "{output_1}": "output_1", "{output_2}": "output_2"}


def load_prompt(path: Path | None) -> tuple[str, JudgePrompt]:
    """The system prompt, and the prompt; `path` is `alpaca_eval_clf.txt`, None takes ours.

    DataError where the file cannot be read or is no conversation of one system and one user turn.
    """
    if path is None:
        return "", load_builtin_prompt("alpaca_eval", template=TEMPLATE)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    turns = [turn.partition("\n") for turn in text.split("<|im_start|>")[1:]]
    if [role.strip() for role, _, _ in turns] != ["system", "user"]:
        raise DataError(f"{path} is no prompt with a system and a user turn in ChatML; fetch it anew")
    system, user = (content.partition("<|im_end|>")[0].strip() for _, _, content in turns)
    return system, parse_marked_prompt(user, SLOTS, template=TEMPLATE, source=path)
