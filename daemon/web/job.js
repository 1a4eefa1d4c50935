/*
 * job.js - the chosen job: what it is, how far it is, what happened
 */
import { byId, el, FINAL, icon, setText, stateLabel } from "./elements.js";
import { bytes, clock, count, datasetName, doneShare, duration, figures, isNumber, labelsOf, layersOf, modelName, PHASES, plural, recipeName, shortTime, wholeTime } from "./text.js";
import { heat } from "./heat.js";
import { resourceLink } from "./results.js";

const EVENTS_SHOWN = 300;

/* --- its head ------------------------------------------------------------------------------- */

export function clearJob() {
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
export function showProgress(job, ahead) {
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

export function showJob(job, ahead) {
	showHead(job);
	showProgress(job, ahead);
	showPlan(job);
	byId("placeholder").hidden = true;
	byId("job").hidden = false;
}

/* --- events --------------------------------------------------------------------------------- */

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

export function showEvents(watch) {
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
