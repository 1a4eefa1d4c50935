/*
 * app.js - the status page of moecald: reads the API, draws what it says
 *
 * Everything that comes from the service goes into the page as text, never as markup. The list of jobs
 * is asked for every few seconds; the chosen job is followed through its stream of events, read with
 * fetch because EventSource cannot send a token. Whatever is drawn on a canvas or as a plot is also
 * there as a table.
 */

const REFRESH_MS = 5000; /* the list, the counts, readiness */
const LONGEST_PAUSE_MS = 10000; /* between two tries of a service that does not answer */
const SILENCE_MS = 40000; /* a stream says something every 15 s; without that it is dead */
const COVERAGE_PAUSE_MS = 1000;
const JOBS_A_PAGE = 20;
const ROWS_A_PAGE = 200;
const MODULES_READ = 12000; /* of jobs with more, one page a layer is read unless all are asked for */
const EVENTS_SHOWN = 300;
const BLOB_BYTES = 1 << 30; /* a file that is larger does not go through the memory of the browser */
const TOKEN_KEY = "moecal-token";
const STATES = ["queued", "running", "canceling", "succeeded", "failed", "canceled"];
const FINAL = new Set(["succeeded", "failed", "canceled"]);
const PHASES = ["calibrate", "export", "verify"];

const byId = (id) => document.getElementById(id);

/* --- making elements --------------------------------------------------------------------------- */

const SVG = "http://www.w3.org/2000/svg";

function fill(node, children) {
	for (const child of children.flat(2))
		if (child !== null && child !== undefined && child !== false)
			node.append(child instanceof Node ? child : String(child));
	return node;
}

function setAttributes(node, attributes) {
	for (const [name, value] of Object.entries(attributes ?? {}))
		if (value === true) node.setAttribute(name, "");
		else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
	return node;
}

const el = (tag, attributes, ...children) => fill(setAttributes(document.createElement(tag), attributes), children);
const svg = (tag, attributes, ...children) => fill(setAttributes(document.createElementNS(SVG, tag), attributes), children);

/* Sets only what changed, so that a screen reader and a selection are left alone. */
function setText(node, text) {
	const wanted = String(text ?? "");
	if (node.textContent !== wanted) node.textContent = wanted;
}

const ICONS = {
	queued: "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11M8 5v3.2l2 1.4",
	running: "M13.5 8a5.5 5.5 0 1 1-2.2-4.4M11.5 1.2v2.6h-2.6",
	canceling: "M3 8h.01M8 8h.01M13 8h.01",
	succeeded: "M3 8.5l3.4 3.4L13 4.8",
	failed: "M4 4l8 8M12 4l-8 8",
	canceled: "M8 2.5a5.5 5.5 0 1 1 0 11a5.5 5.5 0 1 1 0-11M4.2 4.2l7.6 7.6",
	none: "M8 5a3 3 0 1 1 0 6a3 3 0 1 1 0-6",
};
const icon = (name) =>
	svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, svg("path", { d: ICONS[name] ?? ICONS.none }));
const stateLabel = (state) => el("span", { class: `state ${STATES.includes(state) ? state : ""}` }, icon(state), state);

/* --- numbers and times ------------------------------------------------------------------------- */

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const count = (value) => (isNumber(value) ? integers.format(value) : "–");
const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
const figures = (value, digits = 3) => (isNumber(value) ? String(Number(value.toPrecision(digits))) : "–");
const precise = (value) => (isNumber(value) ? value.toPrecision(3) : "–");
const shareText = (share) => (share > 0 && share < 0.0005 ? "<0.1 %" : `${share > 0 ? (100 * share).toFixed(1) : 0} %`);
const percent = (share) => (isNumber(share) ? `${figures(share * 100)} %` : "–");

function bytes(value) {
	if (!isNumber(value)) return "–";
	const units = ["B", "KiB", "MiB", "GiB", "TiB"];
	let unit = 0;
	while (value >= 1024 && unit < units.length - 1) {
		value /= 1024;
		unit++;
	}
	return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

function duration(seconds) {
	if (!isNumber(seconds)) return "–";
	if (seconds > 0 && seconds < 1) return `${Math.ceil(seconds * 1000)} ms`;
	if (seconds < 10) return `${seconds.toFixed(1)} s`;
	if (seconds < 59.5) return `${Math.round(seconds)} s`;
	if (seconds < 599.5) return `${Math.floor(Math.round(seconds) / 60)} min ${Math.round(seconds) % 60} s`;
	const minutes = Math.round(seconds / 60);
	if (minutes < 60) return `${minutes} min`;
	const hours = Math.floor(minutes / 60);
	if (hours < 48) return `${hours} h ${minutes % 60} min`;
	return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

function ago(time) {
	const seconds = (Date.now() - Date.parse(time)) / 1000;
	if (!(seconds > 3)) return "now";
	return `${seconds < 60 ? `${Math.floor(seconds)} s` : duration(seconds)} ago`;
}

const wholeTime = (time) => new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

function shortTime(time) {
	const date = new Date(time);
	const year = date.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
	return date.toLocaleString("en-GB", { day: "numeric", month: "short", ...year, hour: "2-digit", minute: "2-digit", ...(date < Date.now() ? { second: "2-digit" } : {}) });
}

const clock = (time, seconds) =>
	new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}) });

function median(sorted) {
	const half = sorted.length >> 1;
	return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/* --- the service ------------------------------------------------------------------------------- */

class Refused extends Error {
	constructor(status, problem) {
		super(problem?.detail || problem?.title || `The service answered ${status}.`);
		this.status = status;
	}
}

/* No answer at all. */
class Unreachable extends Error {}

const isAbort = (error) => error?.name === "AbortError";
const reasonOf = (error) => (error instanceof Refused ? error.message : "The service does not answer.");

/* What is neither the service's nor the network's fault is ours, and must not stay unseen. */
function report(error) {
	if (!(error instanceof Refused) && !(error instanceof Unreachable) && !isAbort(error)) console.error(error);
}

const readToken = () => sessionStorage.getItem(TOKEN_KEY);
let locked = false;

function headersOf(more) {
	const token = readToken();
	return token ? { ...more, Authorization: `Bearer ${token}` } : { ...more };
}

/* A response that is a success or 304; everything else is thrown. */
async function ask(path, { method = "GET", headers, signal } = {}) {
	const token = readToken();
	let response;
	try {
		response = await fetch(path, { method, headers: headersOf(headers), signal, cache: "no-store", redirect: "error" });
	} catch (error) {
		if (isAbort(error)) throw error;
		setReachable(false);
		throw new Unreachable(error.message);
	}
	setReachable(true);
	if (response.ok || response.status === 304) return response;
	const problem = await response.json().catch(() => null);
	if (response.status === 401 && token === readToken()) lock(Boolean(token));
	throw new Refused(response.status, problem);
}

const getJson = async (path, signal) => (await ask(path, { signal, headers: { Accept: "application/json" } })).json();

/* The newest answer of one address: {data, same}. Nothing is sent twice that did not change. */
class Known {
	constructor() {
		this.path = null;
	}
	async get(path, signal) {
		const headers = { Accept: "application/json" };
		if (path === this.path && this.tag) headers["If-None-Match"] = this.tag;
		const response = await ask(path, { headers, signal });
		if (response.status === 304) return { data: this.data, same: true };
		const data = await response.json();
		Object.assign(this, { path, data, tag: response.headers.get("ETag") });
		return { data, same: false };
	}
}

function sleep(ms, signal) {
	return new Promise((resolve) => {
		const timer = setTimeout(resolve, ms);
		signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
	});
}

/* Whoever waits for a service that did not answer, and is told when it does again. */
const hopeful = new Set();

/* As sleep, but ends also when somebody else was answered. */
async function rest(ms, signal) {
	const nap = new AbortController();
	const wake = () => nap.abort();
	hopeful.add(wake);
	signal.addEventListener("abort", wake);
	await sleep(ms, nap.signal);
	signal.removeEventListener("abort", wake);
	hopeful.delete(wake);
}

/* Runs a task now and then: at once when poked, not while nobody looks, seldom while it fails. */
class Repeat {
	constructor(task, ms) {
		Object.assign(this, { task, ms, failures: 0, timer: 0, busy: false, again: false, on: false });
		this.wake = () => !document.hidden && this.poke();
		this.hope = () => this.failures > 0 && this.wake();
	}

	start() {
		if (!this.on) document.addEventListener("visibilitychange", this.wake);
		hopeful.add(this.hope);
		this.on = true;
		this.poke();
	}

	stop() {
		this.on = false;
		clearTimeout(this.timer);
		hopeful.delete(this.hope);
		document.removeEventListener("visibilitychange", this.wake);
	}

	async poke() {
		this.again = this.busy;
		if (this.busy || locked) return;
		clearTimeout(this.timer);
		this.busy = true;
		try {
			await this.task();
			this.failures = 0;
		} catch (error) {
			this.failures++;
			report(error);
		}
		this.busy = false;
		if (!this.on || locked) return;
		if (this.again) this.poke();
		else if (!document.hidden) this.plan();
	}

	/* Without a time of its own it is repeated only when it failed. */
	plan() {
		if (this.failures > 0) this.timer = setTimeout(() => this.poke(), Math.min(500 * 2 ** this.failures, LONGEST_PAUSE_MS));
		else if (this.ms) this.timer = setTimeout(() => this.poke(), this.ms);
	}
}

/* --- things that are said ---------------------------------------------------------------------- */

const say = (text) => setText(byId("announce"), text);

let reachable = true;
function setReachable(now) {
	if (now === reachable) return;
	reachable = now;
	byId("offline").hidden = now;
	setText(byId("offline"), now ? "" : "The service does not answer. What you see may be old; this page keeps trying.");
	if (now) for (const wake of [...hopeful]) wake();
	else showReadiness(false, "Does not answer");
}

function lock(wrong) {
	setText(byId("token-error"), wrong ? "The service does not accept this token." : "");
	if (locked) return;
	locked = true;
	sessionStorage.removeItem(TOKEN_KEY);
	byId("columns").hidden = true;
	byId("token-panel").hidden = false;
	byId("forget").hidden = true;
	byId("counts").replaceChildren();
	setText(byId("version"), "");
	document.title = "moecal";
	follow(null);
	byId("token").focus();
}

function unlock() {
	locked = false;
	byId("columns").hidden = false;
	byId("token-panel").hidden = true;
	byId("forget").hidden = !readToken();
	service.poke();
	route();
	list.poke();
}

byId("token-form").addEventListener("submit", async (event) => {
	event.preventDefault();
	const given = byId("token").value.trim();
	if (!/^[\x21-\x7e]+$/.test(given)) {
		setText(byId("token-error"), "A token has neither spaces nor letters beyond ASCII.");
		return;
	}
	sessionStorage.setItem(TOKEN_KEY, given);
	try {
		await ask("/v1/version");
	} catch (error) {
		sessionStorage.removeItem(TOKEN_KEY);
		if (error.status !== 401) setText(byId("token-error"), reasonOf(error));
		byId("token").select();
		return;
	}
	byId("token").value = "";
	setText(byId("token-error"), "");
	unlock();
	byId("main").focus();
});

/* What the token let see goes with it. */
byId("forget").addEventListener("click", () => {
	sessionStorage.removeItem(TOKEN_KEY);
	location.reload();
});

byId("skip").addEventListener("click", (event) => {
	event.preventDefault();
	const main = watched && !byId("job").hidden ? byId("job") : byId("main");
	main.focus();
	main.scrollIntoView();
});

/* --- addresses of this page: #/ or #/jobs/ID, and the filters ------------------------------------ */

/* What the address says; the event that tells of a change comes later than the change. */
function readPlace() {
	const [path, query] = location.hash.replace(/^#/, "").split("?");
	const found = /^\/jobs\/([a-z0-9][a-z0-9._-]{0,63})$/.exec(path);
	const parameters = new URLSearchParams(query ?? "");
	return {
		job: found ? found[1] : null,
		states: new Set((parameters.get("state") ?? "").split(",").filter((state) => STATES.includes(state))),
		model: parameters.get("model") ?? "",
	};
}

let place = readPlace(); /* what is shown */

function addressOf(job, states = place.states, model = place.model) {
	const parts = [];
	if (states.size > 0) parts.push(`state=${STATES.filter((state) => states.has(state)).join(",")}`);
	if (model) parts.push(`model=${encodeURIComponent(model)}`);
	return `#/${job ? `jobs/${job}` : ""}${parts.length ? `?${parts.join("&")}` : ""}`;
}

/* --- the bar on top ---------------------------------------------------------------------------- */

function showReadiness(ready, text) {
	const line = byId("readiness");
	if (line.textContent === text) return;
	line.className = `readiness ${ready ? "good" : "bad"}`;
	line.replaceChildren(icon(ready ? "succeeded" : "failed"), text);
}

async function refreshReadiness() {
	let response;
	try {
		response = await fetch("/readyz", { cache: "no-store" });
	} catch (error) {
		setReachable(false);
		throw new Unreachable(error.message);
	}
	const { ready, failed } = await response.json();
	showReadiness(ready === true, ready ? "Ready" : `Takes no work: ${(failed ?? []).join(", ") || "not ready"}`);
}

const service = new Repeat(async () => {
	await refreshReadiness();
	if (!byId("version").textContent) {
		const version = await getJson("/v1/version");
		setText(byId("version"), version.moecal ?? "");
		byId("version").title = Object.entries(version).map(([name, value]) => `${name} ${value}`).join("\n");
	}
	const text = await (await ask("/metrics", { headers: { Accept: "text/plain" } })).text();
	const counts = byId("counts");
	const found = new Map([...text.matchAll(/^moecald_jobs\{state="([a-z]+)"\} (\d+)/gm)].map((m) => [m[1], Number(m[2])]));
	const shown = STATES.filter((state) => found.get(state) > 0 || state === "queued" || state === "running");
	const key = shown.map((state) => `${state} ${found.get(state) ?? 0}`).join();
	if (counts.dataset.key === key && counts.childElementCount > 0) return;
	counts.dataset.key = key;
	counts.replaceChildren(...shown.map((state) => el("div", null, el("dt", null, state), el("dd", null, count(found.get(state) ?? 0)))));
}, REFRESH_MS);

/* --- what a job is called ---------------------------------------------------------------------- */

const lastPart = (path) => path.replace(/\/+$/, "").split("/").pop() || path;
const modelName = (job) => lastPart(String(job.spec?.model ?? "model"));

function recipeName(recipe) {
	if (typeof recipe === "string") return recipe.length <= 40 && !recipe.includes("\n") ? recipe : "a recipe";
	if (Array.isArray(recipe)) return recipe.length === 1 ? recipeName(recipe[0]) : `${recipe.length} modifiers`;
	if (recipe && typeof recipe === "object") {
		if (typeof recipe.scheme === "string") return recipe.scheme;
		for (const value of Object.values(recipe))
			if (value && typeof value === "object" && typeof value.scheme === "string") return value.scheme;
		return typeof recipe.type === "string" ? recipe.type : "a recipe";
	}
	return "no recipe";
}

function datasetName(dataset) {
	if (!dataset) return "none";
	if (typeof dataset === "string") return lastPart(dataset);
	if (Array.isArray(dataset)) return dataset.map(datasetName).join(", ") || "none";
	return lastPart(String(dataset.path ?? "data"));
}

/* 0 to 1 of the layers; calibrating is nearly all of the time. */
function doneShare(progress) {
	if (!progress || !(progress.layers_total > 0)) return 0;
	return Math.min(1, (progress.layers_done + (progress.layer_fraction ?? 0)) / progress.layers_total);
}

const timeLeft = (progress) => (isNumber(progress?.seconds_left) ? `${duration(progress.seconds_left)} left` : "");

/* --- the list of jobs -------------------------------------------------------------------------- */

const pages = { cursors: [null], next: null };
const knownJobs = new Known();
const modelNames = new Set();
let jobs = [];

const STATE_CHIPS = new Map();
for (const state of STATES.filter((s) => s !== "canceling")) {
	const chip = el("button", { type: "button", class: "chip", "aria-pressed": "false" }, icon(state), state);
	chip.addEventListener("click", () => {
		const { job, states, model } = readPlace();
		/* those who look for running jobs mean the ones that are being canceled too */
		const both = state === "running" ? ["running", "canceling"] : [state];
		const drop = states.has(state);
		for (const one of both) drop ? states.delete(one) : states.add(one);
		location.hash = addressOf(job, states, model);
	});
	STATE_CHIPS.set(state, chip);
}
byId("states").replaceChildren(...STATE_CHIPS.values());

let typing = 0;
byId("model").addEventListener("input", () => {
	clearTimeout(typing);
	typing = setTimeout(() => {
		const { job, states } = readPlace();
		location.hash = addressOf(job, states, byId("model").value.trim());
	}, 400);
});
byId("filters").addEventListener("submit", (event) => event.preventDefault());
byId("older").addEventListener("click", () => {
	if (!pages.next) return;
	pages.cursors.push(pages.next);
	list.poke();
});
byId("newer").addEventListener("click", () => {
	if (pages.cursors.length > 1) pages.cursors.pop();
	list.poke();
});

/* What the caller wrote on the job. */
const labelsOf = (spec) => Object.entries(spec?.metadata ?? {}).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);

function noteOf(job) {
	const parts = [job.state === "failed" && job.reason ? job.reason.code : null];
	if (job.state === "running" && job.progress) {
		const { phase, layers_done: done, layers_total: total } = job.progress;
		parts.push(phase === "calibrate" ? `layer ${Math.min(done + 1, total)} of ${total}` : phase, timeLeft(job.progress));
	}
	if (job.state === "queued" && job.spec?.priority) parts.push(`priority ${job.spec.priority}`);
	if (job.state === "queued" && job.reason) parts.push(`again: ${job.reason.code}`);
	if (FINAL.has(job.state) && job.started_at && job.finished_at)
		parts.push(`took ${duration((Date.parse(job.finished_at) - Date.parse(job.started_at)) / 1000)}`);
	return parts.filter(Boolean).join(" · ");
}

function fillItem(item, job) {
	const key = `${job.version} ${JSON.stringify(job.progress)}`;
	const link = item.firstElementChild;
	setAttributes(link, { href: addressOf(job.id) });
	if (item.dataset.key !== key) {
		item.dataset.key = key;
		const labels = labelsOf(job.spec);
		const bar = el("div", { class: "mini", "aria-hidden": "true" }, el("div"));
		bar.hidden = job.state !== "running";
		bar.firstChild.style.width = `${100 * doneShare(job.progress)}%`;
		link.replaceChildren();
		fill(link, [
			el("span", { class: "job-item-top" }, stateLabel(job.state), el("time", { datetime: job.created_at, title: wholeTime(job.created_at) })),
			el("span", { class: "job-item-name" }, `${modelName(job)} · ${recipeName(job.spec?.recipe)}`),
			el("span", { class: "job-item-note" }, noteOf(job) || job.id),
			labels.length > 0 && el("span", { class: "job-item-labels" }, labels.map(([name, value]) => `${name}: ${value}`).join(" · ")),
			bar,
		]);
	}
	setText(link.querySelector("time"), ago(job.created_at));
	if (job.id === place.job) link.setAttribute("aria-current", "true");
	else link.removeAttribute("aria-current");
}

/* The list scrolls by itself on a wide screen; once for each job that is chosen. */
function scrollToChosen(box) {
	const chosen = box.querySelector('[aria-current="true"]');
	if (!chosen || box.dataset.chosen === place.job) return;
	box.dataset.chosen = place.job;
	const [outer, inner] = [box.getBoundingClientRect(), chosen.getBoundingClientRect()];
	if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom + 8;
	else if (inner.top < outer.top) box.scrollTop -= outer.top - inner.top + 8;
}

/* Items of jobs that stay keep their element, and with it the focus. */
function showJobs() {
	const box = byId("job-list");
	const old = new Map([...box.children].map((item) => [item.dataset.job, item]));
	const items = jobs.map((job) => {
		const item = old.get(job.id) ?? el("li", { "data-job": job.id }, el("a", { class: "job-item" }));
		old.delete(job.id);
		fillItem(item, job);
		return item;
	});
	for (const item of old.values()) item.remove();
	items.forEach((item, i) => box.children[i] !== item && box.insertBefore(item, box.children[i] ?? null));
	scrollToChosen(box);
	const filtered = place.states.size > 0 || place.model || pages.cursors.length > 1;
	byId("jobs-empty").hidden = jobs.length > 0;
	if (jobs.length === 0)
		byId("jobs-empty").replaceChildren(
			...(filtered
				? [el("p", null, "No job is like that.")]
				: [
						el("p", null, "No job yet. This submits one:"),
						el("pre", { tabindex: "0", "aria-label": "Command" }, `curl ${location.origin}/v1/jobs \\\n  -H 'Content-Type: application/json' \\\n  -d '{"model": "…", "dataset": "…", "recipe": "W4A16"}'`),
						el("p", null, "or ", el("code", null, "moecal submit SPEC"), " in a terminal. ", el("a", { href: "/v1/openapi.json" }, "The whole API")),
					]),
		);
	byId("pages").hidden = pages.cursors.length === 1 && !pages.next;
	byId("newer").disabled = pages.cursors.length === 1;
	byId("older").disabled = !pages.next;
	setText(byId("page-number"), `Page ${pages.cursors.length}`);
}

/* What the stream of a job said is in the list at once. */
function noteProgress(id, progress) {
	const row = jobs.find((job) => job.id === id);
	const item = [...byId("job-list").children].find((one) => one.dataset.job === id);
	if (!row || !item || FINAL.has(row.state)) return;
	row.progress = progress;
	fillItem(item, row);
}

function showFilters() {
	for (const [state, chip] of STATE_CHIPS) chip.setAttribute("aria-pressed", String(place.states.has(state)));
	if (document.activeElement !== byId("model")) byId("model").value = place.model;
}

function noteModels() {
	const before = modelNames.size;
	for (const job of jobs) if (typeof job.spec?.model === "string") modelNames.add(job.spec.model);
	if (modelNames.size !== before) byId("models").replaceChildren(...[...modelNames].sort().map((value) => el("option", { value })));
}

const list = new Repeat(async () => {
	const parameters = new URLSearchParams({ limit: JOBS_A_PAGE });
	if (place.states.size > 0) parameters.set("state", [...place.states].join(","));
	if (place.model) parameters.set("model", place.model);
	const cursor = pages.cursors[pages.cursors.length - 1];
	if (cursor) parameters.set("cursor", cursor);
	const asked = pages.cursors;
	const { data } = await knownJobs.get(`/v1/jobs?${parameters}`).catch((error) => {
		/* a cursor of another filter or service: begin again */
		if (error instanceof Refused && error.status === 400 && cursor) {
			pages.cursors = [null];
			list.again = true;
		}
		throw error;
	});
	if (asked !== pages.cursors) return;
	jobs = data.jobs;
	pages.next = data.next_cursor;
	noteModels();
	showJobs();
	if (!place.job) chooseFirst();
	const row = jobs.find((job) => job.id === place.job);
	if (row) watched?.hear(row);
}, REFRESH_MS);

/* On a wide screen an empty half page helps nobody. */
function chooseFirst() {
	const first = jobs.find((job) => job.state === "running") ?? jobs[0];
	setText(byId("placeholder-text"), jobs.length > 0 ? "Choose a job." : "The coverage, the errors and the verdict of a job appear here.");
	if (first && !readPlace().job && matchMedia("(min-width: 1000px)").matches) location.replace(addressOf(first.id));
}

/* --- the chosen job: following it -------------------------------------------------------------- */

let watched = null;

function follow(id) {
	if (watched?.id === id) return;
	watched?.stop();
	watched = id ? new Watch(id) : null;
	byId("job").hidden = true;
	byId("placeholder").hidden = false;
	setText(byId("placeholder-text"), "Loading.");
	watched?.start();
}

/* Blocks of an event stream, as they come: {id, event, data}, and a comment as null. */
async function* readEvents(body, ms) {
	const reader = body.pipeThrough(new TextDecoderStream()).getReader();
	let begun = "";
	for (;;) {
		let timer;
		const silence = new Promise((resolve, reject) => (timer = setTimeout(() => reject(new Unreachable("silence")), ms)));
		const broken = (error) => {
			throw isAbort(error) ? error : new Unreachable(error.message);
		};
		const { value, done } = await Promise.race([reader.read().catch(broken), silence]).finally(() => clearTimeout(timer));
		if (done) return;
		begun += value;
		const blocks = begun.split(/\r?\n\r?\n/);
		begun = blocks.pop();
		for (const block of blocks) {
			const fields = { data: [] };
			for (const line of block.split(/\r?\n/)) {
				const colon = line.indexOf(":");
				if (colon <= 0) continue;
				const name = line.slice(0, colon);
				const text = line.slice(colon + 1).replace(/^ /, "");
				if (name === "data") fields.data.push(text);
				else fields[name] = text;
			}
			yield { ...fields, data: fields.data.length > 0 ? JSON.parse(fields.data.join("\n")) : null };
		}
	}
}

/* How far a job is, for telling news from what is older. */
const rank = (progress) => (progress ? 1e6 * PHASES.indexOf(progress.phase) + progress.layers_done + (progress.layer_fraction ?? 0) : -1e9);

class Watch {
	constructor(id) {
		this.id = id;
		this.job = null;
		this.last = 0; /* id of the last event */
		this.retry = 2000;
		this.events = [];
		this.warnings = new Set();
		this.abort = new AbortController();
		this.known = { job: new Known(), coverage: new Known(), queue: new Known() };
		this.ahead = null; /* of a waiting job: {count, more} */
		this.queue = new Repeat(() => this.readQueue(), REFRESH_MS);
		this.errors = new Errors(this);
		this.coverage = new Repeat(() => this.readCoverage(), null);
		this.coverageAt = 0;
		this.resultsOf = 0; /* version whose results are shown */
	}

	get signal() {
		return this.abort.signal;
	}

	get over() {
		return this.signal.aborted || locked;
	}

	stop() {
		this.abort.abort();
		this.coverage.stop();
		this.queue.stop();
	}

	gone() {
		this.stop();
		byId("job").hidden = true;
		byId("placeholder").hidden = false;
		setText(byId("placeholder-text"), `There is no job ${this.id}: it may have been deleted.`);
	}

	async start() {
		clearJob();
		while (!this.over && !this.job) {
			try {
				await this.reload();
			} catch (error) {
				report(error);
				if (this.over) return;
				if (error.status === 404) return this.gone();
				setText(byId("placeholder-text"), reasonOf(error));
				await rest(this.retry, this.signal);
			}
		}
		await this.listen();
	}

	/* The job as it is now; results when it ended. */
	async reload() {
		const { data } = await this.known.job.get(`/v1/jobs/${this.id}`, this.signal);
		const before = this.job;
		if (this.over || (before && data.version < before.version)) return;
		this.job = data;
		if (before && before.state !== data.state) {
			say(`${modelName(data)}: ${data.state}${data.reason?.detail ? `, ${data.reason.detail}` : ""}`);
			list.poke();
			service.poke();
		}
		if (!before && !jobs.some((job) => job.id === this.id)) list.poke();
		showJob(data, this.ahead);
		this.look();
	}

	refresh() {
		this.reload().catch((error) => (error.status === 404 ? this.gone() : report(error)));
	}

	/* A row of the list that is newer than what the stream said. */
	hear(row) {
		if (this.job && row.version > this.job.version) this.refresh();
	}

	/* Reads what belongs to the state. */
	look() {
		if (this.job.state === "queued") this.queue.start();
		else this.queue.stop();
		if (!FINAL.has(this.job.state)) awaitResults(this.job);
		if (this.job.attempt > 0) {
			this.coverage.start();
			this.errors.read();
		}
		if (FINAL.has(this.job.state)) forgoResults(this.job);
		if (FINAL.has(this.job.state) && this.resultsOf !== this.job.version) {
			this.resultsOf = this.job.version;
			readResults(this);
		}
	}

	/* Jobs start by priority, equals in the order they came. */
	async readQueue() {
		const { data } = await this.known.queue.get(`/v1/jobs?state=queued&limit=${ROWS_A_PAGE}`, this.signal);
		if (this.over || this.job.state !== "queued") return;
		const priority = (job) => job.spec?.priority ?? 0;
		const before = (other) => priority(other) - priority(this.job) || Date.parse(this.job.created_at) - Date.parse(other.created_at) || (other.id < this.id ? 1 : -1);
		const count = data.jobs.filter((other) => other.id !== this.id && before(other) > 0).length;
		this.ahead = { count, more: data.next_cursor !== null };
		showProgress(this.job, this.ahead);
	}

	async readCoverage() {
		/* large models have megabytes of it */
		await sleep(this.coverageAt + COVERAGE_PAUSE_MS - Date.now(), this.signal);
		if (this.over) return;
		const { data, same } = await this.known.coverage.get(`/v1/jobs/${this.id}/coverage`, this.signal);
		this.coverageAt = Date.now();
		if (!this.over && !(same && FINAL.has(this.job.state) === heat.final)) heat.show(data, this.job);
	}

	async listen() {
		let pause = this.retry;
		while (!this.over) {
			try {
				await this.readStream();
				if (FINAL.has(this.job.state)) return;
				pause = this.retry;
			} catch (error) {
				if (this.over) return;
				report(error);
				if (error.status === 404) return this.gone();
				/* 503: too many watch; the job is asked for now and then instead */
				pause = error.status === 503 ? REFRESH_MS : Math.min(pause * 2, LONGEST_PAUSE_MS);
			}
			await rest(pause, this.signal);
			if (!this.over) await this.reload().catch(report);
		}
	}

	/* Until the service ends the stream, which it does after the last event of a job. */
	async readStream() {
		const inner = new AbortController();
		const stop = () => inner.abort();
		this.signal.addEventListener("abort", stop);
		try {
			const headers = { Accept: "text/event-stream", ...(this.last ? { "Last-Event-ID": String(this.last) } : {}) };
			const response = await ask(`/v1/jobs/${this.id}/events`, { headers, signal: inner.signal });
			this.opened = Date.parse(response.headers.get("Date")) || Date.now();
			for await (const message of readEvents(response.body, SILENCE_MS)) {
				if (this.over) return;
				if (/^\d+$/.test(message.retry ?? "")) this.retry = Math.max(1000, Number(message.retry));
				if (message.id) this.last = message.id;
				if (message.data) this.take(message.data);
			}
		} finally {
			inner.abort();
			this.signal.removeEventListener("abort", stop);
		}
	}

	/* One event, of now or of the past: a stream begins with what happened so far. */
	take({ id, type, time, data }) {
		const live = Date.parse(time) >= this.opened - 1000;
		if (type === "progress") {
			this.setProgress(data, live);
			return;
		}
		this.events.push({ id, type, time, data });
		if (type === "warning") this.warnings.add(data.text);
		if (type === "state" && (data.state !== this.job.state || data.attempt !== this.job.attempt)) this.refresh();
		if (type === "started" || type === "resumed") {
			if (live && data.layers_done === 0) this.errors.clear();
			this.setLayers(data, 0, live);
		}
		if (type === "layer") {
			this.setLayers(data, data.starved?.length ?? 0, false);
			if (live) {
				this.coverage.poke();
				this.errors.read();
				if (data.layers_done % Math.ceil(data.layers_total / 4) === 0) say(`${data.layers_done} of ${plural(data.layers_total, "layer")} done`);
			}
		}
		showEvents(this);
	}

	/* back: an attempt may begin behind where the last one was. */
	setProgress(progress, back) {
		if (FINAL.has(this.job.state) || (!back && rank(progress) < rank(this.job.progress))) return;
		this.job.progress = progress;
		showProgress(this.job, this.ahead);
		noteProgress(this.id, progress);
	}

	/* What an event says of the layers, before the next progress does. */
	setLayers({ layers_done, layers_total }, starved, back) {
		const before = this.job.progress;
		const progress = { ...before, phase: "calibrate", layers_done, layers_total, layer_fraction: 0 };
		const known = layers_done === 0 ? 0 : (before?.starved ?? 0);
		progress.starved = known + (layers_done > (before?.layers_done ?? 0) ? starved : 0);
		this.setProgress(progress, back);
	}
}

/* --- the chosen job: its head ------------------------------------------------------------------ */

function clearJob() {
	for (const id of ["verdict", "coverage", "errors", "artifacts", "job-warnings"]) byId(id).hidden = true;
	byId("artifacts-table").tBodies[0].replaceChildren();
	byId("events").replaceChildren();
	setText(byId("artifacts-error"), "");
	heat.clear();
}

const fact = (name, value, kind) => el("div", null, el("dt", null, name), el("dd", { class: kind }, value));
const timeFact = (name, time) => time && fact(name, el("time", { datetime: time, title: wholeTime(time) }, shortTime(time)));
const setFacts = (node, facts) => node.replaceChildren(...facts.filter(Boolean));

function showHead(job) {
	const title = `${modelName(job)} · ${recipeName(job.spec?.recipe)}`;
	setText(byId("job-title"), title);
	setText(byId("job-id"), job.id);
	document.title = `${job.state}: ${title} – moecal`;
	byId("job-state").replaceChildren(stateLabel(job.state));
	byId("cancel").hidden = !(job.state === "queued" || job.state === "running");
	const reason = byId("job-reason");
	reason.hidden = !job.reason;
	if (job.reason) {
		reason.className = `notice ${job.state === "failed" ? "bad" : "warn"}`;
		reason.replaceChildren(el("strong", null, job.state === "failed" ? `Failed: ${job.reason.code}` : `Waits again: ${job.reason.code}`), el("span", null, job.reason.detail ?? ""));
	}
	setFacts(byId("facts"), [
		timeFact("Submitted", job.created_at),
		timeFact("Started", job.started_at),
		timeFact("Ended", job.finished_at),
		job.attempt > 1 && fact("Attempt", count(job.attempt)),
		job.crashes > 0 && fact("Crashes", count(job.crashes), "bad"),
		job.progress?.tokens > 0 && fact("Tokens", count(job.progress.tokens)),
		timeFact("Kept until", job.expires_at),
	]);
}

const layersOf = (progress, plan) => progress?.layers_total ?? plan?.layers ?? 0;
const PHASE_TEXTS = { export: "writing the checkpoint", verify: "reading it again" };

function phaseItem(phase, i, at, state) {
	const now = i === at;
	const kind = i < at ? "succeeded" : now ? (FINAL.has(state) ? state : "running") : "none";
	return el("li", { class: i < at ? "done" : now && FINAL.has(state) ? state : null, "aria-current": now && !FINAL.has(state) ? "step" : null }, icon(kind), phase);
}

/* On the left how far it is, or came. */
function progressText({ state, progress, plan }) {
	const total = layersOf(progress, plan);
	const done = state === "succeeded" ? total : (progress?.layers_done ?? 0);
	const parts = [`${count(done)} of ${plural(total, "layer")}`];
	if (!FINAL.has(state) && progress) parts.unshift(`${Math.floor(100 * doneShare(progress))} %`);
	if (state === "running" && PHASE_TEXTS[progress?.phase]) parts.push(PHASE_TEXTS[progress.phase]);
	if (progress?.starved > 0) parts.push(`${plural(progress.starved, "starved expert")}${FINAL.has(state) ? "" : " so far"}`);
	return parts.join(" · ");
}

/* On the right how long it took, takes or will take. ahead: jobs that start before a waiting one. */
function timeText({ state, progress, plan, started_at: started, finished_at: finished }, ahead) {
	if (state === "queued") {
		const waits = ahead === null ? "" : ahead.count === 0 ? "the next to start · " : `${ahead.more ? "more than " : ""}${plural(ahead.count, "job")} before it · `;
		return waits + (isNumber(plan?.seconds) ? `takes about ${duration(plan.seconds)}` : "waits");
	}
	if (state === "canceling") return "stopping";
	if (FINAL.has(state)) return started ? `${state === "succeeded" ? "took" : "ended after"} ${duration((Date.parse(finished) - Date.parse(started)) / 1000)}` : "never started";
	const left = progress?.seconds_left ?? (isNumber(progress?.seconds) ? null : plan?.seconds);
	if (!isNumber(left)) return "time left is not known yet";
	const soFar = isNumber(progress?.seconds) ? `${duration(progress.seconds)} so far · ` : "";
	return `${soFar}${duration(left)} left${left >= 60 ? `, done about ${clock(Date.now() + left * 1000)}` : ""}`;
}

/* Always there, so that nothing moves when a job starts or ends. */
function showProgress(job, ahead) {
	const { state, progress } = job;
	const begun = job.attempt > 0 ? 0 : -1;
	const at = state === "succeeded" ? PHASES.length : job.reason?.code === "verdict-failed" ? PHASES.indexOf("verify") : progress ? PHASES.indexOf(progress.phase) : begun;
	byId("phases").replaceChildren(...PHASES.map((phase, i) => phaseItem(phase, i, at, state)));
	const bar = byId("progress-bar");
	const share = state === "succeeded" ? 1 : doneShare(progress);
	bar.className = state;
	bar.value = share;
	bar.dataset.percent = Math.floor(100 * share);
	setText(byId("progress-main"), progressText(job));
	setText(byId("progress-eta"), timeText(job, ahead));
}

function showPlan(job) {
	const { spec = {}, plan = {} } = job;
	setFacts(byId("plan-facts"), [
		fact("Model", String(spec.model ?? "–")),
		fact("Dataset", datasetName(spec.dataset)),
		fact("Recipe", recipeName(spec.recipe)),
		fact("Experts learn from", spec.expert_policy?.mode ?? (spec.calibrate_all_experts === false ? "routed" : "all")),
		isNumber(plan.layers) && fact("Layers", plan.moe_layers === plan.layers ? count(plan.layers) : `${count(plan.layers)}, ${count(plan.moe_layers)} with experts`),
		plan.experts > 0 && fact("Experts a layer", `${count(plan.experts)}, ${count(plan.experts_per_token)} a token`),
		isNumber(plan.parameters) && fact("Parameters", new Intl.NumberFormat("en", { notation: "compact", maximumSignificantDigits: 3 }).format(plan.parameters)),
		isNumber(plan.sequences) && fact("Sequences", count(plan.sequences)),
		isNumber(plan.memory_bytes) && fact("Memory planned", bytes(plan.memory_bytes)),
		isNumber(plan.disk_bytes) && fact("Disk planned", bytes(plan.disk_bytes)),
		fact("Priority", count(spec.priority ?? 0)),
		isNumber(spec.deadline_seconds) && fact("Deadline", duration(spec.deadline_seconds)),
	]);
	const labels = labelsOf(spec);
	byId("labels").hidden = labels.length === 0;
	setFacts(byId("labels"), labels.map(([name, value]) => fact(name, value)));
	setText(byId("spec"), JSON.stringify(spec, null, 2));
	const links = job.links ?? {};
	byId("raw-links").replaceChildren(
		...["self", "events", "coverage", "statistics", "verdict", "artifacts"]
			.filter((name) => links[name])
			.flatMap((name, i) => [i > 0 ? ", " : "", resourceLink(links[name], name === "self" ? "job" : name, `${job.id}-${name}.json`, null)]),
	);
}

function showJob(job, ahead) {
	showHead(job);
	showProgress(job, ahead);
	showPlan(job);
	byId("placeholder").hidden = true;
	byId("job").hidden = false;
}

/* --- canceling --------------------------------------------------------------------------------- */

byId("cancel").addEventListener("click", () => {
	const { job } = watched;
	setText(byId("confirm-text"), `${modelName(job)} · ${recipeName(job.spec?.recipe)} (${job.id}) stops. A canceled job cannot be taken up again.`);
	setText(byId("confirm-error"), "");
	byId("confirm").showModal();
	byId("confirm-no").focus();
});
byId("confirm-no").addEventListener("click", () => byId("confirm").close());
byId("confirm-yes").addEventListener("click", async () => {
	const watch = watched;
	byId("confirm-yes").disabled = true;
	try {
		await ask(`/v1/jobs/${watch.id}/cancel`, { method: "POST" });
		byId("confirm").close();
		byId("job").focus();
		await watch.reload();
	} catch (error) {
		setText(byId("confirm-error"), reasonOf(error));
	}
	byId("confirm-yes").disabled = false;
});

/* --- the verdict ------------------------------------------------------------------------------- */

/* A job that ended without results has no files; then there is nothing to ask for. */
async function readResults(watch) {
	try {
		if (!(await readArtifacts(watch, null))) {
			if (!watch.over && watch.job.attempt > 0) showNoVerdict("None", "The job ended before its checks.");
			return;
		}
		const verdict = await getJson(`/v1/jobs/${watch.id}/verdict`, watch.signal);
		if (!watch.over) showVerdict(verdict);
	} catch (error) {
		report(error);
		if (!(error instanceof Refused)) watch.resultsOf = 0;
	}
}

/* As high as a verdict whose checks are closed. */
function showNoVerdict(text, note) {
	const line = byId("verdict-line");
	line.className = "verdict-line";
	delete line.dataset.valid;
	setText(line, text);
	setText(byId("verdict-note"), note);
	byId("verdict-note").hidden = false;
	byId("verdict-details").hidden = true;
	byId("verdict").hidden = false;
}

/* What will be there takes its place from the beginning. */
function awaitResults(job) {
	showNoVerdict("Not yet", "In the end, what was written is read again and held against what was computed.");
	heat.expect(job);
	plots.expect();
}

/* ... and goes when it cannot come any more. */
function forgoResults(job) {
	if (byId("plots").childElementCount === 0) byId("errors").hidden = true;
	if (heat.layers.length === 0) byId("coverage").hidden = true;
	if (job.attempt === 0) byId("verdict").hidden = true;
}

const exampleText = (example) => (typeof example === "string" ? example : JSON.stringify(example));

function showVerdict(verdict) {
	const checks = [...verdict.checks].sort((a, b) => Number(a.passed) - Number(b.passed));
	const failed = checks.filter((check) => !check.passed).length;
	const line = byId("verdict-line");
	line.className = `verdict-line ${verdict.valid ? "good" : "bad"}`;
	line.dataset.valid = String(verdict.valid);
	line.replaceChildren(
		el("strong", null, icon(verdict.valid ? "succeeded" : "failed"), verdict.valid ? "Valid" : "Not valid"),
		el("span", null, failed > 0 ? `${count(failed)} of ${plural(checks.length, "check")} failed` : `all ${plural(checks.length, "check")} passed`),
	);
	byId("verdict-table").tBodies[0].replaceChildren(
		...checks.map((check) =>
			el(
				"tr",
				{ class: check.passed ? null : "failed" },
				el("th", { scope: "row" }, check.name.replaceAll("-", " "), check.examples?.length > 0 && el("div", { class: "examples" }, check.examples.map((example) => el("div", null, el("code", null, exampleText(example)))))),
				el("td", null, el("span", { class: `result ${check.passed ? "good" : "bad"}` }, icon(check.passed ? "succeeded" : "failed"), el("span", null, check.passed ? "passed" : "failed"))),
				el("td", { class: "number" }, count(check.counted)),
				el("td", { class: "number" }, count(check.failed)),
			),
		),
	);
	/* it was waited for: a long table would push away what is being looked at */
	const waited = !byId("verdict").hidden;
	byId("verdict-details").open = !verdict.valid || !waited;
	byId("verdict-note").hidden = true;
	byId("verdict-details").hidden = false;
	byId("verdict").hidden = false;
}

/* --- files ------------------------------------------------------------------------------------- */

/* A link that works with a token too: then the script fetches what it leads to. */
function resourceLink(path, text, name, size) {
	const link = el("a", { href: path, download: size === null ? null : name }, text);
	link.addEventListener("click", async (event) => {
		if (!readToken()) return;
		event.preventDefault();
		setText(byId("artifacts-error"), "");
		if (size > BLOB_BYTES) {
			setText(byId("artifacts-error"), `${name} has ${bytes(size)}, too much to pass it through this page. With a token in MOECAL_TOKEN, this fetches it: curl -H "Authorization: Bearer $MOECAL_TOKEN" -O ${location.origin}${path}`);
			return;
		}
		try {
			const blob = await (await ask(path)).blob();
			const address = URL.createObjectURL(blob);
			el("a", { href: address, download: name }).click();
			setTimeout(() => URL.revokeObjectURL(address), 60000);
		} catch (error) {
			setText(byId("artifacts-error"), reasonOf(error));
		}
	});
	return link;
}

function artifactRow(one) {
	return el(
		"tr",
		null,
		el("th", { scope: "row" }, resourceLink(one.links.self, one.path, lastPart(one.path), one.bytes)),
		el("td", { class: "number" }, bytes(one.bytes)),
		el("td", null, el("code", { title: one.sha256 }, `${one.sha256.slice(0, 16)}…`)),
	);
}

/* One page of them; true when there are any. */
async function readArtifacts(watch, cursor) {
	const answer = await getJson(`/v1/jobs/${watch.id}/artifacts?limit=100${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`, watch.signal);
	if (watch.over) return false;
	const body = byId("artifacts-table").tBodies[0];
	if (!cursor) body.replaceChildren();
	body.append(...answer.artifacts.map(artifactRow));
	byId("artifacts").hidden = body.rows.length === 0;
	byId("more-artifacts").hidden = !answer.next_cursor;
	byId("more-artifacts").onclick = () => readArtifacts(watch, answer.next_cursor).catch((error) => setText(byId("artifacts-error"), reasonOf(error)));
	return body.rows.length > 0;
}

/* --- events ------------------------------------------------------------------------------------ */

/* Without data nothing is multiplied, and no tokens are routed. */
function layerText({ name, seconds, gflops, experts_min: least, experts_median: middle, starved }) {
	const parts = [`${name}: ${duration(seconds)}${gflops > 0 ? `, ${figures(gflops)} GFLOP/s` : ""}`];
	if (isNumber(least)) parts.push(`least ${count(least)}, median ${count(middle)} tokens an expert`);
	if (starved?.length > 0) parts.push(`starved ${starved.join(", ")}`);
	return parts.join("; ");
}

function eventText({ type, data = {} }) {
	switch (type) {
	case "state":
		return `${data.state}${data.attempt > 1 ? `, attempt ${data.attempt}` : ""}${data.reason ? `: ${data.reason.detail ?? data.reason.code}` : ""}`;
	case "started":
	case "resumed":
		return `${plural(data.layers_total, "layer")}, ${count(data.layers_done)} done; ${data.kernel ?? ""}`;
	case "layer":
		return layerText(data);
	case "warning":
		return data.text;
	case "finished":
		return `${data.valid ? "valid" : "not valid"} after ${duration(data.seconds)}`;
	default:
		return JSON.stringify(data);
	}
}

function showEvents(watch) {
	const box = byId("events");
	if (watch.events.length > EVENTS_SHOWN) watch.events.splice(0, watch.events.length - EVENTS_SHOWN);
	const newest = Number(box.firstElementChild?.dataset.id ?? 0);
	for (const event of watch.events.filter((one) => one.id > newest))
		box.prepend(
			el("li", { "data-id": event.id }, el("time", { datetime: event.time, title: wholeTime(event.time) }, clock(event.time, true)), el("span", { class: "type" }, event.type), el("span", { class: "text" }, eventText(event))),
		);
	while (box.childElementCount > EVENTS_SHOWN) box.lastElementChild.remove();
	const node = byId("job-warnings");
	node.hidden = watch.warnings.size === 0;
	if (node.childElementCount !== watch.warnings.size) node.replaceChildren(...[...watch.warnings].map((text) => el("li", null, text)));
}

/* --- coverage: a heat map ---------------------------------------------------------------------- */

const color = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

function rgb(hex) {
	return [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
}

/* The share of an expert as a multiple of the even one, to 0 ... 1: the even share lies at 0.4. */
const warmth = (multiple) => Math.min(1, 0.4 * Math.sqrt(Math.max(0, multiple)));
const WARMEST = 6.25;

class Ramp {
	constructor() {
		this.stops = [0, 1, 2, 3, 4, 5].map((i) => rgb(color(`--heat-${i}`)));
	}
	at(t) {
		const x = t * (this.stops.length - 1);
		const i = Math.min(Math.floor(x), this.stops.length - 2);
		return this.stops[i].map((from, k) => Math.round(from + (this.stops[i + 1][k] - from) * (x - i)));
	}
}

/* The mark of a starved expert is a shape: a cross in a frame. */
function drawMark(context, x, y, width, height, ink, aside) {
	const size = Math.max(5, Math.min(width, height, 22) - 4);
	const left = aside ? x + 5 : x + (width - size) / 2;
	const top = y + (height - size) / 2;
	context.strokeStyle = ink;
	context.lineWidth = size > 8 ? 2 : 1.7;
	context.beginPath();
	context.moveTo(left, top);
	context.lineTo(left + size, top + size);
	context.moveTo(left + size, top);
	context.lineTo(left, top + size);
	context.stroke();
	if (width >= 14 && height >= 14) {
		context.lineWidth = 1.5;
		context.strokeRect(x + 1.75, y + 1.75, width - 3.5, height - 3.5);
	}
}

function sizeCanvas(canvas, width, height) {
	const scale = window.devicePixelRatio || 1;
	canvas.width = Math.ceil(width * scale);
	canvas.height = Math.ceil(height * scale);
	canvas.style.width = `${width}px`;
	canvas.style.height = `${height}px`;
	const context = canvas.getContext("2d");
	context.setTransform(scale, 0, 0, scale, 0, 0);
	context.clearRect(0, 0, width, height);
	return context;
}

/* Black or white, whichever is easier to read. */
function inkOn(ground) {
	const [r, g, b] = ground.map((c) => (c <= 10 ? c / 3295 : ((c / 255 + 0.055) / 1.055) ** 2.4));
	return 0.2126 * r + 0.7152 * g + 0.0722 * b > 0.179 ? "#000" : "#fff";
}

function coverageLead(cells, { starved_total: starved, floor_tokens: floor }) {
	if (cells === 0) return "The first layer is not done yet.";
	if (starved === 0) return `Routing alone gave each of ${plural(cells, "expert")} at least ${plural(floor, "token")}.`;
	return `${plural(starved, "expert")} of ${count(cells)} would have starved: routing alone gave ${starved === 1 ? "it" : "each of them"} fewer than ${plural(floor, "token")}.`;
}

const HEAT_TOP = 20; /* room of the expert numbers */
const NUMBER_CELL = 26; /* a cell of this width has room for a number, */
const WIDE_CELL = 64; /* of this one for its unit and the mark beside it */
const heat = {
	layers: [],
	pending: 0,
	experts: 0,
	at: null, /* [row, expert] of the cursor */

	clear() {
		Object.assign(this, { layers: [], pending: 0, experts: 0, at: null, starved: [], final: false });
		byId("heat-cursor").hidden = true;
		byId("coverage-details").open = false;
		byId("layer-choice").replaceChildren();
		setText(byId("heat-live"), "");
	},

	/* Before there is anything to show. */
	expect(job) {
		if (this.layers.length === 0 && byId("coverage").hidden) this.show({ layers: [], floor_tokens: 0, starved_total: 0 }, job);
	},

	show(coverage, job) {
		this.final = FINAL.has(job.state);
		this.layers = coverage.layers;
		this.floor = coverage.floor_tokens;
		this.experts = Math.max(0, ...coverage.layers.map((layer) => layer.experts.length), job.plan?.experts ?? 0);
		this.pending = this.final || datasetName(job.spec?.dataset) === "none" ? 0 : Math.max(0, (job.plan?.moe_layers ?? 0) - this.layers.length);
		this.numbered = job.plan?.moe_layers === job.plan?.layers; /* then a row's number is its layer's */
		this.starved = this.layers.map((layer) => new Set(layer.starved));
		const none = this.layers.length === 0 && (this.final || this.pending === 0 || this.experts === 0);
		byId("coverage").hidden = none;
		if (none) return;
		const cells = this.layers.reduce((sum, layer) => sum + layer.experts.length, 0);
		setText(byId("coverage-lead"), coverageLead(cells, coverage));
		this.draw();
		this.showTables();
	},

	measure() {
		const rows = this.layers.length + this.pending;
		this.labels = 16 + 8 * String(Math.max(0, ...this.layers.map((layer) => layer.index), rows - 1)).length;
		const room = byId("heat").clientWidth - this.labels;
		this.cellWidth = Math.max(6, Math.min(120, Math.floor(room / Math.max(1, this.experts))));
		this.cellHeight = rows <= 8 ? 30 : rows <= 24 ? 20 : rows <= 48 ? 14 : 9;
		return rows;
	},

	draw() {
		if (byId("coverage").hidden || this.experts === 0) return;
		const rows = this.measure();
		const { cellWidth, cellHeight } = this;
		const context = sizeCanvas(byId("heat-cells"), cellWidth * this.experts, HEAT_TOP + cellHeight * rows);
		const drawn = this.drawCells(context);
		this.drawPending(context);
		this.drawNumbers(context, rows);
		this.showLegend();
		const field = byId("heat-field");
		/* how it was drawn, for whoever looks from outside */
		Object.assign(field.dataset, { layers: this.layers.length, experts: this.experts, cells: drawn.cells, starved: drawn.starved.join(" "), cellWidth, cellHeight, top: HEAT_TOP });
		field.setAttribute("aria-label", `Coverage of ${plural(this.layers.length, "layer")} by ${plural(this.experts, "expert")}, ${plural(drawn.starved.length, "starved expert")}`);
		this.moveCursor();
		if (!this.at) this.readOut(byId("heat-readout"), null);
	},

	drawCells(context) {
		const ramp = new Ramp();
		const ink = color("--heat-mark");
		const gap = this.cellWidth >= 12 && this.cellHeight >= 12 ? 1 : 0.5;
		const [width, height] = [this.cellWidth - gap, this.cellHeight - gap];
		const drawn = { cells: 0, starved: [] };
		context.font = `${this.cellWidth >= 44 ? 11.5 : 10}px ${getComputedStyle(document.body).fontFamily}`;
		context.textBaseline = "middle";
		this.layers.forEach((layer, row) => {
			for (const expert of layer.experts) {
				const x = expert.expert * this.cellWidth;
				const y = HEAT_TOP + row * this.cellHeight;
				const ground = ramp.at(warmth(expert.share * layer.experts.length));
				const starved = this.starved[row].has(expert.expert);
				context.fillStyle = `rgb(${ground.join(" ")})`;
				context.fillRect(x, y, width, height);
				if (starved) drawMark(context, x, y, width, height, ink, this.cellWidth >= WIDE_CELL);
				if (starved) drawn.starved.push(`${layer.index}:${expert.expert}`);
				drawn.cells++;
				this.drawShare(context, expert.share, x, y, inkOn(ground), starved);
			}
		});
		return drawn;
	},

	/* As a number too, where there is room for it. */
	drawShare(context, share, x, y, ink, starved) {
		if (this.cellHeight < 18 || this.cellWidth < NUMBER_CELL || (starved && this.cellWidth < WIDE_CELL)) return;
		context.fillStyle = ink;
		context.textAlign = starved ? "right" : "center";
		const text = this.cellWidth < WIDE_CELL ? shareText(share).replace(" %", "") : shareText(share);
		context.fillText(text, starved ? x + this.cellWidth - 8 : x + (this.cellWidth - 1) / 2, y + this.cellHeight / 2);
	},

	/* Layers that are still to come: a dot each cell. */
	drawPending(context) {
		context.fillStyle = color("--heat-pending");
		for (let row = this.layers.length; row < this.layers.length + this.pending; row++)
			for (let expert = 0; expert < this.experts; expert++)
				context.fillRect(expert * this.cellWidth + this.cellWidth / 2 - 1, HEAT_TOP + row * this.cellHeight + this.cellHeight / 2 - 1, 2, 2);
	},

	drawNumbers(context, rows) {
		const font = `11px ${getComputedStyle(document.body).fontFamily}`;
		const every = [1, 2, 4, 8, 16, 32, 64].find((step) => step * this.cellWidth >= 26) ?? 64;
		context.fillStyle = color("--muted");
		context.font = font;
		context.textAlign = "center";
		context.textBaseline = "middle";
		for (let expert = 0; expert < this.experts; expert += every) context.fillText(String(expert), Math.max(7, (expert + 0.5) * this.cellWidth), HEAT_TOP / 2);
		const side = sizeCanvas(byId("heat-rows"), this.labels, HEAT_TOP + rows * this.cellHeight);
		side.fillStyle = color("--muted");
		side.font = font;
		side.textAlign = "right";
		side.textBaseline = "middle";
		const step = [1, 2, 4, 8].find((n) => n * this.cellHeight >= 14) ?? 8;
		for (let row = 0; row < rows; row += step) {
			const index = this.layers[row]?.index ?? (this.numbered ? row : "");
			side.fillText(String(index), this.labels - 8, HEAT_TOP + (row + 0.5) * this.cellHeight);
		}
	},

	showLegend() {
		const mark = el("canvas", { "aria-hidden": "true" });
		const context = sizeCanvas(mark, 16, 16);
		context.fillStyle = color("--heat-0");
		context.fillRect(0, 0, 16, 16);
		drawMark(context, 0, 0, 16, 16, color("--heat-mark"));
		const even = 1 / this.experts;
		byId("heat-legend").replaceChildren(
			el("div", { class: "scale" }, el("div", { class: "ramp" }), el("span", null, "0 %"), el("span", { class: "even" }, `even: ${percent(even)}`), el("span", { class: "most" }, `${percent(Math.min(1, even * WARMEST))} and more`)),
			el("span", { class: "legend-item" }, mark, "starved"),
			el("span", { class: "legend-item" }, "Share of the tokens of a layer (row) that the router gave an expert (column)"),
		);
	},

	/* The numbers of a cell, into the line below and what a screen reader is told. */
	readOut(node, at) {
		const layer = at && this.layers[at[0]];
		const expert = layer?.experts.find((one) => one.expert === at[1]);
		if (!expert) {
			node.replaceChildren("Point at a cell, or tap it, to read its numbers.");
			return;
		}
		const starved = this.starved[at[0]].has(expert.expert);
		node.replaceChildren(
			el("strong", null, `Layer ${layer.index}, expert ${expert.expert}`),
			starved ? el("span", { class: "starved" }, "starved: ") : "",
			`${plural(expert.routed, "token")} routed, ${percent(expert.share)} of all, ${figures(expert.share * layer.experts.length, 2)} × the even share; calibration saw ${count(expert.seen)}`,
			expert.source ? `; learned from ${expert.source}` : "",
		);
	},

	moveCursor() {
		const cursor = byId("heat-cursor");
		cursor.hidden = !this.at;
		if (!this.at) return;
		const [row, expert] = this.at;
		cursor.style.left = `${expert * this.cellWidth}px`;
		cursor.style.top = `${HEAT_TOP + row * this.cellHeight}px`;
		cursor.style.width = `${this.cellWidth - 1}px`;
		cursor.style.height = `${this.cellHeight - 1}px`;
	},

	go(row, expert, aloud) {
		if (this.layers.length === 0) return;
		row = Math.max(0, Math.min(this.layers.length - 1, row));
		expert = Math.max(0, Math.min(this.layers[row].experts.length - 1, expert));
		this.at = [row, expert];
		this.moveCursor();
		this.readOut(byId("heat-readout"), this.at);
		if (!aloud) return;
		this.readOut(byId("heat-live"), this.at);
		const scroll = byId("heat-scroll");
		const x = expert * this.cellWidth;
		if (x < scroll.scrollLeft || x + this.cellWidth > scroll.scrollLeft + scroll.clientWidth) scroll.scrollLeft = x - scroll.clientWidth / 2;
	},

	nextStarved() {
		const [row, expert] = this.at ?? [0, -1];
		const all = this.layers.flatMap((layer, r) => layer.starved.map((e) => [r, e]));
		const next = all.find(([r, e]) => r > row || (r === row && e > expert)) ?? all[0];
		if (next) this.go(next[0], next[1], true);
	},

	showTables() {
		byId("layers-table").tBodies[0].replaceChildren(
			...this.layers.map((layer) =>
				el(
					"tr",
					null,
					el("th", { scope: "row" }, layer.index),
					[layer.tokens, layer.min, layer.median, layer.max].map((value) => el("td", { class: "number" }, count(value))),
					el("td", { class: "number" }, figures(layer.gini, 2)),
					el("td", null, layer.starved.length > 0 ? layer.starved.join(", ") : "none"),
				),
			),
		);
		const choice = byId("layer-choice");
		for (let row = choice.options.length; row < this.layers.length; row++) choice.append(el("option", { value: row }, this.layers[row].index));
		this.showExperts();
	},

	showExperts() {
		const row = Number(byId("layer-choice").value);
		const layer = this.layers[row];
		setText(byId("experts-caption"), layer ? `Experts of layer ${layer.index}` : "Experts of the layer");
		byId("experts-table").tBodies[0].replaceChildren(
			...(layer?.experts ?? []).map((expert) =>
				el(
					"tr",
					null,
					el("th", { scope: "row" }, expert.expert),
					el("td", { class: "number" }, count(expert.routed)),
					el("td", { class: "number" }, percent(expert.share)),
					el("td", { class: "number" }, count(expert.seen)),
					el("td", { class: "number" }, figures(expert.weight)),
					el("td", null, expert.source ?? "–"),
					el("td", null, this.starved[row].has(expert.expert) ? "starved" : "no"),
				),
			),
		);
	},
};

const heatField = byId("heat-field");
heatField.addEventListener("keydown", (event) => {
	const [row, expert] = heat.at ?? [0, 0];
	const last = heat.experts - 1;
	const moves = {
		ArrowUp: [row - 1, expert],
		ArrowDown: [row + 1, expert],
		ArrowLeft: [row, expert - 1],
		ArrowRight: [row, expert + 1],
		Home: event.ctrlKey ? [0, 0] : [row, 0],
		End: event.ctrlKey ? [heat.layers.length - 1, last] : [row, last],
		PageUp: [row - 10, expert],
		PageDown: [row + 10, expert],
	};
	if (event.altKey || event.metaKey) return;
	if (moves[event.key]) heat.go(...(heat.at ? moves[event.key] : [0, 0]), true);
	else if (event.key === "s" || event.key === "S") heat.nextStarved();
	else if (event.key === "Enter" && heat.at) {
		byId("coverage-details").open = true;
		byId("layer-choice").value = heat.at[0];
		heat.showExperts();
		byId("layer-choice").focus();
	} else return;
	event.preventDefault();
});
heatField.addEventListener("pointermove", (event) => pointAt(event));
heatField.addEventListener("pointerdown", (event) => pointAt(event));
function pointAt(event) {
	const box = byId("heat-cells").getBoundingClientRect();
	const row = Math.floor((event.clientY - box.top - HEAT_TOP) / heat.cellHeight);
	const expert = Math.floor((event.clientX - box.left) / heat.cellWidth);
	if (row >= 0 && row < heat.layers.length && expert >= 0 && expert < heat.experts) heat.go(row, expert, false);
}
byId("layer-choice").addEventListener("change", () => heat.showExperts());

/* --- errors: plots over the layers -------------------------------------------------------------- */

const PANELS = [
	{ title: "Attention", roles: ["q", "k", "v", "o"], experts: false },
	{ title: "Experts: median, and the span of all", roles: ["gate", "up", "down"], experts: true },
	{ title: "Dense and shared", roles: ["gate", "up", "down"], experts: false },
];

/* Reads /statistics a layer at a time, each only once, and keeps what the plots need. */
class Errors {
	constructor(watch) {
		Object.assign(this, { watch, busy: false, all: false });
		this.clear();
	}

	clear() {
		this.layers = new Map(); /* layer -> Map of "role" or "role of experts" -> {median, least, most, worst, n} */
		this.partial = false;
		byId("plots").replaceChildren();
	}

	async read() {
		if (this.busy) return;
		this.busy = true;
		try {
			await this.readMissing();
		} catch (error) {
			report(error);
		}
		this.busy = false;
	}

	/* New layers may be done while we read. */
	async readMissing() {
		const { watch } = this;
		for (let layer = 0; !watch.signal.aborted && layer < this.doneLayers(); layer++) {
			if (this.layers.has(layer)) continue;
			const store = this.layers;
			const { rows, whole } = await this.readLayer(layer);
			if (watch.signal.aborted || store !== this.layers) return;
			/* what a running job is just writing is asked for again with the next layer */
			if (rows.length === 0 && !FINAL.has(watch.job.state)) return;
			this.layers.set(layer, summarize(rows));
			this.partial = this.partial || !whole;
			if (this.layers.size % 4 === 0 || layer + 1 >= this.doneLayers()) plots.show(this);
		}
	}

	doneLayers() {
		const { state, reason, progress, plan } = this.watch.job;
		/* the end of a job may be known without the last of its progress */
		const whole = state === "succeeded" || reason?.code === "verdict-failed";
		return whole ? layersOf(progress, plan) : (progress?.layers_done ?? 0);
	}

	async readLayer(layer) {
		const { watch } = this;
		const short = !this.all && (watch.job.plan?.modules_quantized ?? 0) > MODULES_READ;
		const rows = [];
		let cursor = null;
		do {
			const path = `/v1/jobs/${watch.id}/statistics?layer=${layer}&limit=${ROWS_A_PAGE}${cursor ? `&cursor=${encodeURIComponent(cursor)}` : ""}`;
			const page = await getJson(path, watch.signal);
			rows.push(...page.modules);
			cursor = page.next_cursor;
		} while (cursor && !short);
		return { rows, whole: !cursor };
	}

	readAll() {
		this.all = true;
		this.partial = false;
		this.layers = new Map();
		this.read();
	}
}

function summarize(rows) {
	const groups = new Map();
	for (const row of rows) {
		if (!isNumber(row.error_relative)) continue;
		const key = row.expert === null ? row.role : `${row.role} of experts`;
		if (!groups.has(key)) groups.set(key, []);
		groups.get(key).push(row);
	}
	for (const [key, found] of groups) {
		found.sort((a, b) => a.error_relative - b.error_relative);
		const values = found.map((row) => row.error_relative);
		groups.set(key, { median: median(values), least: values[0], most: values[values.length - 1], worst: found[found.length - 1].expert, n: values.length });
	}
	return groups;
}

const MARKS = [
	(x, y, r) => `M${x - r} ${y}a${r} ${r} 0 1 0 ${2 * r} 0a${r} ${r} 0 1 0 ${-2 * r} 0`,
	(x, y, r) => `M${x - r} ${y - r}h${2 * r}v${2 * r}h${-2 * r}z`,
	(x, y, r) => `M${x} ${y - 1.2 * r}L${x + 1.15 * r} ${y + 0.9 * r}H${x - 1.15 * r}z`,
	(x, y, r) => `M${x} ${y - 1.35 * r}L${x + 1.35 * r} ${y}L${x} ${y + 1.35 * r}L${x - 1.35 * r} ${y}z`,
];
const DASHES = [null, "7 4", "2 4", "9 3 2 3"];
const PLOT = { height: 230, left: 48, right: 10, top: 8, bottom: 34, narrowest: 380, gap: 20 };

/* About n round numbers from low to high. */
function ticks(low, high, n) {
	const raw = (high - low) / n;
	const power = 10 ** Math.floor(Math.log10(raw));
	const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw) ?? raw;
	const found = [];
	for (let i = Math.ceil(low / step - 1e-9); i * step <= high * (1 + 1e-9); i++) found.push(Number((i * step).toPrecision(12)));
	return found;
}

class Plot {
	constructor(panel, keys, errors, width) {
		this.panel = panel;
		this.width = width;
		this.layers = [...errors.layers.keys()].sort((a, b) => a - b);
		this.total = Math.max(...this.layers, (errors.watch.job.plan?.layers ?? 1) - 1, 1);
		this.curves = keys.map((key) => ({
			key,
			name: key.replace(" of experts", ""),
			series: panel.roles ? Math.max(0, panel.roles.indexOf(key.replace(" of experts", ""))) : keys.indexOf(key),
			points: this.layers.map((layer) => [layer, errors.layers.get(layer).get(key)]).filter(([, point]) => point),
		}));
		const all = this.curves.flatMap((curve) => curve.points.flatMap(([, point]) => [point.least, point.most]));
		const [low, high] = [Math.min(...all), Math.max(...all)];
		/* differences of a hair are not blown up to the whole height */
		const pad = Math.max((high - low) * 0.08, high * 0.1, 1e-9);
		this.low = Math.max(0, low - pad);
		this.high = high + pad;
		this.at = null;
	}

	x(layer) {
		return PLOT.left + ((this.width - PLOT.left - PLOT.right) * layer) / this.total;
	}

	y(value) {
		return PLOT.top + (PLOT.height - PLOT.top - PLOT.bottom) * (1 - (value - this.low) / (this.high - this.low));
	}

	axes() {
		const parts = [];
		for (const value of ticks(this.low, this.high, 4))
			parts.push(svg("line", { class: "axis", x1: PLOT.left, x2: this.width - PLOT.right, y1: this.y(value), y2: this.y(value) }), svg("text", { x: PLOT.left - 7, y: this.y(value) + 4, "text-anchor": "end" }, figures(value, 4)));
		for (const layer of ticks(0, this.total, Math.min(8, this.total)).filter(Number.isInteger)) parts.push(svg("text", { x: this.x(layer), y: PLOT.height - PLOT.bottom + 16, "text-anchor": "middle" }, layer));
		return parts;
	}

	curve({ key, series, points }) {
		const at = ([layer, point], what) => `${this.x(layer).toFixed(1)} ${this.y(point[what]).toFixed(1)}`;
		const every = Math.ceil(points.length / 24);
		const spread = points.some(([, point]) => point.n > 1);
		return svg(
			"g",
			{ class: `series-${series}`, "data-series": key, "data-points": points.length },
			spread && svg("path", { class: "band", d: `M${points.map((p) => at(p, "most")).join("L")}L${[...points].reverse().map((p) => at(p, "least")).join("L")}z` }),
			svg("path", { class: "curve", d: `M${points.map((p) => at(p, "median")).join("L")}`, "stroke-dasharray": DASHES[series] }),
			svg("path", { class: "mark", d: points.filter((p, i) => i % every === 0).map(([layer, point]) => MARKS[series](this.x(layer), this.y(point.median), 3.4)).join("") }),
		);
	}

	make() {
		this.crosshair = svg("line", { class: "crosshair", y1: PLOT.top, y2: PLOT.height - PLOT.bottom, visibility: "hidden" });
		const drawing = svg("svg", { viewBox: `0 0 ${this.width} ${PLOT.height}`, "aria-hidden": "true", focusable: "false" }, this.axes(), this.crosshair, this.curves.map((curve) => this.curve(curve)), svg("text", { x: this.width - PLOT.right, y: PLOT.height - 1, "text-anchor": "end" }, "layer"));
		this.field = el("div", { class: "plot-field", tabindex: "0", role: "application", "aria-roledescription": "plot", "aria-label": `${this.panel.title}: relative error of ${this.curves.map((curve) => curve.name).join(", ")} over ${plural(this.layers.length, "layer")}. Left and right arrow read one layer.` }, drawing);
		this.values = el("ul", { class: "plot-values" });
		this.where = el("p", { class: "plot-where" });
		this.field.addEventListener("pointermove", (event) => this.point(event));
		this.field.addEventListener("pointerdown", (event) => this.point(event));
		this.field.addEventListener("pointerleave", () => document.activeElement !== this.field && this.go(null));
		this.field.addEventListener("keydown", (event) => this.key(event));
		this.go(null);
		return el("div", { class: "plot", "data-panel": this.panel.title }, el("h4", null, this.panel.title), this.field, this.where, this.values);
	}

	point(event) {
		const box = this.field.getBoundingClientRect();
		const x = ((event.clientX - box.left) / box.width) * this.width;
		const layer = ((x - PLOT.left) / (this.width - PLOT.left - PLOT.right)) * this.total;
		this.go(this.layers.reduce((best, one, i) => (Math.abs(one - layer) < Math.abs(this.layers[best] - layer) ? i : best), 0));
	}

	key(event) {
		const last = this.layers.length - 1;
		const moves = { ArrowLeft: (this.at ?? 1) - 1, ArrowRight: (this.at ?? -1) + 1, Home: 0, End: last };
		if (!(event.key in moves) || event.altKey || event.metaKey) return;
		event.preventDefault();
		this.go(Math.max(0, Math.min(last, moves[event.key])));
		setText(byId("errors-live"), `${this.where.textContent}: ${[...this.values.children].map((item) => item.textContent).join(", ")}`);
	}

	/* The values at a layer; without one, over all. */
	go(index) {
		this.at = index;
		const layer = index === null ? null : this.layers[index];
		this.crosshair.setAttribute("visibility", layer === null ? "hidden" : "visible");
		if (layer !== null) setAttributes(this.crosshair, { x1: this.x(layer), x2: this.x(layer) });
		setText(this.where, layer === null ? `Median over ${plural(this.layers.length, "layer")}` : `Layer ${layer}`);
		this.values.replaceChildren(...this.curves.map((curve) => this.value(curve, layer)));
	}

	value(curve, layer) {
		const key = svg("svg", { class: `series-${curve.series}`, viewBox: "0 0 26 12", "aria-hidden": "true", focusable: "false" }, svg("path", { class: "curve", d: "M1 6H25", "stroke-dasharray": DASHES[curve.series] }), svg("path", { class: "mark", d: MARKS[curve.series](13, 6, 3.8) }));
		const point = layer === null ? null : curve.points.find(([one]) => one === layer)?.[1];
		const value = layer === null ? median(curve.points.map(([, p]) => p.median).sort((a, b) => a - b)) : point?.median;
		const more = point?.n > 1 ? ` up to ${precise(point.most)}, expert ${point.worst}` : "";
		return el("li", null, key, el("span", { class: "name" }, curve.name), ` ${precise(value)}`, more && el("span", { class: "more" }, more));
	}
}

const plots = {
	expect() {
		if (byId("plots").childElementCount > 0) return;
		byId("errors").hidden = false;
		byId("errors-details").hidden = true;
		setText(byId("errors-lead"), "The first layer is not done yet.");
	},

	show(errors) {
		if (errors.watch !== watched) return;
		const found = new Set([...errors.layers.values()].flatMap((groups) => [...groups.keys()]));
		if (found.size === 0) return;
		byId("errors").hidden = false;
		byId("errors-details").hidden = false;
		const panels = PANELS.map((panel) => ({ panel, keys: panel.roles.map((role) => (panel.experts ? `${role} of experts` : role)).filter((key) => found.delete(key)) }));
		/* linears of another kind, four to a plot */
		for (let rest = [...found].sort(); rest.length > 0; rest = rest.slice(4)) panels.push({ panel: { title: rest.slice(0, 4).join(", ") }, keys: rest.slice(0, 4) });
		const focused = document.activeElement?.closest?.(".plot")?.dataset.panel;
		const filled = panels.filter(({ keys }) => keys.length > 0);
		/* drawn in pixels, so that letters have one size everywhere */
		const room = byId("plots").clientWidth;
		const columns = Math.max(1, Math.min(filled.length, Math.floor((room + PLOT.gap) / (PLOT.narrowest + PLOT.gap))));
		const width = Math.floor((room - PLOT.gap * (columns - 1)) / columns);
		const made = filled.map(({ panel, keys }) => new Plot(panel, keys, errors, width));
		byId("plots").replaceChildren(...made.map((plot) => plot.make()));
		if (focused) made.find((plot) => plot.panel.title === focused)?.field.focus();
		this.showLead(errors);
		this.showTable(errors, panels.flatMap(({ keys }) => keys));
	},

	showLead(errors) {
		const lead = byId("errors-lead");
		lead.replaceChildren("How far the quantized weights are from the originals: the norm of the difference over the norm of the weights.");
		if (!errors.partial) return;
		const button = el("button", { type: "button" }, `Read all ${count(errors.watch.job.plan.modules_quantized)}`);
		button.addEventListener("click", () => errors.readAll());
		lead.append(` This shows the first ${ROWS_A_PAGE} linears of each layer. `, button);
	},

	showTable(errors, keys) {
		const table = byId("errors-table");
		table.tHead.replaceChildren(el("tr", null, el("th", { scope: "col" }, "Layer"), keys.map((key) => el("th", { scope: "col", class: "number" }, key))));
		table.tBodies[0].replaceChildren(
			...[...errors.layers.keys()]
				.sort((a, b) => a - b)
				.map((layer) =>
					el(
						"tr",
						null,
						el("th", { scope: "row" }, layer),
						keys.map((key) => {
							const point = errors.layers.get(layer).get(key);
							return el("td", { class: "number" }, point ? `${precise(point.median)}${point.n > 1 ? ` (${precise(point.most)})` : ""}` : "–");
						}),
					),
				),
		);
	},
};

/* --- the page ---------------------------------------------------------------------------------- */

let filterKey = "";

function route() {
	place = readPlace();
	showFilters();
	const key = addressOf(null);
	if (key !== filterKey) {
		filterKey = key;
		pages.cursors = [null];
		pages.next = null;
		if (!locked) list.poke();
	}
	byId("columns").classList.toggle("shows-job", place.job !== null);
	setAttributes(document.querySelector(".back a"), { href: addressOf(null) });
	if (place.job === null) document.title = "moecal";
	if (!locked) follow(place.job);
	showJobs();
	if (place.job === null && !locked && jobs.length > 0) chooseFirst();
}

window.addEventListener("hashchange", () => {
	const before = place.job;
	route();
	if (place.job === before) return;
	/* on a phone the job takes the place of the list */
	if (matchMedia("(max-width: 999px)").matches) {
		window.scrollTo(0, 0);
		byId(place.job ? "job" : "main").focus({ preventScroll: true });
	}
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => heat.draw());
/* drawing changes the height, so only another width is a reason to draw */
let drawnWidth = 0;
new ResizeObserver(([entry]) => {
	const width = Math.round(entry.contentRect.width);
	if (width === drawnWidth || width === 0) return;
	drawnWidth = width;
	requestAnimationFrame(() => {
		heat.draw();
		if (watched) plots.show(watched.errors);
	});
}).observe(byId("job"));

byId("forget").hidden = !readToken();
filterKey = "";
route();
service.start();
list.start();
