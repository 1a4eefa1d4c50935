"""scenes_life.py - from an empty service to ended jobs: the queue, live progress, a restart, canceling, pages"""

import glob
import os
import time

import audit

PROGRESS = """(() => {
	const text = (id) => document.getElementById(id).textContent;
	return { state: text("job-state"), value: document.getElementById("progress-bar").value, main: text("progress-main"), time: text("progress-eta"), phase: document.querySelector("#phases [aria-current]")?.textContent ?? null };
})()"""
ROWS = """[...document.querySelectorAll("#job-list > li")].map((item) => [item.dataset.job, item.querySelector(".state").textContent])"""
COUNTS = """Object.fromEntries([...document.querySelectorAll("#counts > div")].map((pair) => [pair.querySelector("dt").textContent, pair.querySelector("dd").textContent]))"""


def shown(identifier):
    return f"document.getElementById({identifier!r}).checkVisibility()"


def text(identifier):
    return f"document.getElementById({identifier!r}).textContent"


def state_is(state):
    return f"document.getElementById('job-state').textContent === {state!r}"


def empty(stage):
    page = stage.open("empty")
    page.wait("document.getElementById('readiness').textContent && document.querySelector('#counts dd')", what="the bar on top")
    page.wait(shown("jobs-empty"), what="the empty list")
    stage.same("empty: the service is ready", page.run(text("readiness")), "Ready")
    stage.same("empty: nothing waits or runs", page.run(COUNTS), {"queued": "0", "running": "0"})
    stage.check("empty: says how a job is submitted", f"curl {stage.service.url}/v1/jobs" in page.run(text("jobs-empty")))
    stage.none("empty: does not scroll sideways", page.run(audit.TOO_WIDE))
    stage.check("empty: says what will be where the job is", "appear here" in page.run(text("placeholder-text")))
    stage.check("empty: neither a job nor an error is shown", not page.run(shown("job")) and not page.run(shown("offline")))
    stage.shot(page, "empty")
    page.close()


def give_work(stage):
    service = stage.service
    service.ask("/v1/models", {"path": "qwen3moe-2m", "id": "tiny"})
    docs = "".join(open(name, encoding="utf-8").read() for name in sorted(glob.glob("docs/*.md")))
    # as many tokens as the long job wants
    service.ask("/v1/datasets?id=docs", (docs * (400000 // len(docs) + 1)).encode(), kind="text/plain")
    stage.submit("long", 192, threads=1, metadata={"end": "slow", "owner": "search"})
    service.wait(stage.jobs["long"], states=("running",))
    stage.submit("second", 8, recipe="FP8")
    stage.submit("third", 8, recipe="W8A16")
    stage.submit("urgent", 8, recipe="W8A16", priority=7)
    stage.submit("dropped", 8)
    service.cancel(stage.jobs["dropped"])


def queue(stage):
    page = stage.open("queue", network_fails=True, before=audit.WATCH_SHIFTS)
    stage.live_page = page
    give_work(stage)
    wanted = [[stage.jobs[name], state] for name, state in (
        ("dropped", "canceled"), ("urgent", "queued"), ("third", "queued"), ("second", "queued"), ("long", "running"))]
    page.wait(f"{ROWS}.length === 5", what="five jobs in the list, without a reload")
    stage.same("queue: the list shows all jobs and their states, newest first", page.run(ROWS), wanted)
    page.wait(f"{COUNTS}.queued === '3'", what="the counts")
    stage.same("queue: the bar on top counts them", page.run(COUNTS), {"queued": "3", "running": "1", "canceled": "1"})
    page.wait(state_is("running"), what="the running job beside the list")
    stage.same("queue: a wide screen shows the running one", page.run("location.hash"), stage.address("long"))
    stage.same("queue: the list marks the one that is shown", page.run("document.querySelector('#job-list [aria-current=true]').parentElement.dataset.job"), stage.jobs["long"])
    waiting = stage.open("waiting", stage.address("third"))
    waiting.wait("document.getElementById('progress-eta').textContent.includes('before it')", what="the place in the queue")
    stage.check("queue: a waiting job shows its place (priority counts)", waiting.run(text("progress-eta")).startswith("2 jobs before it"), waiting.run(text("progress-eta")))
    stage.check("queue: ... how long it will take, and that it can be canceled", "takes about" in waiting.run(text("progress-eta")) and waiting.run(shown("cancel")))
    filters(stage, waiting)


def filters(stage, page):
    page.click("#states button:nth-child(1)")
    page.wait(f"{ROWS}.every(([, state]) => state === 'queued') && {ROWS}.length === 3", what="queued jobs only")
    stage.check("queue: a chip filters by state, and is part of the address", page.run("location.hash").endswith("?state=queued") and
                page.run("document.querySelector('#states button').getAttribute('aria-pressed')") == "true")
    page.run("document.getElementById('model').focus()")
    page.type("another")
    page.wait(shown("jobs-empty"), what="no job of another model")
    stage.same("queue: a filter that nothing passes says so", page.run(text("jobs-empty")), "No job is like that.")
    page.close()


def live(stage):
    page = stage.live_page
    page.run("window.untouched = true")
    asked = len(page.requests)
    seen, until = [], time.monotonic() + 6
    while time.monotonic() < until and len({one["value"] for one in seen}) < 4:
        one = page.run(PROGRESS)
        if one["state"] == "running" and 0 < one["value"] < 1 and (not seen or one != seen[-1]):
            seen.append(one)
        stage.browser.idle(0.1)
    values = [one["value"] for one in seen]
    stage.check("live: several intermediate values of the progress, in order", len(set(values)) >= 2 and values == sorted(values), seen)
    stage.check("live: the time left is shown, and changes", len({one["time"] for one in seen if " left" in one["time"]}) >= 2, seen)
    stage.check("live: percent and layers are shown", all("%" in one["main"] and "of 4 layers" in one["main"] for one in seen), seen)
    stage.check("live: the phase is named", all(one["phase"] == "calibrate" for one in seen), seen)
    stage.check("live: the list follows", page.run("Boolean(document.querySelector('#job-list [aria-current=true] .mini').checkVisibility())"))
    stage.check("live: the page was not loaded again", page.run("window.untouched === true"))
    job = f"{stage.service.url}/v1/jobs/{stage.jobs['long']}"
    streams = [headers for _, url, headers in page.requests if url == f"{job}/events"]
    stage.check("live: by one stream of server-sent events", len(streams) == 1 and "text/event-stream" in streams[0].values(), streams)
    polls = [url for _, url, _ in page.requests[asked:] if url == job]
    stage.check("live: the job is not asked for in between", len(polls) <= 1, polls)
    page.wait("Number(document.getElementById('heat-field').dataset.layers) >= 1", what="the first layer in the heat map")
    layers = page.run("Number(document.getElementById('heat-field').dataset.layers)")
    stage.check("live: layers come into the heat map as they are done", 1 <= layers < 4, layers)
    stage.check("live: the verdict says that it comes", page.run(text("verdict-line")) == "Not yet")
    stage.check("live: the title of the window says how it stands", page.run("document.title").startswith("running: tiny · W4A16"), page.run("document.title"))
    stage.shot(page, "running-light")
    page.media(dark=True)
    stage.shot(page, "running-dark")
    page.media()
    phone = stage.open("running on a phone", stage.address("long"), width=360, height=740, scale=2, phone=True)
    phone.wait(state_is("running"))
    phone.wait("Number(document.getElementById('heat-field').dataset.cells) > 0")
    stage.none("live: a phone shows it without scrolling sideways", phone.run(audit.TOO_WIDE))
    stage.shot(phone, "running-phone")
    phone.close()


def restart(stage):
    page, service = stage.live_page, stage.service
    page.wait("Number(document.getElementById('heat-field').dataset.layers) >= 1")
    service.kill()
    page.wait(shown("offline"), what="a word that the service does not answer")
    stage.check("restart: says that the service does not answer, and shows what it knew", page.run(text("readiness")) == "Does not answer" and page.run(state_is("running")))
    stage.shot(page, "offline")
    service.start()
    page.wait(f"!({shown('offline')})", what="the service is back")
    page.wait("[...document.querySelectorAll('#events .type')].some((one) => one.textContent === 'resumed')", what="the job goes on, by the stream")
    page.wait(state_is("running"))
    before = page.run(PROGRESS)
    page.wait(f"{PROGRESS}.value > {before['value']} || {state_is('succeeded')}", what="progress after the restart")
    stage.check("restart: the page goes on by itself, behind the layers that were done", page.run("window.untouched === true") and before["value"] >= 0.25, before)
    stage.check("restart: the second attempt is shown", page.run("[...document.querySelectorAll('#facts > div')].some((fact) => fact.textContent === 'Attempt2')"))


def ended(stage):
    page = stage.live_page
    page.wait("document.getElementById('verdict-line').dataset.valid === 'true'", seconds=60, what="the verdict, without a reload")
    stage.check("end: state, verdict and the time it took come by themselves", page.run(state_is("succeeded")) and page.run("window.untouched === true") and
                page.run(text("progress-eta")).startswith("took "), page.run(PROGRESS))
    stage.check("end: is said aloud", page.run(text("announce")).startswith("tiny: succeeded"), page.run(text("announce")))
    page.wait(f"{ROWS}[4]?.[1] === 'succeeded'", what="the list follows")
    shifts = sorted(page.run("window.shifts"), reverse=True)
    moved = sum(value for value, _ in shifts)
    stage.check("end: from an empty page over a restart to the end nothing jumped (0.1 of the view is a jump)", moved < 0.1, f"{moved:.3f}", *shifts[:8])
    stage.shot(page, "finished-light", whole=True)


def cancel(stage):
    """By keyboard, a job that runs and one that waits."""
    stage.submit("stopped", 128, threads=1, metadata={"end": "slow"})
    stage.submit("unstarted", 128, threads=1, metadata={"end": "slow"})
    page = stage.open("canceling", stage.address("stopped"))
    page.wait(state_is("running"), what="it runs")
    page.run("document.getElementById('cancel').focus()")
    page.key("Enter")
    page.wait("document.getElementById('confirm').open")
    stage.check("cancel: asks first, the harmless answer has the focus", page.run("document.activeElement.id") == "confirm-no" and stage.jobs["stopped"] in page.run(text("confirm-text")))
    stage.shot(page, "cancel")
    page.key("Escape")
    stage.check("cancel: Escape keeps the job, the focus goes back", page.run("!document.getElementById('confirm').open && document.activeElement.id === 'cancel'") and page.run(state_is("running")))
    page.run("""window.states = new Set();
        new MutationObserver(() => states.add(document.getElementById('job-state').textContent)).observe(document.getElementById('job-state'), { childList: true, subtree: true })""")
    page.key("Enter")
    page.wait("document.getElementById('confirm').open")
    page.key("Tab")
    page.key("Enter")
    page.wait(state_is("canceled"), what="the job is canceled")
    stage.check("cancel: the page shows canceling, then canceled", page.run("states.has('canceling')"), page.run("[...states]"))
    stage.check("cancel: there is nothing left to cancel, and no verdict", not page.run(shown("cancel")) and page.run(text("verdict-line")) == "None")
    stage.check("cancel: how far it came stays", "ended after" in page.run(text("progress-eta")), page.run(PROGRESS))
    page.run(f"location.hash = {stage.address('unstarted')!r}")
    page.wait(f"({state_is('running')} || {state_is('queued')}) && document.getElementById('job-id').textContent === {stage.jobs['unstarted']!r}")
    stage.long = stage.jobs["unstarted"]


def pages(stage):
    """More jobs than the list shows at once."""
    stage.service.wait(stage.long, states=("running",))
    extra = [stage.service.submit(**stage.spec(8)) for _ in range(21)]
    page = stage.open("pages", network_fails=True)
    page.wait(f"{ROWS}.length === 20 && {shown('pages')}", what="a full page of jobs")
    stage.check("pages: the newest come first", page.run(f"{ROWS}[0][0]") == extra[-1] and page.run("document.getElementById('newer').disabled"))
    page.click("#older")
    page.wait(f"{ROWS}.some(([id]) => id === {extra[0]!r})", what="older jobs")
    stage.check("pages: older ones follow", page.run(text("page-number")) == "Page 2" and not page.run("document.getElementById('newer').disabled"))
    page.click("#newer")
    page.wait(f"{ROWS}[0][0] === {extra[-1]!r}", what="newer jobs")
    for job in [*extra, stage.long]:
        stage.service.cancel(job)
    for job in extra:
        stage.service.open(f"/v1/jobs/{job}", method="DELETE").close()
    page.wait(f"{COUNTS}.queued === '0'", what="the queue is empty")
    page.close()
