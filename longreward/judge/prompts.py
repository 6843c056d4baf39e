"""The reward's prompts: one text file per template and language with `<<slot>>` markers, described by a manifest.

    folder/manifest.yaml        labels, token limits, and the slots and files of each template
    folder/en/helpfulness.txt   "… [Question]\\n<<question>>\\n\\n[Answer]\\n<<answer>>\\n…"

A folder that has the published LongReward files and no manifest is read with the bundled `published.yaml`.
"""

import hashlib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from longreward.judge.continuation import reward_reply_format
from longreward.judge.escaping import LabelledText, PromptEscaper
from longreward.judge.prompt_manifest import (
    BUNDLED,
    Manifest,
    build_escaper,
    read_manifest,
    read_optional_templates,
    read_template,
)
from longreward.judge.prompt_template import PromptTemplate
from longreward.records import OptionalDimension
from longreward.utils.language import Language

Parsing = Literal["strict", "published"]


@dataclass(frozen=True)
class PromptSet:
    """All templates of one folder, in every language, with their labels."""

    manifest: Manifest
    templates: Mapping[tuple[str, Language], PromptTemplate]
    escaper: PromptEscaper | None = None
    parsing: Parsing = "strict"
    """Which parsers read the replies (`score.parsing`)."""

    @property
    def hash(self) -> str:
        """A hash over templates and manifest: equal hashes mean equal requests."""
        lines = sorted(f"{name} {language} {template.hash}" for (name, language), template in self.templates.items())
        return hashlib.sha256("\n".join([*lines, self.manifest.hashed_json]).encode()).hexdigest()

    def template(self, name: str, language: Language) -> PromptTemplate:
        """Return the template in that language."""
        return self.templates[name, language]

    def evidence(self, passages: list[str], language: Language) -> LabelledText:
        """Return the passages under labels that count from 1, joined by blank lines."""
        label = self.manifest.labels[language].evidence
        labels = (f"{label.replace('{n}', str(n))}\n" for n in range(1, len(passages) + 1))
        return LabelledText(zip(labels, passages, strict=True), self.escaper)

    def extracts(self, extracts: list[tuple[int, int, str | None]], language: Language) -> LabelledText:
        """Return extracts, each (first percent, last percent, text or None if empty), under their labels."""
        nothing, label = self.manifest.nothing_relevant, self.manifest.labels[language].extract
        included = [extract for extract in extracts if extract[2] is not None or self.manifest.show_empty_extracts]
        labelled: list[tuple[str, str]] = []
        for first, last, text in included or [(0, 100, None)]:
            heading = f"{label.replace('{first}', str(first)).replace('{last}', str(last))}\n"
            labelled.append((f"{heading}{nothing}", "") if text is None else (heading, text))
        return LabelledText(labelled, self.escaper)


def load_prompts(
    folder: Path | None = None,
    manifest: Path | None = None,
    *,
    parsing: Parsing = "strict",
    optional: Collection[OptionalDimension] = (),
    statements_per_call: int = 1,
) -> PromptSet:
    """Load the prompts in `folder` (default: the built-in ones) as `manifest` describes them.

    Without `manifest`, the folder's own `manifest.yaml` is used, else the one for the published files. The prompts of
    `optional` dimensions, and that for several `statements_per_call`, are always ours. Raises ConfigError for a missing
    file, an unknown key, or a template whose slots differ from the manifest.
    """
    folder = BUNDLED if folder is None else folder
    parsed = read_manifest(folder, manifest)
    added = read_optional_templates(optional, statements_per_call=statements_per_call)
    templates = {
        (name, language): read_template(name, language, root / file, spec)
        for root, specs in ((folder, parsed.templates), (BUNDLED, added))
        for name, spec in specs.items()
        for language, file in spec.files.items()
    }
    parsed = parsed.model_copy(update={"templates": parsed.templates | added})
    # The escaper needs the headings of all templates, so it is added after they are read.
    escaper = build_escaper(parsed, templates.values())
    templates = {key: replace(template, escaper=escaper) for key, template in templates.items()}
    # The published code parses the whole reply and repeats the same request.
    if parsing == "strict":
        templates = {
            key: replace(template, reply_format=reward_reply_format(template, key[1], parsed))
            for key, template in templates.items()
        }
    return PromptSet(manifest=parsed, templates=templates, escaper=escaper, parsing=parsing)
