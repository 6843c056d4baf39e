"""The judge's prompts: one text file each, with `<<slot>>` markers, held together by a manifest.

    folder/manifest.yaml        labels, limits, and for each template its slots and its file per language
    folder/en/helpfulness.txt   "… [Question]\\n<<question>>\\n\\n[Answer]\\n<<answer>>\\n…"

A folder without a manifest that holds the published LongReward files is read with the bundled `published.yaml`.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self

import yaml
from pydantic import Field

from longreward.chat_model import ChatRequest
from longreward.config import Config
from longreward.errors import ConfigError
from longreward.judge.escaping import PromptEscaper, find_headings, is_tag
from longreward.utils.language import Language

TemplateName = Literal["helpfulness", "logicality", "statements", "support", "extraction", "completeness"]
Slot = Literal["question", "answer", "context", "statement"]
Parsing = Literal["strict", "published"]


def load_prompts(
    folder: Path | None = None, manifest: Path | None = None, *, parsing: Parsing = "strict"
) -> "PromptSet":
    """The prompts in `folder` (ours by default), as `manifest` describes them; replies are parsed as `parsing` says.

    Without `manifest`: the folder's own `manifest.yaml`, else the one for the published files where they are there.
    Raises ConfigError for a missing file, an unknown key, or a template whose slots are not those of the manifest.
    """
    folder = BUNDLED if folder is None else folder
    path = manifest if manifest is not None else _find_manifest(folder)
    described = Manifest.parse(_read_yaml(path), source=str(path))
    _require_all(described, path)
    templates = {
        (name, language): _load_template(name, language, folder / file, spec)
        for name, spec in described.templates.items()
        for language, file in spec.files.items()
    }
    if not described.escape_marks:
        return PromptSet(manifest=described, templates=templates, parsing=parsing)
    marks = _marks(described, templates.values())
    marked = {key: replace(template, marks=marks) for key, template in templates.items()}
    return PromptSet(manifest=described, templates=marked, marks=marks, parsing=parsing)


class LabelledText(str):
    """Texts under our labels, for one slot: as a string it holds them as they are, `shown` with their marks escaped."""

    shown: str

    def __new__(cls, pairs: Iterable[tuple[str, str]], marks: PromptEscaper | None) -> Self:
        """From pairs of our own words and the text under them, with a blank line between."""
        listed = list(pairs)
        made = super().__new__(cls, "\n\n".join(ours + text for ours, text in listed))
        made.shown = "\n\n".join(ours + marks.escape(text) for ours, text in listed) if marks else str(made)
        return made


@dataclass(frozen=True)
class Template:
    """One prompt in one language. `pieces` are its literal texts and slots in turn: text, slot, text, …, text."""

    name: TemplateName
    language: Language
    file: Path
    text: str
    hash: str  # sha256 of the file's bytes
    max_tokens: int
    pieces: tuple[str, ...]
    marks: PromptEscaper | None = None  # escaped in what fills the slots

    @property
    def slots(self) -> tuple[str, ...]:
        """Its slots in the order in which they stand in the text."""
        return self.pieces[1::2]

    def ask(self, slots: Mapping[str, str]) -> ChatRequest:
        """The question with all slots filled in one pass, so that what a document holds can never act as a slot.

        The text holds their marks escaped, the question's `slots` hold them as they are.
        """
        text = "".join(self._shown(slots[piece]) if place % 2 else piece for place, piece in enumerate(self.pieces))
        return ChatRequest(
            template=self.name, slots=dict(slots), text=text, prompt_hash=self.hash, max_tokens=self.max_tokens
        )

    def _shown(self, value: str) -> str:
        if isinstance(value, LabelledText):
            return value.shown
        return value if self.marks is None else self.marks.escape(value)


class TemplateSpec(Config):
    """What the manifest says of one template."""

    slots: tuple[Slot, ...]
    max_tokens: int = Field(ge=1)
    files: dict[Language, str]


class Labels(Config):
    """The lines that stand above each passage and each extract in a prompt."""

    evidence: str
    """Above the `{n}`th passage of evidence."""
    extract: str
    """Above what was taken from `{first}` to `{last}` percent of the document."""


class Manifest(Config):
    """`manifest.yaml`."""

    labels: dict[Language, Labels]
    no_statement: str | None = None
    """What a judge says where a response states no fact; null: the prompts have no such marker."""
    nothing_relevant: str
    """What a judge says where a part of the document does not bear on the question."""
    show_empty_extracts: bool
    """Whether parts with nothing relevant are listed to the judge of completeness."""
    escape_marks: bool = False
    """Whether headings, verdicts and tags that stand in the material get a backslash, so that it cannot forge them;
    false: slots are filled with the bare texts."""
    templates: dict[TemplateName, TemplateSpec]


@dataclass(frozen=True)
class PromptSet:
    """All templates of one folder, in every language, with their labels."""

    manifest: Manifest
    templates: Mapping[tuple[TemplateName, Language], Template]
    marks: PromptEscaper | None = None
    parsing: Parsing = "strict"
    """Which parsers read the replies; see `ScoreConfig.parsing`."""

    @property
    def hash(self) -> str:
        """The same for two sets exactly where they ask alike."""
        lines = sorted(f"{name} {language} {template.hash}" for (name, language), template in self.templates.items())
        return hashlib.sha256("\n".join([*lines, self.manifest.model_dump_json()]).encode()).hexdigest()

    def template(self, name: TemplateName, language: Language) -> Template:
        """The template in that language."""
        return self.templates[name, language]

    def evidence(self, passages: list[str], language: Language) -> LabelledText:
        """Passages under their labels, counted from 1, with a blank line between."""
        label = self.manifest.labels[language].evidence
        numbered = (f"{label.replace('{n}', str(n))}\n" for n in range(1, len(passages) + 1))
        return LabelledText(zip(numbered, passages, strict=True), self.marks)

    def extracts(self, extracts: list[tuple[int, int, str | None]], language: Language) -> LabelledText:
        """Extracts as (first percent, last percent, text or None for nothing) under their labels."""
        nothing, label = self.manifest.nothing_relevant, self.manifest.labels[language].extract
        shown = [e for e in extracts if e[2] is not None or self.manifest.show_empty_extracts] or [(0, 100, None)]
        placed = [f"{label.replace('{first}', str(first)).replace('{last}', str(last))}\n" for first, last, _ in shown]
        pairs = [
            (f"{place}{nothing}", "") if e[2] is None else (place, e[2]) for place, e in zip(placed, shown, strict=True)
        ]
        return LabelledText(pairs, self.marks)


def _marks(manifest: Manifest, templates: Iterable[Template]) -> PromptEscaper:
    labels = [label for each in manifest.labels.values() for label in (each.evidence, each.extract)]
    literal = (piece for template in templates for piece in template.pieces[::2])
    phrases = [manifest.nothing_relevant, *([manifest.no_statement] if manifest.no_statement else [])]
    return PromptEscaper(find_headings([*literal, *labels]), [phrase for phrase in phrases if not is_tag(phrase)])


def _find_manifest(folder: Path) -> Path:
    if (folder / "manifest.yaml").is_file():
        return folder / "manifest.yaml"
    if not folder.is_dir():
        raise ConfigError(f"score.prompts_dir: there is no folder {folder}")
    if any((folder / name).is_file() for name in PUBLISHED_FILES):
        return BUNDLED / "published.yaml"
    raise ConfigError(
        f"score.prompts_dir: {folder} holds neither a manifest.yaml nor the published prompts "
        f"({', '.join(PUBLISHED_FILES)}); see {BUNDLED / 'manifest.yaml'} for an example"
    )


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"the prompts' manifest {path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"the prompts' manifest {path} must be a mapping of keys to values")
    return values


def _require_all(manifest: Manifest, path: Path) -> None:
    missing = [f"labels.{language}" for language in LANGUAGES if language not in manifest.labels]
    missing += [f"templates.{name}" for name in TEMPLATES if name not in manifest.templates]
    missing += [
        f"templates.{name}.files.{language}"
        for name, spec in manifest.templates.items()
        for language in LANGUAGES
        if language not in spec.files
    ]
    if missing:
        raise ConfigError(f"the prompts' manifest {path} lacks {', '.join(missing)}")


def _load_template(name: TemplateName, language: Language, file: Path, spec: TemplateSpec) -> Template:
    try:
        raw = file.read_bytes()
        text = raw.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"the prompt {file} ({name}, {language}) cannot be read: {error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the prompt {file} ({name}, {language}) is not UTF-8: {error}") from error
    pieces = tuple(SLOT.split(text))
    found = set(pieces[1::2])
    for lacking in spec.slots:
        if lacking not in found:
            raise ConfigError(f"the prompt {file} lacks the slot <<{lacking}>> that {name} needs")
    for unknown in sorted(found - set(spec.slots)):
        raise ConfigError(f"the prompt {file} has the slot <<{unknown}>>; {name} fills only {', '.join(spec.slots)}")
    return Template(name, language, file, text, hashlib.sha256(raw).hexdigest(), spec.max_tokens, pieces)


BUNDLED = Path(__file__).parent / "prompt_files"
SLOT = re.compile(r"<<(\w+)>>")
LANGUAGES: tuple[Language, ...] = ("en", "zh")
TEMPLATES: tuple[TemplateName, ...] = (
    "helpfulness",
    "logicality",
    "statements",
    "support",
    "extraction",
    "completeness",
)
PUBLISHED_FILES = (
    "helpfulness_few_shot.txt",
    "logicality_few_shot.txt",
    "find_fact_few_shot.txt",
    "faithfulness_few_shot.txt",
    "extract_info_en.txt",
    "extract_info_zh.txt",
    "completeness_few_shot.txt",
)
