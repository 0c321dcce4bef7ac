"""What becomes of a repository while it is served: versions, models, broken files, vanished volumes."""

import asyncio
import dataclasses
import shutil
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import living
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from serving.errors import Code, ServingError
from serving.manifest.probe import summarise
from serving.pb import image_generation_pb2 as pb
from serving.service import RequestContext, Service

OpenService = Callable[..., AbstractAsyncContextManager[Service]]

NAME = "shade"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """One model with one version."""
    folder = tmp_path / "repository"
    folder.mkdir()
    living.publish(folder, NAME, 1)
    return folder


async def ask(service: Service, version: int = 0, model: str = NAME, **fields: Any) -> int:
    """The version that answered, after a look at its picture."""
    request = pb.GenerateImagesRequest(model=model, version=version, format=pb.IMAGE_FORMAT_RAW_U8, **fields)
    answer = await service.generate_images(request, RequestContext(request_id="x"))
    shade = round((living.grey(answer.run.version) + 1) * 127.5)
    pixels = np.frombuffer(answer.images[0].data, np.uint8)
    assert abs(pixels.astype(int) - shade).max() <= 1
    return answer.run.version


async def refused(service: Service, version: int = 0, model: str = NAME) -> ServingError:
    with pytest.raises(ServingError) as error:
        await ask(service, version, model)
    return error.value


async def described(service: Service, model: str = NAME) -> pb.Model:
    return await service.get_model(pb.GetModelRequest(model=model))


async def poll(service: Service) -> None:
    """What the poll does each time."""
    await service._repository.look(patient=True)
    await service._repository.settle()


async def unloaded(service: Service) -> None:
    """Until nothing that could be unloaded is still there."""
    await service._repository._holdings.settled()


def loaded(service: Service) -> set[tuple[str, int]]:
    return set(service._repository._backend._sessions)


async def test_a_new_version_is_served_and_the_one_before_the_last_is_let_go(
    open_tiny: OpenService, repository: Path
) -> None:
    async with open_tiny(repository=repository) as service:
        assert await ask(service) == 1
        living.publish(repository, NAME, 2)
        await service.reload()
        assert [await ask(service), await ask(service, 1)] == [2, 1]
        living.publish(repository, NAME, 3)
        await service.reload()
        await unloaded(service)
        assert await ask(service) == 3
        assert loaded(service) == {(NAME, 2), (NAME, 3)}
        assert list((await described(service)).versions) == [2, 3]
        error = await refused(service, 1)
        assert error.code == Code.NOT_FOUND
        assert "version 1 of shade is not served: its version policy is latest:2" in error.message


async def test_a_publication_is_noticed_by_the_poll(open_tiny: OpenService, repository: Path) -> None:
    async with open_tiny(repository=repository, poll_seconds=0.02) as service:
        living.publish(repository, NAME, 2)
        while await ask(service) != 2:
            await asyncio.sleep(0.01)
        living.publish(repository, "other", 1)
        while len((await service.list_models()).models) < 2:
            await asyncio.sleep(0.01)
        shutil.rmtree(repository / "other")
        while len((await service.list_models()).models) > 1:
            await asyncio.sleep(0.01)
        assert await ask(service) == 2


async def test_a_request_under_way_ends_on_the_version_that_it_began_with(
    open_tiny: OpenService, repository: Path
) -> None:
    async with open_tiny(repository=repository) as service:
        repo = service._repository
        model, version = repo.find(NAME, 0, "generate")
        with repo.keep(model, version):
            for newer in (2, 3):
                living.publish(repository, NAME, newer)
                await service.reload()
            assert (await refused(service, 1)).code == Code.NOT_FOUND
            assert repo._holdings.retired() == [(NAME, 1)]
            with repo.keep(model, version):
                pass
            assert (NAME, 1) in loaded(service)
        await unloaded(service)
        assert loaded(service) == {(NAME, 2), (NAME, 3)}
        assert {key[1] for key in service._runner._engine._costs} <= {2, 3}
        assert {key[1] for key in service._runner._engine._manifests} == {2, 3}


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (lambda model: b"", "copied in part"),
        (lambda model: model[: len(model) // 2], "copied in part"),
        (lambda model: model[:-8] + b"\0" * 8, "copied in part"),
    ],
)
async def test_a_broken_version_is_refused_with_its_reason_until_its_file_is_right(
    open_tiny: OpenService,
    repository: Path,
    caplog: pytest.LogCaptureFixture,
    broken: Callable[[bytes], bytes],
    reason: str,
) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry, repository=repository) as service:
        living.publish(repository, NAME, 2)
        file = repository / NAME / "2" / "model.onnx"
        whole = file.read_bytes()
        file.write_bytes(broken(whole))
        for _ in range(3):
            await poll(service)
        assert await ask(service) == 1
        model = await described(service)
        assert (model.default_version, list(model.versions)) == (1, [1, 2])
        assert reason in model.metadata["problem"]
        assert caplog.text.count("shade version 2 is not served") == 1
        assert registry.get_sample_value("atelier_refused", {"name": "shade/2"}) == 1
        assert "version 2 of shade did not load" in (await refused(service, 2)).message
        living.publish(repository, "good", 1)
        file.write_bytes(whole)
        await poll(service)
        assert await ask(service) == 2
        assert await ask(service, model="good") == 1
        assert registry.get_sample_value("atelier_refused", {"name": "shade/2"}) is None
        assert "problem" not in (await described(service)).metadata


async def test_a_refused_file_is_not_read_again_until_it_changes(
    open_tiny: OpenService, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_tiny(repository=repository) as service:
        living.publish(repository, NAME, 2)
        file = repository / NAME / "2" / "model.onnx"
        whole = file.read_bytes()
        file.write_bytes(whole[:100])
        await service.reload()
        backend = service._repository._backend
        seen: list[int] = []
        load = backend.load

        async def counted(graph: str, version: int) -> None:
            seen.append(version)
            await load(graph, version)

        monkeypatch.setattr(backend, "load", counted)
        for _ in range(3):
            await poll(service)
        assert seen == []
        file.write_bytes(whole)
        await poll(service)
        assert seen == [2]
        assert await ask(service) == 2


@pytest.mark.parametrize("text", ["", "name: {{{", None, "cut"])
async def test_a_configuration_that_is_broken_or_cut_off_leaves_what_is_served(
    open_tiny: OpenService, repository: Path, text: str | None
) -> None:
    living.publish(repository, NAME, 2)
    config = repository / NAME / "config.pbtxt"
    whole = config.read_text()
    async with open_tiny(repository=repository) as service:
        if text is None:
            config.unlink()
        else:
            config.write_text(whole[: len(whole) * 2 // 3] if text == "cut" else text)
        for _ in range(4):
            await poll(service)
        assert [await ask(service), await ask(service, 1)] == [2, 1]
        assert NAME in service._repository.catalog.refused
        config.write_text(whole)
        await service.reload()
        assert service._repository.catalog.refused == {}
        assert await ask(service) == 2


async def test_a_configuration_of_other_tensors_than_the_file_has_is_refused(
    open_tiny: OpenService, repository: Path
) -> None:
    async with open_tiny(repository=repository) as service:
        shape = dataclasses.replace(living.manifest(NAME).inputs[0], shape=(7,))
        living.publish(repository, NAME, 2, inputs=(shape,))
        await service.reload()
        assert await ask(service) == 1
        assert "does not run on inputs" in (await described(service)).metadata["problem"]


async def test_a_version_that_changes_under_its_number_is_refused_and_the_loaded_one_goes_on(
    open_tiny: OpenService, repository: Path
) -> None:
    async with open_tiny(repository=repository) as service:
        other = living.model_of(0.5)
        living.write_model(repository, NAME, 1, other)
        living.change(repository, NAME, versions={1: living.record(other)})
        await service.reload()
        assert await ask(service) == 1
        assert "versions never change" in (await described(service)).metadata["problem"]


async def test_a_version_that_is_taken_away_goes_when_it_is_missing_twice(
    open_tiny: OpenService, repository: Path
) -> None:
    living.publish(repository, NAME, 2)
    async with open_tiny(repository=repository) as service:
        await service.reload()
        shutil.rmtree(repository / NAME / "2")
        await poll(service)
        assert await ask(service) == 2
        await poll(service)
        await unloaded(service)
        assert await ask(service) == 1
        assert loaded(service) == {(NAME, 1)}


async def test_a_model_that_is_taken_away_goes_with_its_series(
    open_tiny: OpenService, repository: Path
) -> None:
    living.publish(repository, "other", 1)
    registry = CollectorRegistry()
    async with open_tiny(registry, repository=repository) as service:
        await ask(service, model="other")
        labels = {
            "method": "GenerateImages",
            "task": "generate",
            "model": "other",
            "version": "1",
            "code": "OK",
        }
        assert registry.get_sample_value("atelier_requests_total", labels) == 1
        shutil.rmtree(repository / "other")
        await service.reload()
        await unloaded(service)
        assert (await refused(service, model="other")).code == Code.NOT_FOUND
        assert loaded(service) == {(NAME, 1)}
        assert registry.get_sample_value("atelier_requests_total", labels) is None
        assert registry.get_sample_value("atelier_rows_total", {"graph": "other"}) is None


@pytest.mark.parametrize("how", ["gone", "empty"])
async def test_a_repository_that_vanishes_leaves_what_is_loaded(
    open_tiny: OpenService, repository: Path, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    registry = CollectorRegistry()
    async with open_tiny(registry, repository=repository, poll_seconds=0.02) as service:
        away = repository.with_name("away")
        repository.rename(away)
        if how == "empty":
            repository.mkdir()
        while registry.get_sample_value("atelier_repository_reachable") != 0:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert await ask(service) == 1
        assert service.ready()
        assert caplog.text.count("what is loaded is served as before") == 1
        with pytest.raises(ServingError) as error:
            await service.reload()
        assert error.value.code == Code.UNAVAILABLE
        if how == "empty":
            repository.rmdir()
        living.publish(away, NAME, 2)
        away.rename(repository)
        while await ask(service) != 2:
            await asyncio.sleep(0.01)
        assert registry.get_sample_value("atelier_repository_reachable") == 1


async def test_a_folder_that_is_copied_file_by_file_is_served_when_it_is_whole(
    open_tiny: OpenService, repository: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    for version in (1, 2, 3):
        living.publish(source, NAME, version)
    files = sorted(path for path in (source / NAME).rglob("*") if path.is_file())
    async with open_tiny(repository=repository) as service:
        for file in reversed(files):
            target = repository / NAME / file.relative_to(source / NAME)
            target.parent.mkdir(exist_ok=True)
            content = file.read_bytes()
            with target.open("wb") as opened:
                for piece in (content[: len(content) // 2], content[len(content) // 2 :]):
                    opened.write(piece)
                    opened.flush()
                    await poll(service)
                    assert await ask(service) in (1, 2, 3)
        await poll(service)
        assert await ask(service) == 3


async def test_where_the_newest_is_broken_from_the_start_an_older_one_stands_in(
    open_tiny: OpenService, repository: Path
) -> None:
    for version in (2, 3, 4):
        living.publish(repository, NAME, version)
    for version in (3, 4):
        (repository / NAME / str(version) / "model.onnx").write_bytes(b"")
    async with open_tiny(repository=repository) as service:
        await service.reload()
        assert await ask(service) == 2
        assert loaded(service) == {(NAME, 2)}
        living.publish(repository, NAME, 5)
        await service.reload()
        await unloaded(service)
        assert await ask(service) == 5
        assert loaded(service) == {(NAME, 5)}


async def test_what_is_not_there_at_the_start_is_served_when_it_comes(
    open_tiny: OpenService, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.repository.control._FIRST_LOOKS", 0.02)
    late = tmp_path / "late"

    async def come() -> None:
        await asyncio.sleep(0.1)
        living.publish(tmp_path / "made", NAME, 1)
        (tmp_path / "made").rename(late)

    coming = asyncio.create_task(come())
    async with open_tiny(repository=late) as service:
        await coming
        assert await ask(service) == 1
        assert service.ready()


async def test_clients_are_told_how_every_version_stands_and_what_is_refused(
    open_tiny: OpenService, repository: Path
) -> None:
    async with open_tiny(repository=repository) as service:
        living.publish(repository, NAME, 2, canary={1: 3.0, 2: 1.0})
        await service.reload()
        living.publish(repository, NAME, 3, canary={1: 3.0, 2: 1.0})
        (repository / NAME / "3" / "model.onnx").write_bytes(b"")
        (repository / "strange").mkdir()
        await service.reload()
        listed = await service.list_models()
        (model,) = listed.models
        states = {status.version: status for status in model.version_status}
        assert [pb.VersionState.Name(states[v].state) for v in (1, 2, 3)] == [
            "VERSION_STATE_READY",
            "VERSION_STATE_READY",
            "VERSION_STATE_REFUSED",
        ]
        assert [states[v].share for v in (1, 2, 3)] == [0.75, 0.25, 0]
        assert "copied in part" in states[3].reason
        assert [entry.name for entry in listed.refused] == ["shade/3", "strange"]
        assert "no config.pbtxt" in listed.refused[1].reason


async def test_a_version_that_computes_something_else_here_is_refused_by_its_probe(
    open_tiny: OpenService, repository: Path
) -> None:
    async with open_tiny(repository=repository) as service:
        model = living.model_of(living.grey(2))
        living.write_model(repository, NAME, 2, model)
        first = living.published(repository, NAME).versions[1]
        for said, served in ((0.5, 1), (living.grey(2), 2)):
            outputs = {"sample": np.full((2, 1, living.SIDE, living.SIDE), said, np.float32)}
            record = living.record(model, summarise(outputs, seed=0, rows=2))
            living.configure(repository, living.manifest(NAME, versions={1: first, 2: record}))
            await service.reload()
            assert await ask(service) == served
            assert loaded(service) == {(NAME, version) for version in range(1, served + 1)}
            if served == 1:
                problem = (await service.get_model(pb.GetModelRequest(model=NAME))).metadata["problem"]
                assert "does not compute here what it computed when it was exported: its sample" in problem


async def test_what_the_engine_has_lost_is_loaded_again(open_tiny: OpenService, repository: Path) -> None:
    async with open_tiny(repository=repository) as service:
        await service._repository._backend.unload(NAME, 1)
        assert (await refused(service)).code == Code.UNAVAILABLE
        await poll(service)
        assert await ask(service) == 1
