"""Generate the cases of RULER's tasks, of any size.

A case is determined by its task, length, number and the seed. Its references are drawn before its haystack and do not
depend on the size: the number of words, sentences or documents, which is fitted to the model's tokenizer later. The
random numbers are not those of RULER's code, whose cases differ between tokenizers as well.
"""

import itertools
import math
import random
import re
import string
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace

from longreward.benchmarks.ruler.tasks import FAMILIES, MAX_NEW_TOKENS, NIAH, NeedleType, Niah, TaskName
from longreward.benchmarks.ruler.texts import Question, RulerTexts, Template
from longreward.errors import DataError

DEPTHS = [round(100 * step / 39) for step in range(40)]  # percent of the haystack's sentences
HOPS = 4
EXAMPLE_NOISE = 10  # RULER: as many sentences as fit into an example of 500 tokens
COMMON_WORDS = 10
SHORT_LENGTH = 4096  # below it, lists repeat their words less often
FWE_TOP, FWE_WORD_LENGTH, FWE_TOKENS_PER_WORD = 3, 6, 50
ZETA_2 = math.pi**2 / 6
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")


@dataclass(frozen=True)
class Sample:
    """A generated prompt, its haystack, the text that its answer starts with, and the references."""

    prompt: str
    context: str
    answer_prefix: str
    references: tuple[str, ...]


@dataclass(frozen=True)
class RulerCase:
    """One case, before its size is fitted to a tokenizer."""

    task: TaskName
    length: int  # in tokens, of prompt and answer together
    number: int  # from 1
    references: tuple[str, ...]

    @property
    def id(self) -> str:
        return f"{self.task}/{self.length}/{self.number}"

    @property
    def category(self) -> str:
        return self.task


@dataclass(frozen=True)
class CaseGenerator:
    """Generates the cases of one run."""

    texts: RulerTexts
    seed: int

    def build_case(self, task: TaskName, length: int, number: int) -> RulerCase:
        """Return a case. Raises DataError if its references cannot be generated."""
        case = RulerCase(task, length, number, ())
        return replace(case, references=self.sample(case, self.minimum_size(case)).references)

    def minimum_size(self, case: RulerCase) -> int:
        """Return the smallest size of a case."""
        match FAMILIES[case.task]:
            case "niah":
                niah = NIAH[case.task]
                return niah.keys * niah.values if niah.haystack != "essay" else 1
            case "variable_tracking":
                return HOPS + 1
            case "common_words_extraction":
                return COMMON_WORDS
            case "freq_words_extraction":
                return math.ceil((FWE_TOP + 1) ** 2 * ZETA_2)  # the third word occurs once
            case "qa":
                return len(self._question(case).gold)

    def sample(self, case: RulerCase, size: int) -> Sample:
        """Generate a case with `size` words, sentences or documents."""
        rng = random.Random(f"ruler {self.seed} {case.id}")
        match FAMILIES[case.task]:
            case "niah":
                return self._niah(rng, NIAH[case.task], size)
            case "variable_tracking":
                return self._variable_tracking(rng, size)
            case "common_words_extraction":
                return self._common_words(rng, size, case.length)
            case "freq_words_extraction":
                return self._frequent_words(rng, size, case.length)
            case "qa":
                return self._qa(rng, case, size)

    def _niah(self, rng: random.Random, niah: Niah, size: int) -> Sample:
        def generate_text(needle_type: NeedleType) -> str:
            match needle_type:
                case "numbers":
                    return str(rng.randint(1_000_000, 9_999_999))
                case "words":
                    return f"{rng.choice(self.texts.adjectives)}-{rng.choice(self.texts.nouns)}"
                case "uuids":
                    return str(uuid.UUID(int=rng.getrandbits(128), version=4))

        def needle(key: str, value: str) -> str:
            return self.texts.needle.format(type_needle_v=niah.value, key=key, value=value)

        values: dict[str, list[str]] = {}
        while len(values) < niah.keys:
            values[generate_text(niah.key)] = [generate_text(niah.value) for _ in range(niah.values)]
        needles = [needle(key, value) for key in values for value in values[key]]
        rng.shuffle(needles)
        queries = rng.sample([*values], niah.queries)
        if niah.haystack == "essay":
            context = self._hide_in_essays(rng, needles, size)
        else:
            sentences = [self.texts.noise] * size
            if niah.haystack == "needle":
                sentences = [needle(generate_text(niah.key), generate_text(niah.value)) for _ in range(size)]
            _insert(sentences, rng.sample(range(size), len(needles)), needles)
            context = "\n".join(sentences)
        references = [value for query in queries for value in values[query]]
        template, value_type = self.texts.templates["niah"], str(niah.value)
        if len(references) == 1:
            template = Template(_singular(template.prompt), _singular(template.answer_prefix))
            value_type = value_type[:-1]
        return _fill(template, references, context=context, query=_enumerate(queries), type_needle_v=value_type)

    def _hide_in_essays(self, rng: random.Random, needles: Sequence[str], size: int) -> str:
        """Return `size` words of the essays, repeated if necessary, with the needles between sentences."""
        words = self.texts.essay_words
        repeated = words * -(-size // len(words))
        sentences = _SENTENCE_END.split(" ".join(repeated[:size]))
        _insert(sentences, [len(sentences) * depth // 100 for depth in rng.sample(DEPTHS, len(needles))], needles)
        return " ".join(sentences)

    def _variable_tracking(self, rng: random.Random, size: int) -> Sample:
        chain = self._chain(rng, size, letters=5)
        example = self._chain(rng, EXAMPLE_NOISE, letters=3)
        demonstration = f"{example.prompt}{example.answer_prefix} {' '.join(example.references)}\n\n"
        return replace(chain, prompt=demonstration + chain.prompt)

    def _chain(self, rng: random.Random, size: int, *, letters: int) -> Sample:
        variables: list[str] = []
        while len(variables) <= HOPS:
            name = "".join(rng.choices(string.ascii_uppercase, k=letters))
            variables += [name] if name not in variables else []
        value = str(rng.randint(10_000, 99_998))
        assignments = [f"VAR {variables[0]} = {value}"]
        assignments += [f"VAR {target} = VAR {source} " for source, target in itertools.pairwise(variables)]
        sentences = [self.texts.noise] * size
        _insert(sentences, rng.sample(range(size), len(assignments)), assignments[::-1])
        template, context = self.texts.templates["variable_tracking"], "\n".join(sentences)
        return _fill(template, variables, context=context, query=value, num_v=HOPS + 1)

    def _common_words(self, rng: random.Random, size: int, length: int) -> Sample:
        # The example's list has 20 or 40 distinct words.
        if length < SHORT_LENGTH:
            question, example = self._word_list(rng, size, 6, 1), self._word_list(rng, 20, 3, 1)
        else:
            question, example = self._word_list(rng, size, 30, 3), self._word_list(rng, 40, 10, 3)
        demonstration = f"{example.prompt}{example.answer_prefix} {_number(example.references)}\n"
        return replace(question, prompt=demonstration + question.prompt)

    def _word_list(self, rng: random.Random, size: int, common_repeats: int, uncommon_repeats: int) -> Sample:
        """Return a question about a list of `size` distinct words, of which ten are repeated more often."""
        common = rng.sample(self.texts.words, COMMON_WORDS)
        vocabulary = self.texts.words if size <= len(self.texts.words) else self.texts.more_words
        if size > len(vocabulary):
            raise DataError(
                f"benchmark.ruler: a list of {size:,} distinct words needs more than {len(vocabulary):,} words"
            )
        uncommon = [word for word in rng.sample(vocabulary, size) if word not in common][: size - COMMON_WORDS]
        listed = common * common_repeats + uncommon * uncommon_repeats
        rng.shuffle(listed)
        return _fill(self.texts.templates["common_words_extraction"], common, context=_number(listed), query="")

    def _frequent_words(self, rng: random.Random, size: int, length: int) -> Sample:
        """Return a question about words whose frequencies fall with the square of their rank; the first is noise."""
        vocabulary: dict[str, None] = {}
        size_of_vocabulary = (length - MAX_NEW_TOKENS["freq_words_extraction"]) // FWE_TOKENS_PER_WORD
        if size_of_vocabulary <= FWE_TOP:
            raise DataError(f"benchmark.ruler: fwe needs a length of at least 250 tokens, not {length}")
        while len(vocabulary) < size_of_vocabulary:
            vocabulary["".join(rng.choices(string.ascii_lowercase, k=FWE_WORD_LENGTH))] = None
        ranked = ["...", *vocabulary][:size_of_vocabulary]
        occurrences = [word for rank, word in enumerate(ranked, start=1) for _ in range(int(size / rank**2 / ZETA_2))]
        rng.shuffle(occurrences)
        template, references = self.texts.templates["freq_words_extraction"], ranked[1 : FWE_TOP + 1]
        return _fill(template, references, context=" ".join(occurrences), query="")

    def _qa(self, rng: random.Random, case: RulerCase, size: int) -> Sample:
        question, documents = self._question(case), self.texts.qa[case.task].documents
        related = [*question.related]
        if size - len(question.gold) < len(related):
            related = rng.sample(related, size - len(question.gold))
        document_numbers = [*question.gold, *related]
        excluded = {*document_numbers}
        unrelated = [number for number in range(len(documents)) if number not in excluded]
        while len(unrelated) < size - len(document_numbers):  # documents are repeated if there are too few
            unrelated += range(len(documents))
        document_numbers += rng.sample(unrelated, size - len(document_numbers))
        rng.shuffle(document_numbers)
        context = "\n\n".join(f"Document {n}:\n{documents[index]}" for n, index in enumerate(document_numbers, start=1))
        return _fill(self.texts.templates["qa"], question.references, context=context, query=question.query)

    def _question(self, case: RulerCase) -> Question:
        questions = self.texts.qa[case.task].questions
        if case.number > len(questions):
            raise DataError(f"benchmark.ruler.cases: {case.task} has only {len(questions):,} questions")
        return questions[case.number - 1]


def _fill(template: Template, references: Sequence[str], *, context: str, **slots: object) -> Sample:
    prompt = template.prompt.format(context=context, **slots)
    return Sample(prompt, context, template.answer_prefix.format(**slots), tuple(references))


def _insert(sentences: list[str], positions: Sequence[int], texts: Sequence[str]) -> None:
    """Insert the texts before the sentences at these positions, the first text at the last position."""
    for position, text in zip(sorted(positions, reverse=True), texts, strict=True):
        sentences.insert(position, text)


def _number(words: Sequence[str]) -> str:
    return " ".join(f"{number}. {word}" for number, word in enumerate(words, start=1))


def _enumerate(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, and {items[-1]}"


def _singular(text: str) -> str:
    """Change a template for a single value, as RULER's code does."""
    return text.replace("Some", "A").replace("are all", "is").replace("are", "is").replace("answers", "answer")
