"""stand_in.py MOECAL ARGUMENT... - moecal, but for jobs that ask for one of its rare ends

What a healthy program on a healthy machine does not do: a job whose spec has the label "end" in its metadata
ends in that way. All else goes to the real program.

  refused   says why it gives up, and warns before that; all with markup in it
  crashes   dies again and again, with markup in its last words
  crashes-once   dies, and works when it is started again
  slow      rests behind each layer, and for a second before it stops: time to look, on any machine
  invalid   does the work, then finds that one check of the verdict did not pass
"""

import json
import os
import signal
import subprocess
import sys
import time

MARKUP = "<img src=x onerror=\"window.hacked='%s'\"><script>window.hacked='%s'</script>"


def markup(name):
    return MARKUP % (name, name)


def say(event, **fields):
    print(json.dumps({"event": event, **fields}), flush=True)


def crash(words):
    print(words, file=sys.stderr, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)


def refuse():
    say("warning", text=f"a warning {markup('warning')}")
    say("failed", code="corrupt", where=f"model.safetensors {markup('where')}", text=f"a header {markup('text')}")
    sys.exit(1)


def follow_me(arguments):
    """The program wants to know whom to follow into death: that is this one now."""
    arguments[arguments.index("--parent") + 1] = str(os.getpid())


def go_slowly(real, arguments):
    follow_me(arguments)
    daemon = os.getppid()
    with subprocess.Popen([real, *arguments], stdout=subprocess.PIPE, text=True) as process:
        def stop(*_):
            time.sleep(1)
            process.terminate()
            process.send_signal(signal.SIGCONT)

        signal.signal(signal.SIGTERM, stop)
        for line in process.stdout:
            tell(line)
            if json.loads(line)["event"] == "layer":
                process.send_signal(signal.SIGSTOP)
                rest(1.5, daemon)
                process.send_signal(signal.SIGCONT)
    sys.exit(process.returncode)


def tell(line):
    try:
        print(line, end="", flush=True)
    except BrokenPipeError:  # the daemon is dead: so are we, and the program with us
        os._exit(1)


def rest(seconds, daemon):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if os.getppid() != daemon:
            os._exit(1)
        time.sleep(0.05)


def invalidate(real, arguments, folder):
    follow_me(arguments)
    with subprocess.Popen([real, *arguments], stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            event = json.loads(line)
            if event["event"] == "finished":
                event["valid"] = False
            print(json.dumps(event), flush=True)
    if process.returncode != 0:
        sys.exit(process.returncode)
    path = os.path.join(folder, "verdict.json")
    with open(path, encoding="utf-8") as file:
        verdict = json.load(file)
    verdict["valid"] = False
    verdict["checks"][-1] |= {"passed": False, "failed": 2, "examples": ["model.layers.0.mlp.experts.3.up_proj", markup("example")]}
    with open(path, "w", encoding="utf-8") as file:
        json.dump(verdict, file)
    sys.exit(4)


def wanted_end(arguments):
    if arguments[:1] != ["run"]:
        return None
    with open(arguments[1], encoding="utf-8") as file:
        return json.load(file).get("metadata", {}).get("end")


def main():
    real, arguments = sys.argv[1], sys.argv[2:]
    end = wanted_end(arguments)
    folder = arguments[arguments.index("-o") + 1] if end else None
    if end == "refused":
        refuse()
    if end == "crashes":
        crash(f"last words {markup('words')}")
    if end == "crashes-once" and not os.path.exists(folder + ".crashed"):
        with open(folder + ".crashed", "x", encoding="utf-8"):
            crash("an accident")
    if end == "slow":
        go_slowly(real, arguments)
    if end == "invalid":
        invalidate(real, arguments, folder)
    os.execv(real, [real, *arguments])


if __name__ == "__main__":
    main()
