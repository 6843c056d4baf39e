"""Check on texts, before tokenization, that training shows the model the same prompts as sampling does.

Training rows hold the prompt's ids as sampling makes them, followed by the answer's ids: no token spans the boundary.
Answers with sampled token ids are trained on as they are and not checked. For rendered answers, the chat template may
render the user's turn differently once an answer follows. Then the model would be trained on prompts that no
conversation contains, which is refused.
"""

from collections.abc import Iterable
from itertools import islice

from longreward.errors import PolicyError
from longreward.models.policy import PolicyTokenizer
from longreward.records import Example, PreferencePair

CHECKED_RECORDS = 50  # from the start of the data
EXCERPT = 30  # characters shown in an error, on each side of the difference


def check_template(tokenizer: PolicyTokenizer, data: Iterable[Example | PreferencePair]) -> None:
    """Check the first records; PolicyError where a prompt is rendered differently before an answer."""
    for record in islice(data, CHECKED_RECORDS):
        prompt = tokenizer.prompt_text(record.context, record.query)
        if isinstance(record, PreferencePair):
            rendered = [response.text for response in (record.chosen, record.rejected) if response.token_ids is None]
        else:
            rendered = [record.answer] if record.answer else []
        for answer in rendered:
            _check_prompt(tokenizer, record, prompt, answer)


def _check_prompt(tokenizer: PolicyTokenizer, record: Example | PreferencePair, prompt: str, answer: str) -> None:
    user = {"role": "user", "content": tokenizer.message(record.context, record.query)}
    conversation = _render(tokenizer, [user, {"role": "assistant", "content": answer}])
    # The generation prompt may differ, as where a template opens a thought that it removes from past turns.
    if conversation.startswith((prompt, _render(tokenizer, [user]))):
        return
    different = (i for i, (a, b) in enumerate(zip(prompt, conversation, strict=False)) if a != b)
    index = next(different, len(conversation))
    raise PolicyError(
        f"the chat template renders the prompt of {record.id} differently alone, {_excerpt(prompt, index)}, and before "
        f"an answer, {_excerpt(conversation, index)}: the model would learn from other prompts than it answered; set "
        "policy.chat_template to one that renders a user's turn the same whatever follows"
    )


def _render(tokenizer: PolicyTokenizer, messages: list[dict[str, str]]) -> str:
    return str(tokenizer.tokenizer.apply_chat_template(messages, tokenize=False))


def _excerpt(text: str, index: int) -> str:
    return repr(f"…{text[max(index - EXCERPT, 0) : index + EXCERPT]}…")
