"""load.py MOECALD MOECAL [--json FILE] - the service with every seat taken and a job on all cores

Starts a moecald of its own and keeps it calibrating while all kinds of clients use nearly all of its
connections: those that read, wait, submit, cancel and upload, and those that drip, vanish or do not read.
Then all connections and more; then nobody; then a stop with clients waiting, and a start again.

A client that keeps to the rules sees what the API promises and nothing else: 2xx and 304, what its own
request means (409 for canceling what is finished), and 429 or 503 with Retry-After. Figures are printed
and not judged, but for promises such as /healthz within a second: machines differ.

Takes about 100 seconds, some 2 GB below $TMPDIR and 1 GB of memory.
"""

import argparse
import asyncio
import collections
import http.client
import json
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from client import Broken, Connection, request_bytes

CONNECTIONS, WATCHERS, QUEUED = 64, 32, 50  # settings of the daemon; the first two are its defaults
REQUEST_SECONDS = 10
WARM_SECONDS, LOAD_SECONDS, FULL_SECONDS = 8, 36, 4
WHOLE_SECONDS = 118  # more would be a hang

LONG = {"model": "tiny", "dataset": "long", "recipe": "W4A16", "concatenate_data": True, "max_seq_length": 512,
        "num_calibration_samples": 4096, "priority": 1000}
SHORT = {"model": "tiny", "dataset": "short", "recipe": "FP8", "concatenate_data": True, "max_seq_length": 512}
# What a request may be answered with besides success, because it says something about what was asked.
MEANT = {"cancel": {404, 409}, "delete": {404, 409}, "poll": {404}, "stream": {404}, "get job": {404},
         "submit, key of another": {422}, "delete dataset": {404, 409}}


# --- the daemon --------------------------------------------------------------------------------------


class Daemon:
    def __init__(self, moecald, moecal, folder):
        self.moecald, self.moecal, self.folder = moecald, moecal, folder
        self.log = os.path.join(folder, "log")
        self.process = None

    def start(self):
        """Returns the port."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [self.moecald, "--listen", "127.0.0.1:0", "--state", os.path.join(self.folder, "state"), "--allow", "tests/data",
                 "--program", self.moecal, "--connections", str(CONNECTIONS), "--watchers", str(WATCHERS),
                 "--queued-jobs", str(QUEUED), "--request-seconds", str(REQUEST_SECONDS), "--free-percent", "0"],
                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline().decode()
        if not line.startswith("listening on http://"):
            raise SystemExit(f"load: moecald does not start: {line}{self.errors(5)}")
        return int(line.rsplit(":", 1)[1])

    def usage(self):
        """Resident bytes, descriptors, threads."""
        status = {}
        with open(f"/proc/{self.process.pid}/status", encoding="ascii", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                status[name] = value.split()
        return {"rss": int(status["VmRSS"][0]) * 1024, "fds": len(os.listdir(f"/proc/{self.process.pid}/fd")),
                "threads": int(status["Threads"][0])}

    def errors(self, last=None):
        """What it logged as an error or worse; or its last lines."""
        with open(self.log, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
        return "\n".join(lines[-last:]) if last else [line for line in lines if line[:3] in ("<0>", "<1>", "<2>", "<3>")]

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


# --- what is measured from outside -------------------------------------------------------------------


class Probes:
    """A process of its own, so that its clock does not wait for the other clients' work. Two threads: /healthz over
    a new connection each time, one job over a connection that stays."""

    def __init__(self):
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=self.serve, args=(other, self.pipe), daemon=True)
        self.process.start()
        other.close()

    def start(self, port, job, pause=0.01):
        self.pipe.send((port, job, pause))

    def stop(self):
        """{"healthz": [seconds], "get job": [seconds], "faults": [text]} since start."""
        self.pipe.send(None)
        if not self.pipe.poll(30):
            return {"healthz": [], "get job": [], "faults": ["the probes hang"]}
        return self.pipe.recv()

    def close(self):
        self.process.kill()
        self.process.join()

    @staticmethod
    def serve(pipe, other):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        other.close()
        while True:
            try:
                port, job, pause = pipe.recv()
            except EOFError:
                return
            end = threading.Event()
            found = {"healthz": [], "get job": [], "faults": []}
            threads = [threading.Thread(target=probe_healthz, args=(port, end, found)),
                       threading.Thread(target=probe_job, args=(port, job, pause, end, found))]
            for thread in threads:
                thread.start()
            pipe.recv()
            end.set()
            for thread in threads:
                thread.join()
            pipe.send(found)


def probe_healthz(port, end, found):
    while not end.wait(0.04):
        began = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", port), 5) as sock:
                sock.settimeout(5)
                sock.sendall(request_bytes("GET", "/healthz", b"", {"Connection": "close"}))
                data = b""
                while True:
                    part = sock.recv(4096)
                    if not part:
                        break
                    data += part
            if not data.startswith(b"HTTP/1.1 200 ") or b'"ok"' not in data:
                found["faults"].append(f"healthz: {data[:40]!r}")
            found["healthz"].append(time.monotonic() - began)
        except OSError as error:
            found["faults"].append(f"healthz after {time.monotonic() - began:.3f} s: {error!r}")


def probe_job(port, job, pause, end, found):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not end.wait(pause):
        began = time.monotonic()
        try:
            connection.request("GET", f"/v1/jobs/{job}")
            answer = connection.getresponse()
            if answer.status != 200 or json.loads(answer.read())["id"] != job:
                found["faults"].append(f"get job: {answer.status}")
            found["get job"].append(time.monotonic() - began)
        except (OSError, http.client.HTTPException) as error:
            found["faults"].append(f"get job after {time.monotonic() - began:.3f} s: {error!r}")
            connection.close()
    connection.close()


# --- what the clients know together ------------------------------------------------------------------


class World:
    def __init__(self, daemon, port):
        self.daemon, self.port = daemon, port
        self.random = random.Random(1)
        self.counts = collections.Counter()              # (kind, status)
        self.problems = collections.Counter()            # names of problems
        self.seconds = collections.defaultdict(list)     # kind: latencies
        self.faults = collections.Counter()              # texts of what must not be
        self.keys = {}                                   # idempotency key: id of the job
        self.open_keys = {}                              # key: body; sent, and no answer came
        self.deleted, self.perhaps_deleted = set(), set()
        self.disposable = collections.deque()            # jobs that may be canceled and deleted
        self.kept = collections.deque(maxlen=24)         # jobs that stay in the queue
        self.long = []                                   # jobs that calibrate
        self.running = None
        self.bodies = {}                                 # key: what was or will be sent with it
        self.full = asyncio.Event()
        self.fresh = asyncio.Event()                     # cleared: no new connections by those that can do without
        self.fresh.set()
        self.samples = []
        self.cut = []                                    # seconds until dripping clients were cut
        self.late = []                                   # seconds by which long polls were late
        self.bytes_up = 0
        self.until_running = 0

    def fault(self, text):
        self.faults[text] += 1

    def note(self, kind, answer):
        """Counts an answer and says whether it is a success."""
        self.counts[kind, answer.status] += 1
        self.seconds[kind].append(answer.seconds)
        if answer.problem:
            self.problems[answer.problem] += 1
        if 200 <= answer.status < 300 or answer.status == 304:
            return True
        if answer.status in (429, 503) and answer.problem:
            if not answer.headers.get("retry-after", "").isdigit():
                self.fault(f"{kind}: {answer.status} without Retry-After")
        elif answer.status not in MEANT.get(kind, ()):
            self.fault(f"{kind}: {answer.status} {answer.body[:200]!r}")
        return False

    async def ask(self, connection, kind, method, path, body=b"", headers=None, timeout=30):
        """None when the connection broke, which is a fault."""
        try:
            answer = await connection.ask(method, path, body, headers, timeout)
        except Broken as error:
            self.counts[kind, "broken"] += 1
            self.fault(f"{kind}: {error}")
            await asyncio.sleep(0.2)
            return None
        self.note(kind, answer)
        return answer

    def next_spec(self, spec):
        """A key and a body that no other has."""
        key = f"load-{len(self.bodies) + 1}"
        self.bodies[key] = json.dumps({**spec, "metadata": {"key": key}}).encode()
        return key, self.bodies[key]

    def accept(self, kind, key, answer):
        """Keeps what a 201 says; checks that the key stands for one job."""
        job = answer.json()
        if job["spec"]["metadata"]["key"] != key:
            self.fault(f"{kind}: the answer to {key} is the job of {job['spec']['metadata']['key']}")
        if self.keys.setdefault(key, job["id"]) != job["id"]:
            self.fault(f"{kind}: {key} made {self.keys[key]} and {job['id']}")
        self.open_keys.pop(key, None)
        return job["id"]

    async def submit(self, connection, kind, key, body):
        """The answer, or None. The key stays among the open ones until a 201 or a refusal came."""
        self.open_keys[key] = body
        answer = await self.ask(connection, kind, "POST", "/v1/jobs", body, {"Idempotency-Key": key})
        if answer is None:
            return None
        if answer.status == 201:
            self.accept(kind, key, answer)
        elif answer.status in (429, 503):
            self.open_keys.pop(key, None)
            if answer.problem == "queue-full":
                self.full.set()
        return answer

    async def new_connection_allowed(self):
        await self.fresh.wait()


# --- the clients -------------------------------------------------------------------------------------


async def get_jobs(world):
    """Polls jobs in all states, with and without a tag."""
    connection = Connection(world.port)
    tags = {}
    try:
        while True:
            job = world.random.choice([world.running] + list(world.kept)[-5:] + list(world.disposable)[:5])
            headers = {"If-None-Match": tags[job]} if job in tags and world.random.random() < 0.5 else {}
            answer = await world.ask(connection, "get job", "GET", f"/v1/jobs/{job}", b"", headers)
            if answer is not None and answer.status == 200:
                tags[job] = answer.headers["etag"]
                if answer.json()["id"] != job:
                    world.fault(f"get job: asked for {job}, got another")
            await asyncio.sleep(0.01)
    finally:
        connection.close()


async def list_jobs(world):
    connection = Connection(world.port)
    try:
        while True:
            cursor, seen = "", []
            while cursor is not None:
                answer = await world.ask(connection, "list", "GET", f"/v1/jobs?limit=20{cursor and '&cursor=' + cursor}")
                if answer is None or answer.status != 200:
                    break
                page = answer.json()
                seen += [job["id"] for job in page["jobs"]]
                cursor = page["next_cursor"]
            if len(seen) != len(set(seen)):
                world.fault("list: a job came twice while pages were turned")
            await asyncio.sleep(0.1)
            await world.ask(connection, "list", "GET", "/v1/jobs?state=queued&limit=200")
            await asyncio.sleep(0.1)
    finally:
        connection.close()


async def long_poll(world, number):
    connection = Connection(world.port)
    try:
        while True:
            job = world.running if number % 2 else world.random.choice(list(world.kept) + list(world.disposable)[:3] + [world.running])
            first = await world.ask(connection, "get job", "GET", f"/v1/jobs/{job}")
            if first is None or first.status != 200:
                await asyncio.sleep(0.1)
                continue
            tag, wait = first.headers["etag"], world.random.choice((2, 5))
            answer = await world.ask(connection, "poll", "GET", f"/v1/jobs/{job}?wait={wait}", b"", {"If-None-Match": tag}, wait + 20)
            if answer is None:
                continue
            if "retry-after" in answer.headers:
                world.counts["poll", "answered at once: no seat"] += 1
                await asyncio.sleep(0.5)
                continue
            if answer.status == 304:
                world.late.append(answer.seconds - wait)
                if answer.seconds < wait - 0.1:
                    world.fault(f"poll: 304 after {answer.seconds:.1f} of {wait} s")
            elif answer.status == 200 and answer.headers["etag"] == tag:
                world.fault("poll: 200 with the tag that the client had")
    finally:
        connection.close()


async def stream_events(world, number):
    connection = Connection(world.port)
    try:
        while True:
            job = world.running if number % 3 else world.random.choice(list(world.kept) + list(world.disposable)[:3] + [world.running])
            last = None
            for _ in range(3):  # the same job again, from where it was cut
                try:
                    answer = await connection.subscribe(f"/v1/jobs/{job}/events", last)
                    if not world.note("stream", answer):
                        await asyncio.sleep(0.5)
                        break
                    end = time.monotonic() + world.random.uniform(2, 12)
                    async for event, kind, data in connection.events():
                        if event is not None:
                            world.counts["events", kind] += 1
                            if last is not None and event <= last or data["id"] != event:
                                world.fault(f"stream: event {event} after {last}")
                            last = event
                        if time.monotonic() > end:
                            break
                except Broken as error:
                    world.counts["stream", "broken"] += 1
                    world.fault(f"stream: {error}")
                    await asyncio.sleep(0.2)
                connection.close()
    finally:
        connection.close()


def place(world, job):
    """Every third job stays in the queue, until enough are there; the others may be canceled."""
    if len(world.kept) < world.kept.maxlen and world.random.random() < 0.34:
        world.kept.append(job)
    else:
        world.disposable.append(job)


async def submit_jobs(world):
    """One after another; now and then the same again, which must be the same job."""
    connection = Connection(world.port)
    try:
        while True:
            key, body = world.next_spec(SHORT)
            answer = await world.submit(connection, "submit", key, body)
            while answer is None:  # a well-behaved client asks again with its key
                answer = await world.submit(connection, "submit", key, body)
            if answer.status != 201:
                await asyncio.sleep(0.3)
                continue
            job = world.keys[key]
            if world.random.random() < 0.3:
                again = await world.ask(connection, "replay", "POST", "/v1/jobs", body, {"Idempotency-Key": key})
                if again is not None and again.status == 201:
                    world.accept("replay", key, again)
                    if again.headers.get("idempotency-replayed") != "true":
                        world.fault("replay: without Idempotency-Replayed")
            if world.random.random() < 0.05:
                other = world.next_spec(SHORT)[1]
                again = await world.ask(connection, "submit, key of another", "POST", "/v1/jobs", other, {"Idempotency-Key": key})
                if again is not None and again.status not in (422, 503):
                    world.fault(f"submit, key of another: {again.status}")
            place(world, job)
    finally:
        connection.close()


async def submit_twins(world):
    """The same request over two connections at once."""
    connections = [Connection(world.port), Connection(world.port)]
    try:
        while True:
            key, body = world.next_spec(SHORT)
            answers = await asyncio.gather(*(world.submit(c, "submit twice at once", key, body) for c in connections))
            while key not in world.keys and None in answers:
                answers = [await world.submit(connections[0], "submit twice at once", key, body)]
            if key in world.keys:
                place(world, world.keys[key])
            else:
                await asyncio.sleep(0.3)
    finally:
        for connection in connections:
            connection.close()


async def cancel_jobs(world):
    """Lets the queue fill, then makes room. Half of what was canceled is deleted."""
    connection = Connection(world.port)
    try:
        while True:
            world.full.clear()
            try:
                await asyncio.wait_for(world.full.wait(), 3)
            except asyncio.TimeoutError:
                pass
            await asyncio.sleep(1)
            for _ in range(min(len(world.disposable), 12)):
                job = world.disposable.popleft()
                answer = await world.ask(connection, "cancel", "POST", f"/v1/jobs/{job}/cancel")
                if world.random.random() < 0.3:
                    await world.ask(connection, "cancel", "POST", f"/v1/jobs/{job}/cancel")
                if answer is not None and world.random.random() < 0.5:
                    world.perhaps_deleted.add(job)
                    answer = await world.ask(connection, "delete", "DELETE", f"/v1/jobs/{job}")
                    if answer is not None:
                        world.perhaps_deleted.discard(job)
                        if answer.status in (204, 404):
                            world.deleted.add(job)
                    if answer is not None and answer.status == 204:
                        await world.ask(connection, "delete", "DELETE", f"/v1/jobs/{job}")
    finally:
        connection.close()


async def upload_texts(world):
    connection = Connection(world.port)
    text = b"".join(b"Line %d of a text that nobody reads.\n" % i for i in range(20000))
    try:
        while True:
            answer = await world.ask(connection, "upload", "POST", "/v1/datasets", text, {"Content-Type": "text/plain"})
            if answer is not None and answer.status == 201:
                world.bytes_up += len(text)
                await world.ask(connection, "delete dataset", "DELETE", "/v1/datasets/" + answer.json()["id"])
            await asyncio.sleep(0.2)
    finally:
        connection.close()


async def drip(world, number):
    """A byte now and then, and never a whole request."""
    body = json.dumps(SHORT).encode()
    request = [b"GET /v1/" + b"x" * 4000, request_bytes("GET", "/v1/jobs", b"", {"X-Padding": "x" * 4000}),
               request_bytes("POST", "/v1/jobs", body + b" " * 4000)][number % 3]
    head = len(request) - 4000 if number % 3 == 2 else 0
    while True:
        await world.new_connection_allowed()
        connection = Connection(world.port)
        try:
            await connection.open()
            began = time.monotonic()
            ended = False
            for at in range(head, len(request)):
                await connection.send(request[0 if at == head else at:at + 1])
                if await connection.ended(0.4):
                    ended = True
                    break
                if time.monotonic() > began + REQUEST_SECONDS + 10:
                    break
            if ended:
                world.cut.append(time.monotonic() - began)
            else:
                world.fault(f"drip: not cut within {REQUEST_SECONDS + 10} s")
        except Broken as error:
            if "sending" not in str(error):
                world.fault(f"drip: {error}")
            else:
                world.cut.append(time.monotonic() - began)
        finally:
            connection.close()


async def never_read(world):
    """Asks for far more than fits on the way, and does not read it."""
    while True:
        await world.new_connection_allowed()
        connection = Connection(world.port)
        try:
            await connection.open(receive_buffer=4096)
            connection.writer.transport.pause_reading()
            for _ in range(400):
                connection.writer.write(request_bytes("GET", "/v1/jobs?limit=200"))
            await asyncio.sleep(60)
        except Broken as error:
            world.fault(f"never read: {error}")
        finally:
            connection.vanish()


async def vanish(world, number):
    """Leaves in the middle of everything."""
    kinds = ["request line", "body", "answer", "submit", "upload", "stream", "poll", "cancel"]
    at = number
    while True:
        await world.new_connection_allowed()
        connection = Connection(world.port)
        kind = kinds[at % len(kinds)]
        at += 1
        world.counts["vanish", kind] += 1
        try:
            await connection.open()
            if kind == "request line":
                await connection.send(b"GET /v1/jo")
            elif kind == "body":
                await connection.send(request_bytes("POST", "/v1/jobs", json.dumps(SHORT).encode())[:-20])
            elif kind == "answer":
                await connection.send(request_bytes("GET", "/v1/jobs?limit=200"))
            elif kind == "submit":
                key, body = world.next_spec(SHORT)
                world.open_keys[key] = body
                await connection.send(request_bytes("POST", "/v1/jobs", body, {"Idempotency-Key": key}))
                await asyncio.sleep(world.random.uniform(0, 0.3))
            elif kind == "upload":
                await connection.send(request_bytes("POST", "/v1/datasets", b"some text " * 50000, {"Content-Type": "text/plain"})[:-1000])
            elif kind == "stream":
                await connection.subscribe(f"/v1/jobs/{world.running}/events")
            elif kind == "poll":
                await connection.send(request_bytes("GET", f"/v1/jobs/{world.long[-1]}?wait=3"))
            elif kind == "cancel" and world.disposable:
                await connection.send(request_bytes("POST", f"/v1/jobs/{world.disposable.popleft()}/cancel"))
            await asyncio.sleep(world.random.uniform(0, 0.1))
        except Broken as error:
            world.fault(f"vanish, {kind}: {error}")
        finally:
            connection.vanish()
        # what it left behind may keep a seat for as long as it would have waited
        await asyncio.sleep(3 if kind in ("poll", "stream") else 1)


async def sample(world):
    """Once a second: what the daemon says and uses; and another long job when few are left."""
    connection = Connection(world.port)
    number = 0
    try:
        while True:
            answer = await world.ask(connection, "metrics", "GET", "/metrics")
            if answer is not None and answer.status == 200:
                metrics = dict(line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))
                world.samples.append({
                    **world.daemon.usage(), "connections": int(float(metrics["moecald_http_connections"])),
                    "watchers": int(float(metrics["moecald_watchers"])), "running": int(float(metrics["moecald_jobs_running"])),
                    "queued": int(float(metrics['moecald_jobs{state="queued"}']))})
            await look_at_long(world, connection)
            number += 1
            await asyncio.sleep(1)
    finally:
        connection.close()


async def look_at_long(world, connection):
    left = []
    for job in world.long:
        answer = await world.ask(connection, "get job", "GET", f"/v1/jobs/{job}")
        if answer is None or answer.status != 200:
            return
        state = answer.json()["state"]
        if state == "failed":
            world.fault(f"a long job failed: {answer.json()['reason']}")
        if state == "running":
            world.running = job
        if state in ("queued", "running"):
            left.append(job)
    if len(left) < 3:
        key, body = world.next_spec(LONG)
        answer = await world.submit(connection, "submit", key, body)
        if answer is not None and answer.status == 201:
            left.append(world.keys[key])
    if left:
        world.long = left


# --- the scenes --------------------------------------------------------------------------------------

# Persistent connections; 56 of them, and the probes have 2. The rest is for what is on its way out.
CROWD = ([(stream_events, n) for n in range(20)] + [(long_poll, n) for n in range(16)] + [(get_jobs,)] * 4 + [(list_jobs,)] +
         [(submit_jobs,)] * 3 + [(submit_twins,)] + [(cancel_jobs,)] + [(upload_texts,)] + [(sample,)] +
         [(drip, n) for n in range(3)] + [(never_read,)] + [(vanish, n * 4) for n in range(2)])


class Crowd:
    def __init__(self, world):
        self.tasks = [asyncio.ensure_future(client(world, *arguments)) for client, *arguments in CROWD]

    async def stay(self, seconds):
        done, _ = await asyncio.wait(self.tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()  # a fault of this program

    async def leave(self):
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)


async def settle(world, least, seconds=25):
    """Waits until threads and descriptors are what they were; returns what is used then, and after how long."""
    began, usage = time.monotonic(), world.daemon.usage()
    while time.monotonic() < began + seconds and (usage["threads"] > least["threads"] or usage["fds"] > least["fds"]):
        await asyncio.sleep(0.1)
        usage = world.daemon.usage()
    took = time.monotonic() - began
    await asyncio.sleep(0.5)
    return world.daemon.usage(), took


async def prepare(world):
    """Model, texts, three long jobs; returns when one of them calibrates."""
    connection = Connection(world.port)
    documents = b""
    for name in sorted(os.listdir("docs")):
        if name.endswith(".md"):
            with open(os.path.join("docs", name), "rb") as file:
                documents += file.read()
    wanted = 4096 * 512 * 3  # bytes; a token has about two and a half
    for path, body, media in (("/v1/models", json.dumps({"path": "qwen3moe-2m", "id": "tiny"}).encode(), "application/json"),
                              ("/v1/datasets?id=long", documents * (wanted // len(documents)), "text/plain"),
                              ("/v1/datasets?id=short", documents[:20000], "text/plain")):
        answer = await world.ask(connection, "prepare", "POST", path, body, {"Content-Type": media})
        if answer is None or answer.status != 201:
            raise SystemExit(f"load: cannot begin: {path}: {dict(world.faults)}")
    for _ in range(3):
        key, body = world.next_spec(LONG)
        answer = await world.submit(connection, "submit, long", key, body)
        if answer is None or answer.status != 201:
            raise SystemExit(f"load: cannot begin: {dict(world.faults)}")
        world.long.append(world.keys[key])
    world.running = world.long[0]
    began = time.monotonic()
    progress = None
    while progress is None:
        answer = await world.ask(connection, "prepare", "GET", f"/v1/jobs/{world.running}")
        progress = answer.json()["progress"] if answer is not None else None
        if time.monotonic() > began + 30:
            raise SystemExit(f"load: the job does not begin: {answer and answer.body}")
        await asyncio.sleep(0.1)
    connection.close()
    await asyncio.sleep(0.5)


async def submit_batch(world, clients, count):
    """Seconds for `count` jobs by so many clients; they are canceled and deleted again."""
    connections = [Connection(world.port) for _ in range(clients)]
    work = [world.next_spec(SHORT) for _ in range(count)]
    kind = f"submit, {clients} clients"
    began = time.monotonic()

    async def one(connection):
        while work:
            key, body = work.pop()
            answer = await world.submit(connection, kind, key, body)
            if answer is not None and answer.status == 201:
                world.disposable.append(world.keys[key])

    await asyncio.gather(*(one(connection) for connection in connections))
    took = time.monotonic() - began
    while world.disposable:
        job = world.disposable.popleft()
        await world.ask(connections[0], "cancel", "POST", f"/v1/jobs/{job}/cancel")
        answer = await world.ask(connections[0], "delete", "DELETE", f"/v1/jobs/{job}")
        if answer is not None and answer.status == 204:
            world.deleted.add(job)
    for connection in connections:
        connection.close()
    return took


async def fill_all(world):
    """Every connection that is left, and more: those are refused at once, and the others do not notice."""
    silent, refused, waited = [], 0, 0.0
    while refused < 20 and len(silent) < 2 * CONNECTIONS:
        connection = Connection(world.port)
        began = time.monotonic()
        try:
            await connection.open()
            if await connection.ended(0.05 if not refused else 2):
                refused += 1
                waited = max(waited, time.monotonic() - began)
                connection.close()
            else:
                silent.append(connection)
        except Broken:
            refused += 1
    usage = world.daemon.usage()
    for connection in silent:
        connection.close()
    return {"refused": refused, "refused within seconds": waited, "taken by silent ones": len(silent), "threads": usage["threads"]}


# --- counting jobs -----------------------------------------------------------------------------------


async def all_jobs(world, connection):
    cursor, found = "", []
    while cursor is not None:
        answer = await world.ask(connection, "list", "GET", f"/v1/jobs?limit=50{cursor and '&cursor=' + cursor}")
        if answer is None or answer.status != 200:
            return None
        page = answer.json()
        found += [(job["id"], job["spec"]["metadata"].get("key")) for job in page["jobs"]]
        cursor = page["next_cursor"]
    return found


async def resolve(world, connection):
    """Keys whose answer nobody read: asking again with them tells, or makes, their job."""
    for key, body in list(world.open_keys.items()):
        answer = await world.submit(connection, "ask again", key, body)
        if answer is not None and answer.status == 503 and world.disposable:
            await world.ask(connection, "cancel", "POST", f"/v1/jobs/{world.disposable.popleft()}/cancel")
            await world.submit(connection, "ask again", key, body)


async def count_jobs(world):
    """Texts about jobs that are not there once."""
    connection = Connection(world.port)
    while world.disposable:
        await world.ask(connection, "cancel", "POST", f"/v1/jobs/{world.disposable.popleft()}/cancel")
    await resolve(world, connection)
    wrong = []
    found = await all_jobs(world, connection)
    connection.close()
    if found is None:
        return ["the list cannot be read"]
    there = collections.Counter(job for job, _ in found)
    by_key = collections.Counter(key for _, key in found)
    wrong += [f"{job} is listed {n} times" for job, n in there.items() if n != 1]
    wrong += [f"{n} jobs of {key}" for key, n in by_key.items() if n != 1]
    expected = {job: key for key, job in world.keys.items() if job not in world.deleted | world.perhaps_deleted}
    wrong += [f"{job} of {key} was accepted and is gone" for job, key in expected.items() if job not in there]
    wrong += [f"{job} was deleted and is there" for job in world.deleted if job in there]
    wrong += [f"{job} of {key} is there, and nobody knows it" for job, key in found if world.keys.get(key) != job]
    return wrong


async def replay_all(world):
    """Every key again: the job that it stands for."""
    connection = Connection(world.port)
    wrong, asked = [], 0
    for key, job in world.keys.items():
        if job in world.deleted or job in world.perhaps_deleted:
            continue
        answer = await world.ask(connection, "replay", "POST", "/v1/jobs", world.bodies[key], {"Idempotency-Key": key})
        asked += 1
        if answer is None or answer.status != 201 or answer.json()["id"] != job or answer.headers.get("idempotency-replayed") != "true":
            wrong.append(f"{key}: {job}, now {answer and answer.body[:60]}")
    connection.close()
    return wrong, asked


# --- the stop ----------------------------------------------------------------------------------------


async def waiting_poll(world, job, tagged):
    connection = Connection(world.port)
    headers = {}
    if tagged:
        headers["If-None-Match"] = (await connection.ask("GET", f"/v1/jobs/{job}")).headers["etag"]
    answer = await connection.ask("GET", f"/v1/jobs/{job}?wait=60", b"", headers, 60)
    connection.close()
    return answer.status


async def waiting_stream(world, job):
    connection = Connection(world.port)
    answer = await connection.subscribe(f"/v1/jobs/{job}/events")
    if answer.status != 200:
        return answer.status
    async for _ in connection.events(60):
        pass
    return "ended"


async def waiting_submits(world):
    """Until the service says that it stops, or takes no connections any more."""
    connection = Connection(world.port)
    while True:
        key, body = world.next_spec(SHORT)
        world.open_keys[key] = body
        try:
            answer = await connection.ask("POST", "/v1/jobs", body, {"Idempotency-Key": key})
        except Broken as error:
            if "no connection" in str(error):
                del world.open_keys[key]
                return "refused"
            raise
        if answer.status == 201:
            world.accept("submit", key, answer)
        elif answer.status == 503:
            del world.open_keys[key]
            if answer.problem == "draining":
                return "draining"
        else:
            return answer.status
        await asyncio.sleep(0.05)


async def waiting_silent(world, data):
    connection = Connection(world.port)
    await connection.open()
    await connection.send(data)
    ended = await connection.ended(60)
    connection.close()
    return "ended" if ended else "stayed"


async def stop_with_clients(world):
    """SIGTERM while clients wait; {what they got: how many}, seconds, exit code."""
    queued = list(world.kept)[:4] or [world.long[-1]]
    tasks = [asyncio.ensure_future(task) for task in
             [waiting_stream(world, world.running) for _ in range(10)] + [waiting_stream(world, job) for job in queued] +
             [waiting_poll(world, queued[0], True) for _ in range(8)] + [waiting_poll(world, queued[-1], False) for _ in range(6)] +
             [waiting_submits(world) for _ in range(4)] + [waiting_silent(world, b"")] +
             [waiting_silent(world, request_bytes("GET", "/healthz"))] + [waiting_silent(world, b"GET /healthz HTTP/1.1\r\nHo")]]
    names = (["stream"] * (10 + len(queued)) + ["poll"] * 14 + ["submit"] * 4 + ["silent"] * 3)
    await asyncio.sleep(2)
    began = time.monotonic()
    world.daemon.process.send_signal(signal.SIGTERM)
    while world.daemon.process.poll() is None and time.monotonic() < began + 40:
        await asyncio.sleep(0.02)
    took = time.monotonic() - began
    code = world.daemon.process.poll()
    done, pending = await asyncio.wait(tasks, timeout=5)
    outcomes = collections.Counter()
    for name, task in zip(names, tasks):
        if task in pending:
            task.cancel()
            outcomes[name, "hangs"] += 1
        elif task.exception() is not None:
            outcomes[name, repr(task.exception())] += 1
        else:
            outcomes[name, task.result()] += 1
    return outcomes, took, code


# --- figures -----------------------------------------------------------------------------------------


def percentiles(seconds):
    """In milliseconds."""
    if not seconds:
        return {"count": 0}
    ordered = sorted(seconds)
    at = lambda share: round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)
    return {"count": len(ordered), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}


def show(name, figures):
    print(f"  {name:<26}" + "".join(f" {key} {value:<8}" for key, value in figures.items()).rstrip())


def print_requests(counts, seconds, took):
    for kind in sorted({kind for kind, _ in counts}):
        statuses = {str(status): n for (k, status), n in counts.items() if k == kind}
        total = sum(n for status, n in statuses.items() if status.isdigit())
        figures = percentiles(seconds.get(kind, []))
        print(f"  {kind:<24} {total / took:8.1f}/s  {' '.join(f'{s}:{n}' for s, n in sorted(statuses.items()))}" +
              (f"   p50 {figures['p50']} p99 {figures['p99']} max {figures['max']} ms" if figures["count"] else ""))


class Checks:
    def __init__(self):
        self.rows = []

    def add(self, name, passed, detail=""):
        self.rows.append((name, bool(passed), str(detail)))

    def print(self):
        for name, passed, detail in self.rows:
            print(f"{'ok  ' if passed else 'FAIL'} {name}{': ' + detail if detail else ''}")
        failed = sum(not passed for _, passed, _ in self.rows)
        print(f"{len(self.rows) - failed} passed, {failed} failed")
        return failed


# --- all ---------------------------------------------------------------------------------------------


async def run(daemon, probes, figures, checks):
    world = World(daemon, daemon.start())
    began = time.monotonic()
    await prepare(world)
    idle = daemon.usage()

    # 1: a job calibrates, otherwise nobody is there
    probes.start(world.port, world.running)
    await asyncio.sleep(3)
    alone = probes.stop()
    figures["alone"] = {"get job": percentiles(alone["get job"]), "healthz": percentiles(alone["healthz"])}
    took = await submit_batch(world, 1, 12)
    figures["alone"]["submits a second, 1 client"] = round(12 / took, 1)
    took = await submit_batch(world, 4, 36)
    figures["alone"]["submits a second, 4 clients"] = round(36 / took, 1)
    figures["alone"]["submit, 1 client"] = percentiles(world.seconds["submit, 1 clients"])

    # 2: everybody once, so that what is made at first use is there
    crowd = Crowd(world)
    await crowd.stay(WARM_SECONDS)
    await crowd.leave()
    warm, warm_settled = await settle(world, idle)

    # 3: everybody
    world.samples.clear()
    before, before_seconds = world.counts.copy(), {kind: len(s) for kind, s in world.seconds.items()}
    load_began = time.monotonic()
    crowd = Crowd(world)
    await crowd.stay(1)
    probes.start(world.port, world.running)
    await crowd.stay(LOAD_SECONDS)
    loaded = probes.stop()
    load_took = time.monotonic() - load_began
    counts = world.counts - before
    seconds = {kind: s[before_seconds.get(kind, 0):] for kind, s in world.seconds.items()}
    samples = list(world.samples)

    # 4: all connections, and those beyond
    world.fresh.clear()
    await crowd.stay(0.5)
    faults_before = sum(world.faults.values())
    full = await fill_all(world)
    await crowd.stay(FULL_SECONDS)
    full["faults of the others"] = sum(world.faults.values()) - faults_before
    probes.start(world.port, world.running)
    await crowd.stay(1)
    after_full = probes.stop()
    calibrating = [s["running"] for s in world.samples]
    await crowd.leave()

    # 5: nobody
    end, settled = await settle(world, idle)
    wrong = await count_jobs(world)
    wrong_keys, replays = await replay_all(world)

    # 6: the stop, and what is there after it
    outcomes, stop_took, code = await stop_with_clients(world)
    world.port = daemon.start()
    wrong_after = await count_jobs(world)
    daemon.process.send_signal(signal.SIGTERM)
    again = daemon.process.wait(40)

    figures.update({
        "load": {"seconds": round(load_took, 1), "requests": {f"{k} {s}": n for (k, s), n in sorted(counts.items(), key=str)},
                 "latency ms": {kind: percentiles(s) for kind, s in sorted(seconds.items()) if s},
                 "get job, keep-alive, outside": percentiles(loaded["get job"]), "healthz": percentiles(loaded["healthz"]),
                 "submits a second": round(sum(n for (k, s), n in counts.items() if k.startswith("submit") and s == 201) / load_took, 1),
                 "requests a second": round(sum(n for (_, s), n in counts.items() if isinstance(s, int)) / load_took, 1),
                 "problems": dict(world.problems), "watchers most": max(s["watchers"] for s in samples),
                 "connections most": max(s["connections"] for s in samples), "queued most": max(s["queued"] for s in samples),
                 "rss most": max(s["rss"] for s in samples), "uploaded bytes": world.bytes_up,
                 "long polls late ms": percentiles(world.late), "dripping clients cut after s": [round(s, 1) for s in world.cut]},
        "full": full, "idle": idle, "warm": warm, "end": end, "settled after s": [round(warm_settled, 1), round(settled, 1)],
        "stop": {"seconds": round(stop_took, 1), "exit code": code, "clients": {f"{n} {o}": c for (n, o), c in outcomes.items()}},
        "jobs": {"accepted": len(world.keys), "deleted": len(world.deleted), "replays": replays},
        "seconds": round(time.monotonic() - began, 1)})

    print(f"a job calibrates on {os.cpu_count()} cores, one client at a time:")
    for name in ("get job", "healthz", "submit, 1 client"):
        show(name + ", ms", figures["alone"][name])
    print(f"  submits a second           {figures['alone']['submits a second, 1 client']} (1 client)"
          f"  {figures['alone']['submits a second, 4 clients']} (4 clients)")
    print(f"the same with {figures['load']['connections most']} connections, {figures['load']['watchers most']} watchers, "
          f"{figures['load']['queued most']} jobs queued, {load_took:.0f} s, {figures['load']['requests a second']} requests/s, "
          f"{figures['load']['submits a second']} jobs accepted/s:")
    show("get job, ms", figures["load"]["get job, keep-alive, outside"])
    show("healthz, ms", figures["load"]["healthz"])
    show("long polls late, ms", figures["load"]["long polls late ms"])
    print_requests(counts, seconds, load_took)
    print(f"  problems: {dict(world.problems)}")
    print(f"  cut for dripping after: {figures['load']['dripping clients cut after s']} s")
    print(f"beyond the limit: {full}")
    print("            MB resident  descriptors  threads")
    for name, usage in (("idle", idle), ("warm", warm), ("end", end)):
        print(f"  {name:<10} {usage['rss'] / 1e6:10.1f}  {usage['fds']:11d}  {usage['threads']:7d}")
    print(f"  most in between: {figures['load']['rss most'] / 1e6:.1f} MB; quiet again after {settled:.1f} s")
    print(f"stop: {stop_took:.1f} s, exit {code}: {figures['stop']['clients']}")
    print(f"jobs: {figures['jobs']}")

    faults = [f"{text} ({n} times)" if n > 1 else text for text, n in world.faults.most_common(8)]
    probed = alone["faults"] + loaded["faults"] + after_full["faults"]
    slowest = max(alone["healthz"] + loaded["healthz"] + after_full["healthz"], default=99)
    checks.add("clients saw only what the API promises", not faults, "; ".join(faults))
    checks.add("probes were answered", not probed and len(loaded["healthz"]) > LOAD_SECONDS, "; ".join(probed[:5]))
    checks.add("healthz within 1 s", slowest < 1, f"slowest {slowest:.3f} s")
    checks.add("a job calibrated throughout", calibrating and min(calibrating) > 0, f"{sum(map(bool, calibrating))} of {len(calibrating)} samples")
    checks.add("all watchers' seats were taken, never more", max(s["watchers"] for s in samples) == WATCHERS)
    checks.add("watchers beyond were told", counts["stream", 503] > 0 and counts["poll", "answered at once: no seat"] > 0)
    checks.add("never more connections than allowed", max(s["connections"] for s in samples) <= CONNECTIONS)
    checks.add("the queue was full", counts["submit", 503] > 0 and max(s["queued"] for s in samples) >= QUEUED - 1)
    checks.add("the queue never held more than allowed", max(s["queued"] for s in samples) <= QUEUED)
    checks.add("dripping clients are cut in time", world.cut and all(REQUEST_SECONDS - 1 < s < REQUEST_SECONDS + 4 for s in world.cut))
    checks.add("long polls end in time", world.late and max(world.late) < 3, f"latest {max(world.late, default=0):.2f} s")
    checks.add("connections beyond the limit are closed at once", full["refused"] >= 20 and full["refused within seconds"] < 1)
    checks.add("others did not notice", full["faults of the others"] == 0)
    checks.add("descriptors as before", end["fds"] <= idle["fds"], f"{idle['fds']}, {warm['fds']}, {end['fds']}")
    checks.add("threads as before", end["threads"] == idle["threads"], f"{idle['threads']}, {warm['threads']}, {end['threads']}")
    checks.add("memory is flat", end["rss"] < warm["rss"] + max(8e6, 0.25 * warm["rss"]),
               f"{warm['rss'] / 1e6:.1f} MB, {end['rss'] / 1e6:.1f} MB")
    checks.add("every accepted job is there once", not wrong, "; ".join(wrong[:5]))
    checks.add("every key still stands for its job", not wrong_keys and replays > 0, "; ".join(wrong_keys[:5]))
    checks.add("stopped with exit 0 within seconds", code == 0 and stop_took < 15, f"{stop_took:.1f} s, exit {code}")
    good = {("stream", "ended"), ("poll", 200), ("poll", 304), ("submit", "draining"), ("submit", "refused"), ("silent", "ended")}
    bad = {o: n for o, n in outcomes.items() if o not in good}
    checks.add("clients that waited got an answer", not bad, bad or "")
    checks.add("after a start again every job is there once", not wrong_after and again == 0, "; ".join(wrong_after[:5]))
    errors = daemon.errors()
    checks.add("no error in the log", not errors, "; ".join(errors[:3]))


def main():
    parser = argparse.ArgumentParser(usage="load.py MOECALD MOECAL [--json FILE]")
    parser.add_argument("moecald")
    parser.add_argument("moecal")
    parser.add_argument("--json", help="also write the figures there")
    arguments = parser.parse_args()
    figures, checks = {}, Checks()
    probes = Probes()
    with tempfile.TemporaryDirectory(prefix="moecal-load-") as folder:
        daemon = Daemon(os.path.realpath(arguments.moecald), os.path.realpath(arguments.moecal), folder)
        try:
            asyncio.run(asyncio.wait_for(run(daemon, probes, figures, checks), WHOLE_SECONDS))
        except asyncio.TimeoutError:
            checks.add("all of it within its time", False, f"more than {WHOLE_SECONDS} s")
        finally:
            daemon.kill()
            probes.close()
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({**figures, "checks": [{"name": n, "passed": p, "detail": d} for n, p, d in checks.rows]}, file, indent=1)
            file.write("\n")
    return 1 if checks.print() else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
