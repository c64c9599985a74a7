"""Reads grammar/*.txt and writes questions from it.

A meaning is an intent (what is asked) with a value for every slot (about what). Every template of an intent says the
same thing, so two templates filled with the same values are paraphrases, and any other intent or value is another
question. Templates that start with `+` are for training, those that start with `*` for the test. A clause (`~`) becomes
a template inside a frame; some frames are for training and some for the test, so no template is in both.
"""

import random
import re
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = Path(__file__).parent / "grammar"
SPOKEN_VOWEL = {"XML", "HTML", "SVG", "MP3", "MP4"}
CHOICE = re.compile(r"\[([^\[\]]*)\]")
SLOT = re.compile(r"\{(\w+)(?:\.(\w+))?\}")
AGREEMENT = re.compile(r"\{(\w+)\?([^|{}]*)\|([^|{}]*)\}")

# Sentences around a question that do not change it.
AROUND = {
    False: [
        ("Quick question.", ""),
        ("I have a question.", ""),
        ("Please help me.", ""),
        ("", "Thanks in advance."),
        ("", "Any advice is welcome."),
        ("", "I have no idea."),
        ("", "Please explain."),
    ],
    True: [
        ("I am curious.", ""),
        ("Something I always wanted to know.", ""),
        ("", "Thank you for your help."),
        ("", "I hope someone knows."),
    ],
}
AROUND_RATE = 0.12

# Questions around a clause.
FRAMES = {
    False: [
        "Can you tell me {}?",
        "I would like to know {}.",
        "Do you have any idea {}?",
        "Please explain to me {}.",
        "I wonder {}.",
        "I have been asking myself {}.",
        "Could you explain {}?",
        "{}, do you know?",
        "What I need to know is {}.",
        "Is there an answer to {}?",
    ],
    True: [
        "Does anyone here know {}?",
        "I am trying to find out {}.",
        "Who can help me understand {}?",
        "Nobody ever told me {}.",
        "My question is {}.",
        "It would be useful to learn {}, can anybody help?",
    ],
}


@dataclass
class SlotType:
    forms: list[str]
    seen: list[tuple[str, ...]] = field(default_factory=list)
    held_out: list[tuple[str, ...]] = field(default_factory=list)


@dataclass
class Intent:
    name: str
    slots: dict[str, str]
    """Slot name to slot type."""
    seen: list[str] = field(default_factory=list)
    held_out: list[str] = field(default_factory=list)
    clauses: list[str] = field(default_factory=list)
    symmetric: bool = False
    """The slots `from` and `to` may change places without changing the meaning."""

    @property
    def family(self) -> str:
        return self.name.split(".")[0]

    @property
    def directed(self) -> bool:
        return "from" in self.slots and not self.symmetric

    def wordings(self, held_out: bool) -> list[str]:
        """Templates, and clauses that still lack a frame."""
        return (self.held_out if held_out else self.seen) + self.clauses


Values = dict[str, tuple[str, ...]]


class Grammar:
    def __init__(self) -> None:
        self.types: dict[str, SlotType] = {}
        self.intents: dict[str, Intent] = {}
        self._read_values(FOLDER / "values.txt")
        for path in sorted(FOLDER.glob("*.txt")):
            if path.name != "values.txt":
                self._read_intents(path)

    def _read_values(self, path: Path) -> None:
        slot = None
        for line in _lines(path):
            if line.startswith("slot "):
                name, *forms = line.split()[1:]
                slot = self.types[name] = SlotType(forms)
                continue
            value = tuple(form.strip() for form in line.lstrip("*").split("/"))
            if len(value) != len(slot.forms):
                raise ValueError(f"{path.name}: {line}: {len(slot.forms)} forms expected")
            (slot.held_out if line.startswith("*") else slot.seen).append(value)

    def _read_intents(self, path: Path) -> None:
        intent = None
        for line in _lines(path):
            if line.startswith("intent "):
                name, *slots = line.split()[1:]
                intent = Intent(name, dict(slot.split(":") for slot in slots))
                self.intents[name] = intent
            elif line.startswith("symmetric"):
                intent.symmetric = True
            elif line[0] in "+*~":
                template = line[1:].strip()
                used = {match.group(1) for match in SLOT.finditer(template)}
                if used != set(intent.slots):
                    raise ValueError(f"{path.name}: {intent.name}: {template}: uses {sorted(used)}")
                {"+": intent.seen, "*": intent.held_out, "~": intent.clauses}[line[0]].append(template)
            else:
                raise ValueError(f"{path.name}: {line}: neither an intent nor a template")

    def draw_value(self, rng: random.Random, type_name: str, held_out_rate: float) -> tuple[str, ...]:
        slot = self.types[type_name]
        if slot.held_out and rng.random() < held_out_rate:
            return rng.choice(slot.held_out)
        return rng.choice(slot.seen)

    def draw_values(
        self, rng: random.Random, intent: Intent, held_out_rate: float, given: Values | None = None
    ) -> Values:
        """A value for every slot, taken from `given` where it has one; two slots never hold the same value."""
        values: Values = {name: given[name] for name in intent.slots if given and name in given}
        for name, type_name in intent.slots.items():
            while name not in values:
                value = self.draw_value(rng, type_name, held_out_rate)
                if value not in values.values():
                    values[name] = value
        return {name: values[name] for name in intent.slots}

    def render(self, rng: random.Random, intent: Intent, wording: str, values: Values, held_out: bool) -> str:
        template = wording
        if wording in intent.clauses:
            template = rng.choice(FRAMES[held_out]).replace("{}", wording)
        text = AGREEMENT.sub(
            lambda match: match.group(3 if _is_plural(values[match.group(1)][0]) else 2), template
        )
        text = SLOT.sub(lambda match: self._form(intent, match, values), text)
        while CHOICE.search(text):
            text = CHOICE.sub(lambda match: rng.choice(match.group(1).split("|")), text)
        text = re.sub(r" +", " ", text).replace(" ?", "?").strip()
        text = text[0].upper() + text[1:]
        if rng.random() < AROUND_RATE:
            before, after = rng.choice(AROUND[held_out])
            text = f"{before} {text} {after}".strip()
        return text

    def _form(self, intent: Intent, match: re.Match, values: Values) -> str:
        name, form = match.groups()
        slot, value = self.types[intent.slots[name]], values[name]
        if form == "a":
            article = "an" if value[0][0].lower() in "aeiou" or value[0] in SPOKEN_VOWEL else "a"
            return f"{article} {value[0]}"
        return value[slot.forms.index(form) if form else 0]


def _is_plural(noun: str) -> bool:
    return noun.endswith("s") and not noun.endswith("ss")


def _lines(path: Path) -> list[str]:
    lines = (line.strip() for line in path.read_text(encoding="ascii").splitlines())
    return [line for line in lines if line and not line.startswith("#")]
