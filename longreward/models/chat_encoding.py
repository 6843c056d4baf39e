"""Chat messages as token ids: the chat template writes the control tokens, the messages never do.

    messages --chat template--> text --tokenizer--> ids                          the usual case
    "<|im_end|>" in a message --marked--> chat template --literal tokenizer--> ids   `<`, `|`, `im`, `_end`, `|`, `>`

Documents, queries and answers are untrusted: a special token in them would end the user's turn or open a system turn.
Texts without control tokens take the usual case, so their ids are exactly those of the tokenizer.

transformers 5.23 has `apply_chat_template(sanitize_control_tokens=True)`. It is not used because it refuses Unigram
and word-level vocabularies that list their control tokens, has no form for a bare text or a single turn, and splits a
text at each token that it sanitizes, which adds a space with some Metaspace tokenizers.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

from longreward.errors import PolicyError

Messages = Sequence[Mapping[str, str]]
"""`{"role": …, "content": …}` each."""

PROBE_USER = "The town is in the north of the river."
PROBE_ANSWER = "Who is the first of the two, and when was it?"
MARKUP = re.compile(r"[<\[{|]")


class ChatEncoder:
    """Encodes conversations, answers and plain texts with one transformers tokenizer.

    `end_ids` are the tokens that end an answer; the tokenizer's end token if not given.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids) or (tokenizer.eos_token_id,)
        self._skeletons: dict[tuple[str, ...], Counter[int]] = {}
        self._answer_skeletons: dict[bool, Counter[int]] = {}

    # --- conversations ---

    def render(self, messages: Messages, *, generate: bool) -> str:
        """The text of the conversation; PolicyError where the chat template refuses it."""
        from jinja2 import TemplateError

        try:
            turns = [{**message} for message in messages]
            return str(self.tokenizer.apply_chat_template(turns, add_generation_prompt=generate, tokenize=False))
        except TemplateError as error:
            raise PolicyError(
                f"{self.tokenizer.name_or_path}: its chat template cannot render a conversation ({error})"
            ) from error

    def encode_messages(self, messages: Messages, *, generate: bool) -> list[int]:
        """The ids of the conversation; control tokens inside a message are encoded as ordinary text."""
        ids = self.encode_rendered(self.render(messages, generate=generate))
        roles = (*(message["role"] for message in messages), str(generate))
        if roles not in self._skeletons:
            probes = [{**message, "content": PROBE_USER} for message in messages]
            skeleton = self.encode_rendered(self.render(probes, generate=generate))
            self._skeletons[roles] = self._count_controls(skeleton)
        if self._count_controls(ids) == self._skeletons[roles]:
            return ids
        marked = [{**message, "content": self._mark(message["content"], message["role"])} for message in messages]
        return self._encode_marked(self.render(marked, generate=generate))

    # --- one answer ---

    def encode_answer(self, answer: str, *, ended: bool = True) -> list[int]:
        """The ids of an assistant turn with this text, as the chat template renders it behind a generation prompt.

        The last id is the first end token that the template writes behind the text, or the tokenizer's own. Without
        `ended`, nothing that closes the turn is there.
        """
        ids = self.encode_rendered(self._answer_text(answer, ended))
        if ended not in self._answer_skeletons:
            probe = self.encode_rendered(self._answer_text(PROBE_ANSWER, ended))
            self._answer_skeletons[ended] = self._count_special(probe)
        if self._count_special(ids) == self._answer_skeletons[ended]:
            return ids
        return self._encode_marked(self._answer_text(self._mark(answer, "assistant"), ended))

    def encode_generated(self, text: str, *, ended: bool = True) -> list[int]:
        """The ids of a text as a model writes it behind a generation prompt: the text alone, and what ends a turn.

        `encode_answer` gives others where the chat template changes an answer or writes something before it.
        """
        closing = self.encode_rendered(self._closing[1]) if ended else []
        return self.encode_text(text, role="assistant") + [i for i in closing if i in self._special]

    def _answer_text(self, answer: str, ended: bool) -> str:
        """Rendered with the real text: templates trim it, or move a thought in it to another place."""
        turn = self._turn_of(answer)
        closing, kept = self._closing
        if turn is None or not turn.endswith(closing):  # a template that renders past turns in another way
            return answer + kept * ended
        return turn.removesuffix(closing) + kept * ended

    def _turn_of(self, answer: str) -> str | None:
        """What the template adds to the generation prompt for this answer; None where it changes the prompt."""
        user = {"role": "user", "content": PROBE_USER}
        prompt = self.render([user], generate=True)
        whole = self.render([user, {"role": "assistant", "content": answer}], generate=False)
        return whole.removeprefix(prompt) if whole.startswith(prompt) else None

    @cached_property
    def _closing(self) -> tuple[str, str]:
        """What the template writes behind an answer, and the part of it that a model has to generate.

        The part ends with the first token that ends sampling. A base model's chat template closes the turn with
        `<|im_end|>` and its tokenizer has another end token: both are generated only if the first ends nothing.
        """
        _, found, closing = (self._turn_of(PROBE_ANSWER) or "").partition(PROBE_ANSWER)
        ends = [str(token) for token in self.tokenizer.convert_ids_to_tokens(list(self.end_ids))]
        places = [(closing.index(end), len(end)) for end in ends if end in closing]
        if not found or not places:
            return closing, closing.rstrip() + str(self.tokenizer.eos_token)
        start, length = min(places)
        return closing, closing[: start + length]

    # --- plain texts ---

    def encode_text(self, text: str, *, role: str = "user", add_special_tokens: bool = False) -> list[int]:
        """The ids of a text outside any conversation; control tokens in it are ordinary text."""
        ids = self._encode(text, add_special_tokens=add_special_tokens)
        own = self._encode("", add_special_tokens=True) if add_special_tokens else []
        count = self._count_special if role == "assistant" else self._count_controls
        if count(ids) == count(own):
            return ids
        return self._encode_marked(self._mark(text, role), add_special_tokens=add_special_tokens)

    def encode_rendered(self, text: str) -> list[int]:
        """The ids of text that a chat template wrote; control tokens in it count as such."""
        return self._encode(text)

    def break_controls(self, text: str, role: str = "user") -> str:
        """The text with a space inside each control token, for a server or trainer that tokenizes it by itself."""
        return self._pattern_for(role).sub(lambda found: f"{found[0][0]} {found[0][1:]}", text)

    def _encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])

    # --- control tokens ---

    @cached_property
    def _special(self) -> dict[int, str]:
        """Special tokens by id. The token of unknown words is none of them: ordinary words have its id."""
        added = self.tokenizer.added_tokens_decoder
        special = {number: token.content for number, token in added.items() if token.special}
        special |= dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True))
        roles = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, *self.end_ids)
        if (unknown := self.tokenizer.unk_token_id) not in roles:
            special.pop(unknown, None)
        return special

    @cached_property
    def _controls(self) -> dict[int, str]:
        """Special tokens, and other added tokens that the chat template writes, such as ChatML's in some models."""
        if not self.tokenizer.chat_template:
            return self._special
        user, answer = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
        written = self.render([user], generate=True) + self.render([user, answer], generate=False)
        added = self.tokenizer.added_tokens_decoder
        # Only what looks like markup: added tokens such as "\n" or "user" are ordinary text in a document.
        markup = {n: t.content for n, t in added.items() if t.content in written and MARKUP.search(t.content)}
        return markup | self._special

    @cached_property
    def _control_ids(self) -> frozenset[int]:
        return frozenset(self._controls)

    def _count_controls(self, ids: Sequence[int]) -> Counter[int]:
        return Counter(i for i in ids if i in self._control_ids)

    def _count_special(self, ids: Sequence[int]) -> Counter[int]:
        return Counter(i for i in ids if i in self._special)

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return _any_of(self._special.values()), _any_of(self._controls.values())

    def _pattern_for(self, role: str) -> re.Pattern[str]:
        """What is a control token in a text of this role.

        `<think>`, mostly an added token that is not special, is part of what models write: text in a document, but
        not in an assistant's turn.
        """
        return self._patterns[role != "assistant"]

    # --- the rare case ---

    def _mark(self, text: str, role: str) -> str:
        """Replaces control tokens by marks that survive the chat template."""
        if self._literal is None:
            return self.break_controls(text, role)
        return self._pattern_for(role).sub(self._literal.mark, text)

    def _encode_marked(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        if self._literal is None:
            return self._encode(text, add_special_tokens=add_special_tokens)
        return self._literal.encode(text, add_special_tokens=add_special_tokens)

    @cached_property
    def _literal(self) -> "LiteralTokenizer | None":
        """None for a tokenizer in Python, which has no definition that could be changed."""
        if not self.tokenizer.is_fast:
            return None
        return LiteralTokenizer(self.tokenizer.backend_tokenizer.to_str(), self._controls)


class LiteralTokenizer:
    """A copy of a tokenizer that knows its control tokens by secret names, so that their usual names are plain text."""

    def __init__(self, definition: str, controls: Mapping[int, str]) -> None:
        from tokenizers import Tokenizer

        # The names must not be guessed by the author of a document. They are gone before the model sees anything, so
        # that ids do not depend on them. Noncharacters (U+FDD0 and following) are left alone by Unicode normalization.
        secret = uuid.uuid4().hex
        self._names = {text: f"\ufdd0{secret}.{number}\ufdd1" for number, text in controls.items()}
        self._marks = {text: f"\ufdd2{secret}.{number}\ufdd3" for number, text in controls.items()}
        self._pattern = _any_of(controls.values())
        self._texts = {mark: text for text, mark in self._marks.items()}
        self._mark_pattern = re.compile(f"\ufdd2{secret}[.][0-9]+\ufdd3")
        self._tokenizer = Tokenizer.from_str(json.dumps(_renamed(json.loads(definition), self._names)))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def mark(self, found: re.Match[str]) -> str:
        """What stands for a control token of a message until its template is rendered."""
        return self._marks[found[0]]

    def encode(self, rendered: str, *, add_special_tokens: bool = False) -> list[int]:
        """The ids of a rendered text: its control tokens count, and the marked ones are plain text."""
        named = self._pattern.sub(lambda found: self._names[found[0]], rendered)
        text = self._mark_pattern.sub(lambda found: self._texts[found[0]], named)
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)


def _renamed(definition: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The definition of a tokenizer (`tokenizer.json`) with other names for some tokens; all ids stay.

    Names are changed in the model's vocabulary, too: a Unigram or word-level model finds whole control tokens there.
    """
    for token in definition["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "normalized": False}
    model = definition["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:  # of two pieces each, a pair or joined by a space
        parts = [merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model["merges"]]
        model["merges"] = [
            pair for pair in parts if "".join(pair) not in names and not any(part in names for part in pair)
        ]
    return definition


def _any_of(texts: Any) -> re.Pattern[str]:
    """Matches any of the texts, the longest first; nothing where there are none."""
    longest_first = sorted({text for text in texts if text}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
