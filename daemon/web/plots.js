/*
 * plots.js - errors of the weights over the layers: plots, and the same as a table
 */
import { byId, el, setAttributes, setText, svg } from "./elements.js";
import { count, figures, median, plural, precise } from "./text.js";
import { ROWS_A_PAGE } from "./service.js";

const PANELS = [
	{ title: "Attention", roles: ["q", "k", "v", "o"], experts: false },
	{ title: "Experts: median, and the span of all", roles: ["gate", "up", "down"], experts: true },
	{ title: "Dense and shared", roles: ["gate", "up", "down"], experts: false },
];

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

export const plots = {
	expect() {
		if (byId("plots").childElementCount > 0) return;
		byId("errors").hidden = false;
		byId("errors-details").hidden = true;
		setText(byId("errors-lead"), "The first layer is not done yet.");
	},

	show(errors) {
		if (errors.watch.over) return;
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
