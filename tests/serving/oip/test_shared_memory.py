"""Regions of shared memory, and clients that mean ill."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.errors import Code, ServingError
from serving.oip.messages import Place
from serving.oip.shared_memory import SharedMemory

SHM = Path("/dev/shm")


@pytest.fixture
def key() -> Iterator[str]:
    """The name of a shared memory object of 100 bytes."""
    name = f"atelier-test-{uuid.uuid4().hex}"
    (SHM / name).write_bytes(bytes(range(100)))
    yield name
    (SHM / name).unlink(missing_ok=True)


@pytest.fixture
def memory() -> SharedMemory:
    return SharedMemory(allowed=True)


def test_nothing_is_touched_unless_the_setting_allows_it(key: str):
    memory = SharedMemory(allowed=False)
    place = Place(region="r", offset=0, byte_size=1)
    for call in (
        lambda: memory.register("r", key, 0, 1),
        lambda: memory.unregister(""),
        lambda: memory.status(""),
        lambda: memory.check(place),
    ):
        with pytest.raises(ServingError, match="--client-shared-memory") as caught:
            call()
        assert caught.value.code == Code.UNIMPLEMENTED


def test_a_place_is_read_and_written_where_the_region_begins(memory: SharedMemory, key: str):
    memory.register("r", f"/{key}", 10, 50)
    place = Place(region="r", offset=5, byte_size=4)
    memory.check(place)
    assert memory.read(place) == bytes([15, 16, 17, 18])
    memory.write(place, b"abc")
    assert (SHM / key).read_bytes()[14:20] == bytes([14]) + b"abc" + bytes([18, 19])


@pytest.mark.parametrize(
    "key", ["", "/", ".", "..", "/..", "a/b", "../etc/passwd", "/etc/passwd", "a\0b", "x" * 300, "nothing"]
)
def test_a_key_that_is_no_shared_memory_is_refused(memory: SharedMemory, key: str):
    with pytest.raises(ServingError, match="Unable to open shared memory region") as caught:
        memory.register("r", key, 0, 1)
    assert caught.value.code == Code.INVALID_ARGUMENT


def test_a_link_or_a_pipe_is_no_shared_memory(memory: SharedMemory, key: str, tmp_path: Path):
    (tmp_path / "secret").write_text("of the house")
    link, pipe = SHM / f"{key}-link", SHM / f"{key}-pipe"
    link.symlink_to(tmp_path / "secret")
    os.mkfifo(pipe)
    try:
        for each in (link, pipe):
            with pytest.raises(ServingError, match="Unable to open"):
                memory.register("r", each.name, 0, 1)
    finally:
        link.unlink()
        pipe.unlink()


@pytest.mark.parametrize(("offset", "size"), [(0, 101), (1, 100), (0, 0), (101, 1), (2**63, 1), (-1, 1)])
def test_a_region_lies_within_its_object(memory: SharedMemory, key: str, offset: int, size: int):
    with pytest.raises(ServingError, match="failed to register") as caught:
        memory.register("r", key, offset, size)
    assert caught.value.code == Code.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("offset", "size"), [(-1, 1), (50, 1), (0, 51), (49, 2), (0, 0), (0, -1), (2**62, 2**62)]
)
def test_a_place_lies_within_its_region(memory: SharedMemory, key: str, offset: int, size: int):
    memory.register("r", key, 50, 50)
    with pytest.raises(ServingError, match="Invalid offset"):
        memory.check(Place(region="r", offset=offset, byte_size=size))


def test_an_object_that_was_made_shorter_is_an_error_and_not_the_end(memory: SharedMemory, key: str):
    memory.register("r", key, 0, 100)
    os.truncate(SHM / key, 10)
    place = Place(region="r", offset=0, byte_size=100)
    memory.check(place)
    for call in (lambda: memory.read(place), lambda: memory.write(place, bytes(100))):
        with pytest.raises(ServingError, match="smaller than it was") as caught:
            call()
        assert caught.value.code == Code.INVALID_ARGUMENT
    assert (SHM / key).stat().st_size == 10


def test_a_region_that_was_unregistered_is_closed_and_unknown(memory: SharedMemory, key: str):
    opened = len(os.listdir("/proc/self/fd"))
    memory.register("r", key, 0, 100)
    memory.register("s", key, 0, 100)
    assert list(memory.status("")) == ["r", "s"]
    memory.unregister("r")
    memory.unregister("never there")
    with pytest.raises(ServingError) as caught:
        memory.read(Place(region="r", offset=0, byte_size=1))
    assert caught.value.code == Code.NOT_FOUND
    memory.unregister("")
    assert not memory.status("")
    assert len(os.listdir("/proc/self/fd")) == opened


def test_the_number_of_regions_is_bounded(memory: SharedMemory, key: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("serving.oip.shared_memory._MOST_REGIONS", 2)
    memory.register("a", key, 0, 1)
    memory.register("b", key, 0, 1)
    with pytest.raises(ServingError) as caught:
        memory.register("c", key, 0, 1)
    assert caught.value.code == Code.RESOURCE_EXHAUSTED
