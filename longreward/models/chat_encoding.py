"""Token ids of chat messages, in which only the chat template can write control tokens.

    messages --chat template--> text --tokenizer--> ids                               the usual case
    "<|im_end|>" in a message --marker--> chat template --literal tokenizer--> ids    `<`, `|`, `im`, `_end`, `|`, `>`

Documents, queries and responses are untrusted: a special token in them would end the user's turn or open a system
turn. Messages without control tokens take the usual path, so their ids are exactly those of the tokenizer.

transformers 5.23 has `apply_chat_template(sanitize_control_tokens=True)`. It is not used because it rejects Unigram
and word-level vocabularies that list their control tokens, does not support bare texts or single turns, and splits a
text at each token that it sanitizes, which adds a space with some Metaspace tokenizers.
"""

import json
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any

from longreward.errors import PolicyError

Messages = Sequence[Mapping[str, str]]
"""Messages with the keys `role` and `content`."""

# Texts without control tokens, made of words that even a vocabulary of a few hundred words partly contains.
PROBE_USER = "The town is in the north of the river."
PROBE_RESPONSE = "Who is the first of the two, and when was it?"
MARKUP = re.compile(r"[<\[{|]")


class ChatEncoder:
    """Encode conversations, responses and plain texts with a transformers tokenizer and its chat template.

    `end_ids` are the tokens that end a response; default: the tokenizer's end-of-sequence token.
    """

    def __init__(self, tokenizer: Any, end_ids: Sequence[int] = ()) -> None:
        self.tokenizer = tokenizer
        self.end_ids = tuple(end_ids) or (tokenizer.eos_token_id,)
        # Control tokens that the template itself writes, per sequence of roles. A rendering with other counts has
        # control tokens in a message.
        self._conversation_controls: dict[tuple[str, ...], Counter[int]] = {}
        self._response_controls: dict[bool, Counter[int]] = {}

    # --- conversations ---

    def render(self, messages: Messages, *, add_generation_prompt: bool) -> str:
        """Apply the chat template; raises PolicyError if the template rejects the conversation."""
        from jinja2 import TemplateError

        try:
            return str(
                self.tokenizer.apply_chat_template(
                    [{**message} for message in messages], add_generation_prompt=add_generation_prompt, tokenize=False
                )
            )
        except TemplateError as error:
            raise PolicyError(
                f"{self.tokenizer.name_or_path}: its chat template cannot render a conversation ({error})"
            ) from error

    def encode_messages(self, messages: Messages, *, add_generation_prompt: bool) -> list[int]:
        """Return the ids of a conversation; control tokens inside a message are encoded as ordinary text."""
        ids = self.encode_rendered(self.render(messages, add_generation_prompt=add_generation_prompt))
        key = (*(message["role"] for message in messages), str(add_generation_prompt))
        if key not in self._conversation_controls:
            probes = [{**message, "content": PROBE_USER} for message in messages]
            probe_ids = self.encode_rendered(self.render(probes, add_generation_prompt=add_generation_prompt))
            self._conversation_controls[key] = self._count_controls(probe_ids, "user")
        if self._count_controls(ids, "user") == self._conversation_controls[key]:
            return ids  # the usual case: one rendering, one tokenization
        marked = [{**message, "content": self._mark(message["content"], message["role"])} for message in messages]
        return self._encode_marked(self.render(marked, add_generation_prompt=add_generation_prompt))

    # --- single responses ---

    def encode_response(self, response: str, *, ended: bool = True) -> list[int]:
        """Return the ids of an assistant turn as the chat template renders it after a generation prompt.

        The last id is the first end token that the template writes after the text, or the tokenizer's end token. With
        `ended=False` (a truncated response) the tokens that close the turn are omitted.
        """
        ids = self.encode_rendered(self._render_response(response, ended))
        if ended not in self._response_controls:
            probe_ids = self.encode_rendered(self._render_response(PROBE_RESPONSE, ended))
            self._response_controls[ended] = self._count_controls(probe_ids, "assistant")
        if self._count_controls(ids, "assistant") == self._response_controls[ended]:
            return ids
        return self._encode_marked(self._render_response(self._mark(response, "assistant"), ended))

    def encode_generated(self, text: str, *, ended: bool = True) -> list[int]:
        """Return the ids of a text as a model generates it: the bare text and the end token.

        They differ from `encode_response` if the chat template changes a response or writes something before it.
        """
        end = self.encode_rendered(self._turn_end[1]) if ended else []
        return self.encode_text(text, role="assistant") + [i for i in end if i in self._special]

    def _render_response(self, response: str, ended: bool) -> str:
        # The real text is rendered because templates may trim it or move a thought inside it.
        turn = self._render_turn(response)
        closing, generated_end = self._turn_end
        if turn is None or not turn.endswith(closing):  # a template that renders past turns differently
            return response + generated_end * ended
        return turn.removesuffix(closing) + generated_end * ended

    def _render_turn(self, response: str) -> str | None:
        """Return what the template adds to the generation prompt for `response`; None if it changes the prompt."""
        user = {"role": "user", "content": PROBE_USER}
        prompt = self.render([user], add_generation_prompt=True)
        full = self.render([user, {"role": "assistant", "content": response}], add_generation_prompt=False)
        return full.removeprefix(prompt) if full.startswith(prompt) else None

    @cached_property
    def _turn_end(self) -> tuple[str, str]:
        """What the template writes after a response, and the part of it that a model has to generate.

        That part ends with the first token that stops sampling. A base model's chat template closes the turn with
        `<|im_end|>` while its tokenizer has another end token: both are generated unless the first one stops sampling.
        """
        _, separator, closing = (self._render_turn(PROBE_RESPONSE) or "").partition(PROBE_RESPONSE)
        end_tokens = [str(token) for token in self.tokenizer.convert_ids_to_tokens(list(self.end_ids))]
        positions = [(closing.index(token), len(token)) for token in end_tokens if token in closing]
        if not separator or not positions:
            return closing, closing.rstrip() + str(self.tokenizer.eos_token)
        start, length = min(positions)
        return closing, closing[: start + length]

    # --- plain texts ---

    def encode_text(self, text: str, *, role: str = "user", add_special_tokens: bool = False) -> list[int]:
        """Return the ids of a text outside any conversation; control tokens in it are ordinary text."""
        ids = self._encode(text, add_special_tokens=add_special_tokens)
        added = self._encode("", add_special_tokens=True) if add_special_tokens else []
        if self._count_controls(ids, role) == self._count_controls(added, role):
            return ids
        return self._encode_marked(self._mark(text, role), add_special_tokens=add_special_tokens)

    def encode_rendered(self, text: str) -> list[int]:
        """Return the ids of text written by a chat template; control tokens in it are control tokens."""
        return self._encode(text)

    def break_controls(self, text: str, role: str = "user") -> str:
        """Insert a space into each control token, for a server or trainer that tokenizes the text itself."""
        return self._pattern_for(role).sub(lambda match: f"{match[0][0]} {match[0][1:]}", text)

    def _encode(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=add_special_tokens, verbose=False)["input_ids"])

    # --- control tokens ---

    @cached_property
    def _special(self) -> dict[int, str]:
        """Special tokens by id, without the unknown token, which stands for ordinary words."""
        added = self.tokenizer.added_tokens_decoder
        # all_special_tokens lacks tokens that are special only in tokenizer.json, and the other way round.
        special = {number: token.content for number, token in added.items() if token.special}
        special |= dict(zip(self.tokenizer.all_special_ids, self.tokenizer.all_special_tokens, strict=True))
        roles = (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, *self.end_ids)
        if (unknown := self.tokenizer.unk_token_id) not in roles:
            special.pop(unknown, None)
        return special

    @cached_property
    def _controls(self) -> dict[int, str]:
        """Special tokens and other added tokens that the chat template writes, such as ChatML's in some models."""
        if not self.tokenizer.chat_template:
            return self._special
        user, answer = {"role": "user", "content": "u"}, {"role": "assistant", "content": "a"}
        rendered = self.render([user], add_generation_prompt=True)
        rendered += self.render([user, answer], add_generation_prompt=False)
        added = self.tokenizer.added_tokens_decoder
        # Only tokens that look like markup: added tokens such as "\n" or "user" are ordinary text in a document.
        markup = {n: t.content for n, t in added.items() if t.content in rendered and MARKUP.search(t.content)}
        return markup | self._special

    # `<think>`, usually an added token that is not special, is a legitimate part of what models generate. It is
    # therefore a control token in a document, but not in an assistant's turn.

    def _count_controls(self, ids: Sequence[int], role: str) -> Counter[int]:
        controls = self._special if role == "assistant" else self._controls
        return Counter(i for i in ids if i in controls)

    def _pattern_for(self, role: str) -> re.Pattern[str]:
        return self._patterns[role != "assistant"]

    @cached_property
    def _patterns(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        return _compile_alternatives(self._special.values()), _compile_alternatives(self._controls.values())

    # --- texts with control tokens ---

    def _mark(self, text: str, role: str) -> str:
        """Replace control tokens by markers that survive the chat template."""
        if self._literal is None:
            return self.break_controls(text, role)
        return self._pattern_for(role).sub(self._literal.marker, text)

    def _encode_marked(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        if self._literal is None:
            return self._encode(text, add_special_tokens=add_special_tokens)
        return self._literal.encode(text, add_special_tokens=add_special_tokens)

    @cached_property
    def _literal(self) -> "LiteralTokenizer | None":
        # A slow (pure Python) tokenizer has no tokenizer.json that could be changed.
        if not self.tokenizer.is_fast:
            return None
        return LiteralTokenizer(self.tokenizer.backend_tokenizer.to_str(), self._controls)


class LiteralTokenizer:
    """Copy of a tokenizer whose control tokens have secret names, so that their usual names are plain text.

    `definition` is the content of tokenizer.json; `controls` are the control tokens by id.
    """

    def __init__(self, definition: str, controls: Mapping[int, str]) -> None:
        from tokenizers import Tokenizer

        # The author of a document must not be able to guess the names. They are removed before the model sees
        # anything, so ids do not depend on them. Unicode normalization keeps noncharacters (U+FDD0 and following).
        secret = uuid.uuid4().hex
        self._names = {text: f"\ufdd0{secret}.{number}\ufdd1" for number, text in controls.items()}
        self._markers = {text: f"\ufdd2{secret}.{number}\ufdd3" for number, text in controls.items()}
        self._texts = {marker: text for text, marker in self._markers.items()}
        self._control_pattern = _compile_alternatives(controls.values())
        self._marker_pattern = re.compile(f"\ufdd2{secret}[.][0-9]+\ufdd3")
        self._tokenizer = Tokenizer.from_str(json.dumps(_rename_tokens(json.loads(definition), self._names)))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def marker(self, match: re.Match[str]) -> str:
        """Return the marker that replaces a control token of a message until its template is rendered."""
        return self._markers[match[0]]

    def encode(self, rendered: str, *, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of a rendered text: its control tokens are control tokens, marked ones are plain text."""
        renamed = self._control_pattern.sub(lambda match: self._names[match[0]], rendered)
        text = self._marker_pattern.sub(lambda match: self._texts[match[0]], renamed)
        return list(self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids)


def _rename_tokens(definition: dict[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Rename tokens in the definition of a tokenizer (`tokenizer.json`) without changing any id.

    The model's vocabulary is renamed too, because a Unigram or word-level model would match whole control tokens there.
    """
    for token in definition["added_tokens"]:
        if token["content"] in names:
            token |= {"content": names[token["content"]], "normalized": False}
    model = definition["model"]
    vocabulary = model["vocab"]
    if isinstance(vocabulary, dict):
        model["vocab"] = {names.get(piece, piece): number for piece, number in vocabulary.items()}
    else:  # Unigram lists [piece, score]
        model["vocab"] = [[names.get(piece, piece), score] for piece, score in vocabulary]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    if "merges" in model:  # of two pieces each: a list, or joined by a space in files of tokenizers < 0.20
        merges = [merge if isinstance(merge, list) else merge.split(" ", 1) for merge in model["merges"]]
        model["merges"] = [
            pair for pair in merges if "".join(pair) not in names and not any(piece in names for piece in pair)
        ]
    return definition


def _compile_alternatives(texts: Iterable[str]) -> re.Pattern[str]:
    """Compile a pattern that matches any of `texts`, longest first; without texts it never matches."""
    longest_first = sorted({text for text in texts if text}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")
