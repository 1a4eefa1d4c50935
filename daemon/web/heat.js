/*
 * heat.js - coverage of the experts: a heat map, and the same as tables
 */
import { byId, el, FINAL, setText } from "./elements.js";
import { count, datasetName, figures, percent, plural, shareText } from "./text.js";

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
export const heat = {
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
