"""Whether a training on rendered answers sees the prompts that sampling saw, told from texts, before tokenization.

Rows hold a prompt's ids as sampling made them, with the answer's ids behind: no token reaches over the border. Answers
with sampled token ids are trained on as they are, and not looked at here. For the others, two things can differ. A chat
template may render the user's turn in another way once an answer follows; then the model would be trained on prompts
that no conversation has: refused. And a tokenizer may make another token of the prompt's end and the answer's start
where both are one text; then the rows are right and such text is not: counted.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice

from longreward.errors import PolicyError
from longreward.models.policy import PolicyTokenizer
from longreward.records import Example, PreferencePair

LOOKED_AT = 50  # prompts, from the start of the data
EDGE = 48  # characters on each side of the border that tokens could reach over
SHOWN = 30  # characters that an error shows


@dataclass(frozen=True)
class TemplateReport:
    """Answers that were looked at, and those whose first token would merge with the prompt's last."""

    answers: int
    merged: int

    def __str__(self) -> str:
        return (
            f"{self.merged} of the first {self.answers} rendered answers would merge with their prompt's last token if "
            "both were tokenized as one text; training keeps the two apart, as sampling does"
        )


def check_template(text: PolicyTokenizer, data: Iterable[Example | PreferencePair]) -> TemplateReport:
    """PolicyError where the chat template renders a prompt differently alone and before an answer."""
    answers = merged = 0
    for record in islice(data, LOOKED_AT):
        prompt = text.prompt_text(record.context, record.query)
        for answer in _answers(record):
            _check(text, record, prompt, answer)
            answers += 1
            merged += _merges(text, prompt, answer)
    return TemplateReport(answers, merged)


def _answers(record: Example | PreferencePair) -> Sequence[str]:
    if isinstance(record, PreferencePair):
        return [response.text for response in (record.chosen, record.rejected) if response.token_ids is None]
    return (record.answer,) if record.answer else ()


def _check(text: PolicyTokenizer, record: Example | PreferencePair, prompt: str, answer: str) -> None:
    """The generation prompt itself may differ, as where a template opens a thought that past turns do not show."""
    user = {"role": "user", "content": text.message(record.context, record.query)}
    whole = _rendered(text, [user, {"role": "assistant", "content": answer}])
    if whole.startswith((prompt, _rendered(text, [user]))):
        return
    at = next((n for n, (one, other) in enumerate(zip(prompt, whole, strict=False)) if one != other), len(whole))
    raise PolicyError(
        f"the chat template renders the prompt of {record.id} differently alone, {_shown(prompt, at)}, and before an "
        f"answer, {_shown(whole, at)}: the model would learn from other prompts than it answered; set "
        "policy.chat_template to one that renders a user's turn the same whatever follows"
    )


def _rendered(text: PolicyTokenizer, messages: list[dict[str, str]]) -> str:
    return str(text.tokenizer.apply_chat_template(messages, tokenize=False))


def _shown(text: str, at: int) -> str:
    return repr(f"…{text[max(at - SHOWN, 0) : at + SHOWN]}…")


def _merges(text: PolicyTokenizer, prompt: str, answer: str) -> bool:
    """Looks at the border alone; both ways of tokenising cut the texts' outer ends at the same places."""
    end, start = prompt[-EDGE:], answer[:EDGE]
    encode = text.chat.encode_rendered
    return len(encode(end + start)) != len(encode(end)) + len(encode(start))
