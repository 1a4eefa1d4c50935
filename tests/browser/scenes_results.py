"""scenes_results.py - what a job found out: coverage, errors, verdict, files; failures; hostile texts"""

import os
import shutil
import statistics

import stand_in
from audit import FOREIGN, TOO_WIDE
from scenes_life import shown, state_is, text

HEAT = "({ ...document.getElementById('heat-field').dataset })"
TABLE = """((id) => [...document.getElementById(id).tBodies[0].rows].map((row) => [...row.cells].map((cell) => cell.textContent)))"""
PLOTS = """[...document.querySelectorAll("#plots .plot")].map((plot) => ({
	title: plot.querySelector("h4").textContent,
	series: Object.fromEntries([...plot.querySelectorAll("[data-series]")].map((one) => [one.dataset.series, Number(one.dataset.points)])),
}))"""
# A finished job of four layers is there, whole.
SETTLED = f"""document.getElementById('verdict-line').dataset.valid && {HEAT}.layers === '4' && {PLOTS}.length === 2 && {PLOTS}.every(({{ series }}) => Object.values(series).every((points) => points === 4))"""
# Of each cell: how light its ground is, and how many of its dots have the colour of the mark.
CELLS = """(() => {
	const { cellWidth, cellHeight, top, layers, experts } = document.getElementById("heat-field").dataset;
	const canvas = document.getElementById("heat-cells");
	const scale = canvas.width / canvas.getBoundingClientRect().width;
	/* a copy: reading from the one that is shown would change how it is kept */
	const context = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", { willReadFrequently: true });
	context.drawImage(canvas, 0, 0);
	const mark = getComputedStyle(document.documentElement).getPropertyValue("--heat-mark").trim();
	const [r, g, b] = [1, 3, 5].map((at) => parseInt(mark.slice(at, at + 2), 16));
	const found = [];
	for (let layer = 0; layer < layers; layer++)
		for (let expert = 0; expert < experts; expert++) {
			const [x, y, w, h] = [expert * cellWidth, Number(top) + layer * cellHeight, cellWidth - 1, cellHeight - 1].map((v) => Math.floor(v * scale));
			const { data } = context.getImageData(x, y, w, h);
			let dots = 0;
			for (let i = 0; i < data.length; i += 4) dots += Math.abs(data[i] - r) + Math.abs(data[i + 1] - g) + Math.abs(data[i + 2] - b) < 30;
			found.push({ layer, expert, dots, light: data[0] + data[1] + data[2] });
		}
	return found;
})()"""


def show(stage, page, name, state="succeeded"):
    page.run(f"location.hash = {stage.address(name)!r}")
    page.wait(f"document.getElementById('job-id').textContent === {stage.jobs[name]!r} && {state_is(state)}", what=f"job {name}")


def count(number):
    return f"{number:,}"


def coverage(stage):
    page = stage.live_page
    wanted = stage.service.ask(f"/v1/jobs/{stage.jobs['long']}/coverage")
    experts = {(layer["index"], one["expert"]): one for layer in wanted["layers"] for one in layer["experts"]}
    starved = [f"{layer['index']}:{expert}" for layer in wanted["layers"] for expert in layer["starved"]]
    page.wait(f"{HEAT}.layers === '{len(wanted['layers'])}'")
    heat = page.run(HEAT)
    stage.same("coverage: layers x experts", [heat["layers"], heat["experts"], heat["cells"]], ["4", "8", str(len(experts))])
    stage.check("coverage: this job has starved experts", starved)
    stage.same("coverage: the map marks just these", heat["starved"].split(), starved)
    cells = page.run(CELLS)
    marked = [f"{cell['layer']}:{cell['expert']}" for cell in cells if cell["dots"] > 20]
    stage.same("coverage: with a drawn cross, not by colour alone", marked, starved)
    by_share = sorted((cell for cell in cells if cell["dots"] == 0), key=lambda cell: experts[cell["layer"], cell["expert"]]["share"])
    light = [cell["light"] for cell in by_share]
    stage.check("coverage: the larger the share, the deeper the colour", all(a >= b - 3 for a, b in zip(light, light[1:])) and light[0] - light[-1] > 150, light)
    lead = page.run(text("coverage-lead"))
    stage.check("coverage: how many starved, of how many, below which floor", f"{len(starved)} expert" in lead and f"of {len(experts)} " in lead and f"fewer than {count(wanted['floor_tokens'])} tokens" in lead, lead)
    legend = page.run(text("heat-legend"))
    stage.check("coverage: a legend with the even share", "even: 12.5 %" in legend and "starved" in legend, legend)
    readout(stage, page, heat, experts, wanted)
    tables(stage, page, wanted)


def readout(stage, page, heat, experts, wanted):
    layer = next(layer for layer in wanted["layers"] if layer["starved"])
    row, expert = wanted["layers"].index(layer), layer["starved"][0]
    one = experts[layer["index"], expert]
    page.run("document.getElementById('heat-field').scrollIntoView({block: 'center'})")
    left, top = page.run("(() => { const box = document.getElementById('heat-cells').getBoundingClientRect(); return [box.x, box.y]; })()")
    page.point(left + (expert + 0.5) * float(heat["cellWidth"]), top + float(heat["top"]) + (row + 0.5) * float(heat["cellHeight"]))
    line = page.run(text("heat-readout"))
    stage.check("coverage: pointing at a cell reads its numbers", line.startswith(f"Layer {layer['index']}, expert {expert}starved: {count(one['routed'])} token")
                and f"calibration saw {count(one['seen'])}" in line and f"learned from {one['source']}" in line, line)
    stage.shot(page, "coverage")


def tables(stage, page, wanted):
    page.run("document.getElementById('coverage-details').open = true")
    rows = page.run(f"{TABLE}('layers-table')")
    stage.same("coverage: the table of layers is what the service says", [row[:5] + row[6:] for row in rows],
               [[str(one["index"]), *(count(one[key]) for key in ("tokens", "min", "median", "max")), ", ".join(map(str, one["starved"])) or "none"] for one in wanted["layers"]])
    stage.check("coverage: ... with the Gini coefficient", all(abs(float(row[5]) - one["gini"]) <= 0.01 for row, one in zip(rows, wanted["layers"])), rows)
    wrong = []
    for row, layer in enumerate(wanted["layers"]):
        page.run(f"document.getElementById('layer-choice').value = {row}; document.getElementById('layer-choice').dispatchEvent(new Event('change'))")
        for cells, one in zip(page.run(f"{TABLE}('experts-table')"), layer["experts"], strict=True):
            share = float(cells[2].removesuffix(" %")) / 100
            exact = [str(one["expert"]), count(one["routed"]), count(one["seen"]), one["source"], "starved" if one["expert"] in layer["starved"] else "no"]
            if [cells[0], cells[1], cells[3], cells[5], cells[6]] != exact or abs(share - one["share"]) > 0.01 * one["share"] + 1e-9:
                wrong.append((layer["index"], cells, exact, one["share"]))
    stage.none("coverage: the tables of experts are what the service says, share by share", wrong)
    page.run("document.getElementById('coverage-details').open = false")


def errors(stage):
    page = stage.live_page
    page.wait(SETTLED, what="all layers in the plots")
    stage.same("errors: a plot a kind of linear, a curve a role, a point a layer", page.run(PLOTS), [
        {"title": "Attention", "series": dict.fromkeys("qkvo", 4)},
        {"title": "Experts: median, and the span of all", "series": dict.fromkeys([f"{role} of experts" for role in ("gate", "up", "down")], 4)}])
    groups = {}
    for row in stage.service.pages(f"/v1/jobs/{stage.jobs['long']}/statistics", "modules"):
        key = row["role"] if row["expert"] is None else f"{row['role']} of experts"
        groups.setdefault((row["layer"], key), []).append(row["error_relative"])
    page.run("document.getElementById('errors-details').open = true")
    heads = page.run("[...document.getElementById('errors-table').tHead.rows[0].cells].map((cell) => cell.textContent)")
    wrong = []
    for row in page.run(f"{TABLE}('errors-table')"):
        for head, cell in zip(heads[1:], row[1:], strict=True):
            values = groups[int(row[0]), head]
            numbers = [float(part.strip("()")) for part in cell.split()]
            exact = [statistics.median(values)] + ([max(values)] if len(values) > 1 else [])
            if len(numbers) != len(exact) or any(abs(a - b) > 0.006 * b for a, b in zip(numbers, exact)):
                wrong.append((row[0], head, cell, exact))
    stage.check("errors: the table has every layer and role", len(heads) == 8 and len(page.run(f"{TABLE}('errors-table')")) == 4, heads)
    stage.none("errors: its values are the median and the largest of the service's", wrong)
    page.run("document.getElementById('errors-details').open = false; document.querySelector('.plot-field').focus()")
    page.key("ArrowRight")
    value = page.run("document.querySelector('.plot-values').textContent")
    stage.check("errors: arrow keys read a layer", page.run("document.querySelector('.plot-where').textContent") == "Layer 0" and f"q {groups[0, 'q'][0]:.3g}" in value, value)


def verdict_and_files(stage):
    page, job = stage.live_page, stage.jobs["long"]
    wanted = stage.service.ask(f"/v1/jobs/{job}/verdict")
    stage.same("verdict: valid, all checks", page.run(text("verdict-line")), f"Validall {len(wanted['checks'])} checks passed")
    page.run("document.getElementById('verdict-details').open = true")
    stage.same("verdict: its checks are what the service says", page.run(f"{TABLE}('verdict-table')"),
               [[one["name"].replace("-", " "), "passed" if one["passed"] else "failed", count(one["counted"]), count(one["failed"])] for one in wanted["checks"]])
    files = stage.service.pages(f"/v1/jobs/{job}/artifacts", "artifacts")
    rows = page.run(f"{TABLE}('artifacts-table')")
    stage.same("files: all of them, with the beginning of their digest", [[row[0], row[2]] for row in rows], [[one["path"], one["sha256"][:16] + "…"] for one in files])
    links = page.run("[...document.querySelectorAll('#artifacts-table a')].map((link) => link.getAttribute('href'))")
    stage.same("files: each is a link to itself", links, [one["links"]["self"] for one in files])
    spec = page.run(text("plan-facts")) + page.run(text("labels"))
    stage.check("spec: model, data, recipe and the labels of the caller", all(part in spec for part in ("Modeltiny", "Datasetdocs", "RecipeW4A16", "ownersearch", "endslow")), spec)
    stage.check("spec: whole, with every default", '"num_calibration_samples": 192' in page.run(text("spec")))


def opened_directly(stage):
    """The address of a job is all one needs; also for a finished one, and when it is loaded again."""
    page = stage.open("opened directly", stage.address("long"), width=1360, height=1000)
    seen = f"""(() => ({{ state: {text('job-state')}, verdict: {text('verdict-line')}, checks: {TABLE}('verdict-table').length, open: document.getElementById('verdict-details').open,
        starved: {HEAT}.starved, layers: {HEAT}.layers, plots: {PLOTS}, files: {TABLE}('artifacts-table').length, events: document.getElementById('events').childElementCount > 5 }}))()"""
    ready = f"{SETTLED} && document.getElementById('events').childElementCount > 5"
    page.wait(ready, what="a finished job by its address")
    first = page.run(seen)
    stage.check("address: a finished job has its verdict with open checks, map, plots, files and events", first["state"] == "succeeded" and first["open"] and first["checks"] == 9 and first["files"] > 5
                and first["starved"] == stage.live_page.run(HEAT)["starved"], first)
    page.reload()
    page.wait(ready, what="... loaded again")
    stage.same("address: ... and the same when it is loaded again", page.run(seen), first)
    page.run("location.hash = '#/jobs/job_of_nobody'")
    stage.opened[-1] = (*stage.opened[-1][:3], True)
    page.wait("document.getElementById('placeholder-text').textContent.includes('There is no job job_of_nobody')", what="an unknown job")
    stage.check("address: a job that there is not says so", not page.run(shown("job")))
    page.close()


def failures(stage):
    for end in ("refused", "crashes", "crashes-once", "invalid"):
        stage.submit(end, 8, metadata={"end": end})
    page = stage.open("failures", stage.address("refused"))
    page.wait(state_is("failed"), what="a job that gave up")
    page.wait(f"{shown('job-warnings')} && {text('verdict-line')} === 'None'", what="its warnings, and that there is no verdict")
    stage.check("failed: the reason, code and words", page.run(text("job-reason")).startswith("Failed: corruptmodel.safetensors "), page.run(text("job-reason")))
    stage.check("failed: the phase where it ended is marked, by a word too", page.run("document.querySelector('#phases .failed').textContent") == "calibrate" and "0 of 4 layers" in page.run(text("progress-main")))
    stage.check("failed: neither map nor plots nor files that there are not", not any(page.run(shown(one)) for one in ("coverage", "errors", "artifacts")))
    stage.shot(page, "failed")
    page.run(f"location.hash = {stage.address('crashes')!r}")
    page.wait(f"document.getElementById('job-id').textContent === {stage.jobs['crashes']!r} && {state_is('failed')}", what="a job that crashed repeatedly")
    stage.check("failed: a job that crashes again and again: its last words, attempts, crashes", "crashed-repeatedly" in page.run(text("job-reason")) and "last words" in page.run(text("job-reason"))
                and "Attempt3" in page.run(text("facts")) and "Crashes3" in page.run(text("facts")), page.run(text("job-reason")), page.run(text("facts")))
    show(stage, page, "crashes-once")
    stage.check("failed: ... one that crashed once succeeds, and does not hide it", "Attempt2" in page.run(text("facts")) and "Crashes1" in page.run(text("facts")), page.run(text("facts")))
    show(stage, page, "invalid", "failed")
    page.wait("document.getElementById('verdict-line').dataset.valid === 'false'", what="a verdict that is not valid")
    rows = page.run(f"{TABLE}('verdict-table')")
    stage.check("verdict: failed: says so in words, of how many checks", page.run(text("verdict-line")) == f"Not valid1 of {len(rows)} checks failed" and "verdict-failed" in page.run(text("job-reason")), page.run(text("verdict-line")))
    stage.check("verdict: failed: the failed check comes first, with examples, and is open", rows[0][1] == "failed" and rows[0][3] == "2" and "experts.3.up_proj" in rows[0][0] and page.run("document.getElementById('verdict-details').open"), rows[0])
    page.wait(SETTLED.replace(".valid", ".valid === 'false'"), what="map and plots of a job whose verdict failed")
    stage.check("verdict: failed: everything is kept: files, map and plots", all(page.run(shown(one)) for one in ("artifacts", "coverage", "errors")))
    stage.shot(page, "verdict-failed", whole=True)
    stage.failed_page = page


def hostile(stage):
    """Texts of others that would be markup if they could."""
    name = "<img src=x onerror=\"window.hacked='path'\">"
    shutil.copytree("tests/data/qwen3moe-2m", os.path.join(stage.models, name))
    stage.jobs["hostile"] = stage.service.submit(**stage.spec(8) | {"model": os.path.join(stage.models, name)}, metadata={stand_in.markup("key"): stand_in.markup("value")})
    page = stage.failed_page
    for job, wanted in (("refused", ("where", "text", "warning")), ("crashes", ("words",)), ("invalid", ("example",))):
        show(stage, page, job, "failed")
        page.wait(f"document.getElementById('events').childElementCount > 2 && (document.getElementById('verdict-line').textContent === 'None' || {TABLE}('verdict-table').length > 0)")
        whole = page.run("document.getElementById('job').textContent")
        for one in wanted:
            stage.check(f"hostile: markup in {job}/{one} is text", stand_in.markup(one) in whole)
        stage.none(f"hostile: ... and makes no element ({job})", page.run(FOREIGN))
    page.run(f"location.hash = {stage.address('hostile')!r}")
    page.wait(f"document.getElementById('job-id').textContent === {stage.jobs['hostile']!r} && {state_is('succeeded')}", what="the job of the hostile model")
    page.wait("document.querySelector('#job-list [aria-current=true]')", what="it in the list")
    stage.check("hostile: the path of a model is text", name in page.run(text("job-title")) and name in page.run("document.querySelector('#job-list [aria-current=true]').textContent") and name in page.run("document.title"), page.run(text("job-title")))
    facts = page.run(text("labels"))
    stage.check("hostile: metadata are text, beside the job and in the list", stand_in.markup("value") in page.run("document.querySelector('#job-list [aria-current=true]').textContent") and stand_in.markup("key") in facts and stand_in.markup("value") in facts, facts)
    page.run("document.getElementById('model').focus()")
    page.type(name)
    page.wait(shown("jobs-empty"))
    stage.none("hostile: none of it makes an element", page.run(FOREIGN))
    stage.check("hostile: nothing of it ran", page.run("window.hacked === undefined"), page.run("window.hacked"))
    page.run(f"location.hash = {stage.address('hostile')!r}")
    page.resize(360, 740)
    stage.browser.idle(0.2)
    stage.none("hostile: long names do not make a small window scroll sideways", page.run(TOO_WIDE))
