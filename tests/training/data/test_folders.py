from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.data import DataError
from training.data.open import open_data


def paint(path: Path, value: int, size: int = 20) -> None:
    """A plain grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (size, size), (value,) * 3).save(path)


def break_picture(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:45])


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """Forty pictures whose names are their greys, some of them deeper."""
    folder = tmp_path / "flat"
    for value in range(40):
        paint(folder / (f"{value}.png" if value % 2 else f"deep/er/{value}.png"), value)
    return folder


@pytest.fixture
def classed(tmp_path: Path) -> Path:
    """Class folders with greys of tens, one of them nested."""
    folder = tmp_path / "classed"
    for value in range(40):
        name = ("cat", "dog/small", "emu", "yak")[value // 10]
        paint(folder / name / f"{value}.png", value)
    return folder


def greys(data: object) -> list[int]:
    """The grey of every picture."""
    batch = data.batch(np.arange(len(data)), np.random.default_rng(0))
    return np.rint((batch.images.numpy()[:, 0, 0, 0] + 1) * 127.5).astype(int).tolist()


def test_a_folder_is_divided_by_names_whatever_else_is_in_it(flat: Path) -> None:
    splits = open_data(f"folder:{flat}", size=8, classes=False)
    train, held_out = greys(splits.train), greys(splits.held_out)
    assert sorted(train + held_out) == list(range(40))
    paint(flat / "new.png", 99)
    again = open_data(f"folder:{flat}", size=8, classes=False)
    assert set(held_out) <= {*greys(again.held_out), 99}
    assert set(train) <= {*greys(again.train), 99}


def test_sub_folders_are_classes_however_deep_the_pictures_lie(classed: Path) -> None:
    splits = open_data(f"folder:{classed}", size=8)
    assert splits.train.spec.class_labels == ("cat", "dog", "emu", "yak")
    for part in (splits.train, splits.held_out):
        batch = part.batch(np.arange(len(part)), np.random.default_rng(0))
        assert batch.labels.tolist() == [grey // 10 for grey in greys(part)]


def test_a_folder_without_sub_folders_has_no_classes(tmp_path: Path) -> None:
    for value in range(3):
        paint(tmp_path / f"{value}.png", value)
    data = open_data(f"folder:{tmp_path}", size=8).train
    assert data.spec.class_labels == ()
    assert data.batch(np.array([0]), np.random.default_rng(0)).labels is None


def test_pictures_beside_class_folders_are_named_with_two_remedies(classed: Path) -> None:
    paint(classed / "stray.png", 1)
    with pytest.raises(DataError, match=r"holds pictures \(stray.png, ...\) beside .* classes=false"):
        open_data(f"folder:{classed}", size=8)


def test_hidden_files_and_other_files_are_left_out(flat: Path) -> None:
    (flat / ".hidden.png").write_bytes(b"")
    (flat / "__MACOSX").mkdir()
    (flat / "__MACOSX" / "x.png").write_bytes(b"")
    (flat / "notes.txt").write_text("notes")
    splits = open_data(f"folder:{flat}", size=8, classes=False)
    assert len(splits.train) + len(splits.held_out) == 40


def test_a_broken_picture_is_named_or_skipped_as_asked(flat: Path) -> None:
    break_picture(flat / "17.png")
    with pytest.raises(DataError, match=r"17.png cannot be read as a picture"):
        open_data(f"folder:{flat}", size=8, classes=False)
    with pytest.warns(UserWarning, match=r"1 of 40 pictures are broken and skipped: 17.png"):
        splits = open_data(f"folder:{flat}", size=8, classes=False, broken="skip")
    assert sorted(greys(splits.train) + greys(splits.held_out)) == [v for v in range(40) if v != 17]


def test_a_folder_whose_pictures_are_all_broken_is_named(tmp_path: Path) -> None:
    for value in range(3):
        paint(tmp_path / f"{value}.png", value)
        break_picture(tmp_path / f"{value}.png")
    with (
        pytest.warns(UserWarning, match="3 of 3 pictures are broken"),
        pytest.raises(DataError, match="holds 0 whole pictures: two are the least"),
    ):
        open_data(f"folder:{tmp_path}", size=8, broken="skip")


def test_a_folder_without_pictures_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("notes")
    with pytest.raises(DataError, match="holds no picture"):
        open_data(f"folder:{tmp_path}")


def test_pictures_that_do_not_fit_into_memory_are_read_when_asked_for(classed: Path) -> None:
    held = open_data(f"folder:{classed}", size=8)
    read = open_data(f"folder:{classed}", size=8, memory_mb=0)
    assert held.train.pictures.pixels is not None
    assert read.train.pictures.pixels is None
    assert greys(held.train) == greys(read.train)
    assert held.train.spec == read.train.spec
    victim = read.train.pictures.files[5]
    break_picture(victim)
    with pytest.raises(DataError, match=victim.name):
        read.train.batch(np.array([4, 5]), np.random.default_rng(0))


def test_the_digest_changes_with_a_pixel_and_with_a_class(classed: Path) -> None:
    digests = [open_data(f"folder:{classed}", size=8).train.spec.digest]
    digests.append(open_data(f"folder:{classed}", size=8, classes=False).train.spec.digest)
    for path in classed.rglob("*.png"):
        paint(path, 200)
    digests.append(open_data(f"folder:{classed}", size=8).train.spec.digest)
    assert len(set(digests)) == 3


def test_random_crops_move_in_training_and_stand_still_when_held_out(tmp_path: Path) -> None:
    for value in range(12):
        ramp = np.tile(np.arange(72, dtype=np.uint8) * 2, (72, 1))
        Image.fromarray(ramp).save(tmp_path / f"{value}.png")
    splits = open_data(f"folder:{tmp_path}", size=64, channels=1, crop="random")
    zeros = np.zeros(50, np.int64)
    corners = splits.train.batch(zeros, np.random.default_rng(0)).images[:, 0, 0, 0]
    still = splits.held_out.batch(zeros, np.random.default_rng(0)).images[:, 0, 0, 0]
    lefts = np.rint((corners.numpy() + 1) * 127.5) / 2
    assert set(lefts) == set(range(9))
    assert (np.rint((still.numpy() + 1) * 127.5) == 8).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 4}, "size=4 of folder must lie between 8 and 4096"),
        ({"channels": 2}, "channels=2 of folder must be one of 1, 3"),
        ({"crop": "left"}, "crop='left' of folder must be one of centre, random"),
        ({"broken": "mend"}, "broken='mend' of folder must be one of error, skip"),
        ({"held_out": 1.5}, "held_out=1.5 of folder must lie between 0 and 0.9"),
    ],
)
def test_options_out_of_range_are_refused(options: dict, message: str, flat: Path) -> None:
    with pytest.raises(DataError, match=message):
        open_data(f"folder:{flat}", **options)


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Twenty pictures each; the second has the same names with another ending, and greys 100 higher."""
    for value in range(20):
        paint(tmp_path / "maps" / f"{value}.png", value)
        paint(tmp_path / "photos" / f"{value}.bmp", value + 100)
    return tmp_path / "maps", tmp_path / "photos"


def test_paired_folders_are_matched_by_name_but_for_the_ending(two: tuple[Path, Path]) -> None:
    splits = open_data(f"folders:{two[0]},{two[1]}", size=8, paired=True)
    assert splits.train.spec.domains == ("maps", "photos")
    for part in (splits.train, splits.held_out):
        assert greys(part.second) == [grey + 100 for grey in greys(part.first)]
        batch = part.batch(np.arange(len(part)), np.random.default_rng(1))
        difference = (batch.targets - batch.images) * 127.5
        assert difference.round().unique().tolist() == [100]


def test_unpaired_folders_may_be_of_different_names_and_counts(two: tuple[Path, Path]) -> None:
    for value in range(30, 60):
        paint(two[1] / f"more{value}.png", value)
    splits = open_data(f"folders:{two[0]},{two[1]}", size=8)
    assert len(splits.train.first) + len(splits.held_out.first) == 20
    assert len(splits.train.second) + len(splits.held_out.second) == 50
    assert not splits.train.paired
    assert not splits.held_out.paired


def test_pictures_without_a_partner_are_named(two: tuple[Path, Path]) -> None:
    paint(two[1] / "alone.png", 5)
    with pytest.raises(DataError, match=r"1 pictures of .*photos have no partner .*maps \(alone.png\)"):
        open_data(f"folders:{two[0]},{two[1]}", size=8, paired=True)


def test_a_broken_picture_leaves_with_its_partner(two: tuple[Path, Path]) -> None:
    break_picture(two[1] / "7.bmp")
    with pytest.warns(UserWarning, match=r"1 of 20 pictures are broken and skipped: 7.bmp"):
        splits = open_data(f"folders:{two[0]},{two[1]}", size=8, paired=True, broken="skip")
    first = greys(splits.train.first) + greys(splits.held_out.first)
    assert sorted(first) == [value for value in range(20) if value != 7]
    assert greys(splits.train.second) == [grey + 100 for grey in greys(splits.train.first)]


def test_two_pictures_of_one_name_cannot_be_paired(two: tuple[Path, Path]) -> None:
    paint(two[0] / "3.bmp", 3)
    with pytest.raises(DataError, match=r"maps holds both 3.bmp and 3.png"):
        open_data(f"folders:{two[0]},{two[1]}", size=8, paired=True)


def test_one_folder_is_too_few(two: tuple[Path, Path]) -> None:
    with pytest.raises(DataError, match="folders needs two folders: write --data folders:PATH,PATH"):
        open_data(f"folders:{two[0]}")
