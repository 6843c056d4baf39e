"""The manifest of a folder of prompts: labels, and the slots, token limits and files of each template."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field

from longreward.config import Config
from longreward.errors import ConfigError
from longreward.judge.escaping import PromptEscaper, find_headings, is_tag
from longreward.judge.prompt_template import SLOT, PromptTemplate
from longreward.records import DIMENSIONS, Dimension, OptionalDimension
from longreward.utils.language import Language

Slot = Literal["question", "answer", "context", "statement", "rubric"]

BUNDLED = Path(__file__).parent / "prompt_files"
LANGUAGES: tuple[Language, ...] = ("en", "zh")
# A dimension uses one template of its own name unless listed here.
DIMENSION_TEMPLATES: Mapping[Dimension, tuple[str, ...]] = {
    **{dimension: (dimension,) for dimension in DIMENSIONS},
    "faithfulness": ("statements", "support_list", "support"),
    "completeness": ("extraction", "completeness"),
    "rubric": ("rubric", "rubric_check"),
    "citations": ("citation_support", "citation_relevance", "citation_need"),
}
LIST_TEMPLATES = frozenset({"statements", "extraction", "rubric", "rubric_check"})
"""Templates whose replies are lists; those of the others end with a verdict."""
SUPPORT_LIST = "support_list"
"""The template for several statements (`score.statements_per_call`); a list of verdicts, each with its own panel."""
TEMPLATES = tuple(
    template for dimension in DIMENSIONS for template in DIMENSION_TEMPLATES[dimension] if template != SUPPORT_LIST
)
"""The templates of the paper's dimensions, which every manifest has."""
PUBLISHED_FILES = (
    "helpfulness_few_shot.txt",
    "logicality_few_shot.txt",
    "find_fact_few_shot.txt",
    "faithfulness_few_shot.txt",
    "extract_info_en.txt",
    "extract_info_zh.txt",
    "completeness_few_shot.txt",
)


class StructuredSpec(Config):
    """How a template changes for replies in JSON (`judge.reply_format`)."""

    properties: dict[str, dict[str, Any]] = Field(min_length=1)
    """The properties of the reply with their JSON schemas. All are required, in this order; the last one is the
    verdict, so that the judge writes its analysis first."""
    replace: dict[Language, dict[str, str]]
    """Passages of the prompt on the text format, and what the prompt says in their place. The replies in the prompt's
    examples are converted automatically."""
    reminder: dict[Language, str] = Field(default_factory=dict)


class TemplateSpec(Config):
    """A template's entry in the manifest."""

    slots: tuple[Slot, ...]
    max_tokens: int = Field(ge=1)
    files: dict[Language, str]
    reminder: dict[Language, str] = Field(default_factory=dict)
    """One line on the format, which follows an unreadable reply in the same conversation; empty: the request is only
    repeated, as in the published code."""
    structured: StructuredSpec | None = None
    """None: the replies are always text."""


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

    @property
    def hashed_json(self) -> str:
        """The manifest as JSON. Reminders and schemas came later: a manifest without any keeps its hash."""
        without = {
            name: {field for field in ("reminder", "structured") if not getattr(spec, field)}
            for name, spec in self.templates.items()
        }
        return self.model_dump_json(exclude={"templates": without} if any(without.values()) else None)


def read_optional_templates(
    dimensions: Collection[OptionalDimension], *, statements_per_call: int = 1
) -> dict[str, TemplateSpec]:
    """Return our templates besides those of a manifest; their files are relative to BUNDLED."""
    names = [name for dimension in dimensions for name in DIMENSION_TEMPLATES[dimension]]
    names += [SUPPORT_LIST] if statements_per_call > 1 else []
    values = yaml.safe_load((BUNDLED / "optional.yaml").read_text(encoding="utf-8"))
    return {name: TemplateSpec.parse(values[name], source=f"optional.yaml: {name}") for name in names}


def read_manifest(folder: Path, path: Path | None) -> Manifest:
    """Read the manifest at `path` (None: the folder's own, or the bundled one for the published files)."""
    if path is None:
        path = folder / "manifest.yaml"
        if not folder.is_dir():
            raise ConfigError(f"score.prompts_dir: there is no folder {folder}")
        if not path.is_file() and any((folder / name).is_file() for name in PUBLISHED_FILES):
            path = BUNDLED / "published.yaml"
        elif not path.is_file():
            raise ConfigError(
                f"score.prompts_dir: {folder} has neither a manifest.yaml nor the published prompts "
                f"({', '.join(PUBLISHED_FILES)}); see {BUNDLED / 'manifest.yaml'} for an example"
            )
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"cannot read the prompt manifest {path}: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the prompt manifest {path} must be a mapping")
    manifest = Manifest.parse(values, source=str(path))
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
    # A template of a dimension that does not exist is probably a typing error.
    if unknown := sorted(set(manifest.templates) - set(TEMPLATES)):
        raise ConfigError(f"the prompt manifest {path} has unknown templates: {', '.join(unknown)}")
    return manifest


def read_template(name: str, language: Language, file: Path, spec: TemplateSpec) -> PromptTemplate:
    """Read the template `name` from its file; ConfigError if its slots differ from `spec`."""
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


def build_escaper(manifest: Manifest, templates: Iterable[PromptTemplate]) -> PromptEscaper | None:
    """Return what escapes the headings of all templates and the labels; None unless `escape_marks` is set."""
    if not manifest.escape_marks:
        return None
    texts = [piece for template in templates for piece in template.pieces[::2]]
    texts += [label for labels in manifest.labels.values() for label in (labels.evidence, labels.extract)]
    phrases = [phrase for phrase in (manifest.nothing_relevant, manifest.no_statement) if phrase and not is_tag(phrase)]
    return PromptEscaper(find_headings(texts), phrases)
