"""API keys: made, kept as digests, found again, and read again when their file changes."""

import logging
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from serving.access.keys import Keyring, digest_of, new_key, read_entries
from serving.access.keys_command import main
from serving.access.limits import Account
from serving.process.watched import FilesError, Watched


def ring(path: Path, accounts: dict[str, Account] | None = None) -> Keyring:
    return Keyring(read_entries(path), {} if accounts is None else accounts)


def test_keys_are_long_random_and_recognisable():
    keys = {new_key() for _ in range(100)}
    assert len(keys) == 100
    assert all(re.fullmatch(r"atelier_[\w-]{43}", key) for key in keys)


def test_a_key_is_found_by_its_digest_and_others_are_not(tmp_path: Path):
    first, second, third = new_key(), new_key(), new_key()
    path = tmp_path / "keys.toml"
    path.write_text(
        f'[keys.ci]\nsha256 = ["{digest_of(first)}", "{digest_of(second)}"]\n'
        f'[keys.root]\nsha256 = "{digest_of(third)}"\nscopes = ["use", "admin"]\nconcurrency = 3\n'
    )
    found = ring(path)
    assert found.find(first) == found.find(second)
    assert found.find(first).scopes == {"use"}
    assert (found.find(third).name, found.find(third).scopes) == ("root", {"use", "admin"})
    assert found.find(third).account.limits.concurrency == 3
    for wrong in ("", first[:-1], first + " ", digest_of(first), new_key()):
        assert found.find(wrong) is None


def test_what_a_name_has_had_outlives_the_reading_of_the_file(tmp_path: Path):
    path, accounts = tmp_path / "keys.toml", {}
    path.write_text(f'[keys.ci]\nsha256 = "{digest_of("a")}"\n[keys.gone]\nsha256 = "{digest_of("b")}"\n')
    account = ring(path, accounts).find("a").account
    path.write_text(f'[keys.ci]\nsha256 = "{digest_of("c")}"\nconcurrency = 2\n')
    assert ring(path, accounts).find("c").account is account
    assert account.limits.concurrency == 2
    assert set(accounts) == {"ci"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[keys.ci]\nsha256 = 'SECRET-KEY'\n", "keys.ci.sha256"),
        ("[keys.ci]\nsha256 = ['SECRET-KEY']\n", "keys.ci.sha256"),
        (f"[keys.ci]\nsha256 = '{'0' * 64}'\nscope = ['use']\n", "keys.ci.scope: Extra inputs"),
        (f"[keys.ci]\nsha256 = '{'0' * 64}'\nscopes = ['SECRET-KEY']\n", "'use' or 'admin'"),
        (f"[keys.ci]\nsha256 = '{'0' * 64}'\nconcurrency = -1\n", "keys.ci.concurrency"),
        ("[keys]\n", "keys"),
        ("SECRET-KEY\n", "is not TOML"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_place_and_never_a_value(
    tmp_path: Path, text: str, said: str
):
    path = tmp_path / "keys.toml"
    path.write_text(text)
    with pytest.raises(FilesError) as caught:
        read_entries(path)
    assert str(path) in str(caught.value)
    assert said in str(caught.value)
    assert "atelier keys new" in str(caught.value)
    assert "SECRET" not in str(caught.value)


def test_a_broken_change_is_logged_once_and_leaves_what_was(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    path = tmp_path / "keys.toml"
    path.write_text(f'[keys.ci]\nsha256 = "{digest_of("a")}"\n')
    watched = Watched("API keys", [path], lambda: ring(path))
    assert not watched.refresh()
    path.write_text("broken = \n")
    with caplog.at_level(logging.ERROR):
        assert not watched.refresh()
        assert not watched.refresh()
        path.unlink()
        assert not watched.refresh()
    assert len(caplog.records) == 2
    assert watched.value.find("a").name == "ci"
    path.write_text(f'[keys.ci]\nsha256 = "{digest_of("b")}"\n')
    assert watched.refresh()
    assert watched.value.find("a") is None
    assert watched.value.find("b").name == "ci"


def test_a_secret_that_is_swapped_by_its_link_is_read_again(tmp_path: Path):
    """As Kubernetes mounts them: the file is a link through a folder that is replaced."""
    for folder, key in (("1", "a"), ("2", "b")):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "keys.toml").write_text(f'[keys.ci]\nsha256 = "{digest_of(key)}"\n')
        os.utime(tmp_path / folder / "keys.toml", (1, 1))
    data, path = tmp_path / "..data", tmp_path / "keys.toml"
    data.symlink_to("1")
    path.symlink_to("..data/keys.toml")
    watched = Watched("API keys", [path], lambda: ring(path))
    (tmp_path / "..new").symlink_to("2")
    (tmp_path / "..new").rename(data)
    assert watched.refresh()
    assert watched.value.find("b") is not None


def test_the_command_prints_an_entry_and_shows_the_key_apart_from_it(tmp_path: Path):
    command = [sys.executable, "-m", "atelier", "keys", "new", "ci", "--scope", "use", "--scope", "admin"]
    ran = subprocess.run([*command, "--concurrency", "4"], capture_output=True, text=True, check=True)
    key = ran.stderr.split()[-1]
    assert key not in ran.stdout
    path = tmp_path / "keys.toml"
    path.write_text(ran.stdout)
    caller = ring(path).find(key)
    assert (caller.name, caller.scopes) == ("ci", {"use", "admin"})
    assert caller.account.limits.concurrency == 4


def test_keys_are_added_to_a_file_that_only_its_owner_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "keys.toml"
    for name in ("ci", "team.a"):
        assert main(["new", name, "--file", str(path), "--requests-per-second", "2.5"]) == 0
        key = capsys.readouterr().err.split()[-1]
        assert ring(path).find(key).name == name
        assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_text()
    assert main(["new", "ci", "--file", str(path)]) == 1
    assert "has a key of ci already" in capsys.readouterr().err
    assert main(["new", "not a name", "--file", str(path)]) == 1
    assert path.read_text() == before
    assert [each.name for each in tmp_path.iterdir()] == ["keys.toml"]


def test_the_file_of_the_docs_is_one_that_can_be_read(tmp_path: Path):
    page = Path(__file__).parents[3] / "docs/security.md"
    path = tmp_path / "keys.toml"
    path.write_text(re.search(r"```toml\n(.*?)```", page.read_text(), re.DOTALL)[1])
    assert read_entries(path)["ci"].limits.images_per_minute == 600
