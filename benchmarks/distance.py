"""A distance before a server: every byte takes `delay` seconds each way; bandwidth is unlimited.

Run as `python -m benchmarks.distance PORT SERVER_PORT DELAY`.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Pass on each piece when its time has come; those behind it are on their way already."""
    loop = asyncio.get_running_loop()
    while piece := await reader.read(65_536):
        loop.call_later(delay, writer.write, piece)
    loop.call_later(delay, writer.close)


async def serve(port: int, server_port: int, delay: float) -> None:
    """Listen for ever."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", server_port)
        with suppress(ConnectionError):
            await asyncio.gather(_carry(reader, back, delay), _carry(there, writer, delay))

    server = await asyncio.start_server(connected, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))
