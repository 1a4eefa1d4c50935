"""crowd.py - clients of all kinds, and what they know together

Each client is a coroutine that goes on until it is canceled. What must not be seen by a client that keeps
to the rules is a fault; the rest is counted.
"""

import asyncio
import collections
import json
import random
import time

from client import Broken, Connection, request_bytes
from outside import REQUEST_SECONDS

LONG = {"model": "tiny", "dataset": "long", "recipe": "W4A16", "concatenate_data": True, "max_seq_length": 512,
        "num_calibration_samples": 4096, "priority": 1000}
SHORT = {"model": "tiny", "dataset": "short", "recipe": "FP8", "concatenate_data": True, "max_seq_length": 512}
# What a request may be answered with besides success, because it says something about what was asked.
MEANT = {"cancel": {404, 409}, "delete": {404, 409}, "poll": {404}, "stream": {404}, "get job": {404},
         "submit, key of another": {422}, "delete dataset": {404, 409}}


class World:
    """The service under load: what was asked, what it answered, what must be true in the end."""

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
        self.left = 0                                    # when a stream was left last
        self.samples = []
        self.metrics = {}                                # the newest
        self.cut = []                                    # seconds until dripping clients were cut
        self.late = []                                   # seconds by which long polls were late
        self.uploaded = 0                                # bytes

    def fault(self, text):
        self.faults[text] += 1

    def all_faults(self):
        return [f"{text} ({n} times)" for text, n in self.faults.most_common()]

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
    """Two of three watch the job that calibrates, leave after a while and go on from where they were. Of the
    others each stays with a job that waits: the service notices only at its next event that nobody listens."""
    connection = Connection(world.port)
    last, job = None, None
    try:
        while True:
            await world.fresh.wait()
            if number % 3:
                job, last = world.running, last if job == world.running else None
            else:
                job, last = world.random.choice(list(world.kept) + list(world.disposable)[:3] or [world.running]), None
            try:
                answer = await connection.subscribe(f"/v1/jobs/{job}/events", last)
                if not world.note("stream", answer):
                    await asyncio.sleep(0.5)
                    continue
                end = time.monotonic() + (world.random.uniform(5, 15) if job == world.running else 1000)
                async for event, kind, data in connection.events():
                    if event is not None:
                        world.counts["events", kind] += 1
                        if last is not None and event <= last or data["id"] != event:
                            world.fault(f"stream: event {event} after {last}")
                        last = event
                    # one a second: the service needs two events to notice that somebody is gone
                    now = time.monotonic()
                    if now > end and now > world.left + 1 and world.fresh.is_set():
                        world.left = now
                        connection.close()
                        break
                else:
                    await asyncio.sleep(0.3)  # the job ended
            except Broken as error:
                world.counts["stream", "broken"] += 1
                world.fault(f"stream: {error}")
                await asyncio.sleep(0.2)
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
                world.uploaded += len(text)
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
        await world.fresh.wait()
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
        await world.fresh.wait()
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
        await world.fresh.wait()
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
                metrics = {name: float(value) for name, value in
                           (line.rsplit(" ", 1) for line in answer.body.decode().splitlines() if not line.startswith("#"))}
                world.metrics = metrics
                world.samples.append({
                    **world.daemon.usage(), "connections": int(metrics["moecald_http_connections"]),
                    "watchers": int(metrics["moecald_watchers"]), "running": int(metrics["moecald_jobs_running"]),
                    "queued": int(metrics['moecald_jobs{state="queued"}'])})
            await look_at_long(world, connection)
            number += 1
            await asyncio.sleep(1)
    finally:
        connection.close()


async def look_at_long(world, connection):
    """Which of the long jobs calibrates; three of them are to be there, so that the cores are never without."""
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
    while len(left) < 3:
        key, body = world.next_spec(LONG)
        answer = await world.submit(connection, "submit", key, body)
        if answer is None or answer.status != 201:
            break
        left.append(world.keys[key])
    if left:
        world.long = left


# --- all of them --------------------------------------------------------------------------------------

# 52 connections, and the probes have 2. The rest is for those that a client left and the service has yet to notice.
CROWD = ([(stream_events, n) for n in range(28)] + [(long_poll, n) for n in range(8)] + [(get_jobs,)] * 3 + [(list_jobs,)] +
         [(submit_jobs,)] * 3 + [(submit_twins,)] + [(cancel_jobs,)] + [(upload_texts,)] + [(sample,)] +
         [(drip, n) for n in range(3)] + [(never_read,)] + [(vanish, n * 4) for n in range(2)])


class Crowd:
    """Everybody at once."""

    def __init__(self, world):
        self.tasks = [asyncio.ensure_future(client(world, *arguments)) for client, *arguments in CROWD]

    async def stay(self, seconds):
        done, _ = await asyncio.wait(self.tasks, timeout=seconds, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()  # a fault of this program

    async def leave(self):
        left = set(self.tasks)
        while left:  # again and again: before Python 3.12 a cancel may get lost in wait_for
            for task in left:
                task.cancel()
            _, left = await asyncio.wait(left, timeout=0.2)
