"""Unicode's emoji sequences, as `emoji-test.txt` lists them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data import DataError

LINE = re.compile(r"^(?P<codes>[0-9A-F ]+?) *; fully-qualified *# \S+ E[\d.]+ (?P<name>.+)$")
STATED_COUNT = re.compile(r"^# fully-qualified : (\d+)$", re.MULTILINE)
SKIN_TONES = frozenset("\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff")
WHOLE_NAMES = ("flag:", "keycap:")
"""Beginnings of names whose part after the colon says what is shown, not in which variant."""
PERSON = re.compile(r"\b(old)er\b|\b(wo)?m[ae]n\b|\bpeople\b|\bboy\b|\bgirl\b|\bchild\b|\bmer(maid|man)\b")
CLOCK = re.compile(r"o[’']clock$|-thirty$")


@dataclass(frozen=True, kw_only=True)
class Emoji:
    """One fully-qualified sequence."""

    text: str
    """The characters."""
    name: str
    """Unicode's short name, for example `grinning face`."""
    group: str
    """One of nine, for example `Smileys & Emotion`."""
    subgroup: str
    """For example `face-smiling`."""

    @property
    def has_skin_tone(self) -> bool:
        """Whether a skin tone is part of the sequence."""
        return not SKIN_TONES.isdisjoint(self.text)

    @property
    def caption(self) -> str:
        """A line of text that describes it."""
        return f"{self.name} ({self.subgroup.replace('-', ' ')}, {self.group.lower()})"

    @property
    def base(self) -> str:
        """What it shows, whatever the skin tone, hair and gender of who is shown, or the hour of a clock."""
        if self.name.startswith(WHOLE_NAMES):
            return self.name
        if CLOCK.search(self.name):
            return "clock"
        neutral = PERSON.sub(_neutral, self.name.partition(":")[0])
        return neutral.replace("person and person", "person").removeprefix("person ")


def _neutral(match: re.Match[str]) -> str:
    """The same word without gender and age."""
    word = match[0]
    if word == "older":
        return "old"
    return "merperson" if word.startswith("mer") else "person"


def read_sequences(path: Path) -> tuple[Emoji, ...]:
    """All fully-qualified sequences in Unicode's order, as many as the file itself says there are."""
    text = path.read_text(encoding="utf-8")
    group = subgroup = ""
    found = []
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif match := LINE.match(line):
            characters = "".join(chr(int(code, 16)) for code in match["codes"].split())
            found.append(Emoji(text=characters, name=match["name"], group=group, subgroup=subgroup))
    stated = STATED_COUNT.search(text)
    if stated is None or int(stated[1]) != len(found):
        says = stated[1] if stated else "nothing"
        raise DataError(
            f"{path} holds {len(found)} fully-qualified emoji and says {says}: it is cut short or of another "
            f"format; reinstall the Debian package unicode-data"
        )
    return tuple(found)


def groups_of(sequences: Sequence[Emoji]) -> tuple[str, ...]:
    """The groups in the order in which they first come."""
    return tuple(dict.fromkeys(emoji.group for emoji in sequences))
