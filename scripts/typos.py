"""Misspell every key, type name and choice of the shipped configs, and see whether the config answers rightly.

    python scripts/typos.py                    all of configs/ and scripts/bench/, both letters (tens of minutes)
    python scripts/typos.py --every 20         every 20th typo, from a seeded shuffle
    python scripts/typos.py configs/mnist_mlp.yaml

At each place of each word: a character left out, two swapped, one replaced, one put in (by a neighbour on the keyboard
and by a random letter). Caught is a typo that raises ConfigError with a problem whose file, line and column are those
of the word; right is one whose hint there names the word first. A typo that is itself a word which can stand there is
no typo: those are counted and named. Exits 1 where one is not caught, or fewer than 95 % are right.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from layernet.config.experiment import load_config_text  # noqa: E402
from layernet.config.marks import Document, parse  # noqa: E402
from layernet.config.names import BUILT_IN  # noqa: E402
from layernet.errors import ConfigError, Mark  # noqa: E402
from layernet.text import aligned  # noqa: E402

CONFIGS = [*sorted((ROOT / "configs").glob("*.yaml")), *sorted((ROOT / "scripts" / "bench").glob("*.yaml"))]
KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "1234567890")
FREE = {"name", "root", "params", "path", "file"}  # keys whose values are the user's own words
TYPES = {name for table in BUILT_IN.values() for name in table}


@dataclass(frozen=True)
class Word:
    """A word of a config: where it stands in the text, and what kind it is."""

    file: Path
    text: str
    kind: str
    """key, type or choice."""
    mark: Mark
    start: int
    """Its first character's index in the file."""
    siblings: frozenset[str]
    """For a key, those beside it."""


@dataclass
class Count:
    """Of one kind of word or slip: how many were made, caught and rightly suggested, and those that were not."""

    made: int = 0
    caught: int = 0
    right: int = 0
    alone: int = 0
    words: Counter[str] = field(default_factory=Counter)
    """Typos that are words themselves."""
    missed: list[str] = field(default_factory=list)
    wrong: Counter[str] = field(default_factory=Counter)


def words(file: Path) -> Iterator[Word]:
    """Every key, type name and choice of a config."""
    text = file.read_text()
    document = parse(text, str(file))
    starts = [0, *(found.end() for found in re.finditer("\n", text))]
    for path, mark in document.keys.items():
        yield _word(file, text, str(path[-1]), "key", mark, starts, document, path)
    for path, mark in document.values.items():
        value = document.data
        for part in path:
            value = value[part]
        if not isinstance(value, str | bool) or (path and path[-1] in FREE):
            continue
        written = ("false", "true")[value] if isinstance(value, bool) else value
        if ":" in written or "/" in written:  # a class of the user's own
            continue
        kind = "type" if written in TYPES else "choice"
        yield _word(file, text, written, kind, mark, starts, document, path)


def _word(
    file: Path, text: str, word: str, kind: str, mark: Mark, starts: list[int], document: Document, path: tuple
) -> Word:
    start = starts[mark.line - 1] + mark.column - 1
    start += text[start] in "'\""
    if kind == "choice" and (unit := re.fullmatch(r"[\d.]+ ", word[: word.rfind(" ") + 1])):
        return Word(file, word[unit.end() :], kind, mark, start + unit.end(), frozenset())
    assert text[start : start + len(word)] == word, (file, mark, word)
    holder = document.data
    for part in path[:-1]:
        holder = holder[part]
    return Word(file, word, kind, mark, start, frozenset(holder) if kind == "key" else frozenset())


def typos(word: str, rng: random.Random) -> Iterator[tuple[str, str]]:
    """(kind of slip, the word with it), each result once."""
    found: dict[str, str] = {}

    def near(character: str) -> str:
        row = next((row for row in KEYBOARD if character.lower() in row), "abcdefghijklmnopqrstuvwxyz")
        place = row.find(character.lower())
        neighbours = row[max(0, place - 1) : place] + row[place + 1 : place + 2] if place >= 0 else row
        return rng.choice(neighbours)

    def letter() -> str:
        return rng.choice("abcdefghijklmnopqrstuvwxyz")

    for i, character in enumerate(word):
        found.setdefault(word[:i] + word[i + 1 :], "delete")
        if i + 1 < len(word):
            found.setdefault(word[:i] + word[i + 1] + character + word[i + 2 :], "swap")
        for other in (near(character), letter()):
            found.setdefault(word[:i] + other + word[i + 1 :], "replace")
    for i in range(len(word) + 1):
        for other in (near(word[min(i, len(word) - 1)]), letter()):
            found.setdefault(word[:i] + other + word[i:], "insert")
    return ((slip, wrong) for wrong, slip in found.items() if wrong != word)


@cache
def _text(file: Path) -> str:
    return file.read_text()


def judge(word: Word, wrong: str, count: Count) -> None:
    """Load the config with the word misspelt, and count the answer."""
    text = _text(word.file)
    changed = text[: word.start] + wrong + text[word.start + len(word.text) :]
    label = f"{word.file.name}:{word.mark.line}: {word.text} -> {wrong!r}"
    try:
        load_config_text(changed, str(word.file), word.file.parent)
    except ConfigError as error:
        problems = error.problems
    else:
        if can_stand(word, wrong):
            count.words[f"{word.text} -> {wrong}"] += 1
        else:
            count.made += 1
            count.missed.append(label)
        return
    here = [problem for problem in problems if problem.mark == word.mark]
    if can_stand(word, wrong) and not any("did you mean" in problem.hint for problem in here):
        count.words[f"{word.text} -> {wrong}"] += 1
        return
    count.made += 1
    if not here:
        count.missed.append(f"{label}: {problems[0]}")
        return
    count.caught += 1
    count.alone += len(problems) == 1
    hint = here[0].hint
    if re.search(rf"(did you mean|write) '?([\d.]+ )?{re.escape(word.text)}'?(\?|$)", hint):
        count.right += 1
    else:
        count.wrong[f"{word.text} -> {wrong!r}: {here[0].message}; {hint}"] += 1


def can_stand(word: Word, wrong: str) -> bool:
    """Whether the misspelt word is one that may mean something in this place."""
    if "*" in word.text:  # a pattern for parameters: where it leads nowhere, the answer names the one meant
        return True
    if word.kind == "type":
        return wrong in TYPES
    return word.kind == "choice" and wrong in ("epoch", "step")


def sweep(files: Sequence[Path], every: int, seed: int) -> dict[tuple[str, str], Count]:
    """Counts by (kind of word, kind of slip)."""
    rng = random.Random(seed)
    cases = [(word, slip, wrong) for file in files for word in words(file) for slip, wrong in typos(word.text, rng)]
    if every > 1:
        cases = rng.sample(cases, len(cases) // every)
    counts: dict[tuple[str, str], Count] = {}
    for word, slip, wrong in cases:
        judge(word, wrong, counts.setdefault((word.kind, slip), Count()))
    return counts


def total(counts: Sequence[Count]) -> Count:
    """All of them as one."""
    whole = Count()
    for count in counts:
        whole.made += count.made
        whole.caught += count.caught
        whole.right += count.right
        whole.alone += count.alone
        whole.words += count.words
        whole.missed += count.missed
        whole.wrong += count.wrong
    return whole


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", type=Path, help="config files (default: all that are shipped)")
    parser.add_argument("--every", type=int, default=1, metavar="N", help="one typo of N, drawn at random")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--wrong", type=int, default=20, metavar="N", help="how many wrong hints to print")
    args = parser.parse_args(argv)
    start = time.perf_counter()
    counts = sweep(args.configs or CONFIGS, args.every, args.seed)
    whole = total(list(counts.values()))
    rows = [["word", "slip", "made", "caught", "right", "the only error", "words themselves"]]
    for (kind, slip), count in [*sorted(counts.items()), (("all", ""), whole)]:
        shares = [f"{100 * part / max(1, count.made):.2f} %" for part in (count.caught, count.right, count.alone)]
        rows.append([kind, slip, str(count.made), *shares, str(sum(count.words.values()))])
    print(aligned(rows))
    print(f"\n{len(whole.words)} typos are words themselves: {', '.join(whole.words)}")
    for line in whole.missed:
        print(f"NOT CAUGHT {line}")
    print(f"{len(whole.wrong)} different wrong hints; the most frequent:" if whole.wrong else "no wrong hint")
    for line, times in whole.wrong.most_common(args.wrong):
        print(f"{times:5} {line}")
    print(f"{time.perf_counter() - start:.0f} s")
    return 1 if whole.missed or whole.right < 0.95 * whole.made else 0


if __name__ == "__main__":
    sys.exit(main())
