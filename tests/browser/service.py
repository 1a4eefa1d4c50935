"""service.py - a moecald of one's own, and what is asked of it over HTTP"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

FINAL = ("succeeded", "failed", "canceled")


class Service:
    """The state is kept over restarts; close() removes it."""

    def __init__(self, moecald, moecal, *options):
        self.folder = tempfile.mkdtemp(prefix="moecal-browser-")
        self.moecald, self.options = os.path.realpath(moecald), options
        self.listen = "127.0.0.1:0"
        self.token = None
        self.process = None
        # the daemon starts one program by its path
        self.program = os.path.join(self.folder, "stand_in")
        here = os.path.dirname(os.path.realpath(__file__))
        with open(self.program, "w", encoding="utf-8") as file:
            file.write(f'#!/bin/sh\nexec "{sys.executable}" "{here}/stand_in.py" "{os.path.realpath(moecal)}" "$@"\n')
        os.chmod(self.program, 0o755)
        self.log = open(os.path.join(self.folder, "log"), "wb")

    def start(self):
        self.process = subprocess.Popen(
            [self.moecald, "--listen", self.listen, "--state", os.path.join(self.folder, "state"), "--allow", "tests/data",
             "--program", self.program, *self.options], stdout=subprocess.PIPE, stderr=self.log, text=True)
        line = self.process.stdout.readline()
        if not line.startswith("listening on "):
            raise RuntimeError(f"moecald does not start: {self.said()}")
        self.url = line.split()[-1]
        self.listen = self.url.removeprefix("http://")
        return self

    def said(self):
        self.log.flush()
        with open(self.log.name, errors="replace", encoding="utf-8") as file:
            return file.read()[-2000:]

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def close(self):
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def open(self, path, body=None, kind="application/json", headers=None, method=None):
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=body, headers=headers or {}, method=method)
        if body is not None:
            request.add_header("Content-Type", kind)
        if self.token is not None:
            request.add_header("Authorization", f"Bearer {self.token}")
        try:
            return urllib.request.urlopen(request, timeout=90)
        except urllib.error.HTTPError as error:
            raise RuntimeError(f"{path}: {error.code} {error.read()[:500].decode(errors='replace')}") from error

    def ask(self, path, body=None, **how):
        with self.open(path, body, **how) as answer:
            return json.load(answer)

    def pages(self, path, name):
        """All of a list that comes in pages."""
        found, cursor = [], ""
        while cursor is not None:
            answer = self.ask(f"{path}{'&' if '?' in path else '?'}limit=200{cursor}")
            found += answer[name]
            cursor = answer["next_cursor"] and f"&cursor={answer['next_cursor']}"
        return found

    def submit(self, **spec):
        return self.ask("/v1/jobs", spec)["id"]

    def cancel(self, job):
        self.ask(f"/v1/jobs/{job}/cancel", b"", method="POST")

    def wait(self, job, seconds=60, states=FINAL):
        until = time.monotonic() + seconds
        while True:
            found = self.ask(f"/v1/jobs/{job}")
            if found["state"] in states:
                return found
            if time.monotonic() > until:
                raise RuntimeError(f"{job} is {found['state']} after {seconds} s, not one of {states}")
            time.sleep(0.1)
