"""The reward's prompts: one text file per template and language with `<<slot>>` markers, described by a manifest.

    folder/manifest.yaml        labels, token limits, and the slots and files of each template
    folder/en/helpfulness.txt   "… [Question]\\n<<question>>\\n\\n[Answer]\\n<<answer>>\\n…"

A folder that has the published LongReward files and no manifest is read with the bundled `published.yaml`.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.judge.escaping import LabelledText, PromptEscaper, find_headings, is_tag
from longreward.judge.prompt_template import SLOT, PromptTemplate
from longreward.records import DIMENSIONS, Dimension
from longreward.utils.language import Language

Slot = Literal["question", "answer", "context", "statement"]
Parsing = Literal["strict", "published"]

BUNDLED = Path(__file__).parent / "prompt_files"
LANGUAGES: tuple[Language, ...] = ("en", "zh")
# A dimension uses one template of its own name unless listed here.
DIMENSION_TEMPLATES: Mapping[Dimension, tuple[str, ...]] = {dimension: (dimension,) for dimension in DIMENSIONS} | {
    "faithfulness": ("statements", "support"),
    "completeness": ("extraction", "completeness"),
}
TEMPLATES = tuple(template for templates in DIMENSION_TEMPLATES.values() for template in templates)
PUBLISHED_FILES = (
    "helpfulness_few_shot.txt",
    "logicality_few_shot.txt",
    "find_fact_few_shot.txt",
    "faithfulness_few_shot.txt",
    "extract_info_en.txt",
    "extract_info_zh.txt",
    "completeness_few_shot.txt",
)


class TemplateSpec(Config):
    """A template's entry in the manifest."""

    slots: tuple[Slot, ...]
    max_tokens: int = Field(ge=1)
    files: dict[Language, str]


class Labels(Config):
    """The lines above each passage and each extract in a prompt."""

    evidence: str
    """Above the `{n}`th passage of evidence."""
    extract: str
    """Above the extract from `{first}` to `{last}` percent of the document."""


class Manifest(Config):
    """`manifest.yaml`."""

    labels: dict[Language, Labels]
    no_statement: str | None = None
    """What the judge replies if a response states no fact; null: the prompts have no such marker."""
    nothing_relevant: str
    """What the judge replies if a part of the document is irrelevant to the question."""
    show_empty_extracts: bool
    """Whether the completeness prompt lists parts without relevant information."""
    escape_marks: bool = False
    """Whether headings, verdicts and tags in the material get a backslash, so that the material cannot forge them."""
    templates: dict[str, TemplateSpec]


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
        return hashlib.sha256("\n".join([*lines, self.manifest.model_dump_json()]).encode()).hexdigest()

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


def load_prompts(folder: Path | None = None, manifest: Path | None = None, *, parsing: Parsing = "strict") -> PromptSet:
    """Load the prompts in `folder` (default: the built-in ones) as `manifest` describes them.

    Without `manifest`, the folder's own `manifest.yaml` is used, else the one for the published files. Raises
    ConfigError for a missing file, an unknown key, or a template whose slots differ from the manifest.
    """
    folder = BUNDLED if folder is None else folder
    path = manifest if manifest is not None else _find_manifest(folder)
    parsed = Manifest.parse(_read_yaml(path), source=str(path))
    _require_all_templates(parsed, path)
    templates = {
        (name, language): _read_template(name, language, folder / file, spec)
        for name, spec in parsed.templates.items()
        for language, file in spec.files.items()
    }
    escaper = _make_escaper(parsed, templates.values()) if parsed.escape_marks else None
    escaped = {key: replace(template, escaper=escaper) for key, template in templates.items()}
    return PromptSet(manifest=parsed, templates=escaped, escaper=escaper, parsing=parsing)


def _make_escaper(manifest: Manifest, templates: Iterable[PromptTemplate]) -> PromptEscaper:
    labels = [label for pair in manifest.labels.values() for label in (pair.evidence, pair.extract)]
    literals = (piece for template in templates for piece in template.pieces[::2])
    phrases = [manifest.nothing_relevant, *([manifest.no_statement] if manifest.no_statement else [])]
    return PromptEscaper(find_headings([*literals, *labels]), [phrase for phrase in phrases if not is_tag(phrase)])


def _find_manifest(folder: Path) -> Path:
    if (folder / "manifest.yaml").is_file():
        return folder / "manifest.yaml"
    if not folder.is_dir():
        raise ConfigError(f"score.prompts_dir: there is no folder {folder}")
    if any((folder / name).is_file() for name in PUBLISHED_FILES):
        return BUNDLED / "published.yaml"
    raise ConfigError(
        f"score.prompts_dir: {folder} has neither a manifest.yaml nor the published prompts "
        f"({', '.join(PUBLISHED_FILES)}); see {BUNDLED / 'manifest.yaml'} for an example"
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the prompt manifest {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the prompt manifest {path} must be a mapping")
    return values


def _require_all_templates(manifest: Manifest, path: Path) -> None:
    missing = [f"labels.{language}" for language in LANGUAGES if language not in manifest.labels]
    missing += [f"templates.{name}" for name in TEMPLATES if name not in manifest.templates]
    missing += [
        f"templates.{name}.files.{language}"
        for name, spec in manifest.templates.items()
        for language in LANGUAGES
        if language not in spec.files
    ]
    if missing:
        raise ConfigError(f"the prompt manifest {path} lacks {', '.join(missing)}")
    if unknown := sorted(set(manifest.templates) - set(TEMPLATES)):
        raise ConfigError(f"the prompt manifest {path} has unknown templates: {', '.join(unknown)}")


def _read_template(name: str, language: Language, file: Path, spec: TemplateSpec) -> PromptTemplate:
    try:
        content = file.read_bytes()
        pieces = tuple(SLOT.split(content.decode("utf-8")))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read the prompt {file} ({name}, {language}): {error}") from error
    slots = set(pieces[1::2])
    for missing in spec.slots:
        if missing not in slots:
            raise ConfigError(f"the prompt {file} lacks the slot <<{missing}>> that {name} needs")
    for unknown in sorted(slots - set(spec.slots)):
        raise ConfigError(f"the prompt {file} has the slot <<{unknown}>>; {name} fills only {', '.join(spec.slots)}")
    return PromptTemplate(name, pieces, hashlib.sha256(content).hexdigest(), max_tokens=spec.max_tokens)
