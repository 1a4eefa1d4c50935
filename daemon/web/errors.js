/*
 * errors.js - errors of the weights: reading them, a layer at a time
 */
import { byId, FINAL } from "./elements.js";
import { isNumber, layersOf, median } from "./text.js";
import { getJson, report, ROWS_A_PAGE } from "./service.js";
import { plots } from "./plots.js";

const MODULES_READ = 12000; /* of jobs with more, one page a layer is read unless all are asked for */

/* Reads /statistics a layer at a time, each only once, and keeps what the plots need. */
export class Errors {
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
