"""Unlabelled text that the encoder is distilled on.

Clusters of related questions (one family, some values in common), so that a batch holds near and far neighbours, and
fragments of a few words that cover the vocabulary. Only `+` templates are written out: the encoder never reads a
held-out template, though it meets the words of one among the fragments.
"""

import random
import re

from grammar import AGREEMENT, AROUND, CHOICE, FRAMES, SLOT, Grammar

SEED = 21
CLUSTERS = 2600
CLUSTER_SIZE = 8
FRAGMENT_CLUSTERS = 900
# Of the questions in clusters: how many get words of another kind, and how many are a few questions in a row.
NOISY_RATE = 0.2
LONG_RATE = 0.03
HELD_OUT_VALUE_RATE = 0.25
WORD = re.compile(r"[a-z]+|[0-9]+")


def grammar_words(grammar: Grammar) -> list[str]:
    """Every word that the grammar can write, held-out templates included, in order of first appearance."""
    words: dict[str, None] = dict.fromkeys(["query", "passage"])
    texts = [form for slot in grammar.types.values() for value in slot.seen + slot.held_out for form in value]
    for intent in grammar.intents.values():
        texts += [SLOT.sub(" ", AGREEMENT.sub(r" \2 \3 ", template)) for template in intent.seen + intent.held_out + intent.clauses]
    for held_out in (False, True):
        texts += [" ".join(parts) for parts in AROUND[held_out]] + FRAMES[held_out]
    for text in texts:
        while CHOICE.search(text):
            text = CHOICE.sub(lambda match: match.group(1).replace("|", " "), text)
        words.update(dict.fromkeys(WORD.findall(text.lower())))
    return list(words)


class Corpus:
    def __init__(self, grammar: Grammar, general_words: list[str]) -> None:
        self.grammar = grammar
        self.rng = random.Random(SEED)
        self.words = list(dict.fromkeys(grammar_words(grammar) + general_words))
        self.intents = list(grammar.intents.values())

    def clusters(self) -> list[list[str]]:
        clusters = []
        for index in range(CLUSTERS):
            # A generator of its own, so that other clusters stay as they are when the vocabulary changes.
            self.rng = random.Random(f"{SEED} {index}")
            clusters.append(self._questions())
        pool: list[str] = []
        for _ in range(FRAGMENT_CLUSTERS):
            cluster = []
            for _ in range(CLUSTER_SIZE):
                if not pool:
                    pool = self.rng.sample(self.words, len(self.words))
                count = min(self.rng.choice([1, 2, 2, 3, 4]), len(pool))
                cluster.append(" ".join(pool.pop() for _ in range(count)))
            clusters.append(cluster)
        self.rng.shuffle(clusters)
        return clusters

    def _questions(self) -> list[str]:
        first = self.rng.choice(self.intents)
        family = [intent for intent in self.intents if intent.family == first.family]
        given = self.grammar.draw_values(self.rng, first, HELD_OUT_VALUE_RATE)
        return [self._question(family, given) for _ in range(CLUSTER_SIZE)]

    def _question(self, family: list, given: dict) -> str:
        texts = []
        for _ in range(self.rng.randint(2, 5) if self.rng.random() < LONG_RATE else 1):
            intent = self.rng.choice(family)
            # Keep most of the values; draw the others again.
            kept = {
                name: value
                for name, value in given.items()
                if name in intent.slots
                and value in self.grammar.types[intent.slots[name]].seen + self.grammar.types[intent.slots[name]].held_out
                and self.rng.random() < 0.7
            }
            values = self.grammar.draw_values(self.rng, intent, HELD_OUT_VALUE_RATE, kept)
            if "from" in values and self.rng.random() < 0.3 and intent.slots["from"] == intent.slots["to"]:
                values["from"], values["to"] = values["to"], values["from"]
            texts.append(self.grammar.render(self.rng, intent, self.rng.choice(intent.wordings(held_out=False)), values, False))
        text = " ".join(texts)
        return self._noisy(text) if self.rng.random() < NOISY_RATE else text

    def _noisy(self, text: str) -> str:
        """Another word in one or two places, or a word left out: not all text comes from templates."""
        words = text.split()
        for _ in range(self.rng.randint(1, 2)):
            place = self.rng.randrange(len(words))
            if self.rng.random() < 0.3 and len(words) > 4:
                del words[place]
            else:
                words[place] = self.rng.choice(self.words)
        return " ".join(words)
