"""Changing several files of a model repository at once: wholly, or after a kill or a full disk not at all.

What is new is written into a hidden folder of the repository itself (which may be a mounted volume, so that
no folder beside it need be on the same file system), and put in place by renames:

1. new version folders are renamed into graphs that exist, where no configuration names them yet, so that
   neither a gateway nor a Triton takes notice of them;
2. the change is marked as decided;
3. files such as `config.pbtxt` and `configs/cpu.pbtxt` replace their old selves one by one, and new graphs
   appear as whole folders.

Whoever opens the next transaction first finishes a decided change, or takes an undecided one back.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

STAGING = ".publishing"
DISCARDED = ".discarded"
LOCK = ".lock"


class RepositoryBusyError(RuntimeError):
    """Another process is changing the repository."""


@contextlib.contextmanager
def transaction(repository: Path) -> Iterator[Path]:
    """A folder to write new files in with `write`, as `<graph>/<version>/<file>` and `<graph>/<file>`.

    They are put in place when the block ends, and thrown away where it raises. Raises `RepositoryBusyError`
    where another process has a transaction open, and lets `OSError` through.
    """
    repository.mkdir(exist_ok=True)
    with _locked(repository):
        recover(repository)
        staging = repository / STAGING
        tree = staging / "tree"
        tree.mkdir(parents=True)
        try:
            yield tree
            _commit(repository, staging)
        except BaseException:
            if not (staging / "decided").exists():
                # The disk may be full, but taking back only removes and renames.
                with contextlib.suppress(OSError):
                    recover(repository)
            raise


def write(path: Path, content: bytes) -> None:
    """Write a new file, its folders where they lack, and see both on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    _sync(path.parent)


def recover(repository: Path) -> None:
    """Finish a change that was decided when its process died, and take back one that was not.

    For the holder of the lock alone.
    """
    staging = repository / STAGING
    if (staging / "decided").exists():
        _put_in_place(repository, staging)
    elif staging.exists():
        _take_back(repository, staging)
    shutil.rmtree(repository / DISCARDED, ignore_errors=True)


def _commit(repository: Path, staging: Path) -> None:
    tree = staging / "tree"
    moves = [
        [graph.name, version.name]
        for graph in _folders(tree)
        if (repository / graph.name).exists()
        for version in _folders(graph)
        if version.name.isdecimal()
    ]
    for folder in (*_folders(tree), tree, staging, repository):
        _sync(folder)
    write(staging / "moves.json", json.dumps(moves).encode())
    for graph_name, version_name in moves:
        os.rename(tree / graph_name / version_name, repository / graph_name / version_name)
        _sync(repository / graph_name)
    write(staging / "decided", b"")
    _put_in_place(repository, staging)


def _put_in_place(repository: Path, staging: Path) -> None:
    for graph in _folders(staging / "tree"):
        target = repository / graph.name
        if target.exists():
            _replace_files(graph, target)
        else:
            os.rename(graph, target)
    _sync(repository)
    _discard(repository, staging)


def _replace_files(source: Path, target: Path) -> None:
    """Put every file of a folder, and of folders in it, over its namesake in another."""
    target.mkdir(exist_ok=True)
    for entry in sorted(source.iterdir()):
        if entry.is_dir():
            _replace_files(entry, target / entry.name)
        else:
            os.replace(entry, target / entry.name)
    _sync(target)


def _take_back(repository: Path, staging: Path) -> None:
    moves = staging / "moves.json"
    for graph_name, version_name in _read_moves(moves):
        version = repository / graph_name / version_name
        # A folder still in the staging tree has not moved: whatever bears its name is somebody else's.
        if not (staging / "tree" / graph_name / version_name).exists() and version.exists():
            _discard(repository, version)
    _discard(repository, staging)


def _read_moves(path: Path) -> list[list[str]]:
    try:
        moves: list[list[str]] = json.loads(path.read_bytes())
    except (FileNotFoundError, json.JSONDecodeError):
        return []  # Killed while it was written, before the first move.
    return moves


def _discard(repository: Path, folder: Path) -> None:
    """Remove a folder so that a kill half-way leaves it either whole or out of everybody's sight."""
    discarded = repository / DISCARDED
    shutil.rmtree(discarded, ignore_errors=True)
    os.rename(folder, discarded)
    _sync(folder.parent)
    shutil.rmtree(discarded, ignore_errors=True)


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir())


@contextlib.contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """Hold the repository's lock; the system lets go of it when the process ends, however it ends."""
    with (repository / LOCK).open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RepositoryBusyError(
                f"another process is publishing into {repository}: wait until it is done"
            ) from error
        yield


def _sync(folder: Path) -> None:
    """See a folder's entries on the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
