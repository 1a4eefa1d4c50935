"""outside.py - a moecald of one's own, what it uses by /proc, and probes that measure from another process"""

import http.client
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import threading
import time

from client import request_bytes

CONNECTIONS, WATCHERS, QUEUED = 64, 32, 50  # settings of the daemon; the first two are its defaults
REQUEST_SECONDS = 10


class Unable(Exception):
    """The measurement cannot begin."""


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
            raise Unable(f"moecald does not start: {line}{self.errors(5)}")
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

    def stop(self):
        """Without questions; after a run that ended well there is nothing to do."""
        if self.process is None or self.process.poll() is not None:
            return
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Probes:
    """A process of its own, so that its clock does not wait for the other clients' work. Threads: /healthz over
    a new connection each time, one job over a connection that stays. A third tells by how much the machine itself is late."""

    def __init__(self):
        context = multiprocessing.get_context("fork")
        self.pipe, other = context.Pipe()
        self.process = context.Process(target=self.serve, args=(other, self.pipe), daemon=True)
        self.process.start()
        other.close()

    def start(self, port, job, pause=0.01):
        self.pipe.send((port, job, pause))

    def results(self):
        """Ends what start began: {"healthz": [seconds], "get job": [seconds], "machine": [seconds], "faults": [text]}."""
        self.pipe.send(None)
        if not self.pipe.poll(30):
            return {"healthz": [], "get job": [], "machine": [], "faults": ["the probes hang"]}
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
            found = {"healthz": [], "get job": [], "machine": [], "faults": []}
            threads = [threading.Thread(target=probe_healthz, args=(port, end, found)),
                       threading.Thread(target=probe_job, args=(port, job, pause, end, found)),
                       threading.Thread(target=probe_machine, args=(end, found))]
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


def probe_machine(end, found):
    while not end.is_set():
        began = time.monotonic()
        time.sleep(0.01)
        found["machine"].append(time.monotonic() - began - 0.01)
