"""The load generator's HTTP client."""

import asyncio
import gc

import pytest

from benchmarks.http_client import HttpClient


@pytest.mark.parametrize("turns", [0, 1, 2, 3, 5, 8, 13])
async def test_whoever_gives_up_at_any_time_leaves_no_connection(turns: int):
    gone = asyncio.Event()
    came = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        came.set()
        while await reader.read(100):  # and never answers
            pass
        writer.close()
        gone.set()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server, HttpClient(server.sockets[0].getsockname()[1]) as client:
        asking = asyncio.create_task(client.get("/"))
        for _ in range(turns):
            await asyncio.sleep(0)
        if turns:
            await came.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        if turns:
            async with asyncio.timeout(10):
                await gone.wait()
    del asking
    gc.collect()  # an open one would be an error of the test
