"""Tokens of questions, by the tokenizer that `score.tokenizer` names: each text is counted once, not once a prompt."""

from functools import lru_cache

from longreward.chat_model import ChatRequest
from longreward.utils.token_spans import TextTokenizer


class TokenCounter:
    """Counts by parts: a template's own words once, and each text that fills it while it is of late."""

    def __init__(self, tokenizer: TextTokenizer) -> None:
        self._tokenizer = tokenizer
        self._own: dict[str, int] = {}  # by the template's hash
        self.of_text = lru_cache(maxsize=KEPT)(self._count)

    def of(self, question: ChatRequest) -> int:
        """The whole question, without the frame that a server puts around it."""
        filled = sum(self.of_text(text) for text in question.slots.values())
        if question.prompt_hash not in self._own:
            self._own[question.prompt_hash] = self._count(question.text) - filled
        return max(self._own[question.prompt_hash] + filled, 0)

    def _count(self, text: str) -> int:
        return len(self._tokenizer.spans(text))


KEPT = 512  # texts; of long documents a few are enough, since all questions about one come together
