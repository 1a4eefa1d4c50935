/*
 * watch.js - the chosen job: following its stream of events, and canceling it
 *
 * The stream is read with fetch because EventSource cannot send a token.
 */
import { byId, FINAL, say, setText } from "./elements.js";
import { modelName, PHASES, plural, recipeName } from "./text.js";
import { ask, hear, isAbort, Known, locked, LONGEST_PAUSE_MS, reasonOf, REFRESH_MS, Repeat, report, rest, ROWS_A_PAGE, sleep, Unreachable } from "./service.js";
import { topBar } from "./bar.js";
import { jobs, list, noteProgress } from "./list.js";
import { heat } from "./heat.js";
import { Errors } from "./errors.js";
import { awaitResults, forgoResults, readResults } from "./results.js";
import { clearJob, showEvents, showJob, showProgress } from "./job.js";

const SILENCE_MS = 40000; /* a stream says something every 15 s; without that it is dead */
const COVERAGE_PAUSE_MS = 1000;

export let watched = null;

export function follow(id) {
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
			topBar.poke();
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

hear("row", (row) => watched?.hear(row));
hear("locked", (now) => now && follow(null));

/* --- canceling ------------------------------------------------------------------------------ */

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
