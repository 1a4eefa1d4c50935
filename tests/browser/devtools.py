"""devtools.py - a headless Chromium, driven through the DevTools protocol over a pair of pipes

Needs nothing but the browser and Python's library.
"""

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time


class BrowserError(Exception):
    pass


class Browser:
    """One process. Messages are JSON that ends with a NUL: ours go to its descriptor 3, its come from 4."""

    def __init__(self, program=None):
        program = program or os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        if program is None:
            raise BrowserError("there is no chromium (Debian: chromium); CHROMIUM=PATH names another one")
        self.folder = tempfile.mkdtemp(prefix="moecal-chromium-")
        to_browser, self.out = os.pipe()
        self.into, from_browser = os.pipe()
        options = ["--headless=new", "--remote-debugging-pipe", f"--user-data-dir={self.folder}", "--no-first-run", "--disable-gpu",
                   "--disable-dev-shm-usage", "--disable-extensions", "--disable-background-networking", "--disable-component-update",
                   "--disable-sync", "--hide-scrollbars", "--force-color-profile=srgb", "--no-default-browser-check", "--mute-audio"]
        if os.geteuid() == 0:
            options.append("--no-sandbox")
        script = f'exec "$@" 3<&{to_browser} 4>&{from_browser}'
        self.log = open(os.path.join(self.folder, "log"), "wb")
        self.process = subprocess.Popen(["/bin/bash", "-c", script, "browser", program, *options, "about:blank"],
                                        pass_fds=(to_browser, from_browser), stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        os.close(to_browser)
        os.close(from_browser)
        self.rest = b""
        self.next = 0
        self.answers = {}
        self.pages = {}

    def close(self):
        try:
            self.send("Browser.close", {}, None)
            self.process.wait(10)
        except (OSError, BrowserError, subprocess.TimeoutExpired):
            self.process.kill()
            self.process.wait()
        os.close(self.out)
        os.close(self.into)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def post(self, method, parameters, session):
        self.next += 1
        message = {"id": self.next, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self.out, data):]
        return self.next

    def send(self, method, parameters, session, seconds=30):
        number = self.post(method, parameters, session)
        until = time.monotonic() + seconds
        while number not in self.answers:
            self.listen(until, method)
        answer = self.answers.pop(number)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error'].get('message')}")
        return answer["result"]

    def listen(self, until, what):
        """Takes in what the browser says, at least one piece of it."""
        ready, _, _ = select.select([self.into], [], [], max(0, until - time.monotonic()))
        if not ready:
            raise BrowserError(f"the browser does not answer ({what})")
        data = os.read(self.into, 1 << 20)
        if not data:
            self.log.flush()
            with open(self.log.name, errors="replace") as log:
                raise BrowserError(f"the browser ended: {log.read()[-2000:]}")
        *messages, self.rest = (self.rest + data).split(b"\0")
        for message in map(json.loads, messages):
            if "id" in message:
                self.answers[message["id"]] = message
            elif message.get("sessionId") in self.pages:
                self.pages[message["sessionId"]].hear(message["method"], message["params"])

    def idle(self, seconds):
        """Lets time pass, taking in events."""
        until = time.monotonic() + seconds
        while select.select([self.into], [], [], max(0, until - time.monotonic()))[0]:
            self.listen(until + 1, "events")

    def open(self, address, width=1360, height=1000, scale=1, phone=False, dark=False, still=False, before=None):
        """A page in a profile of its own; before: a script that runs ahead of those of the page."""
        context = self.send("Target.createBrowserContext", {}, None)["browserContextId"]
        target = self.send("Target.createTarget", {"url": "about:blank", "browserContextId": context}, None)["targetId"]
        session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True}, None)["sessionId"]
        page = Page(self, session, target)
        self.pages[session] = page
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.send(f"{domain}.enable")
        page.resize(width, height, scale, phone)
        page.media(dark, still)
        if before is not None:
            page.send("Page.addScriptToEvaluateOnNewDocument", source=before)
        page.send("Page.navigate", url=address)
        page.wait("document.readyState === 'complete' && location.href !== 'about:blank'", what=address)
        return page


class Page:
    def __init__(self, browser, session, target):
        self.browser, self.session, self.target = browser, session, target
        self.closed = False
        self.complaints = []  # (source, text)
        self.requests = []  # (method, address, headers)

    def send(self, method, **parameters):
        return self.browser.send(method, parameters, self.session)

    def close(self):
        self.closed = True
        self.browser.send("Target.closeTarget", {"targetId": self.target}, None)

    def hear(self, method, event):
        if method == "Log.entryAdded" and event["entry"]["level"] in ("error", "warning"):
            entry = event["entry"]
            self.complaints.append((entry["source"], f"{entry['text']} {entry.get('url', '')}"))
        elif method == "Runtime.consoleAPICalled" and event["type"] in ("error", "warning", "assert"):
            self.complaints.append(("console", " ".join(str(a.get("value", a.get("description"))) for a in event["args"])))
        elif method == "Runtime.exceptionThrown":
            details = event["exceptionDetails"]
            self.complaints.append(("exception", details.get("exception", {}).get("description", details["text"])))
        elif method == "Network.requestWillBeSent":
            self.requests.append((event["request"]["method"], event["request"]["url"], event["request"]["headers"]))

    def resize(self, width, height, scale=1, phone=False):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=scale, mobile=phone)
        self.send("Emulation.setTouchEmulationEnabled", enabled=phone)

    def media(self, dark=False, still=False):
        self.send("Emulation.setEmulatedMedia", features=[
            {"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
            {"name": "prefers-reduced-motion", "value": "reduce" if still else "no-preference"}])

    def reload(self):
        self.run("window.before = true")
        self.send("Page.reload")
        self.wait("document.readyState === 'complete' && window.before === undefined", what="the page again")

    def run(self, expression):
        """The value of an expression, awaited; JSON."""
        result = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in result:
            details = result["exceptionDetails"]
            raise BrowserError(f"{expression[:200]}: {details.get('exception', {}).get('description', details['text'])}")
        return result["result"].get("value")

    def wait(self, expression, seconds=20, what=None):
        """Until the expression is true, as JavaScript sees it; its value."""
        until = time.monotonic() + seconds
        while True:
            complaint = ""
            try:
                value = self.run(expression)
            except BrowserError as error:  # between two documents there is nothing to ask
                value, complaint = None, f" ({error})"
            if value not in (None, False, 0, ""):
                return value
            if time.monotonic() > until:
                raise BrowserError(f"waited {seconds} s for: {what or expression}{complaint}")
            self.browser.idle(0.1)

    KEYS = {"Enter": 13, "End": 35, "Home": 36, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Tab": 9, "Escape": 27, " ": 32}

    def key(self, key, modifiers=0):
        code = self.KEYS.get(key) or ord(key.upper())
        text = {"Enter": "\r"}.get(key, key if len(key) == 1 else None)
        common = {"key": key, "code": {" ": "Space"}.get(key, key if len(key) > 1 else f"Key{key.upper()}"), "windowsVirtualKeyCode": code, "modifiers": modifiers}
        self.send("Input.dispatchKeyEvent", type="keyDown" if text else "rawKeyDown", **({"text": text} if text else {}), **common)
        self.send("Input.dispatchKeyEvent", type="keyUp", **common)

    def type(self, text):
        self.send("Input.insertText", text=text)

    def point(self, x, y, click=False):
        self.send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        if click:
            for kind in ("mousePressed", "mouseReleased"):
                self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def click(self, selector):
        # what sticks to the window has its place only in the next frame
        x, y = self.run(f"(async () => {{ const node = document.querySelector({json.dumps(selector)}); node.scrollIntoView({{block: 'nearest'}});"
                        " for (let i = 0; i < 2; i++) await new Promise(requestAnimationFrame);"
                        " const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()")
        self.point(x, y, click=True)

    def screenshot(self, path=None, whole=False):
        parameters = {"format": "png"}
        if whole:
            size = self.send("Page.getLayoutMetrics")["cssContentSize"]
            parameters |= {"captureBeyondViewport": True, "clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        image = base64.b64decode(self.send("Page.captureScreenshot", **parameters)["data"])
        if path is not None:
            with open(path, "wb") as file:
                file.write(image)
        return image
