"""Noto Color Emoji, every sequence of Unicode's `emoji-test.txt`; and line drawings of them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from training.data import DataError, DataSpec, Splits
from training.data.arrays import ArrayData, digest_of
from training.data.cache import Arrays, cached
from training.data.emoji_pictures import FRAME, draw_all, open_font
from training.data.emoji_sequences import Emoji, groups_of, read_sequences
from training.data.open import in_range, no_path, one_of
from training.data.pairs import PairData
from training.data.share import shares
from training.data.sketch import line_drawings

FONT = "/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf"
EMOJI_TEST = "/usr/share/unicode/emoji/emoji-test.txt"
HELD_OUT_SHARE = 0.1
DRAWING = 1
"""Version of how pictures are drawn; part of what the cache goes by."""
SKETCH_SIZES = (32, 64, 128)
SOURCE = (
    "Noto Color Emoji by Google, SIL Open Font License 1.1; names and groups of Unicode's emoji-test.txt, "
    "Unicode License v3."
)


def open_emoji(
    path: str | None,
    *,
    size: int = 32,
    skin_tones: bool = True,
    font: str = FONT,
    emoji_test: str = EMOJI_TEST,
) -> Splits:
    """Emoji on white, conditional on Unicode's group; without skin tones there are half as many.

    About a tenth is held out. Variants of one emoji (skin tone, gender, hair, the hour of a clock) and flags
    that look the same stand on the same side.
    """
    no_path("emoji", path)
    in_range("emoji", "size", size, 16, FRAME)
    sequences, arrays = _pictures(size, skin_tones, font, emoji_test, sketches=False)
    images, labels = arrays["images"], _labels(sequences)
    held = shares(_bases(sequences, images), "held out") < HELD_OUT_SHARE
    train, held_out = np.flatnonzero(~held), np.flatnonzero(held)
    spec = DataSpec(
        name="emoji",
        channels=3,
        height=size,
        width=size,
        class_labels=groups_of(sequences),
        digest=digest_of(images[train], labels[train]),
        count=len(train),
        options={"size": size, "skin_tones": skin_tones},
        source=SOURCE,
    )

    def part(index: NDArray[np.int64]) -> ArrayData:
        about = _attributes([sequences[i] for i in index])
        return ArrayData(spec=spec, images=images[index], labels=labels[index], attributes=about)

    return Splits(train=part(train), held_out=part(held_out))


def open_emoji_sketch(
    path: str | None,
    *,
    size: int = 64,
    skin_tones: bool = False,
    font: str = FONT,
    emoji_test: str = EMOJI_TEST,
) -> Splits:
    """Line drawings and emoji, trained on the drawings of one half of them and the pictures of the other.

    Held out are the same emoji as in `emoji`, paired. Without skin tones, which no drawing shows.
    """
    no_path("emoji-sketch", path)
    one_of("emoji-sketch", "size", size, SKETCH_SIZES)
    sequences, arrays = _pictures(size, skin_tones, font, emoji_test, sketches=True)
    images, sketches = arrays["images"], arrays["sketches"]
    bases = _bases(sequences, images)
    held = shares(bases, "held out") < HELD_OUT_SHARE
    half = shares(bases, "half") < 0.5
    drawn, coloured = np.flatnonzero(~held & half), np.flatnonzero(~held & ~half)
    held_out = np.flatnonzero(held)
    spec = DataSpec(
        name="emoji-sketch",
        channels=3,
        height=size,
        width=size,
        domains=("sketch", "emoji"),
        digest=digest_of(sketches[drawn], images[coloured]),
        count=max(len(drawn), len(coloured)),
        options={"size": size, "skin_tones": skin_tones},
        source=f"{SOURCE} Line drawings made from them by Atelier.",
    )

    def domain(pictures: NDArray[np.uint8], index: NDArray[np.int64]) -> ArrayData:
        about = _attributes([sequences[i] for i in index])
        return ArrayData(spec=spec, images=pictures[index], attributes=about)

    return Splits(
        train=PairData(
            spec=spec, first=domain(sketches, drawn), second=domain(images, coloured), paired=False
        ),
        held_out=PairData(
            spec=spec, first=domain(sketches, held_out), second=domain(images, held_out), paired=True
        ),
    )


def _pictures(
    size: int, skin_tones: bool, font_name: str, emoji_test_name: str, sketches: bool
) -> tuple[tuple[Emoji, ...], Arrays]:
    """The sequences, and their pictures out of the cache or freshly drawn."""
    font_path = _installed(font_name, "fonts-noto-color-emoji", "font")
    emoji_test = _installed(emoji_test_name, "unicode-data", "emoji_test")
    every = read_sequences(emoji_test)
    sequences = tuple(emoji for emoji in every if skin_tones or not emoji.has_skin_tone)

    def make() -> Arrays:
        font = open_font(font_path)
        arrays = {"images": draw_all(sequences, font, size)}
        if sketches:
            arrays["sketches"] = line_drawings(draw_all(sequences, font, FRAME), size)
        return arrays

    made_from: dict[str, str | int] = {
        "drawing": DRAWING,
        "size": size,
        "skin_tones": skin_tones,
        "font": hashlib.sha256(font_path.read_bytes()).hexdigest(),
        "sequences": hashlib.sha256(emoji_test.read_bytes()).hexdigest(),
    }
    return sequences, cached("emoji-sketch" if sketches else "emoji", made_from, make)


def _installed(name: str, package: str, option: str) -> Path:
    """A file of a Debian package."""
    path = Path(name)
    if not path.is_file():
        raise DataError(
            f"{name} of the emoji is missing: apt-get install fonts-noto-color-emoji unicode-data "
            f"(it is in {package}), or give its path as option {option}"
        )
    return path


def _labels(sequences: Sequence[Emoji]) -> NDArray[np.int64]:
    """The number of the group of each."""
    groups = groups_of(sequences)
    return np.array([groups.index(emoji.group) for emoji in sequences], np.int64)


def _attributes(sequences: Sequence[Emoji]) -> dict[str, NDArray[Any]]:
    """What is known of each beside its group."""
    return {
        field: np.array([getattr(emoji, field) for emoji in sequences])
        for field in ("text", "name", "group", "subgroup", "caption")
    }


def _bases(sequences: Sequence[Emoji], images: NDArray[np.uint8]) -> list[str]:
    """What each shows without its variant; emoji that look the same (flags of territories) count as one."""
    first: dict[bytes, str] = {}
    same: dict[str, str] = {}
    for emoji, image in zip(sequences, images, strict=True):
        same[emoji.base] = same.get(emoji.base) or first.setdefault(image.tobytes(), emoji.base)
    return [same[emoji.base] for emoji in sequences]
