#!/usr/bin/env python3
"""service.py MOECALD MOECAL - the life of the process: start, readiness, reload, stop, restart, socket activation

What systemd and an operator rely on, without systemd: the notify socket, signals, exit codes, passed sockets.
"""
import hashlib, json, os, re, shutil, signal, socket, subprocess, sys, tempfile, threading, time, urllib.error, urllib.request

MOECALD, MOECAL = (os.path.realpath(p) for p in sys.argv[1:3])
os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
DATA = os.path.realpath("tests/data")
WORK = tempfile.mkdtemp(prefix="moecal-service-")
passed = failed = 0
SLOW = 8 if "asan" in MOECALD or "tsan" in MOECALD else 1  # sanitizers


def check(name, fine, more=""):
    global passed, failed
    passed, failed = passed + bool(fine), failed + (not fine)
    if not fine:
        print(f"service: {name}: FAILED {more}", file=sys.stderr)


class Notify:
    """The service manager's end of the notify socket."""

    def __init__(self):
        self.path = os.path.join(WORK, "notify")
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.said = []
        threading.Thread(target=self.listen, daemon=True).start()

    def listen(self):
        while True:
            self.said += self.socket.recv(65536).decode().split("\n")

    def wait(self, wanted, seconds=20, after=0):
        end = time.monotonic() + seconds * SLOW
        while time.monotonic() < end:
            if any(line.startswith(wanted) for line in self.said[after:]):
                return True
            time.sleep(0.02)
        return False


class Daemon:
    def __init__(self, *options, env=None, state="state", listen="127.0.0.1:0"):
        self.log = open(os.path.join(WORK, "log"), "a+")
        self.process = subprocess.Popen([MOECALD, *(["--listen", listen] if listen else []), "--state", os.path.join(WORK, state), "--program", MOECAL,
                                         "--allow", DATA, "--allow", WORK, "--free-percent", "0", *options],
                                        stdout=subprocess.PIPE, stderr=self.log, text=True, env={**os.environ, **(env or {})})
        line = self.process.stdout.readline()
        self.url = line.split()[-1] if line.startswith("listening on ") else None

    def ask(self, method, path, body=None, headers=None, timeout=60):
        data = json.dumps(body).encode() if body is not None else None
        request = urllib.request.Request(self.url + path, data, {**({"Content-Type": "application/json"} if data else {}), **(headers or {})}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                text = answer.read()
                return answer.status, json.loads(text) if text else None
        except urllib.error.HTTPError as error:
            text = error.read()
            return error.code, json.loads(text) if text else None

    def stop(self, number=signal.SIGTERM, seconds=20):
        began = time.monotonic()
        self.process.send_signal(number)
        try:
            code = self.process.wait(seconds * SLOW)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = "no end"
        return code, time.monotonic() - began

    def words(self):
        self.log.flush()
        with open(self.log.name) as log:
            return log.read()


def ends_with(code, text, *options):
    """moecald refuses to start."""
    done = subprocess.run([MOECALD, "--state", os.path.join(WORK, "refused"), "--program", MOECAL, *options], capture_output=True, text=True, timeout=60 * SLOW)
    check(f"{options} ends with {code} and says '{text}'", done.returncode == code and text in done.stderr, f"{done.returncode} {done.stderr[-300:]}")


def processes_of(parent):
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as stat:
                    fields = stat.read().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[1]) == parent and fields[0] != "Z":
                found.append(int(name))
    return found


def until(what, seconds=20):
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.02)
    return False


LONG = {"model": "qwen3moe-2m", "dataset": "long.txt", "recipe": "W4A16", "concatenate_data": True, "max_seq_length": 512, "num_calibration_samples": 800}


def make_text():
    with open(os.path.join(WORK, "long.txt"), "w") as text:
        for i in range(6000):
            text.write(f"The router looked at token {i} and asked the same two experts as ever, though {i * 7919 % 1009} others had been trained.\n")


def digests(folder):
    found = {}
    for top, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(top, name)
            relative = os.path.relpath(path, folder)
            if relative.startswith("model/") or relative.startswith("quantization"):
                with open(path, "rb") as file:
                    found[relative] = hashlib.sha256(file.read()).hexdigest()
    return found


def refusals():
    config = os.path.join(WORK, "broken.conf")
    with open(config, "w") as file:
        file.write("jobs = 1\nqueued_job = 5\n")
    ends_with(2, "queued_jobs", "--config", config)
    ends_with(2, "token_file", "--listen", "0.0.0.0:0")
    ends_with(2, "no sockets were passed", "--listen", "systemd")
    ends_with(2, "is 'many', needed is a whole number", "--jobs", "many")
    ends_with(1, "cannot be run", "--listen", "127.0.0.1:0", "--program", os.path.join(WORK, "absent"))
    ends_with(1, "cannot be found", "--listen", "127.0.0.1:0", "--allow", os.path.join(WORK, "absent"))
    holder = socket.create_server(("127.0.0.1", 0))
    ends_with(1, "in use", "--listen", f"127.0.0.1:{holder.getsockname()[1]}")
    holder.close()


def manager():
    """What a service manager sees."""
    notify = Notify()
    daemon = Daemon(env={"NOTIFY_SOCKET": notify.path, "WATCHDOG_USEC": "30000000"})
    check("ready when it can serve", notify.wait("READY=1") and daemon.ask("GET", "/readyz")[0] == 200)
    check("the watchdog is petted", notify.wait("WATCHDOG=1"))
    check("a status line with counts", notify.wait("STATUS=0 running, 0 queued"))
    second = subprocess.run([MOECALD, "--listen", "127.0.0.1:0", "--state", os.path.join(WORK, "state"), "--program", MOECAL], capture_output=True, text=True)
    check("a second one in the same folder is refused", second.returncode == 1 and "another moecald" in second.stderr, second.stderr)
    before = len(notify.said)
    daemon.process.send_signal(signal.SIGHUP)
    check("a reload is announced", notify.wait("RELOADING=1", after=before) and notify.wait("READY=1", after=before))
    code, seconds = daemon.stop()
    check("a stop is announced", notify.wait("STOPPING=1"))
    check("a stop ends with 0 at once", code == 0 and seconds < 5 * SLOW, f"{code} after {seconds:.1f} s")


def reload():
    config, tokens = os.path.join(WORK, "good.conf"), os.path.join(WORK, "tokens")
    line = lambda name, token: f"{name} admin {hashlib.sha256(token.encode()).hexdigest()}\n"
    with open(config, "w") as file:
        file.write("queued_jobs = 7\nlog_level = info\n")
    daemon = Daemon("--config", config)
    status = lambda token=None: daemon.ask("GET", "/v1/jobs", headers={"Authorization": f"Bearer {token}"} if token else None)[0]
    check("open without tokens", status() == 200)
    descriptor = os.open(tokens, os.O_WRONLY | os.O_CREAT, 0o600)
    os.write(descriptor, line("ann", "ann-secret-0123456789").encode())
    os.close(descriptor)
    with open(config, "a") as file:
        file.write(f"token_file = {tokens}\njobs = 2\nconnections = 9\n")
    daemon.process.send_signal(signal.SIGHUP)
    check("tokens hold after a reload", until(lambda: status() == 401) and status("ann-secret-0123456789") == 200)
    check("what needs a restart is named", until(lambda: "these need a restart: connections" in daemon.words()), daemon.words()[-500:])
    with open(config, "a") as file:
        file.write("nonsense = 1\n")
    with open(tokens, "w") as file:
        file.write(line("bob", "bob-secret-0123456789"))
    daemon.process.send_signal(signal.SIGHUP)
    check("a broken file changes nothing, and is complained of", until(lambda: "nonsense" in daemon.words()) and status("ann-secret-0123456789") == 200 and status("bob-secret-0123456789") == 401)
    with open(config, "w") as file:
        file.write("queued_jobs = 7\n")
    daemon.process.send_signal(signal.SIGHUP)
    check("tokens cannot be reloaded away", until(lambda: "cannot be taken away" in daemon.words()) and status() == 401)
    check("it stops", daemon.stop()[0] == 0)


def interruptions():
    """A job through a stop, a kill of the daemon and a kill of the job, to the bits of an undisturbed run."""
    subprocess.run([MOECAL, "run", "--model", os.path.join(DATA, "qwen3moe-2m"), "--dataset", os.path.join(WORK, "long.txt"), "--recipe", "W4A16", "--concatenate-data", "true",
                    "--max-seq-length", "512", "--num-calibration-samples", "800", "-o", os.path.join(WORK, "expected")], check=True, capture_output=True)
    daemon = Daemon()
    job = daemon.ask("POST", "/v1/jobs", LONG)[1]["id"]
    path = f"/v1/jobs/{job}"
    layers = lambda: (daemon.ask("GET", path)[1]["progress"] or {}).get("layers_done", 0)
    check("a layer is done", until(lambda: layers() >= 1))
    waiting = []
    threading.Thread(target=lambda: waiting.append(daemon.ask("GET", path + "?wait=60")), daemon=True).start()
    time.sleep(0.2)
    child = processes_of(daemon.process.pid)
    code, seconds = daemon.stop()
    check("a stop with a running job ends with 0 within seconds", code == 0 and seconds < 10 * SLOW, f"{code} after {seconds:.1f} s")
    check("no process is left behind", child and not any(os.path.exists(f"/proc/{pid}") for pid in child))
    check("who waited got an answer", until(lambda: waiting, 5) and waiting[0][0] in (200, 304, 503), waiting)

    daemon = Daemon()
    check("the job goes on", until(lambda: daemon.ask("GET", path)[1]["state"] == "running"))
    row = daemon.ask("GET", path)[1]
    check("a stop is no crash", row["crashes"] == 0 and row["attempt"] == 2, row)
    check("it goes on behind its last layer", until(lambda: any(e["type"] == "resumed" for e in daemon.ask("GET", path + "/events")[1]["events"])))
    child = processes_of(daemon.process.pid)
    daemon.stop(signal.SIGKILL)
    check("a job ends when its service was killed", until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in child)))

    daemon = Daemon()
    check("it goes on after the kill", until(lambda: daemon.ask("GET", path)[1]["state"] in ("running", "succeeded")))
    row = daemon.ask("GET", path)[1]
    check("the job is not to blame for that", row["crashes"] == 0 and row["attempt"] == 3, row)
    for pid in processes_of(daemon.process.pid):
        os.kill(pid, signal.SIGSEGV)
    row = daemon.ask("GET", path + "?wait=60")[1]
    check("it succeeds in the end", row["state"] == "succeeded", row["reason"])
    expected, got = digests(os.path.join(WORK, "expected")), digests(os.path.join(WORK, "state/jobs", job, "folder"))
    check("with the bits of an undisturbed run", expected and {k: v for k, v in got.items() if k in expected} == expected, set(expected) ^ set(got))

    other = daemon.ask("POST", "/v1/jobs", {**LONG, "metadata": {"crash": "always"}})[1]["id"]
    for _ in range(3):
        attempt = daemon.ask("GET", f"/v1/jobs/{other}")[1]["attempt"]
        until(lambda: processes_of(daemon.process.pid))
        for pid in processes_of(daemon.process.pid):
            os.kill(pid, signal.SIGSEGV)
        until(lambda: daemon.ask("GET", f"/v1/jobs/{other}")[1]["attempt"] > attempt or daemon.ask("GET", f"/v1/jobs/{other}")[1]["state"] == "failed")
    row = daemon.ask("GET", f"/v1/jobs/{other}?wait=30")[1]
    check("three crashes fail a job", row["state"] == "failed" and row["reason"]["code"] == "crashed-repeatedly" and "signal 11" in row["reason"]["detail"], row)
    check("it stops", daemon.stop()[0] == 0)


def sockets():
    path = os.path.join(WORK, "s.sock")
    daemon = Daemon("--listen", f"unix:{path}")
    line = daemon.process.stdout.readline()
    check("a Unix socket beside TCP", line.strip() == f"listening on unix:{path}" and os.stat(path).st_mode & 0o777 == 0o660, line)
    done = subprocess.run([MOECAL, "list", "--json", "--url", f"unix:{path}"], capture_output=True, text=True)
    check("moecal speaks to it", done.returncode == 0 and "jobs" in done.stdout, done.stderr)
    check("it stops", daemon.stop()[0] == 0)
    check("and takes its socket with it", not os.path.exists(path))
    # passed by a service manager: the socket is there before the service, and waits for it
    if shutil.which("systemd-socket-activate"):
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
        activate = subprocess.Popen(["systemd-socket-activate", "-l", f"127.0.0.1:{port}", MOECALD, "--listen", "systemd", "--state", os.path.join(WORK, "passed"), "--program", MOECAL],
                                    stdout=subprocess.DEVNULL, stderr=open(os.path.join(WORK, "log"), "a"))
        fine = False
        for _ in range(50):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=20 * SLOW) as answer:
                    fine = answer.status == 200
                    break
            except OSError:
                time.sleep(0.1)
        check("the first request starts a service with a passed socket", fine)
        activate.send_signal(signal.SIGTERM)
        check("it stops", activate.wait(20 * SLOW) == 0, activate.returncode)


def main():
    make_text()
    try:
        for part in (refusals, manager, reload, interruptions, sockets):
            part()
    finally:
        shutil.rmtree(WORK, ignore_errors=True)
    print(f"service: {passed} passed, {failed} failed")
    return failed > 0


sys.exit(main())
