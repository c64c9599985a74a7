"""Writes data/pairs/train.csv and data/pairs/test.csv from the grammar, and checks what it wrote.

Positives are two templates of one meaning. Negatives keep most of the words and change what matters: one slot, the
direction, or what is asked; a few are about something else altogether.
"""

import csv
import random
from collections import Counter
from pathlib import Path

from grammar import FRAMES, Grammar, Intent, Values

FOLDER = Path(__file__).parent.parent / "pairs"
SEED = 20
SIZES = {"train": 4000, "test": 1200}
POSITIVE_RATE = 0.42
# Share of the negatives of each kind; a kind that an intent does not allow is drawn again.
NEGATIVES = {"slot": 0.27, "direction": 0.2, "intent": 0.30, "unrelated": 0.25}
SAME_TEMPLATE_RATE = 0.15
HELD_OUT_VALUE_RATE = 0.4
WORDS = (6, 25)


class PairWriter:
    def __init__(self, grammar: Grammar, split: str) -> None:
        self.grammar = grammar
        self.rng = random.Random(f"{SEED} {split}")
        self.held_out = split == "test"
        self.value_rate = HELD_OUT_VALUE_RATE if self.held_out else 0.0
        self.intents = list(grammar.intents.values())
        self.families: dict[str, list[Intent]] = {}
        for intent in self.intents:
            self.families.setdefault(intent.family, []).append(intent)

    def pair(self) -> tuple[str, str, int, str]:
        """question1, question2, label, and the kind of pair."""
        family = self.rng.choice(list(self.families.values()))
        intent = self.rng.choice(family)
        values = self.grammar.draw_values(self.rng, intent, self.value_rate)
        if self.rng.random() < POSITIVE_RATE:
            return self._positive(intent, values)
        return self._negative(intent, values)

    def _positive(self, intent: Intent, values: Values) -> tuple[str, str, int, str]:
        first, second = self.rng.sample(intent.wordings(self.held_out), 2)
        other = dict(values)
        if intent.symmetric and self.rng.random() < 0.5:
            other["from"], other["to"] = values["to"], values["from"]
        return self._render(intent, first, values), self._render(intent, second, other), 1, "paraphrase"

    def _negative(self, intent: Intent, values: Values) -> tuple[str, str, int, str]:
        kind = self._negative_kind(intent)
        other, changed = intent, dict(values)
        if kind == "direction":
            changed["from"], changed["to"] = values["to"], values["from"]
        elif kind == "slot":
            name = self.rng.choice(list(intent.slots))
            del changed[name]
            while name not in changed or changed[name] == values[name]:
                changed.pop(name, None)
                changed = self.grammar.draw_values(self.rng, intent, self.value_rate, changed)
        elif kind == "intent":
            other = self.rng.choice(self._siblings(intent))
            changed = self.grammar.draw_values(self.rng, other, self.value_rate, values)
        else:
            while other.family == intent.family:
                other = self.rng.choice(self.intents)
            changed = self.grammar.draw_values(self.rng, other, self.value_rate)
        templates = intent.wordings(self.held_out)
        first = self.rng.choice(templates)
        second = self.rng.choice(other.wordings(self.held_out))
        if other is intent:
            if self.rng.random() < SAME_TEMPLATE_RATE:
                second = first
            else:
                second = self.rng.choice([template for template in templates if template != first])
        return self._render(intent, first, values), self._render(other, second, changed), 0, kind

    def _negative_kind(self, intent: Intent) -> str:
        while True:
            kind = self.rng.choices(list(NEGATIVES), list(NEGATIVES.values()))[0]
            if kind == "direction" and not intent.directed:
                continue
            if kind == "intent" and not self._siblings(intent):
                continue
            return kind

    def _siblings(self, intent: Intent) -> list[Intent]:
        """Other intents of the family about the same things: every slot of one is a slot of the other."""
        slots = set(intent.slots.items())
        return [
            other
            for other in self.families[intent.family]
            if other is not intent and (slots <= set(other.slots.items()) or set(other.slots.items()) <= slots)
        ]

    def _render(self, intent: Intent, template: str, values: Values) -> str:
        return self.grammar.render(self.rng, intent, template, values, self.held_out)


def write(grammar: Grammar, split: str) -> tuple[list[tuple[str, str, int]], Counter]:
    writer, rows, seen, kinds = PairWriter(grammar, split), [], set(), Counter()
    while len(rows) < SIZES[split]:
        first, second, label, kind = writer.pair()
        lengths = [len(first.split()), len(second.split())]
        key = tuple(sorted((first.lower(), second.lower())))
        if first == second or key in seen or min(lengths) < WORDS[0] or max(lengths) > WORDS[1]:
            continue
        seen.add(key)
        rows.append((first, second, label))
        kinds[kind] += 1
    FOLDER.mkdir(exist_ok=True)
    with open(FOLDER / f"{split}.csv", "w", encoding="ascii", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["id", "question1", "question2", "is_duplicate"])
        table.writerows((index, *row) for index, row in enumerate(rows))
    return rows, kinds


def check(grammar: Grammar, rows: dict[str, list[tuple[str, str, int]]]) -> None:
    """What the README of data/ claims about the two files."""
    for intent in grammar.intents.values():
        assert not set(intent.seen) & set(intent.held_out), f"{intent.name}: a test template is a training template"
        assert len(intent.seen) >= 2 and len(intent.held_out) >= 2, f"{intent.name}: too few templates"
    assert not set(FRAMES[False]) & set(FRAMES[True]), "a test frame is a training frame"
    for slot in grammar.types.values():
        assert not set(slot.seen) & set(slot.held_out), slot.forms
    questions = {split: {text for row in part for text in row[:2]} for split, part in rows.items()}
    shared = questions["train"] & questions["test"]
    assert not shared, f"in both files: {sorted(shared)[:3]}"
    for split, part in rows.items():
        share = sum(row[2] for row in part) / len(part)
        assert 0.37 <= share <= 0.50, f"{split}: {share:.3f} positives"
        assert all(text.isascii() for text in questions[split])


def main() -> None:
    grammar = Grammar()
    written = {}
    for split in SIZES:
        written[split], kinds = write(grammar, split)
        print(split, len(written[split]), "pairs,", dict(kinds.most_common()))
    check(grammar, written)
    print(
        f"{len(grammar.intents)} intents,",
        sum(len(intent.seen) for intent in grammar.intents.values()), "templates for training,",
        sum(len(intent.held_out) for intent in grammar.intents.values()), "held out,",
        sum(len(intent.clauses) for intent in grammar.intents.values()), "clauses",
    )


if __name__ == "__main__":
    main()
