"""A repository out of an archive: what the digest says, whole or not at all, over a network that fails."""

import hashlib
import io
import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

import serving.repository.fetch as fetching
from serving.repository.fetch import FetchError, fetch


def packed(files: dict[str, bytes], kind: str = "gz") -> bytes:
    memory = io.BytesIO()
    with tarfile.open(fileobj=memory, mode=f"w:{kind}") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return memory.getvalue()


ARCHIVE = packed({"digits/config.pbtxt": b"name: 'digits'", "digits/1/model.onnx": b"x" * 3000})
SHA256 = hashlib.sha256(ARCHIVE).hexdigest()


class Server(ThreadingHTTPServer):
    """Answers with `answers` in turn, and the last of them for ever."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes, int]] = [(200, ARCHIVE, len(ARCHIVE))]
        self.seen: list[dict[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/models.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(dict(self.headers))
        answers = self.server.answers
        code, body, length = answers.pop(0) if len(answers) > 1 else answers[0]
        self.send_response(code)
        if code == 302:
            self.send_header("Location", body.decode())
        self.send_header("Content-Length", str(length))
        self.end_headers()
        if code != 302:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(fetching.time, "sleep", lambda _: None)
    with Server() as running:
        thread = Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.mark.parametrize("kind", ["", "gz", "xz"])
def test_the_repository_is_there_afterwards_and_nothing_else(tmp_path: Path, kind: str):
    archive = packed({"digits/1/model.onnx": b"x"}, kind)
    (tmp_path / "models.tar").write_bytes(archive)
    to = tmp_path / "models"
    (to / "old").mkdir(parents=True)
    fetch(str(tmp_path / "models.tar"), hashlib.sha256(archive).hexdigest(), to)
    assert (to / "digits/1/model.onnx").read_bytes() == b"x"
    assert [path.name for path in to.iterdir() if not path.name.startswith(".fetched-")] == ["digits"]


def test_another_digest_changes_nothing(tmp_path: Path):
    (tmp_path / "models.tar.gz").write_bytes(ARCHIVE)
    to = tmp_path / "models"
    (to / "old").mkdir(parents=True)
    with pytest.raises(FetchError, match=f"has the SHA-256 {SHA256}, not {'0' * 64}"):
        fetch(str(tmp_path / "models.tar.gz"), "0" * 64, to)
    assert [path.name for path in to.iterdir()] == ["old"]


def test_what_is_there_is_not_fetched_again(tmp_path: Path, server: Server):
    fetch(server.url, SHA256, tmp_path)
    fetch(server.url, SHA256, tmp_path)
    assert len(server.seen) == 1


def test_a_broken_connection_and_a_server_in_trouble_are_tried_again(tmp_path: Path, server: Server):
    server.answers = [(503, b"", 0), (200, ARCHIVE[:50], len(ARCHIVE)), (200, ARCHIVE, len(ARCHIVE))]
    fetch(server.url, SHA256, tmp_path)
    assert len(server.seen) == 3
    assert (tmp_path / "digits/config.pbtxt").is_file()


def test_trouble_without_end_is_told(tmp_path: Path, server: Server):
    server.answers = [(503, b"", 0)]
    with pytest.raises(FetchError, match=r"models\.tar\.gz: the server says 503 .*, 4 times"):
        fetch(server.url, SHA256, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_not_there_is_asked_for_once(tmp_path: Path, server: Server):
    server.answers = [(404, b"", 0)]
    with pytest.raises(FetchError, match="the server says 404"):
        fetch(server.url, SHA256, tmp_path)
    assert len(server.seen) == 1


def test_the_authorization_is_shown_to_its_server_and_not_where_a_redirect_leads(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ATELIER_FETCH_AUTHORIZATION", "Bearer abc")
    elsewhere = server.url.replace("127.0.0.1", "localhost")
    server.answers = [(302, elsewhere.encode(), 0), (200, ARCHIVE, len(ARCHIVE))]
    fetch(server.url, SHA256, tmp_path)
    assert [headers.get("Authorization") for headers in server.seen] == ["Bearer abc", None]


def test_the_authorization_is_not_sent_in_the_clear(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ATELIER_FETCH_AUTHORIZATION", "Bearer abc")
    with pytest.raises(FetchError, match="use https") as refused:
        fetch("http://models.example.org/models.tar.gz", SHA256, tmp_path)
    assert "abc" not in str(refused.value)


@pytest.mark.parametrize("name", ["../outside", "/etc/outside"])
def test_an_archive_that_reaches_outside_its_folder_is_refused(tmp_path: Path, name: str):
    archive = packed({name: b"x"})
    (tmp_path / "models.tar.gz").write_bytes(archive)
    to = tmp_path / "within" / "models"
    sha256 = hashlib.sha256(archive).hexdigest()
    if name.startswith("/"):  # taken as if it began at the folder
        fetch(str(tmp_path / "models.tar.gz"), sha256, to)
        assert (to / "etc/outside").is_file()
    else:
        with pytest.raises(FetchError, match="cannot be unpacked"):
            fetch(str(tmp_path / "models.tar.gz"), sha256, to)
    assert not (tmp_path / "outside").exists()
    assert not Path("/etc/outside").exists()


def test_what_is_no_archive_is_told(tmp_path: Path):
    (tmp_path / "models.tar.gz").write_bytes(ARCHIVE[:60])
    with pytest.raises(FetchError, match="cannot be unpacked"):
        fetch(str(tmp_path / "models.tar.gz"), hashlib.sha256(ARCHIVE[:60]).hexdigest(), tmp_path / "to")


def test_the_command_says_what_is_wrong_in_a_line(tmp_path: Path):
    command = [sys.executable, "-m", "atelier", "fetch"]
    for arguments, status, words in (
        (["nowhere.tar", "--sha256", SHA256, "--to", str(tmp_path)], 1, "No such file"),
        (["ftp://host/models.tar", "--sha256", SHA256, "--to", str(tmp_path)], 1, "give an http or https"),
        (["models.tar", "--sha256", "abc", "--to", str(tmp_path)], 2, "64 hexadecimal digits"),
    ):
        ended = subprocess.run([*command, *arguments], capture_output=True, text=True, env=os.environ)
        assert ended.returncode == status
        assert words in ended.stderr.splitlines()[-1]
