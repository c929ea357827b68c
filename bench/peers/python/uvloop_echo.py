"""Newline echo with an asyncio Protocol on uvloop: the lines of a read leave in one write; a
connection is paused while its output waits."""

import asyncio
import sys

import uvloop

LINE_MAX = 64 * 1024


class Echo(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport = transport
        self.partial = b""

    def data_received(self, data):
        lines = (self.partial + data if self.partial else data).split(b"\n")
        self.partial = lines.pop()
        if len(self.partial) > LINE_MAX:
            self.transport.abort()
        elif lines:
            lines.append(b"")
            self.transport.write(b"\n".join(lines))

    def pause_writing(self):
        self.transport.pause_reading()

    def resume_writing(self):
        self.transport.resume_reading()


async def main():
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Echo, "127.0.0.1", int(sys.argv[1]), backlog=4096)
    await server.serve_forever()


uvloop.run(main())
