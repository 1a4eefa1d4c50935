"""client.py - HTTP/1.1 as a client that is exact: an answer is whole, or it is an error with its reason

For asyncio, so that one process holds all connections. Nothing is repeated silently: whoever sees Broken
was let down by the service, unless it closed the connection itself.
"""

import asyncio
import json
import socket
import struct
import time


class Broken(Exception):
    """The connection ended, was reset or stayed silent where an answer was due."""


class Answer:
    def __init__(self, status, headers, body, seconds):
        self.status, self.headers, self.body, self.seconds = status, headers, body, seconds

    def json(self):
        return json.loads(self.body)

    @property
    def problem(self):
        """The name of a problem, "" for other answers."""
        if self.headers.get("content-type") != "application/problem+json":
            return ""
        return self.json()["type"].rsplit(":", 1)[1]


def request_bytes(method, path, body=b"", headers=None):
    lines = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1"]
    if body and not any(name.lower() == "content-type" for name in headers or {}):
        lines.append("Content-Type: application/json")
    if body or method == "POST":
        lines.append(f"Content-Length: {len(body)}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


class Connection:
    """One connection, opened by the first request and again after the service said `Connection: close`."""

    def __init__(self, port):
        self.port = port
        self.reader = self.writer = None
        self.used = 0
        self.last = False  # the service closes it after this answer

    async def open(self, receive_buffer=0):
        if self.writer is not None:
            return
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", self.port)), 5)
            self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=1 << 20)
        except (OSError, asyncio.TimeoutError) as error:
            sock.close()
            raise Broken(f"no connection: {error!r}") from None
        except BaseException:
            sock.close()
            raise
        self.used = 0

    async def send(self, data):
        """Bytes as they are."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except (OSError, RuntimeError) as error:
            raise Broken(f"while sending: {error!r}") from None

    async def ended(self, seconds):
        """Whether the service ends the connection within that time; what it still sends is dropped."""
        async def drop():
            try:
                while await self.reader.read(65536):
                    pass
            except OSError:
                pass
        try:
            await asyncio.wait_for(drop(), seconds)
            return True
        except asyncio.TimeoutError:
            return False

    def close(self):
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None

    def vanish(self):
        """Away without a word: the service sees a reset."""
        if self.writer is not None:
            if not self.writer.transport.is_closing():  # the service was faster
                self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def head(self):
        """Status and headers of the next answer."""
        try:
            text = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError as error:
            what = f"after {len(error.partial)} bytes of a head" if error.partial else "without an answer"
            raise Broken(f"closed {what}, request {self.used + 1} of its connection") from None
        except (OSError, asyncio.LimitOverrunError) as error:
            raise Broken(f"no answer: {error!r}, request {self.used + 1} of its connection") from None
        first, *lines = text.split("\r\n")[:-2]
        words = first.split(" ", 2)
        if len(words) < 2 or words[0] != "HTTP/1.1" or not words[1].isdigit():
            raise Broken(f"is no answer: {first[:80]!r}")
        headers = {}
        for line in lines:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return int(words[1]), headers

    async def chunk(self):
        """A piece of a chunked body; b"" is its end."""
        try:
            size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
            data = await self.reader.readexactly(size + 2)
        except (OSError, ValueError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            raise Broken(f"a body broke off: {error!r}") from None
        return data[:-2]

    async def body(self, status, headers):
        if status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            parts = []
            while True:
                part = await self.chunk()
                if not part:
                    return b"".join(parts)
                parts.append(part)
        try:
            return await self.reader.readexactly(int(headers["content-length"]))
        except (OSError, KeyError, asyncio.IncompleteReadError) as error:
            raise Broken(f"a body broke off: {error!r}") from None

    async def exchange(self, data):
        await self.open()
        await self.send(data)
        status, headers = await self.head()
        body = await self.body(status, headers)
        self.used += 1
        if headers.get("connection", "").lower() == "close":
            self.close()
        return status, headers, body

    async def ask(self, method, path, body=b"", headers=None, timeout=30):
        """One request and its whole answer."""
        data = request_bytes(method, path, body, headers)
        began = time.monotonic()
        try:
            status, headers, body = await asyncio.wait_for(self.exchange(data), timeout)
        except asyncio.TimeoutError:
            self.close()
            raise Broken(f"no whole answer to {method} {path} in {timeout} s") from None
        except Broken:
            self.close()
            raise
        except BaseException:  # canceled: what comes next is the answer to this
            self.close()
            raise
        return Answer(status, headers, body, time.monotonic() - began)

    async def subscribe(self, path, last=None, timeout=30):
        """Opens an event stream; the answer's body is empty when it is one, see events()."""
        headers = {"Accept": "text/event-stream"}
        if last is not None:
            headers["Last-Event-ID"] = last
        began = time.monotonic()
        try:
            await self.open()
            await self.send(request_bytes("GET", path, b"", headers))
            status, headers = await asyncio.wait_for(self.head(), timeout)
            body = b"" if status == 200 else await asyncio.wait_for(self.body(status, headers), timeout)
        except asyncio.TimeoutError:
            self.close()
            raise Broken(f"no answer to {path} in {timeout} s") from None
        except BaseException:
            self.close()
            raise
        self.used += 1
        self.last = headers.get("connection", "").lower() == "close"
        if self.last and status != 200:
            self.close()
        return Answer(status, headers, body, time.monotonic() - began)

    async def events(self, silence=25):
        """The events of a stream as (id, type, data), until the service ends it; comments as (None, None, None).
        The connection stays when the stream came to its end."""
        text, whole = "", False
        try:
            while True:
                try:
                    part = await asyncio.wait_for(self.chunk(), silence)
                except asyncio.TimeoutError:
                    raise Broken(f"a stream was silent for {silence} s, comments are due every 15 s") from None
                if not part:
                    whole = True
                    return
                text += part.decode()
                *blocks, text = text.split("\n\n")
                for block in blocks:
                    fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
                    if "id" in fields:
                        yield int(fields["id"]), fields["event"], json.loads(fields["data"])
                    else:
                        yield None, None, None
        finally:
            if not whole or self.last:
                self.close()
