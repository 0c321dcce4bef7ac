import inspect
from pathlib import Path

import pytest

from training.data import DATASETS, DataError
from training.data.open import open_data
from training.resolve import resolve


@pytest.mark.parametrize("name", DATASETS)
def test_every_data_set_resolves_to_an_opener_whose_options_have_defaults(name: str) -> None:
    path, *options = inspect.signature(resolve(DATASETS, name, "data set")).parameters.values()
    assert path.name == "path"
    assert all(option.kind is option.KEYWORD_ONLY for option in options)
    assert all(option.default is not option.empty for option in options)


def test_an_unknown_data_set_is_answered_with_the_nearest_that_exists() -> None:
    with pytest.raises(DataError, match=r"data set 'digit' is not one of digits, .* did you mean 'digits'"):
        open_data("digit")


def test_an_unknown_option_is_answered_with_the_nearest_that_exists() -> None:
    with pytest.raises(DataError, match=r"shapes has no option 'sizes': it takes .*; did you mean 'size'"):
        open_data("shapes", sizes=32)


def test_an_option_of_a_set_without_options_is_refused() -> None:
    with pytest.raises(DataError, match=r"digits has no option 'size': it takes none"):
        open_data("digits", size=32)


@pytest.mark.parametrize("value", ["32", 32.0, True])
def test_an_option_of_another_type_is_refused_with_its_value(value: object) -> None:
    with pytest.raises(DataError, match=f"option size={value!r} of shapes must be of type int"):
        open_data("shapes", size=value)


def test_a_path_after_a_set_that_has_none_is_refused() -> None:
    with pytest.raises(DataError, match=r"digits takes no path, and '/somewhere' was given"):
        open_data("digits:/somewhere")


@pytest.mark.parametrize("name", ["folder", "mnist", "cifar10"])
def test_a_set_that_needs_a_folder_says_so(name: str) -> None:
    with pytest.raises(DataError, match=f"{name} needs a folder: write --data {name}:PATH"):
        open_data(name)


@pytest.mark.parametrize("name", ["folder", "mnist", "cifar10"])
def test_a_missing_an_empty_and_a_false_folder_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere' of .* does not exist"):
        open_data(f"{name}:{tmp_path / 'nowhere'}")
    (tmp_path / "void").mkdir()
    with pytest.raises(DataError, match=r"void' of .* is empty"):
        open_data(f"{name}:{tmp_path / 'void'}")
    (tmp_path / "file").write_text("text")
    with pytest.raises(DataError, match=r"file' of .* is a file: give the folder"):
        open_data(f"{name}:{tmp_path / 'file'}")
