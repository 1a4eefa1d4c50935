"""load.py MOECALD MOECAL [--json FILE] [--verbose] - the service with every seat taken and a job on all cores

Starts a moecald of its own and keeps it calibrating while all kinds of clients use nearly all of its
connections: those that read, wait, submit, cancel and upload, and those that drip, vanish or do not read.
Then all connections and more; then nobody; then a stop with clients waiting, and a start again.

A client that keeps to the rules sees what the API promises and nothing else: 2xx and 304, what its own
request means (409 for canceling what is finished), and 429 or 503 with Retry-After. Figures are printed
and not judged, but for promises such as /healthz within a second: machines differ.

Takes about 100 seconds, 1 GB of memory, and up to 2 GB below $TMPDIR.
"""

import argparse
import asyncio
import collections
import json
import os
import shutil
import signal
import sys
import tempfile
import time

sys.dont_write_bytecode = True  # nothing is left beside the sources

from client import Broken, Connection, request_bytes  # noqa: E402
from crowd import LONG, SHORT, Crowd, World  # noqa: E402
from outside import CONNECTIONS, QUEUED, REQUEST_SECONDS, WATCHERS, Daemon, Probes, Unable  # noqa: E402

WARM_SECONDS, LOAD_SECONDS, FULL_SECONDS = 7, 30, 2
LEFT_SECONDS = 20  # until the seats of clients that left are free: the service sees it at its next word to them
STOP_SECONDS = 20  # five of them are for the client that never ends its request
WHOLE_SECONDS = 118  # more would be a hang
FLAT_BYTES = 16e6  # what the allocator may keep for threads that were not there at the first time


# --- the scenes --------------------------------------------------------------------------------------


async def prepare(world):
    """Model, texts, three long jobs; returns when one of them calibrates."""
    connection = Connection(world.port)
    documents = b""
    for name in sorted(os.listdir("docs")):
        if name.endswith(".md"):
            with open(os.path.join("docs", name), "rb") as file:
                documents += file.read()
    wanted = 3000000  # bytes, more than a million tokens
    for path, body, media in (("/v1/models", json.dumps({"path": "qwen3moe-2m", "id": "tiny"}).encode(), "application/json"),
                              ("/v1/datasets?id=long", documents * (wanted // len(documents)), "text/plain"),
                              ("/v1/datasets?id=short", documents[:20000], "text/plain")):
        answer = await world.ask(connection, "prepare", "POST", path, body, {"Content-Type": media})
        if answer is None or answer.status != 201:
            raise Unable(f"{path} is not taken: {dict(world.faults)}")
    for _ in range(3):
        key, body = world.next_spec(LONG)
        answer = await world.submit(connection, "prepare", key, body)
        if answer is None or answer.status != 201:
            raise Unable(f"a job is not taken: {dict(world.faults)}")
        world.long.append(world.keys[key])
    world.running = world.long[0]
    began, job = time.monotonic(), {"progress": None}
    while job["progress"] is None and time.monotonic() < began + 8:  # a slow machine needs a while to read the text
        await asyncio.sleep(0.1)
        answer = await world.ask(connection, "prepare", "GET", f"/v1/jobs/{world.running}")
        job = answer.json() if answer is not None else job
    if job.get("state") != "running":
        raise Unable(f"the job does not begin: {job.get('state')} {job.get('reason')}")
    connection.close()
    await asyncio.sleep(0.5)


async def submit_batch(world, clients, count):
    """Jobs a second by so many clients. They are canceled and deleted again."""
    connections = [Connection(world.port) for _ in range(clients)]
    work = [world.next_spec(SHORT) for _ in range(count)]
    began = time.monotonic()

    async def one(connection):
        while work:
            key, body = work.pop()
            answer = await world.submit(connection, f"submit, {clients} at once", key, body)
            if answer is not None and answer.status == 201:
                world.disposable.append(world.keys[key])

    await asyncio.gather(*(one(connection) for connection in connections))
    took = time.monotonic() - began
    made = len(world.disposable)
    while world.disposable:
        job = world.disposable.popleft()
        await world.ask(connections[0], "cancel", "POST", f"/v1/jobs/{job}/cancel")
        answer = await world.ask(connections[0], "delete", "DELETE", f"/v1/jobs/{job}")
        if answer is not None and answer.status == 204:
            world.deleted.add(job)
    for connection in connections:
        connection.close()
    return round(made / took, 1)


async def clear_queue(world):
    """Cancels all but the long jobs, so that nobody's stream is about a job of which there is no news."""
    connection = Connection(world.port)
    for job in list(world.kept) + list(world.disposable):
        await world.ask(connection, "cancel", "POST", f"/v1/jobs/{job}/cancel")
    world.kept.clear()
    world.disposable.clear()
    connection.close()


async def settle(world, least, seconds):
    """Waits until threads and descriptors are as few as they were; what is used then, and after how long."""
    began = time.monotonic()
    end, usage = began + seconds, world.daemon.usage()
    while time.monotonic() < end and (usage["threads"] > least["threads"] or usage["fds"] > least["fds"]):
        if usage["threads"] <= least["threads"]:
            end = min(end, time.monotonic() + 3)  # without a thread nobody closes them later
        await asyncio.sleep(0.1)
        usage = world.daemon.usage()
    took = time.monotonic() - began
    await asyncio.sleep(0.5)
    return world.daemon.usage(), took


async def fill_all(world):
    """Every connection that is left, and 20 more than there are: those are closed at once, not left to wait."""
    async def one():
        connection = Connection(world.port)
        began = time.monotonic()
        try:
            await connection.open()
            ended = await connection.ended(2)
        except Broken:
            ended = True
        return connection, ended, time.monotonic() - began

    results = await asyncio.gather(*(one() for _ in range(CONNECTIONS + 20)))
    refused = [seconds for _, ended, seconds in results if ended]
    threads = world.daemon.usage()["threads"]
    for connection, _, _ in results:
        connection.close()
    return {"refused": len(refused), "refused within s": round(max(refused, default=99), 3), "accepted": len(results) - len(refused),
            "threads": threads}


async def leave_quietly(world, before):
    """Seconds until the seats of four streams and four long polls are free, whose clients left and whose job has no news."""
    connection = Connection(world.port)
    key, body = world.next_spec(SHORT)
    answer = await world.submit(connection, "submit", key, body)
    connection.close()
    if answer is None or answer.status != 201:
            return LEFT_SECONDS
    job = world.keys[key]
    world.disposable.append(job)
    connections = [Connection(world.port) for _ in range(8)]
    for number, connection in enumerate(connections):
        await connection.open()
        if number % 2:
            await connection.subscribe(f"/v1/jobs/{job}/events")
        else:
            await connection.send(request_bytes("GET", f"/v1/jobs/{job}?wait=8"))
    await asyncio.sleep(1)
    for connection in connections:
        connection.vanish()
    return (await settle(world, before, LEFT_SECONDS))[1]


# --- counting jobs -----------------------------------------------------------------------------------


async def all_jobs(world, connection):
    """(id, key) of every job, by pages; None when a page is missing."""
    cursor, found = "", []
    while cursor is not None:
        answer = await world.ask(connection, "list", "GET", f"/v1/jobs?limit=50{cursor and '&cursor=' + cursor}")
        if answer is None or answer.status != 200:
            return None
        page = answer.json()
        found += [(job["id"], job["spec"]["metadata"].get("key")) for job in page["jobs"]]
        cursor = page["next_cursor"]
    return found


async def count_jobs(world):
    """Texts about jobs that are not there once."""
    connection = Connection(world.port)
    while world.disposable:
        await world.ask(connection, "cancel", "POST", f"/v1/jobs/{world.disposable.popleft()}/cancel")
    for key, body in list(world.open_keys.items()):  # nobody read the answer: asking again tells, or makes, the job
        await world.submit(connection, "ask again", key, body)
    found = await all_jobs(world, connection)
    connection.close()
    if found is None:
        return ["the list cannot be read"]
    there = collections.Counter(job for job, _ in found)
    gone = world.deleted | world.perhaps_deleted
    wrong = [f"{job} is listed {n} times" for job, n in there.items() if n != 1]
    wrong += [f"{n} jobs of {key}" for key, n in collections.Counter(key for _, key in found).items() if n != 1]
    wrong += [f"{job} of {key} was accepted and is gone" for key, job in world.keys.items() if job not in there and job not in gone]
    wrong += [f"{job} was deleted and is there" for job in world.deleted if job in there]
    wrong += [f"{job} of {key} is there, and nobody knows it" for job, key in found if world.keys.get(key) != job]
    return wrong + [f"{key} is without an answer" for key in world.open_keys]


async def replay_all(world):
    """Every key again, which stands for its job: texts about those that do not, and how many there are."""
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
    connection.close()
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
                connection.close()
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
    return "ended" if ended else "stays"


async def stop_with_clients(world):
    """SIGTERM while clients wait; how many of each kind got what, seconds, exit code."""
    queued = world.long[-1]
    waiting = [("stream", waiting_stream(world, world.running)) for _ in range(10)]
    waiting += [("stream", waiting_stream(world, queued)) for _ in range(4)]
    waiting += [("poll", waiting_poll(world, queued, number % 2)) for number in range(14)]
    waiting += [("submit", waiting_submits(world)) for _ in range(4)]
    waiting += [("silent", waiting_silent(world, data))
                for data in (b"", request_bytes("GET", "/healthz"), b"GET /healthz HTTP/1.1\r\nHo")]
    tasks = [(kind, asyncio.ensure_future(task)) for kind, task in waiting]
    await asyncio.sleep(2)
    began = time.monotonic()
    world.daemon.process.send_signal(signal.SIGTERM)
    while world.daemon.process.poll() is None and time.monotonic() < began + 40:
        await asyncio.sleep(0.02)
    took = time.monotonic() - began
    _, pending = await asyncio.wait([task for _, task in tasks], timeout=5)
    outcomes = collections.Counter()
    for kind, task in tasks:
        if task in pending:
            task.cancel()
            outcomes[kind, "hangs"] += 1
        else:
            outcomes[kind, repr(task.exception()) if task.exception() is not None else task.result()] += 1
    return outcomes, took, world.daemon.process.poll()


# --- figures -----------------------------------------------------------------------------------------


def percentiles(seconds):
    """In milliseconds."""
    if not seconds:
        return {"count": 0}
    ordered = sorted(seconds)

    def at(share):
        return round(1000 * ordered[min(len(ordered) - 1, int(share * len(ordered)))], 2)

    return {"count": len(ordered), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}


def histogram(name, before, after):
    """What a histogram of the service counted in between: {"count", "mean ms", "over N s": how many...}."""
    delta = {key: after[key] - before.get(key, 0) for key in after if key.startswith(name)}
    count = int(delta.get(name + "_count", 0))
    found = {"count": count, "mean ms": round(1000 * delta.get(name + "_sum", 0) / max(count, 1), 2)}
    for key, below in delta.items():
        if key.startswith(name + "_bucket") and "+Inf" not in key and count > below:
            found["over " + key.split('"')[1] + " s"] = int(count - below)
    return found


def show(name, figures):
    print(f"  {name:<26}" + "".join(f" {key} {value:<8}" for key, value in figures.items()).rstrip())


def show_requests(load):
    for kind, requests in sorted(load["requests"].items()):
        total = sum(n for status, n in requests.items() if status.isdigit())
        latency = load["latency ms"].get(kind)
        print(f"  {kind:<24} {total / load['seconds']:8.1f}/s  {' '.join(f'{s}:{n}' for s, n in sorted(requests.items()))}" +
              (f"   p50 {latency['p50']} p99 {latency['p99']} max {latency['max']} ms" if latency else ""))


def show_all(figures):
    alone, load = figures["alone"], figures["load"]
    print(f"a job calibrates on {os.cpu_count()} cores, one client at a time:")
    for name in ("get job", "healthz", "submit"):
        show(name + ", ms", alone[name])
    print(f"  a second: {alone['get job a second']} jobs read by 1 client, {alone['submits a second'][0]} jobs submitted by 1 client, "
          f"{alone['submits a second'][1]} by 4")
    print(f"the same with {load['connections most']} connections, {load['watchers most']} watchers, {load['queued most']} jobs queued, "
          f"{load['seconds']} s:")
    print(f"  {load['requests a second']} requests and {load['jobs accepted a second']} accepted jobs a second")
    show("get job, ms", load["get job"])
    show("healthz, ms", load["healthz"])
    show("(machine late by, ms)", load["machine late"])
    show("long polls late by, ms", load["long polls late"])
    show_requests(load)
    for name, found in load["histograms"].items():
        print(f"  {name}: {found}")
    print(f"  problems: {load['problems']}")
    print(f"  cut for dripping after {load['cut for dripping after s']} s")
    print(f"beyond the limit: {figures['full']}")
    print("            MB resident  descriptors  threads")
    for name in ("idle", "warm", "end"):
        print(f"  {name:<10} {figures[name]['rss'] / 1e6:10.1f}  {figures[name]['fds']:11d}  {figures[name]['threads']:7d}")
    print(f"  at most {load['rss most'] / 1e6:.1f} MB in between; quiet again {figures['settled after s'][1]} s after everybody left, "
          f"{figures['seats free after s']} s after those that waited for a job without news")
    print(f"stop: {figures['stop']}")
    print(f"jobs: {figures['jobs']}; {figures['seconds']} s in all")


class Checks:
    def __init__(self):
        self.rows = []

    def add(self, name, passed, detail=""):
        self.rows.append({"name": name, "passed": bool(passed), "detail": str(detail)})

    def none(self, name, wrong):
        """Passed when there is nothing to tell."""
        self.add(name, not wrong, "; ".join(str(one) for one in list(wrong)[:6]))

    def show(self):
        for row in self.rows:
            print(f"{'ok  ' if row['passed'] else 'FAIL'} {row['name']}{': ' + row['detail'] if row['detail'] else ''}")
        failed = sum(not row["passed"] for row in self.rows)
        print(f"{len(self.rows) - failed} passed, {failed} failed")
        return failed


class Stages:
    """When each part began, so that a hang has a place."""

    def __init__(self, verbose):
        self.began, self.verbose, self.rows = time.monotonic(), verbose, []
        self.world = None

    def enter(self, name):
        self.rows.append((round(time.monotonic() - self.began, 1), name))
        if self.verbose:
            print(f"{self.rows[-1][0]:6.1f} s  {name}", file=sys.stderr)


# --- all ---------------------------------------------------------------------------------------------


async def probe(probes, world, during, pause=0.01):
    """What the probes measure while that goes on."""
    probes.start(world.port, world.running, pause)
    await during
    return await asyncio.get_running_loop().run_in_executor(None, probes.results)


async def measure_alone(world, probes):
    alone = await probe(probes, world, asyncio.sleep(3), 0)
    submits = [await submit_batch(world, 1, 12), await submit_batch(world, 4, 36)]
    return alone, {"get job": percentiles(alone["get job"]), "get job a second": round(len(alone["get job"]) / 3),
                   "healthz": percentiles(alone["healthz"]), "submit": percentiles(world.seconds["submit, 1 at once"]),
                   "submits a second": submits}


async def measure_load(world, probes, crowd):
    metrics, counts = world.metrics, world.counts.copy()
    seconds = {kind: len(some) for kind, some in world.seconds.items()}
    world.samples.clear()
    world.late.clear()
    began = time.monotonic()
    probed = await probe(probes, world, crowd.stay(LOAD_SECONDS))
    took = time.monotonic() - began
    requests = {}
    for (kind, status), n in (world.counts - counts).items():
        requests.setdefault(kind, {})[str(status)] = n
    latency = {kind: percentiles(some[seconds.get(kind, 0):]) for kind, some in world.seconds.items() if len(some) > seconds.get(kind, 0)}
    return probed, {
        "seconds": round(took, 1), "requests": requests, "latency ms": latency,
        "get job": percentiles(probed["get job"]), "healthz": percentiles(probed["healthz"]), "machine late": percentiles(probed["machine"]),
        "long polls late": percentiles(world.late),
        "requests a second": round(sum(n for kind in requests.values() for status, n in kind.items() if status.isdigit()) / took, 1),
        "jobs accepted a second": round(sum(kind.get("201", 0) for name, kind in requests.items() if name.startswith("submit")) / took, 1),
        "histograms": {name: histogram(name, metrics, world.metrics) for name in ("moecald_store_commit_seconds", "moecald_plan_seconds")},
        **{f"{name} most": max(s[name] for s in world.samples) for name in ("connections", "watchers", "queued", "rss")},
        "problems": dict(world.problems), "uploaded bytes": world.uploaded, "samples": list(world.samples),
        "cut for dripping after s": [round(s, 1) for s in world.cut]}


async def run(daemon, probes, stages, figures, checks):
    stages.enter("prepare")
    world = stages.world = World(daemon, daemon.start())
    await prepare(world)
    idle = daemon.usage()

    stages.enter("one client at a time")
    alone, figures["alone"] = await measure_alone(world, probes)

    stages.enter("everybody once, so that what is made at first use is there")
    crowd = Crowd(world)
    await crowd.stay(WARM_SECONDS)
    await crowd.leave()
    await clear_queue(world)
    warm, warm_settled = await settle(world, idle, 12)

    stages.enter("everybody")
    crowd = Crowd(world)
    await crowd.stay(1)
    loaded, figures["load"] = await measure_load(world, probes, crowd)

    stages.enter("more connections than there are")
    world.fresh.clear()
    await crowd.stay(0.5)
    before = sum(world.faults.values())
    full = await fill_all(world)
    await crowd.stay(FULL_SECONDS)
    full["faults of the others"] = sum(world.faults.values()) - before
    after_full = await probe(probes, world, crowd.stay(1))
    calibrating = [sample["running"] > 0 for sample in world.samples]

    stages.enter("nobody")
    await crowd.leave()
    await clear_queue(world)
    end, settled = await settle(world, idle, 20)
    left = await leave_quietly(world, end)

    stages.enter("are all jobs there?")
    wrong = await count_jobs(world)
    wrong_keys, replays = await replay_all(world)

    stages.enter("stop")
    outcomes, stop_took, code = await stop_with_clients(world)

    stages.enter("start again")
    world.port = daemon.start()
    wrong_after = await count_jobs(world)
    daemon.process.send_signal(signal.SIGTERM)
    code_after = daemon.process.wait(40)
    stages.enter("end")

    figures.update({
        "full": full, "idle": idle, "warm": warm, "end": end, "settled after s": [round(warm_settled, 1), round(settled, 1)],
        "seats free after s": round(left, 1),
        "stop": {"seconds": round(stop_took, 1), "exit code": code, "clients": {f"{kind} {what}": n for (kind, what), n in outcomes.items()}},
        "jobs": {"accepted": len(world.keys), "deleted": len(world.deleted), "replays": replays}, "seconds": stages.rows[-1][0]})

    load, submits = figures["load"], figures["load"]["requests"].get("submit", {})
    probed = [alone, loaded, after_full]
    machine = max(loaded["machine"], default=0)
    slowest = max((seconds for one in probed for seconds in one["healthz"]), default=99)
    checks.none("clients saw only what the API promises", world.all_faults())
    checks.none("probes were answered", [text for one in probed for text in one["faults"]])
    checks.add("healthz within 1 s", slowest < 1 + machine and len(loaded["healthz"]) > LOAD_SECONDS,
               f"slowest {slowest:.3f} s; the machine itself was late by up to {machine:.3f} s")
    checks.add("a job calibrated all the time", sum(calibrating) >= 0.9 * len(calibrating) > 0, f"{sum(calibrating)} of {len(calibrating)} samples")
    checks.add("all seats of watchers were taken, never more", load["watchers most"] == WATCHERS, load["watchers most"])
    checks.add("watchers beyond were told", load["requests"]["stream"].get("503") and load["requests"]["poll"].get("answered at once: no seat"))
    checks.add("never more connections than allowed", load["connections most"] <= CONNECTIONS, load["connections most"])
    checks.add("the queue was full, never fuller", submits.get("503") and QUEUED - 1 <= load["queued most"] <= QUEUED, load["queued most"])
    checks.add("dripping clients are cut in time", world.cut and all(REQUEST_SECONDS - 1 < s < REQUEST_SECONDS + 4 for s in world.cut))
    checks.add("long polls end in time", world.late and max(world.late) < 3, f"latest by {max(world.late, default=0):.2f} s")
    checks.add("connections beyond the limit are closed at once", full["refused"] >= 20 and full["refused within s"] < 1)
    checks.add("the others did not notice", full["faults of the others"] == 0)
    checks.add("descriptors as before", end["fds"] <= idle["fds"], f"{idle['fds']}, {warm['fds']}, {end['fds']}")
    checks.add("threads as before", end["threads"] == idle["threads"], f"{idle['threads']}, {warm['threads']}, {end['threads']}")
    checks.add("memory is flat", end["rss"] < warm["rss"] + max(FLAT_BYTES, 0.25 * warm["rss"]),
               f"{idle['rss'] / 1e6:.1f}, {warm['rss'] / 1e6:.1f}, {end['rss'] / 1e6:.1f} MB")
    checks.add("seats of clients that left are free again", left < LEFT_SECONDS, f"{left:.1f} s")
    checks.none("every accepted job is there once", wrong)
    checks.none("every key still stands for its job", wrong_keys)
    checks.add("stopped with exit 0 within seconds", code == 0 and stop_took < STOP_SECONDS, f"{stop_took:.1f} s, exit {code}")
    good = {("stream", "ended"), ("poll", 200), ("poll", 304), ("submit", "draining"), ("submit", "refused"), ("silent", "ended")}
    checks.none("those who waited got an answer", [f"{kind} {what}: {n}" for (kind, what), n in outcomes.items() if (kind, what) not in good])
    checks.none("after a start again every job is there once", wrong_after + ([] if code_after == 0 else [f"exit {code_after}"]))
    checks.none("no error in the log", daemon.errors())


def main():
    parser = argparse.ArgumentParser(usage="load.py MOECALD MOECAL [--json FILE] [--verbose]")
    parser.add_argument("moecald")
    parser.add_argument("moecal")
    parser.add_argument("--json", metavar="FILE", help="also write figures and checks there")
    parser.add_argument("--verbose", action="store_true", help="say when each part begins")
    arguments = parser.parse_args()
    figures, checks, stages = {}, Checks(), Stages(arguments.verbose)
    probes = Probes()
    folder = tempfile.mkdtemp(prefix="moecal-load-")
    daemon = Daemon(os.path.realpath(arguments.moecald), os.path.realpath(arguments.moecal), folder)
    try:
        asyncio.run(asyncio.wait_for(run(daemon, probes, stages, figures, checks), WHOLE_SECONDS))
        show_all(figures)
    except Unable as error:
        checks.add("it can begin", False, error)
    except asyncio.TimeoutError:
        checks.add("all of it within its time", False, f"more than {WHOLE_SECONDS} s; {stages.rows}")
        checks.none("clients saw only what the API promises", stages.world.all_faults() if stages.world else [])
    finally:
        daemon.stop()
        probes.close()
        shutil.rmtree(folder, ignore_errors=True)
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({**figures, "stages": stages.rows, "checks": checks.rows}, file, indent=1)
            file.write("\n")
    return 1 if checks.show() else 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    sys.exit(main())
