/*
 * list.js - the list of jobs: filters, pages, and each job in a few words
 */
import { byId, el, fill, FINAL, icon, setAttributes, setText, stateLabel, STATES } from "./elements.js";
import { ago, doneShare, duration, labelsOf, modelName, recipeName, timeLeft, wholeTime } from "./text.js";
import { Known, REFRESH_MS, Refused, Repeat, tell } from "./service.js";
import { addressOf, place, readPlace } from "./place.js";

const JOBS_A_PAGE = 20;

const pages = { cursors: [null], next: null };
const knownJobs = new Known();
const modelNames = new Set();
export let jobs = [];

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
export function showJobs() {
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
export function noteProgress(id, progress) {
	const row = jobs.find((job) => job.id === id);
	const item = [...byId("job-list").children].find((one) => one.dataset.job === id);
	if (!row || !item || FINAL.has(row.state)) return;
	row.progress = progress;
	fillItem(item, row);
}

export function showFilters() {
	for (const [state, chip] of STATE_CHIPS) chip.setAttribute("aria-pressed", String(place.states.has(state)));
	if (document.activeElement !== byId("model")) byId("model").value = place.model;
}

function noteModels() {
	const before = modelNames.size;
	for (const job of jobs) if (typeof job.spec?.model === "string") modelNames.add(job.spec.model);
	if (modelNames.size !== before) byId("models").replaceChildren(...[...modelNames].sort().map((value) => el("option", { value })));
}

export const list = new Repeat(async () => {
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
	if (row) tell("row", row);
}, REFRESH_MS);

/* From the newest on. */
export function firstPage() {
	pages.cursors = [null];
	pages.next = null;
}

/* On a wide screen an empty half page helps nobody. */
export function chooseFirst() {
	const first = jobs.find((job) => job.state === "running") ?? jobs[0];
	setText(byId("placeholder-text"), jobs.length > 0 ? "Choose a job." : "The coverage, the errors and the verdict of a job appear here.");
	if (first && !readPlace().job && matchMedia("(min-width: 1000px)").matches) location.replace(addressOf(first.id));
}
