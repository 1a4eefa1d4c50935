"""scenes_token.py - the policy that is sent along, and a service that asks for a token"""

import os
import re
import subprocess

import audit
from scenes_life import shown, state_is, text
from scenes_results import HEAT
from service import Service

POLICY = {"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"}


def policy(stage):
    with stage.service.open("/") as answer:
        headers, html = answer.headers, answer.read().decode()
    sent = {part.strip() for part in headers.get("Content-Security-Policy", "").split(";")}
    stage.none("policy: strict, and sent with the page", POLICY - sent)
    stage.check("policy: allows nothing inline, nothing from elsewhere", not re.search(r"unsafe|https?:|\*", " ".join(sent)), sent)
    stage.check("policy: types are not guessed", headers.get("X-Content-Type-Options") == "nosniff", headers.get("X-Content-Type-Options"))
    stage.none("page: no inline script, style or handler", re.findall(r"<script(?![^>]*\bsrc=)[^>]*>|<style|\sstyle=|\son[a-z]+=|javascript:", html))
    stage.same("page: loads its own files only", sorted(set(re.findall(r'(?:src|href)="(/[^"]*)"', html))), ["/assets/app.js", "/assets/style.css"])
    page = stage.browser.open(stage.service.url + "/")  # complains, as it should
    page.wait("document.getElementById('readiness').textContent")
    page.run("{ const bad = document.createElement('script'); bad.textContent = 'window.hacked = 1'; document.head.append(bad); }")
    stage.browser.idle(0.2)
    stage.check("policy: is enforced: an inline script does not run", page.run("window.hacked === undefined") and any("Content Security Policy" in what for _, what in page.complaints), page.complaints)
    page.close()


def make_token(stage, name, scope, path):
    said = subprocess.run([stage.programs[0], "--make-token", name, scope], capture_output=True, text=True, check=True).stdout
    given, line = (one.partition(": ")[2] for one in said.splitlines())
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"{line}\n")
    return given


def give(page, token):
    page.run("document.getElementById('token').value = ''; document.getElementById('token').focus()")
    page.type(token)
    page.key("Enter")


def token(stage):
    service = Service(*stage.programs)
    try:
        path = os.path.join(service.folder, "tokens")
        reader = make_token(stage, "reader", "read", path)
        service.token = make_token(stage, "writer", "submit", path)
        service.options = ("--token-file", path)
        service.start()
        play_token(stage, service, reader)
    finally:
        service.close()


def play_token(stage, service, reader):
    service.ask("/v1/models", {"path": "qwen3moe-2m", "id": "tiny"})
    with open("docs/API.md", "rb") as file:
        service.ask("/v1/datasets?id=docs", file.read() * 20, kind="text/plain")
    done = service.submit(**stage.spec(8))
    service.wait(done)
    running = service.submit(**stage.spec(128, threads=1, metadata={"end": "slow"}))
    page = stage.open("token", f"#/jobs/{done}", network_fails=True, service=service)
    page.wait(shown("token-panel"), what="the question for a token")
    stage.check("token: nothing else is shown before", not page.run(shown("columns")) and page.run("document.getElementById('job').textContent").count(done) == 0)
    stage.check("token: the field has the focus, a label, and hides what is typed", page.run("document.activeElement.id === 'token' && document.activeElement.labels.length === 1 && document.activeElement.type === 'password'"))
    stage.none("token: contrast is 4.5 at least", audit.poor_contrast(page)[1])
    stage.shot(page, "token")
    give(page, "wrong" * 8)
    page.wait("document.getElementById('token-error').textContent", what="a word about the wrong token")
    stage.check("token: a wrong one is refused, in words", page.run(text("token-error")) == "The service does not accept this token." and page.run(shown("token-panel")) and page.run("sessionStorage.length") == 0, page.run(text("token-error")))
    stage.shot(page, "token-wrong")
    give(page, reader)
    page.wait(f"{state_is('succeeded')} && {HEAT}.layers === '4' && document.getElementById('verdict-line').dataset.valid", what="the job that was asked for")
    stage.check("token: the right one opens what was asked for", not page.run(shown("token-panel")) and page.run("location.hash") == f"#/jobs/{done}")
    kept = page.run("({ session: Object.values(sessionStorage), local: localStorage.length, cookie: document.cookie, address: location.href, field: document.getElementById('token').value })")
    stage.check("token: is kept by this tab alone", kept["session"] == [reader] and kept["local"] == 0 and not kept["cookie"] and reader not in kept["address"] and not kept["field"], kept)
    stage.none("token: is in no address that was asked for", [url for _, url, _ in page.requests if reader in url])
    page.run(f"location.hash = '#/jobs/{running}'")
    page.wait(f"{state_is('running')} && document.getElementById('progress-bar').value > 0", what="live progress with a token")
    streams = [headers for _, url, headers in page.requests if url.endswith(f"{running}/events")]
    stage.check("token: goes with the stream of events", streams and streams[-1].get("Authorization") == f"Bearer {reader}", streams)
    page.run("document.getElementById('cancel').focus()")
    page.key("Enter")
    page.key("Tab")
    page.key("Enter")
    page.wait("document.getElementById('confirm-error').textContent", what="a refusal")
    stage.check("token: one that may only read cannot cancel, and says why", "submit" in page.run(text("confirm-error")) and page.run(state_is("running")), page.run(text("confirm-error")))
    page.key("Escape")
    page.reload()
    page.wait(state_is("running"), what="the same after a reload")
    stage.check("token: need not be given again after a reload", not page.run(shown("token-panel")))
    other = stage.open("another tab", f"#/jobs/{done}", network_fails=True, service=service)
    other.wait(shown("token-panel"), what="another tab asks")
    stage.check("token: another tab asks for its own", True)
    page.click("#forget")
    page.wait(f"{shown('token-panel')} && sessionStorage.length === 0", what="the token is forgotten")
    stage.check("token: can be forgotten, with what it let see", page.run("!document.body.textContent.includes('job_')") and page.run("document.title") == "moecal")
    service.cancel(running)
