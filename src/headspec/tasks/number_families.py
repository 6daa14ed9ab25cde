"""Families of prompts about numbers: decimals, versions, sums."""

from __future__ import annotations

from headspec.checkpoints.micro_tasks import QUESTIONS, Kind, addition, compare, is_held_out
from headspec.tasks.pairs import PromptPair
from headspec.tasks.templates import Part, draw, make_pair

_WORDS: dict[Kind, tuple[str, str, str]] = {
    "decimal": ("Which is ", "bigger", "smaller"),
    "version": ("Which version is ", "newer", "older"),
}


def comparison_pairs(kind: Kind, n: int, *, wording: str, seed: int) -> list[PromptPair]:
    """Questions such as "Which is bigger: 9.8 or 9.11?" on which the two readings disagree.

    As decimals 9.8 is bigger, as versions 9.11 is newer. `correct` is the answer of `kind`, `wrong`
    the other number. Corrupt twins ask for the opposite: "smaller", "older"; in the wording
    `"micro"` (held-out pairs only) for the other reading of the same two numbers, and in
    `"two_formats"` the same question in the other format, in which the study found the wrong
    answer: its prompts have unequal lengths and share the question.
    """
    numbers = conflicting_numbers()
    if wording == "micro":
        held_out = [pair for pair in numbers if is_held_out(" ".join(sorted(pair)))]
        return [_micro_pair(kind, a, b) for a, b in draw(held_out, n, seed=seed)]
    drawn = draw(numbers, n, seed=seed, first=[("9.8", "9.11")])
    return [_comparison(kind, a, b, wording) for a, b in drawn]


def conflicting_numbers() -> list[tuple[str, str]]:
    """Ordered pairs such as 9.8 and 9.11: one the bigger decimal, the other the newer version."""
    pairs = [
        (f"{whole}.{big}", f"{whole}.{small}{digit}")
        for whole in range(10)
        for small in range(1, 9)
        for big in range(small + 1, 10)
        for digit in range(10)
    ]
    return pairs + [(b, a) for a, b in pairs]


def _answers(kind: Kind, first: str, second: str) -> tuple[str, str]:
    correct = compare(kind, first, second)
    return correct, second if correct == first else first


def _comparison(kind: Kind, first: str, second: str, wording: str) -> PromptPair:
    start, word, opposite = _WORDS[kind]
    correct, wrong = _answers(kind, first, second)

    def question(asked: str) -> list[Part]:
        numbers: list[Part] = [("first", first), " or ", ("second", second), "?"]
        return [start, ("asked", asked), ": ", *numbers]

    plain = [*question(word), "\nAnswer:"]
    qa = ["Q: ", *question(word), "\nA:"]
    shared = (f": {first} or {second}?",)
    if wording == "two_formats":
        clean, corrupt = plain, qa
        shared = (f"{start}{word}: {first} or {second}?",)
    elif wording == "qa":
        clean, corrupt = qa, ["Q: ", *question(opposite), "\nA:"]
    else:
        clean, corrupt = plain, [*question(opposite), "\nAnswer:"]
    return make_pair(clean, corrupt, correct=f" {correct}", wrong=f" {wrong}", shared=shared)


def _micro_pair(kind: Kind, first: str, second: str) -> PromptPair:
    correct, wrong = _answers(kind, first, second)

    def prompt(one: str) -> list[Part]:
        start, asked = QUESTIONS[one].rsplit(" ", 1)
        numbers: list[Part] = [("first", first), " or ", ("second", second), "? Answer: "]
        return [start, " ", ("asked", asked), ": ", *numbers]

    other: Kind = "version" if kind == "decimal" else "decimal"
    return make_pair(prompt(kind), prompt(other), correct=f"{correct}\n", wrong=f"{wrong}\n")


def arithmetic_pairs(n: int, *, wording: str, seed: int) -> list[PromptPair]:
    """Sums of two two-digit numbers; in the corrupt twin one operand has another tens digit.

    `wrong` is the corrupt prompt's right answer, a multiple of ten off, with as many digits. In the
    wording `"micro"` both sums are held out from the embedded suite's training.
    """
    micro = wording == "micro"
    sums = [(a, b) for a in range(10, 100) for b in range(10, 100)]
    if micro:
        sums = [one for one in sums if _is_held_out(*one)]
    known = set(sums)
    twins = {one: [other for other in _other_tens(*one) if other in known] for one in sums}
    drawn = draw([one for one in sums if twins[one]], n, seed=seed)
    chosen = [twins[one][(seed + i) % len(twins[one])] for i, one in enumerate(drawn)]
    return [
        make_pair(
            _sum(*one, wording),
            _sum(*other, wording),
            correct=_total(*one, wording),
            wrong=_total(*other, wording),
        )
        for one, other in zip(drawn, chosen, strict=True)
    ]


def _is_held_out(a: int, b: int) -> bool:
    return is_held_out(" ".join(sorted((str(a), str(b)))))


def _other_tens(a: int, b: int) -> list[tuple[int, int]]:
    """Sums with one tens digit changed, whose answers have as many digits."""
    changed = [(t * 10 + a % 10, b) for t in range(1, 10)]
    changed += [(a, t * 10 + b % 10) for t in range(1, 10)]
    return [(c, d) for c, d in changed if (c, d) != (a, b) and len(str(c + d)) == len(str(a + b))]


def _sum(a: int, b: int, wording: str) -> list[Part]:
    operands: tuple[Part, Part] = ("first", str(a)), ("second", str(b))
    if wording == "qa":
        return ["Q: What is ", operands[0], " plus ", operands[1], "?\nA:"]
    return [operands[0], "+", operands[1], "="]


def _total(a: int, b: int, wording: str) -> str:
    if wording == "micro":
        return addition(a, b).answer
    return f" {a + b}" if wording == "qa" else str(a + b)
