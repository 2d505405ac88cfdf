"""Instructions that a program can check, with the checks: an embedded stand-in for IFEval.

The form is that of IFEval, the text is our own. Each instruction is made from an example response,
which gives its numbers, so that its checks cannot contradict each other.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .texts import read_sections

__all__ = ["Check", "Instruction", "broken_example", "instructions", "violations"]


@dataclass(frozen=True)
class Check:
    """One requirement on a response; `arguments` are JSON values."""

    kind: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Instruction:
    """A prompt, the checks that it states, and a response that passes them all."""

    id: str
    prompt: str
    checks: tuple[Check, ...]
    example: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready values, the inverse of `from_dict`."""
        checks = [{"kind": c.kind, "arguments": dict(c.arguments)} for c in self.checks]
        return {"id": self.id, "prompt": self.prompt, "checks": checks, "example": self.example}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Instruction:
        """The instruction of a row from `to_dict`."""
        checks = tuple(Check(c["kind"], c["arguments"]) for c in row["checks"])
        return cls(row["id"], row["prompt"], checks, row["example"])


# Characters that may follow the end of a sentence before white space.
CLOSING = "\"')]*»”’"

# Checks


def violations(checks: Sequence[Check], response: str) -> list[str]:
    """Kinds of the checks that a response fails, in their order.

    A response without any letter or digit fails every check. Takes time linear in its length.

    Raises:
        ValueError: a check of unknown kind.
    """
    for check in checks:
        if check.kind not in CHECKS:
            raise ValueError(f"kind={check.kind!r}: expected one of {', '.join(CHECKS)}")
    if not any(c.isalnum() for c in response):
        return [check.kind for check in checks]
    return [c.kind for c in checks if not CHECKS[c.kind](response, **c.arguments)]


def _within(count: int, least: int | None, most: int | None) -> bool:
    return (least is None or count >= least) and (most is None or count <= most)


def _words(text: str, least: int | None = None, most: int | None = None) -> bool:
    """Counts parts between white space that have a letter or a digit."""
    words = sum(any(c.isalnum() for c in part) for part in text.split())
    return _within(words, least, most)


def _sentences(text: str, count: int) -> bool:
    """Counts parts between white space that end a sentence, and a last unfinished sentence."""
    ends = [part.rstrip(CLOSING).endswith((".", "!", "?")) for part in text.split()]
    return sum(ends) + (not ends[-1]) == count


def _occurrences(text: str, word: str) -> int:
    return len(re.findall(rf"(?<!\w){re.escape(word)}(?!\w)", text, re.IGNORECASE))


def _case(text: str, case: str) -> bool:
    others = str.isupper if case == "lower" else str.islower
    return any(c.isalpha() for c in text) and not any(others(c) for c in text)


def _plain(text: str) -> str:
    """Text for comparing phrases: stripped and without case."""
    return text.strip().casefold()


def _paragraphs(text: str, count: int) -> bool:
    """Counts groups of lines between blank lines."""
    filled = [bool(line.strip()) for line in text.split("\n")]
    return (
        sum(now and not before for before, now in zip([False, *filled], filled, strict=False))
        == count
    )


def _bullets(text: str, count: int) -> bool:
    lines = [line.strip() for line in text.split("\n")]
    return sum(line[:2] in ("* ", "- ", "• ") for line in lines) == count


def _numbered(text: str, count: int) -> bool:
    """Counts lines that start with "1. ", "2. " and so on, or with "1) "."""
    starts = (re.match(r"([0-9]{1,6})[.)]\s", line.strip()) for line in text.split("\n"))
    found = [start[1] for start in starts if start]
    return found == [str(i + 1) for i in range(count)]


def _json(text: str, keys: Sequence[str]) -> bool:
    """A JSON object with exactly these keys, alone or in a code fence."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        text = text[text.index("\n") : -3]
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict) and sorted(value) == sorted(keys)


def _quoted(text: str) -> bool:
    text = text.strip()
    return len(text) > 2 and text[0] == text[-1] == '"'


def _titled(text: str) -> bool:
    titles = re.findall(r"<<([^<>\n]+)>>", text)
    return any(title.strip() for title in titles)


def _chosen(text: str, options: Sequence[str]) -> bool:
    return _plain(text).strip(".\"'*") in [_plain(option) for option in options]


CHECKS: dict[str, Callable[..., bool]] = {
    "word_count": _words,
    "sentence_count": _sentences,
    "case": _case,
    "keyword": lambda text, word, count: _occurrences(text, word) >= count,
    "forbidden_word": lambda text, word: not _occurrences(text, word),
    "starts_with": lambda text, phrase: _plain(text).startswith(_plain(phrase)),
    "ends_with": lambda text, phrase: _plain(text).endswith(_plain(phrase)),
    "bullets": _bullets,
    "paragraphs": _paragraphs,
    "json_keys": _json,
    "quoted": _quoted,
    "no_commas": lambda text: "," not in text,
    "numbered_list": _numbered,
    "title": _titled,
    "choice": _chosen,
}

# Prompts

_TEXTS = read_sections("instructions.txt")
TOPICS, TASKS, LIST_TASKS = _TEXTS["TOPICS"], _TEXTS["TASKS"], _TEXTS["LIST_TASKS"]
KEYS, KEYWORDS, FORBIDDEN = _TEXTS["KEYS"], _TEXTS["KEYWORDS"], _TEXTS["FORBIDDEN"]
STARTS, ENDS = _TEXTS["STARTS"], _TEXTS["ENDS"]
QUESTIONS = [
    (question, options) for question, *options in (q.split(" | ") for q in _TEXTS["QUESTIONS"])
]
# Parts of example responses, without commas and words of the lists above.
FILLER = _TEXTS["FILLER"]


def instructions(n: int, seed: int = 0) -> list[Instruction]:
    """`n` instructions with distinct prompts; a larger `n` begins with the same ones."""
    if n < 0:
        raise ValueError(f"n={n}: a number of instructions is 0 or more")
    # With the text, no seed gives the draws of another seed, shifted.
    rng = random.Random(f"instructions {seed}")
    made: dict[str, Instruction] = {}
    while len(made) < n:
        draw = rng.choices((_prose, _list, _object, _choice), (10, 4, 2, 1))[0]
        prompt, checks, example = draw(rng, rng.choice(TOPICS))
        # A few draws fail, where a phrase has what another check forbids.
        if prompt not in made and not violations(checks, example):
            made[prompt] = Instruction(f"{seed}-{len(made)}", prompt, tuple(checks), example)
    return list(made.values())


Drawn = tuple[str, list[Check], str]


def _prose(rng: random.Random, topic: str) -> Drawn:
    """Sentences in one or more paragraphs, with one to three requirements."""
    demands = rng.sample(
        (
            *("words", "words", "sentences", "case", "keyword", "keyword", "forbidden", "start"),
            *("end", "paragraphs", "quoted", "commas", "title"),
        ),
        rng.choice((1, 2, 2, 3)),
    )
    if "sentences" in demands and "title" in demands:
        # It is unclear whether a title is a sentence.
        demands.remove("title")
    if "quoted" in demands:
        # The quotation marks come before a start and after an end.
        demands = [d for d in demands if d not in ("start", "end", "title")]
    if "title" in demands:
        demands = [d for d in demands if d != "start"]
    return _finished(rng, rng.choice(TASKS).format(topic), list(dict.fromkeys(demands)))


def _forbid_a_word(rng: random.Random, asked: list[str], checks: list[Check]) -> None:
    word = rng.choice(FORBIDDEN)
    asked.append(f'Do not use the word "{word}".')
    checks.append(Check("forbidden_word", {"word": word}))


def _finished(rng: random.Random, task: str, demands: list[str]) -> Drawn:
    sentences = rng.sample(FILLER, rng.randint(3, 9))
    asked, checks = [task], []
    if "keyword" in demands:
        word, count = rng.choice(KEYWORDS), rng.randint(1, 3)
        times = ("at least once", "at least twice", "at least three times")[count - 1]
        asked.append(f'Use the word "{word}" {times}.')
        checks.append(Check("keyword", {"word": word, "count": count}))
        sentences += [f"Somebody spoke of the {word}."] * count
        rng.shuffle(sentences)
    if "forbidden" in demands:
        _forbid_a_word(rng, asked, checks)
    if "start" in demands:
        phrase = rng.choice(STARTS)
        asked.append(f'Start your answer with the words "{phrase}".')
        checks.append(Check("starts_with", {"phrase": phrase}))
        sentences[0] = f"{phrase} there is much to say."
    if "end" in demands:
        phrase = rng.choice(ENDS)
        asked.append(f'End your answer with exactly this sentence: "{phrase}"')
        checks.append(Check("ends_with", {"phrase": phrase}))
        sentences.append(phrase)
    if "sentences" in demands:
        asked.append(f"Write exactly {len(sentences)} sentences.")
        checks.append(Check("sentence_count", {"count": len(sentences)}))
    count = rng.randint(2, 3) if "paragraphs" in demands else 1
    if count > 1:
        asked.append(f"Write exactly {count} paragraphs and put a blank line between them.")
        checks.append(Check("paragraphs", {"count": count}))
    cuts = [len(sentences) * i // count for i in range(count + 1)]
    text = "\n\n".join(" ".join(sentences[a:b]) for a, b in itertools.pairwise(cuts))
    if "title" in demands:
        # In a line of its own it might be counted as a paragraph or not.
        asked.append("Include a title in double angular brackets, like <<title>>.")
        checks.append(Check("title"))
        text = f"<<A few words>> {text}"
    if "quoted" in demands:
        asked.append("Put double quotation marks around your whole answer.")
        checks.append(Check("quoted"))
        text = f'"{text}"'
    return _worded(rng, asked, checks, text, demands)


def _worded(
    rng: random.Random, asked: list[str], checks: list[Check], text: str, demands: list[str]
) -> Drawn:
    """Requirements on a text of any form: its case, its commas, its length."""
    if "case" in demands:
        case = rng.choice(("lower", "upper"))
        said = {"lower": "small letters only, no capital letters", "upper": "capital letters only"}
        asked.append(f"Write your whole answer in {said[case]}.")
        checks.append(Check("case", {"case": case}))
        text = text.lower() if case == "lower" else text.upper()
    if "commas" in demands:
        asked.append("Do not use any commas.")
        checks.append(Check("no_commas"))
    if "words" in demands:
        count, slack = len(text.split()), rng.randint(3, 20)
        least, most = max(count - slack, 2), count + slack
        form = rng.choice(("least", "most", "between"))
        if form == "least":
            asked.append(f"Write at least {least} words.")
            checks.append(Check("word_count", {"least": least}))
        elif form == "most":
            asked.append(f"Write at most {most} words.")
            checks.append(Check("word_count", {"most": most}))
        else:
            asked.append(f"Write between {least} and {most} words.")
            checks.append(Check("word_count", {"least": least, "most": most}))
    return " ".join(asked), checks, text


def _list(rng: random.Random, topic: str) -> Drawn:
    """A bulleted or numbered list."""
    count = rng.randint(2, 8)
    entries = rng.sample(FILLER, count)
    demands = rng.sample(("words", "case", "forbidden", "commas"), rng.randint(0, 2))
    asked = [rng.choice(LIST_TASKS).format(topic)]
    if rng.random() < 0.5:
        asked.append(f'Write exactly {count} bullet points, each on a line that starts with "* ".')
        checks = [Check("bullets", {"count": count})]
        text = "\n".join(f"* {entry}" for entry in entries)
    else:
        asked.append(
            f'Write a numbered list of exactly {count} items, one a line, starting with "1. ", '
            '"2. " and so on.'
        )
        checks = [Check("numbered_list", {"count": count})]
        text = "\n".join(f"{i}. {entry}" for i, entry in enumerate(entries, 1))
    if "words" in demands:
        # List markers may or may not be counted as words, so the bound is generous.
        demands.remove("words")
        most = 10 * (len(text.split()) // 10) + 30
        asked.append(f"Write at most {most} words in all.")
        checks.append(Check("word_count", {"most": most}))
    if "forbidden" in demands:
        _forbid_a_word(rng, asked, checks)
    return _worded(rng, asked, checks, text, demands)


def _object(rng: random.Random, topic: str) -> Drawn:
    """A JSON object."""
    keys = rng.sample(KEYS, rng.randint(2, 4))
    shown = ", ".join(f'"{key}"' for key in keys[:-1]) + f' and "{keys[-1]}"'
    asked = [
        f"Describe {topic} as a JSON object with exactly the keys {shown}, each with a string as "
        "its value. Write nothing but the object."
    ]
    checks = [Check("json_keys", {"keys": keys})]
    if rng.random() < 0.3:
        _forbid_a_word(rng, asked, checks)
    example = json.dumps({key: rng.choice(FILLER) for key in keys})
    return " ".join(asked), checks, example


def _choice(rng: random.Random, topic: str) -> Drawn:
    """One of a few given answers."""
    question, options = rng.choice(QUESTIONS)
    shown = ", ".join(f'"{option}"' for option in options[:-1]) + f' or "{options[-1]}"'
    asked = [question.format(topic), f"Answer only with {shown} and nothing else."]
    return " ".join(asked), [Check("choice", {"options": list(options)})], rng.choice(options)


def broken_example(instruction: Instruction) -> str:
    """A response that fails the first check, for tests of graders."""
    check, example = instruction.checks[0], instruction.example
    given = check.arguments
    broken = {
        "word_count": lambda: "word " * (given["most"] + 1) if "most" in given else "word",
        "sentence_count": lambda: f"{example} One more follows.",
        "case": lambda: example.swapcase(),
        "keyword": lambda: re.sub(re.escape(given["word"]), "it", example, flags=re.IGNORECASE),
        "forbidden_word": lambda: f"{example} {given['word']}",
        "starts_with": lambda: f"Well {example}",
        "ends_with": lambda: f"{example} And more",
        "bullets": lambda: f"{example}\n* One more",
        "paragraphs": lambda: f"{example}\n\nOne more",
        "json_keys": lambda: f"Here it is: {example}",
        "quoted": lambda: example.strip('"'),
        "no_commas": lambda: f"{example}, and more",
        "numbered_list": lambda: example.replace("1.", "7.", 1),
        "title": lambda: example.replace("<<", "").replace(">>", ""),
        "choice": lambda: f"I would say {example}, but it depends",
    }
    return broken[check.kind]()
