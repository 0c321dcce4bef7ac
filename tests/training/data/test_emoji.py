from pathlib import Path

import numpy as np
import pytest

from training.data import DataError, Splits
from training.data.emoji import EMOJI_TEST, FONT
from training.data.emoji_sequences import Emoji, read_sequences
from training.data.open import open_data

installed = pytest.mark.skipif(
    not (Path(FONT).is_file() and Path(EMOJI_TEST).is_file()),
    reason="the Debian packages fonts-noto-color-emoji and unicode-data are not installed",
)

SOME = ("face-smiling", "hand-fingers-open", "country-flag", "time", "animal-mammal")


@pytest.fixture(scope="module")
def some_emoji(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as Unicode's, of five subgroups alone."""
    kept, subgroup, count = [], "", 0
    for line in Path(EMOJI_TEST).read_text(encoding="utf-8").splitlines():
        if line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        if line.startswith("# group: ") or subgroup in SOME:
            kept.append(line)
            count += "; fully-qualified" in line
    path = tmp_path_factory.mktemp("unicode") / "emoji-test.txt"
    path.write_text("\n".join([*kept, f"# fully-qualified : {count}"]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATELIER_CACHE", str(cache))


@pytest.fixture
def sketches(some_emoji: Path) -> Splits:
    return open_data("emoji-sketch", size=32, emoji_test=str(some_emoji))


def emoji(name: str) -> Emoji:
    return Emoji(text="x", name=name, group="", subgroup="")


@installed
def test_all_sequences_of_unicode_15_are_read_in_nine_groups_and_99_subgroups() -> None:
    sequences = read_sequences(Path(EMOJI_TEST))
    assert len(sequences) == 3655
    assert sum(not one.has_skin_tone for one in sequences) == 1870
    assert len({one.group for one in sequences}) == 9
    assert len({one.subgroup for one in sequences}) == 99
    assert sequences[0].caption == "grinning face (face smiling, smileys & emotion)"
    assert len({one.text for one in sequences}) == 3655


@installed
def test_every_emoji_has_a_picture_and_the_split_covers_all_groups() -> None:
    splits = open_data("emoji")
    assert len(splits.train) + len(splits.held_out) == 3655
    for part in (splits.train, splits.held_out):
        assert set(part.labels) == set(range(9))
        assert (part.images.reshape(len(part), -1).min(1) < 250).all()
        groups = [part.spec.class_labels[label] for label in part.labels]
        assert groups == list(part.attributes["group"])
    assert 0.06 < len(splits.held_out) / 3655 < 0.14


@installed
def test_no_variant_and_no_twin_of_a_training_emoji_is_held_out(some_emoji: Path) -> None:
    splits = open_data("emoji", emoji_test=str(some_emoji))
    bases = [
        {emoji(str(name)).base for name in part.attributes["name"]}
        for part in (splits.train, splits.held_out)
    ]
    assert not bases[0] & bases[1]
    seen = {image.tobytes() for image in splits.train.images}
    assert not any(image.tobytes() in seen for image in splits.held_out.images)


@installed
def test_a_second_opening_gives_the_same_digest_from_the_cache(some_emoji: Path, cache: Path) -> None:
    before = open_data("emoji", size=16, emoji_test=str(some_emoji)).train.spec.digest
    stamps = {path: path.stat().st_mtime_ns for path in cache.iterdir()}
    assert open_data("emoji", size=16, emoji_test=str(some_emoji)).train.spec.digest == before
    assert {path: path.stat().st_mtime_ns for path in cache.iterdir()} == stamps


@installed
def test_the_pictures_are_whole_at_the_size_asked_for_and_lie_on_white(some_emoji: Path) -> None:
    train = open_data("emoji", size=64, skin_tones=False, emoji_test=str(some_emoji)).train
    assert train.images.shape[1:] == (3, 64, 64)
    faces = train.images[train.attributes["subgroup"] == "face-smiling"]
    assert (faces[:, :, 0, 0] == 255).all()
    red, _, blue = faces.mean((2, 3)).T
    assert (red > blue + 50).all()
    assert not any("skin tone" in name for name in train.attributes["name"])


@pytest.mark.parametrize(
    ("name", "base"),
    [
        ("woman running: dark skin tone", "running"),
        ("person running", "running"),
        ("mage", "mage"),
        ("woman mage: light skin tone", "mage"),
        ("women holding hands", "holding hands"),
        ("woman and man holding hands: medium skin tone", "holding hands"),
        ("mermaid", "merperson"),
        ("older person", "old person"),
        ("man: beard", "person"),
        ("seven-thirty", "clock"),
        ("flag: Norway", "flag: Norway"),
        ("keycap: 7", "keycap: 7"),
        ("germ", "germ"),
    ],
)
def test_variants_have_one_base(name: str, base: str) -> None:
    assert emoji(name).base == base


@installed
def test_held_out_sketches_stand_beside_their_own_emoji_and_training_ones_never(sketches: Splits) -> None:
    train, held_out = sketches.train, sketches.held_out
    assert held_out.paired
    assert list(held_out.first.attributes["name"]) == list(held_out.second.attributes["name"])
    assert not train.paired
    assert not set(train.first.attributes["name"]) & set(train.second.attributes["name"])
    assert train.spec.domains == ("sketch", "emoji")


@installed
def test_sketches_are_dark_lines_on_white_where_their_emoji_is_not_blank(sketches: Splits) -> None:
    pictures, colours = sketches.held_out.first.images, sketches.held_out.second.images
    assert (pictures[:, 0] == pictures[:, 2]).all()
    ink = (pictures[:, 0] < 128).mean((1, 2))
    assert ink.min() > 0.02
    assert ink.max() < 0.45
    drawn = pictures[:, 0] < 64
    near = np.stack([np.roll(colours.min(1), (y, x), (1, 2)) for y in (-1, 0, 1) for x in (-1, 0, 1)]).min(0)
    assert (near[drawn] < 255).mean() > 0.99


@installed
def test_a_list_that_is_cut_short_is_named(tmp_path: Path) -> None:
    short = tmp_path / "emoji-test.txt"
    short.write_text(Path(EMOJI_TEST).read_text(encoding="utf-8")[:20_000], encoding="utf-8")
    with pytest.raises(DataError, match=r"emoji-test.txt holds \d+ fully-qualified emoji and says nothing"):
        open_data("emoji", emoji_test=str(short))


@installed
def test_a_file_that_is_no_colour_font_is_named(tmp_path: Path, some_emoji: Path) -> None:
    (tmp_path / "font.ttf").write_text("no font")
    with pytest.raises(DataError, match=r"font.ttf is no font with colour bitmaps"):
        open_data("emoji", font=str(tmp_path / "font.ttf"), emoji_test=str(some_emoji))


@pytest.mark.parametrize("name", ["emoji", "emoji-sketch"])
def test_a_missing_font_names_the_packages_to_install(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="apt-get install fonts-noto-color-emoji unicode-data"):
        open_data(name, font=str(tmp_path / "none.ttf"))


def test_a_size_that_sketches_do_not_come_in_is_refused() -> None:
    with pytest.raises(DataError, match="size=48 of emoji-sketch must be one of 32, 64, 128"):
        open_data("emoji-sketch", size=48)
