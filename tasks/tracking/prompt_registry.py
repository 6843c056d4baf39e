"""The judge's prompts in MLflow's prompt registry: one for each template and language, linked from the runs of its use.

A prompt gets a new version only when its content has changed: text, token limit or reminder. Its name is, for example,
`longreward.judge.helpfulness.en`. A run lists its prompts on its page, and a prompt the runs that used it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from longreward.judge.prompts import PromptSet
from longreward.tasks.tracking.run import Run
from longreward.tasks.tracking.store import client, use_store
from longreward.utils.language import Language

PREFIX = "longreward.judge"
DIGEST_TAG = "digest"
PROMPT_TAG = "mlflow.prompt.is_prompt"
LINK_TAG = "mlflow.linkedPrompts"  # on runs: [{"name": …, "version": …}, …]; the UI shows it as links


@dataclass(frozen=True)
class JudgePrompt:
    """A judge's template in one language."""

    name: str
    text: str
    """With its slots as `{{slot}}`, the form of MLflow."""
    max_tokens: int
    reminder: str
    """The message after an unreadable reply; empty: the request is only repeated."""

    @property
    def digest(self) -> str:
        """The first 16 digits of the SHA-256 of all that decides what the judge is sent."""
        return hashlib.sha256(json.dumps([self.text, self.max_tokens, self.reminder]).encode()).hexdigest()[:16]


def judge_prompts(prompts: PromptSet, languages: Iterable[Language]) -> list[JudgePrompt]:
    """Return the prompts of a set in these languages, in the order of their names."""
    return [
        JudgePrompt(
            name=f"{PREFIX}.{name}.{language}",
            text="".join(f"{{{{{p}}}}}" if n % 2 else p for n, p in enumerate(prompts.template(name, language).pieces)),
            max_tokens=spec.max_tokens,
            reminder=spec.reminder.get(language, ""),
        )
        for name, spec in sorted(prompts.manifest.templates.items())
        for language in sorted(set(languages))
    ]


def log_judge_prompts(run: Run, prompts: PromptSet, languages: Iterable[Language]) -> None:
    """Register the prompts in these languages, and link them from the run and its parent."""
    listed = judge_prompts(prompts, languages)
    run.send("the judge's prompts", lambda run_id: _register_and_link(run_id, run.parent, listed))


def _register_and_link(run_id: str, parent: str | None, prompts: Iterable[JudgePrompt]) -> None:
    links = json.dumps([{"name": prompt.name, "version": register_prompt(prompt)} for prompt in prompts])
    for linking in (run_id, parent):
        if linking:
            client().set_tag(linking, LINK_TAG, links)


def register_prompt(prompt: JudgePrompt) -> str:
    """Return the version of the registry that has this content; it is created if there is none."""
    same = f"name = '{prompt.name}' and tags.`{PROMPT_TAG}` = 'true' and tags.{DIGEST_TAG} = '{prompt.digest}'"
    if versions := client().search_model_versions(same):
        return str(max(int(version.version) for version in versions))
    use_store()  # a new prompt is listed in the experiment that is in use
    registered: Any = client().register_prompt(
        prompt.name,
        prompt.text,
        commit_message=f"reminder: {prompt.reminder}" if prompt.reminder else None,
        tags={DIGEST_TAG: prompt.digest},
        model_config={"max_tokens": prompt.max_tokens},
    )
    return str(registered.version)
