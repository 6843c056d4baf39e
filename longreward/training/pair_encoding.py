"""Encode preference pairs as token ids: the sampled ids wherever they are known.

    Response.token_ids --> completion ids, unchanged: with the sampled end token, without one if truncated
    Response.text      --chat template--> completion ids, for a response without token ids (imported, some servers)
    Response.prompt_tokens --> the prompt, cut as it was for sampling

A response without ids was still sampled, as its bare text. Where the chat template renders that text differently (with
an empty thought or a leading space), training on the rendered ids would teach tokens that the policy never produced.
Such a response is a mismatch; `train.token_mismatch` decides what happens.
"""

from dataclasses import asdict, dataclass, field
from typing import Literal

from longreward.errors import PolicyError
from longreward.models.policy import PolicyTokenizer, fit_window, hash_ids
from longreward.records import PreferencePair, Response

TokenMismatch = Literal["refuse", "render"]
MAX_LISTED = 5  # mismatches named in an error


@dataclass(frozen=True)
class AnswerCounts:
    """Where the token ids of the responses come from."""

    sampled: int = 0
    """Responses trained on the token ids that were sampled."""
    rendered: int = 0
    """Responses rendered by the chat template, since their token ids are unknown or unusable."""
    mismatched: int = 0
    """Sampled responses whose tokens or prompt in training differ from those of sampling."""

    def metrics(self) -> dict[str, float]:
        """Return the counts; empty for examples, whose answers were never sampled."""
        if not self.sampled + self.rendered:
            return {}
        return {f"answers/{name}": float(count) for name, count in asdict(self).items()}

    def __str__(self) -> str:
        mismatches = f"; {self.mismatched:,} of all differ from their sampled tokens or prompts"
        return (
            f"{self.sampled:,} responses are trained on their sampled token ids, {self.rendered:,} as the chat "
            f"template renders their text{mismatches if self.mismatched else ''}"
        )


@dataclass(frozen=True)
class EncodedPair:
    """Token ids of a pair; `cut`: the prompt lost its middle before it was sampled from."""

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    cut: bool


@dataclass
class PairEncoder:
    """Encodes pairs, counts where their ids come from and collects mismatches."""

    tokenizer: PolicyTokenizer
    sampled: int = 0
    rendered: int = 0
    mismatches: list[str] = field(default_factory=list)

    def encode(self, pair: PreferencePair) -> EncodedPair:
        """Return the ids of the prompt, cut where sampling cut it, and of both responses."""
        full = self.tokenizer.prompt_ids(pair.context, pair.query)
        sampled_length = pair.chosen.prompt_tokens or pair.rejected.prompt_tokens or len(full)
        cut = 2 <= sampled_length < len(full)
        prompt = fit_window(full, limit=sampled_length, rule="keep_ends", name=pair.id) if cut else full
        prompt_hash = hash_ids(prompt)
        chosen, rejected = (
            self._encode_response(pair, response, prompt_hash) for response in (pair.chosen, pair.rejected)
        )
        return EncodedPair(prompt, chosen, rejected, cut)

    def counts(self) -> AnswerCounts:
        """Return the counts over all pairs encoded so far."""
        return AnswerCounts(self.sampled, self.rendered, len(self.mismatches))

    def refuse_mismatches(self) -> None:
        """Raise PolicyError that lists the mismatches, if there are any."""
        if not self.mismatches:
            return
        listed = "\n".join(self.mismatches[:MAX_LISTED])
        if len(self.mismatches) > MAX_LISTED:
            listed += f"\n  and {len(self.mismatches) - MAX_LISTED:,} more"
        raise PolicyError(
            f"{len(self.mismatches):,} of {self.sampled + self.rendered:,} responses would be trained on other tokens "
            "than were sampled. Sample them with this policy and prompt, in process or at a server that returns token "
            "ids (vLLM, SGLang); or set policy.chat_template to one that renders an answer as it is; or set "
            f"train.token_mismatch to render, to train on what the chat template makes of them:\n{listed}"
        )

    def _encode_response(self, pair: PreferencePair, response: Response, prompt_hash: str) -> list[int]:
        reasons: list[str] = []
        if response.prompt_hash not in (None, prompt_hash):
            reasons.append(
                "its prompt is another than this policy's (other settings, or a chat template that writes the date)"
            )
        ids = None if response.token_ids is None else [*response.token_ids]
        if ids is not None and self.tokenizer.decode(ids) != response.text:
            ids = None
            reasons.append("its token ids are of another tokenizer or text")
        if ids is not None:
            self.sampled += 1
        else:
            self.rendered += 1
            ids = self.tokenizer.completion_ids(response.text, ended=not response.truncated)
            # Imported preferences and reference answers were not sampled.
            was_sampled = pair.method != "given" and response.id.rpartition("-")[2].isdecimal()
            if was_sampled:
                generated = self.tokenizer.chat.encode_generated(response.text, ended=not response.truncated)
                if ids != generated:
                    reasons.append(
                        f"the chat template renders it as {self._excerpt(ids)}, and its text alone is "
                        f"{self._excerpt(generated)}"
                    )
        if reasons:
            self.mismatches.append(f"  pair {pair.id}, response {response.id}: {'; '.join(reasons)}")
        return ids

    def _excerpt(self, ids: list[int]) -> str:
        decode = self.tokenizer.tokenizer.decode
        return repr(f"{decode(ids[:8])}…{decode(ids[-2:])}" if len(ids) > 10 else str(decode(ids)))
