"""The token ids that DPO trains on: those that were sampled, wherever they are known.

    Response.token_ids --> completion ids, unchanged: with the end token that was sampled, without one if truncated
    Response.text      --chat template--> completion ids, for a response without token ids (imported, some servers)
    Response.prompt_tokens --> the prompt, cut as it was for sampling

A response without ids was sampled all the same, as its text alone. Where the chat template renders it differently, with
an empty thought or a space before it, training on the rendered ids teaches tokens that the policy never wrote. Such a
response is a mismatch, and `train.token_mismatch` says what happens.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Literal

from longreward.errors import PolicyError
from longreward.models.policy import PolicyTokenizer, fit_window, hash_ids
from longreward.records import PreferencePair, Response

TokenMismatch = Literal["refuse", "render"]
SHOWN = 5


@dataclass(frozen=True)
class AnswerCounts:
    """Where the token ids of the answers come from."""

    sampled: int = 0
    """Responses trained on the token ids that were sampled."""
    rendered: int = 0
    """Responses rendered by the chat template, since their token ids are not known or not used."""
    mismatched: int = 0
    """Sampled responses whose tokens or prompt in training are not those of sampling."""

    def figures(self) -> dict[str, float]:
        """For metrics; none for examples, whose answers were never sampled."""
        if not self.sampled + self.rendered:
            return {}
        return {f"answers/{name}": float(count) for name, count in asdict(self).items()}

    def __str__(self) -> str:
        differing = f"; {self.mismatched:,} of all have other tokens or prompts than sampled" if self.mismatched else ""
        return (
            f"{self.sampled:,} responses are trained on their sampled token ids, {self.rendered:,} as the chat "
            f"template renders their text{differing}"
        )


@dataclass(frozen=True)
class EncodedPair:
    """Token ids; `cut`: the prompt lost its middle before it was sampled from."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    cut: bool


@dataclass
class PairEncoder:
    """Encodes pairs and counts where their ids come from."""

    text: PolicyTokenizer
    sampled: int = 0
    rendered: int = 0
    mismatches: list[str] = field(default_factory=list)

    def encode(self, pair: PreferencePair) -> EncodedPair:
        """The ids of the prompt and both responses; the prompt is cut where sampling cut it."""
        whole = self.text.prompt_ids(pair.context, pair.query)
        sampled = pair.chosen.prompt_tokens or pair.rejected.prompt_tokens or len(whole)
        cut = 2 <= sampled < len(whole)
        prompt = fit_window(whole, room=sampled, rule="keep_ends", name=pair.id) if cut else whole
        name = hash_ids(prompt)
        return EncodedPair(prompt, self._answer(pair, pair.chosen, name), self._answer(pair, pair.rejected, name), cut)

    def counts(self) -> AnswerCounts:
        """Over all pairs so far."""
        return AnswerCounts(self.sampled, self.rendered, len(self.mismatches))

    def refuse_mismatches(self) -> None:
        """PolicyError that lists them, where there are any."""
        if not self.mismatches:
            return
        shown = "\n".join(self.mismatches[:SHOWN])
        more = f"\n  and {len(self.mismatches) - SHOWN:,} more" if len(self.mismatches) > SHOWN else ""
        raise PolicyError(
            f"{len(self.mismatches):,} of {self.sampled + self.rendered:,} responses would be trained on other tokens "
            "than were sampled. Sample them with this policy and prompt, in process or at a server that returns token "
            "ids (vLLM, SGLang); or set policy.chat_template to one that renders an answer as it is; or set "
            f"train.token_mismatch to render, to train on what the chat template makes of them:\n{shown}{more}"
        )

    def _answer(self, pair: PreferencePair, response: Response, prompt: str) -> list[int]:
        reasons: list[str] = []
        if response.prompt_hash not in (None, prompt):
            reasons.append(
                "its prompt is another than this policy's (other settings, or a chat template that writes the date)"
            )
        ids = None if response.token_ids is None else [*response.token_ids]
        if ids is not None and self.text.decode(ids) != response.text:
            ids = None
            reasons.append("its token ids are of another tokenizer or text")
        if ids is None:
            self.rendered += 1
            ids = self.text.completion_ids(response.text, ended=not response.truncated)
            if _was_sampled(pair, response):
                reasons += self._differences(ids, response)
        else:
            self.sampled += 1
        if reasons:
            self.mismatches.append(f"  pair {pair.id}, response {response.id}: {'; '.join(reasons)}")
        return ids

    def _differences(self, ids: list[int], response: Response) -> Iterator[str]:
        generated = self.text.chat.encode_generated(response.text, ended=not response.truncated)
        if ids != generated:
            yield f"the chat template renders it as {self._start(ids)}, and its text alone is {self._start(generated)}"

    def _start(self, ids: list[int]) -> str:
        start = str(self.text.tokenizer.decode(ids[:8]))
        end = str(self.text.tokenizer.decode(ids[-2:]))
        return repr(f"{start}…{end}" if len(ids) > 10 else str(self.text.tokenizer.decode(ids)))


def _was_sampled(pair: PreferencePair, response: Response) -> bool:
    """Preferences that came as such and the data's own answers have no sampled ids that could differ."""
    return pair.method != "given" and response.id.rpartition("-")[2].isdecimal()
