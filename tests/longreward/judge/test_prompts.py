import hashlib
import os
import shutil
from pathlib import Path

import pytest
import yaml

from longreward.errors import ConfigError
from longreward.judge.prompt_manifest import BUNDLED, TEMPLATES
from longreward.judge.prompts import load_prompts
from longreward.utils.language import Language

SLOTS = {
    "helpfulness": {"question", "answer"},
    "logicality": {"question", "answer"},
    "statements": {"question", "answer"},
    "support": {"statement", "context"},
    "extraction": {"question", "context"},
    "completeness": {"question", "context", "answer"},
}
LANGUAGES: tuple[Language, ...] = ("en", "zh")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(BUNDLED, tmp_path / "prompts"))


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_template_slots(name: str, language: Language) -> None:
    template = load_prompts().template(name, language)
    assert set(template.slots) == SLOTS[name]
    assert len(template.slots) == len(SLOTS[name])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", TEMPLATES)
def test_slots_are_at_end_for_prefix_caching(name: str, language: Language) -> None:
    template = load_prompts().template(name, language)
    fixed = template.pieces[0]
    assert len(fixed) > 0.9 * sum(len(piece) for piece in template.pieces[::2])
    assert template.slots[-1] in {"answer", "statement", "question"}


@pytest.mark.parametrize("language", LANGUAGES)
def test_prompts_show_reply_format(language: Language) -> None:
    prompts = load_prompts()
    for name in ("helpfulness", "logicality", "completeness"):
        assert "[[6]]" in prompts.template(name, language).text
    for level in ("[[Fully supported]]", "[[Partially supported]]", "[[No support]]"):
        assert level in prompts.template("support", language).text
    assert "<no_statement/>" in prompts.template("statements", language).text
    assert "No relevant information" in prompts.template("extraction", language).text


def test_slots_filled_in_one_pass() -> None:
    template = load_prompts().template("helpfulness", "en")
    question = template.request({"question": "What is <<answer>>?", "answer": "It is <<question>> and [[10]]."})
    assert "[Question]\nWhat is <<answer>>?\n" in question.text
    assert "[Answer]\nIt is <<question>> and [\\[10]].\n[End of answer]" in question.text
    assert question.slots == {"question": "What is <<answer>>?", "answer": "It is <<question>> and [[10]]."}


def test_request_has_hash_and_limit() -> None:
    question = load_prompts().template("statements", "zh").request({"question": "?", "answer": "."})
    assert question.prompt_hash == hashlib.sha256((BUNDLED / "zh/statements.txt").read_bytes()).hexdigest()
    assert (question.template, question.max_tokens) == ("statements", 2048)


def test_evidence_labels() -> None:
    assert load_prompts().evidence(["one {n}", "two"], "en") == "[Passage 1]\none {n}\n\n[Passage 2]\ntwo"


def test_extract_labels() -> None:
    prompts = load_prompts()
    shown = prompts.extracts([(0, 50, None), (50, 100, "1. Keld.")], "en")
    assert shown == "[Relevant information from 50% - 100% of the document]\n1. Keld."
    nothing = "[Relevant information from 0% - 100% of the document]\nNo relevant information"
    assert prompts.extracts([(0, 50, None), (50, 100, None)], "en") == nothing
    assert prompts.extracts([], "en") == nothing


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("en/support.txt", "Is <<statement>> so?", r"en/support\.txt lacks the slot <<context>>"),
        ("zh/logicality.txt", "<<question>> <<answer>> <<anwser>>", r"zh/logicality\.txt has the slot <<anwser>>"),
    ],
)
def test_missing_or_unknown_slot(folder: Path, file: str, text: str, message: str) -> None:
    (folder / file).write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        load_prompts(folder)


def test_missing_or_invalid_file(folder: Path) -> None:
    (folder / "en/extraction.txt").unlink()
    with pytest.raises(ConfigError, match=r"en/extraction\.txt \(extraction, en\)"):
        load_prompts(folder)
    (folder / "en/extraction.txt").write_bytes(b"\xff\xfe<<context>>")
    with pytest.raises(ConfigError, match=r"en/extraction\.txt .*utf-8"):
        load_prompts(folder)


def test_manifest_without_template_or_language(folder: Path) -> None:
    manifest = yaml.safe_load((folder / "manifest.yaml").read_text(encoding="utf-8"))
    del manifest["templates"]["support"], manifest["templates"]["extraction"]["files"]["zh"]
    (folder / "manifest.yaml").write_text(yaml.safe_dump(manifest), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"lacks templates\.support, templates\.extraction\.files\.zh"):
        load_prompts(folder)


def test_misspelt_manifest_key(folder: Path) -> None:
    text = (folder / "manifest.yaml").read_text(encoding="utf-8").replace("no_statement:", "no_statment:")
    (folder / "manifest.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match="no_statment: unknown key; did you mean no_statement"):
        load_prompts(folder)


def test_folder_without_prompts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"score\.prompts_dir: .*neither"):
        load_prompts(tmp_path)
    with pytest.raises(ConfigError, match=r"score\.prompts_dir: there is no folder"):
        load_prompts(tmp_path / "absent")


@pytest.mark.skipif("LONGREWARD_REFERENCE" not in os.environ, reason="LONGREWARD_REFERENCE is not set")
def test_published_prompts_load() -> None:
    prompts = load_prompts(Path(os.environ["LONGREWARD_REFERENCE"]) / "longreward" / "prompts")
    templates = prompts.manifest.templates
    assert templates["statements"].files["en"] == "find_fact_few_shot.txt"
    assert templates["extraction"].files["zh"] == "extract_info_zh.txt"
    assert prompts.evidence(["one"], "en") == "[文段1]\none"
    assert prompts.extracts([(0, 30, None)], "zh") == "[文档0% - 30%部分的有关信息]\nNo relevant information"
