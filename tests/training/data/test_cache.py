from pathlib import Path

import numpy as np
import pytest

from training.data.cache import cache_folder, cached

MADE_FROM = {"size": 3, "font": "abc"}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATELIER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Makes arrays and counts how often."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> dict[str, np.ndarray]:
        self.times += 1
        return {"images": np.arange(1000, dtype=np.uint8), "names": np.array(["one", "two"])}


def test_what_was_made_once_is_read_the_next_time() -> None:
    make = Maker()
    first, second = cached("some", MADE_FROM, make), cached("some", MADE_FROM, make)
    assert make.times == 1
    assert first.keys() == second.keys()
    assert all((first[name] == second[name]).all() for name in first)


def test_what_is_made_from_something_else_is_made_anew() -> None:
    make = Maker()
    cached("some", MADE_FROM, make)
    cached("some", MADE_FROM | {"font": "abd"}, make)
    assert make.times == 2


@pytest.mark.parametrize("damage", ["flip a byte", "cut short", "no archive", "empty"])
def test_a_damaged_file_is_made_again(damage: str, own_cache: Path) -> None:
    make = Maker()
    cached("some", MADE_FROM, make)
    (path,) = own_cache.iterdir()
    content = bytearray(path.read_bytes())
    content[content.index(bytes(range(100, 120)))] ^= 1
    path.write_bytes(
        {
            "flip a byte": bytes(content),
            "cut short": bytes(content[:-200]),
            "no archive": b"something else",
            "empty": b"",
        }[damage]
    )
    again = cached("some", MADE_FROM, make)
    assert make.times == 2
    np.testing.assert_array_equal(again["images"], np.arange(1000) % 256)
    cached("some", MADE_FROM, make)
    assert make.times == 2


def test_another_archive_in_its_place_is_not_believed(own_cache: Path) -> None:
    make = Maker()
    cached("some", MADE_FROM, make)
    (path,) = own_cache.iterdir()
    with np.load(path) as file:
        arrays = dict(file)
    arrays["images"] = arrays["images"][:-1]
    np.savez(path, **arrays)
    assert len(cached("some", MADE_FROM, make)["images"]) == 1000


def test_nothing_is_left_beside_the_file(own_cache: Path) -> None:
    cached("some", MADE_FROM, Maker())
    assert [path.suffix for path in own_cache.iterdir()] == [".npz"]


def test_where_nothing_can_be_written_the_arrays_are_there_all_the_same(own_cache: Path) -> None:
    own_cache.write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="some is not cached: .*set ATELIER_CACHE"):
        arrays = cached("some", MADE_FROM, Maker())
    assert len(arrays["images"]) == 1000


def test_the_cache_lies_in_the_home_folder_unless_told_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ATELIER_CACHE")
    assert cache_folder() == Path.home() / ".cache" / "atelier"
