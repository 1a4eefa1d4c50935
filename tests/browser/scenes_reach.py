"""scenes_reach.py - whom the page reaches: light and dark, a phone, the keyboard, those who do not see it"""

import audit
from scenes_life import shown, state_is, text
from scenes_results import CELLS, HEAT, SETTLED


def ready(stage, page, name="long"):
    page.run(f"location.hash = {stage.address(name)!r}")
    page.wait(f"document.getElementById('job-id').textContent === {stage.jobs[name]!r} && {SETTLED}", what=f"job {name}")


def open_all(page):
    page.run("for (const one of document.querySelectorAll('#job details')) one.open = true")


def looks(stage):
    page = stage.open("looks", "#/")
    grounds = {}
    for scheme in ("light", "dark"):
        page.media(dark=scheme == "dark")
        for name in ("long", "invalid"):
            ready(stage, page, name)
            open_all(page)
            stage.browser.idle(0.2)
            count, poor = audit.poor_contrast(page)
            if scheme == "light":
                stage.none(f"texts: none of job {name} is what a value left that is not there", page.run(audit.NOTHINGS))
            stage.check(f"{scheme}: contrast of {count} texts of job {name} is 4.5 at least", count > 100 and not poor, *poor[:12])
        ratio = page.run(audit.MARK_CONTRAST)
        stage.check(f"{scheme}: contrast of the starved mark on its cell is 3 at least", ratio >= 3, f"{ratio:.2f}")
        grounds[scheme] = page.run("[document.body, document.querySelector('.card')].map((node) => getComputedStyle(node).backgroundColor)")
        ready(stage, page)
        stage.shot(page, f"finished-{scheme}", whole=True)
    stage.check("dark: another background than light", all(a != b for a, b in zip(grounds["light"], grounds["dark"])), grounds)
    dark = page.run(CELLS)[0]["light"]
    page.media(dark=False)
    stage.browser.idle(0.2)
    stage.check("dark: the map is drawn anew when the scheme changes", page.run(CELLS)[0]["light"] != dark)
    page.media(still=True)
    stage.check("motion: nothing moves for those who asked for that", page.run("document.getAnimations().length") == 0)
    page.close()


def phone(stage):
    page = stage.open("phone", "#/", width=360, height=740, scale=2, phone=True)
    page.wait("document.querySelectorAll('#job-list > li').length > 3")
    stage.none("phone: the list does not scroll sideways", page.run(audit.TOO_WIDE))
    stage.check("phone: the list comes alone", page.run("!document.getElementById('job').checkVisibility()"))
    stage.shot(page, "list-phone")
    page.click(f"[data-job='{stage.jobs['invalid']}'] a")
    page.wait(shown("job"))
    stage.check("phone: a job takes its place, with a way back", not page.run(shown("jobs")) and page.run("document.querySelector('.back a').checkVisibility()"))
    for name in ("long", "invalid"):
        ready(stage, page, name)
        stage.shot(page, f"{'finished' if name == 'long' else 'verdict-failed'}-phone", whole=True)
        open_all(page)
        stage.none(f"phone: job {name} does not scroll sideways, with all tables open", page.run(audit.TOO_WIDE))
    heat = page.run(HEAT)
    page.run("document.getElementById('heat-field').scrollIntoView({block: 'center'})")
    left, top = page.run("(() => { const box = document.getElementById('heat-cells').getBoundingClientRect(); return [box.x, box.y]; })()")
    page.send("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": left + 1.5 * float(heat["cellWidth"]), "y": top + float(heat["top"]) + 5}])
    page.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    stage.browser.idle(0.2)
    stage.check("phone: a tap reads a cell", page.run(text("heat-readout")).startswith("Layer 0, expert 1"), page.run(text("heat-readout")))
    small = page.run("[...document.querySelectorAll('button, #job-list a, input, select')].filter((node) => node.checkVisibility()).map((node) => [node.id || node.className, node.getBoundingClientRect().height]).filter(([, height]) => height < 30)")
    stage.none("phone: what one taps is 30 pixels high at least", small)
    page.close()


def keyboard(stage):
    page = stage.open("keyboard", "#/")
    page.wait("document.querySelectorAll('#job-list > li').length > 3")
    page.key("Tab")
    stage.same("keyboard: the first stop is a way to the content", page.run("document.activeElement.id"), "skip")
    page.key("Enter")
    stage.check("keyboard: ... which leads there", page.run("['main', 'job'].includes(document.activeElement.id)"))
    page.run(f"document.querySelector(\"[data-job='{stage.jobs['invalid']}'] a\").focus()")
    page.key("Enter")
    page.wait(f"document.getElementById('job-id').textContent === {stage.jobs['invalid']!r}", what="Enter opens a job")
    stage.check("keyboard: Enter on a job opens it, the focus stays", page.run(f"document.activeElement.parentElement.dataset.job === {stage.jobs['invalid']!r}"))
    ready(stage, page)
    open_all(page)
    count, poor = audit.poor_focus(page)
    stage.check(f"keyboard: Tab reaches all of {count} controls, and one sees where", count > 25 and not poor, *poor[:12])
    page.run("document.getElementById('coverage-details').open = false; document.querySelector('#states button').focus()")
    page.key(" ")
    page.wait("location.hash.includes('state=queued')", what="the space bar filters")
    page.key("Enter")
    page.wait("!location.hash.includes('state=')", what="Enter takes the filter away")
    page.run("document.getElementById('heat-field').focus()")
    page.key("s")
    at = page.run(text("heat-live"))
    stage.check("keyboard: S goes to a starved expert and says its numbers", "starved: " in at, at)
    page.key("Home")
    page.key("ArrowRight")
    stage.check("keyboard: arrows move in the map", ", expert 1" in page.run(text("heat-live")), page.run(text("heat-live")))
    page.key("Enter")
    stage.check("keyboard: Enter lists the experts of the layer", page.run("document.getElementById('coverage-details').open && document.activeElement.id === 'layer-choice'"))
    page.close()


def structure(stage):
    page = stage.open("structure", "#/", network_fails=True)
    ready(stage, page)
    open_all(page)
    roles = audit.roles(page)
    for wanted in (("banner", ""), ("main", ""), ("search", "Filter the jobs"), ("region", "Jobs"), ("region", "Verdict"), ("region", "Coverage of the experts"), ("progressbar", "Progress"), ("list", "Phases")):
        stage.check(f"structure: there is {' '.join(wanted)}", wanted in roles, sorted(r for r in roles if r[0] == wanted[0]))
    stage.none("structure: everything that takes the focus has a name", audit.nameless(page))
    stage.none("structure: no level of headings is left out", audit.skipped_levels(page))
    stage.same("structure: one heading of the first level", len([level for level, _ in page.run(audit.HEADINGS) if level == 1]), 1)
    stage.none("structure: every table has a caption and heads", page.run(audit.POOR_TABLES))
    stage.check("structure: language, title and live regions", page.run("document.documentElement.lang === 'en' && document.title.length > 0 && ['announce', 'heat-live', 'readiness'].every((id) => document.getElementById(id).role === 'status') && document.getElementById('offline').role === 'alert'"))
    stage.check("structure: states are a word and a shape, not a colour alone", page.run("[...document.querySelectorAll('.state')].every((one) => one.textContent.trim() && one.querySelector('svg[aria-hidden=true] path'))"))
    page.close()
