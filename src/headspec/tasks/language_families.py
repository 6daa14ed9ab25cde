"""Families of prompts about language: agreement, short cloze, indirect objects."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np

from headspec.tasks import word_lists as words
from headspec.tasks.pairs import PromptPair
from headspec.tasks.templates import Part, check_count, draw, make_pair


def agreement_pairs(n: int, *, seed: int) -> list[PromptPair]:
    """ "The keys near the car" are/is; the corrupt twin has the other number of the subject.

    Four in five have a second noun between subject and verb, half of these of the other number
    (an attractor). Verbs: is/are, was/were, has/have.

    References:
        Linzen, Dupoux and Goldberg, 2016.
    """
    far = [
        (subject, preposition, other, number, attractor)
        for subject, other in permutations(words.NOUNS, 2)
        for preposition in words.PREPOSITIONS
        for number, attractor in product((0, 1), (0, 1))
    ]
    near = [(subject, "", "", number, 0) for subject, number in product(words.NOUNS, (0, 1))]
    n_near = min(n // 5, len(near))
    drawn = draw(far, n - n_near, seed=seed) + (draw(near, n_near, seed=seed) if n_near else [])
    return [_agreement(*item, words.VERBS[i % 3]) for i, item in enumerate(drawn)]


def _agreement(
    subject: str, preposition: str, other: str, number: int, attractor: int, verb: tuple[str, str]
) -> PromptPair:
    def prompt(which: int) -> list[Part]:
        parts: list[Part] = ["The ", ("subject", _noun(subject, which))]
        if other:
            parts += [f" {preposition} the ", ("attractor", _noun(other, attractor))]
        return parts

    correct, wrong = f" {verb[number]}", f" {verb[1 - number]}"
    return make_pair(prompt(number), prompt(1 - number), correct=correct, wrong=wrong)


def _noun(singular: str, number: int) -> str:
    return words.NOUNS[singular] if number else singular


def cloze_pairs(n: int, *, seed: int) -> list[PromptPair]:
    """ "The capital of France is" Paris; the corrupt twin asks for another item of the same kind.

    Capitals, opposites, months and days, in several phrasings; `wrong` is the corrupt prompt's
    right answer. Every question occurs about as often as any other.
    """
    months = dict(zip(words.MONTHS, words.MONTHS[1:] + words.MONTHS[:1], strict=True))
    days = dict(zip(words.DAYS, words.DAYS[1:] + words.DAYS[:1], strict=True))
    kinds: list[tuple[dict[str, str], tuple[str, ...]]] = [
        (words.CAPITALS, ("The capital of {} is", "The capital city of {} is called")),
        (words.OPPOSITES, ("The opposite of {} is", "The word {} means the opposite of")),
        (months, ("The month after {} is", "After {} comes the month of")),
        (days, ("The day after {} is", "After {} comes")),
    ]
    rng = np.random.default_rng(seed)
    ranked: list[tuple[float, str, str, str, dict[str, str]]] = []
    for facts, templates in kinds:
        for template, key in product(templates, facts):
            others = [other for other in facts if facts[other] != facts[key]]
            for turn, at in enumerate(rng.permutation(len(others))):
                ranked.append((turn + rng.random(), template, key, others[int(at)], facts))
    check_count(n, len(ranked))
    ranked.sort(key=lambda item: item[0])
    return [_cloze(*item[1:]) for item in ranked[:n]]


def _cloze(template: str, key: str, other: str, facts: dict[str, str]) -> PromptPair:
    before, after = template.split("{}")

    def prompt(item: str) -> list[Part]:
        return [before, ("item", item), after]

    return make_pair(prompt(key), prompt(other), correct=f" {facts[key]}", wrong=f" {facts[other]}")


_SCENES = (
    "When {} and {} went to the {place}, {} gave a {object} to",
    "Then, {} and {} were at the {place}. {} decided to give a {object} to",
    "After {} and {} had been to the {place}, {} handed a {object} to",
)


def indirect_object_pairs(n: int, *, wording: str, seed: int) -> list[PromptPair]:
    """ "When Mary and John went to the store, John gave a drink to" Mary, not John.

    Half of the prompts name the indirect object first (ABBA), half second (BABA). Wording
    `"plain"`: in the corrupt twin the second subject is the other of the two names, which turns
    the answer round. Wording `"abc"`: all three names are others, so that the corrupt prompt says
    nothing of the two answers. Positions: `io`, `s1`, `s2`, `end`.

    References:
        Wang et al., Interpretability in the Wild, 2022 (arXiv 2211.00593).
    """
    check_count(n, 10_000)
    rng = np.random.default_rng(seed)
    scenes = list(product(_SCENES, words.PLACES, words.OBJECTS))
    pairs: dict[str, PromptPair] = {}
    while len(pairs) < n:
        io, s, a, b, c = (words.NAMES[i] for i in rng.permutation(len(words.NAMES))[:5])
        template, place, thing = scenes[int(rng.integers(len(scenes)))]
        scene = template.replace("{place}", place).replace("{object}", thing)
        first = len(pairs) % 2 == 0
        named = (("io", io), ("s1", s)) if first else (("s1", s), ("io", io))
        clean = _filled(scene, (*named, ("s2", s)))
        if wording == "abc":
            others = (named[0][0], a), (named[1][0], b), ("s2", c)
        else:
            others = (*named, ("s2", io))
        pair = make_pair(clean, _filled(scene, others), correct=f" {io}", wrong=f" {s}")
        pairs.setdefault(pair.clean, pair)
    return list(pairs.values())


def _filled(scene: str, named: tuple[tuple[str, str], ...]) -> list[Part]:
    texts = scene.split("{}")
    parts: list[Part] = [texts[0]]
    for name, text in zip(named, texts[1:], strict=True):
        parts += [name, text]
    return parts
