"""Drawing images: from a checked request to its answer, shared with whoever asks for the same."""

from __future__ import annotations

import asyncio

from serving.batching.flights import Flights
from serving.batching.run import Runner
from serving.batching.ticket import Ticket
from serving.calls import Program, Progress, Tell
from serving.observing.metrics import Metrics
from serving.observing.tracing import Traced, current
from serving.pb import image_generation_pb2 as pb
from serving.programs.generate import finish
from serving.requests.cache import ResultCache
from serving.requests.describe import run_info
from serving.requests.fingerprint import fingerprint
from serving.requests.generation import Generation
from serving.requests.picture_pool import PicturePool
from serving.requests.work import generation_work


class Drawing:
    """Runs generations. What is asked with a seed is drawn once for all that ask at the same time, and found
    in the cache by those who ask later, where there is one."""

    def __init__(
        self, *, runner: Runner, pictures: PicturePool, cache: ResultCache, metrics: Metrics
    ) -> None:
        self._runner = runner
        self._pictures = pictures
        self._cache = cache
        self._metrics = metrics
        self._flights: Flights[pb.GenerateImagesResponse] = Flights()

    async def draw(
        self, generation: Generation, ticket: Ticket, *, seeded: bool, tell: Tell | None = None
    ) -> pb.GenerateImagesResponse:
        """The images, `tell` being told of every step. Not to be changed: others may have the same answer."""
        ticket.work = generation_work(generation)

        def begin(ticket: Ticket, tell: Tell) -> asyncio.Future[pb.GenerateImagesResponse]:
            admitted = self._runner.admitted(ticket)
            run = self._begin(generation, ticket, tell)
            admitted.until(run)
            return run

        if not seeded:
            with self._runner.admitted(ticket):
                return await self._run(generation, ticket, tell or _nobody)
        name, key = generation.model.name, fingerprint(generation)
        found = self._cache.get(key, name)
        if found is not None:
            return found
        if self._flights.boards(key):
            self._metrics.shared.labels(name).inc()
        answer = await self._flights.fly(key, ticket, begin, tell)
        self._cache.put(key, answer)
        return answer

    async def preview(self, generation: Generation, progress: Progress, ticket: Ticket) -> list[pb.Image]:
        """Pictures of what a sampler makes of the result so far."""
        assert progress.denoised is not None, "samplers show what they have"
        program = finish(generation.decoder, progress.denoised, generation.class_id)
        shown = await self._runner.run(program, ticket)
        return await self._pictures.encode(shown, generation.model.first, generation.image_format)

    def _begin(
        self, generation: Generation, ticket: Ticket, tell: Tell
    ) -> asyncio.Future[pb.GenerateImagesResponse]:
        """Begins a run: in a task of its own, unless it is one call with next to no work behind it."""
        if generation.steps is None and self._pictures.at_once(generation.bytes, generation.image_format):
            return self._runner.run(self._in_one_pass(generation, ticket, current()), ticket)
        return asyncio.create_task(self._run(generation, ticket, tell))

    async def _run(self, generation: Generation, ticket: Ticket, tell: Tell) -> pb.GenerateImagesResponse:
        model = generation.model
        images = await self._runner.run(generation.program(), ticket, tell)
        encoded = await self._pictures.encode(images, model.first, generation.image_format)
        return pb.GenerateImagesResponse(images=encoded, run=run_info(model, ticket, generation))

    def _in_one_pass(
        self, generation: Generation, ticket: Ticket, traced: Traced | None
    ) -> Program[pb.GenerateImagesResponse]:
        """The same as a program, which whoever has computed the call leads to its end."""
        model = generation.model
        images = yield from generation.program()
        encoded = self._pictures.encode_at_once(images, model.first, generation.image_format, traced)
        return pb.GenerateImagesResponse(images=encoded, run=run_info(model, ticket, generation))


def _nobody(progress: Progress) -> None:
    """Hears of progress where nobody else does."""
