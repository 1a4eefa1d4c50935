#!/usr/bin/env python3
"""page.py MOECALD MOECAL - the status page in headless Chromium: what it shows, not what the API says

Starts a moecald of its own, gives it work over HTTP, and looks at the page that a person would have open.
Prints one line a check; exits with 1 when one failed. SHOTS=DIR keeps screenshots there.
"""

import os
import re
import sys
import time
import traceback

sys.dont_write_bytecode = True  # before what lies beside this file is read
import scenes_life  # noqa: E402
import scenes_reach  # noqa: E402
import scenes_results  # noqa: E402
import scenes_token  # noqa: E402
from devtools import Browser, BrowserError  # noqa: E402
from service import Service  # noqa: E402

SCENES = (
    scenes_life.empty, scenes_life.queue, scenes_life.live, scenes_life.restart, scenes_life.ended,
    scenes_results.coverage, scenes_results.errors, scenes_results.verdict_and_files, scenes_results.opened_directly,
    scenes_results.failures, scenes_results.hostile, scenes_life.cancel, scenes_life.pages,
    scenes_reach.looks, scenes_reach.phone, scenes_reach.keyboard, scenes_reach.structure,
    scenes_token.policy, scenes_token.token,
)
# A browser says these itself when an answer is no success or does not come.
NETWORK = re.compile(r"Failed to load resource: ")


class Stage:
    """What all scenes share: the service, the browser, the jobs so far, and the count of checks."""

    def __init__(self, moecald, moecal):
        self.programs = moecald, moecal
        self.shots = os.environ.get("SHOTS")
        if self.shots:
            os.makedirs(self.shots, exist_ok=True)
        self.passed = self.failed = 0
        self.jobs = {}
        self.opened = []  # (name, page, its origin, whether the network may fail)
        self.models = None
        self.service = self.browser = None

    def check(self, name, good, *details):
        if good:
            self.passed += 1
            print(f"ok    {name}", flush=True)
        else:
            self.failed += 1
            print(f"FAIL  {name}" + "".join(f"\n      {detail}" for detail in details), flush=True)
        return bool(good)

    def same(self, name, found, wanted):
        return self.check(name, found == wanted, f"found  {found!r}", f"wanted {wanted!r}")

    def none(self, name, wrong):
        return self.check(name, not wrong, *[str(one) for one in list(wrong)[:10]])

    def open(self, name, path="", network_fails=False, service=None, **how):
        origin = (service or self.service).url
        page = self.browser.open(f"{origin}/{path}", **how)
        self.opened.append((name, page, origin, network_fails))
        return page

    def shot(self, page, name, whole=False):
        if self.shots:
            page.screenshot(os.path.join(self.shots, f"{name}.png"), whole=whole)

    def spec(self, samples, **more):
        return {"model": "tiny", "dataset": "docs", "recipe": "W4A16", "concatenate_data": True, "max_seq_length": 512,
                "num_calibration_samples": samples, **more}

    def submit(self, name, samples, **more):
        self.jobs[name] = self.service.submit(**self.spec(samples, **more))
        return self.jobs[name]

    def address(self, name):
        return f"#/jobs/{self.jobs[name]}"

    def begin(self):
        self.service = Service(*self.programs)
        self.models = os.path.join(self.service.folder, "models")
        self.service.options = ("--allow", self.models)
        os.mkdir(self.models)
        self.service.start()
        self.browser = Browser()

    def end(self):
        if self.browser is not None:
            self.browser.close()
        if self.service is not None:
            self.service.close()

    def play(self, scene):
        try:
            scene(self)
        except Exception as error:  # the other scenes are worth seeing all the same
            where = traceback.extract_tb(error.__traceback__)
            at = next((f for f in reversed(where) if "scenes_" in f.filename), where[-1])
            self.check(f"{scene.__name__}: runs to its end", False, f"{os.path.basename(at.filename)}:{at.lineno}: {type(error).__name__}: {error}")
            for name, page, *_ in self.opened:
                if not page.closed:
                    self.shot(page, f"broken-{scene.__name__}-{name}")

    def review(self):
        """What no page may do at any time."""
        complaints, strays = [], []
        count = 0
        for name, page, origin, network_fails in self.opened:
            complaints += [f"{name}: {source}: {text[:300]}" for source, text in page.complaints if not (network_fails and NETWORK.search(text))]
            # an address beneath data: or blob: of the page leads nowhere else
            strays += [f"{name}: {method} {url[:100]}" for method, url, _ in page.requests if not url.startswith((f"{origin}/", f"blob:{origin}/", "data:"))]
            count += len(page.requests)
        self.none(f"no error, warning or violation of the policy in the console of {len(self.opened)} pages", complaints)
        self.none(f"none of {count} requests leaves the origin", strays)


def main():
    if len(sys.argv) != 3:
        print("usage: page.py MOECALD MOECAL", file=sys.stderr)
        return 2
    started = time.monotonic()
    stage = Stage(*sys.argv[1:])
    try:
        stage.begin()
        for scene in SCENES:
            stage.play(scene)
        stage.review()
    except (BrowserError, RuntimeError, OSError) as error:
        print(f"page: {error}", file=sys.stderr)
        return 1
    finally:
        stage.end()
    print(f"took {time.monotonic() - started:.0f} s")
    print(f"{stage.passed} passed, {stage.failed} failed")
    return 1 if stage.failed else 0


if __name__ == "__main__":
    sys.exit(main())
