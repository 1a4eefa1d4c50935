/*
 * elements.js - elements of the page: finding, making and filling them
 *
 * Whatever comes from the service goes into the page as text, never as markup.
 */
export const STATES = ["queued", "running", "canceling", "succeeded", "failed", "canceled"];
export const FINAL = new Set(["succeeded", "failed", "canceled"]);

export const byId = (id) => document.getElementById(id);

/* --- making elements --------------------------------------------------------------------------- */

const SVG = "http://www.w3.org/2000/svg";

export function fill(node, children) {
	for (const child of children.flat(2))
		if (child !== null && child !== undefined && child !== false)
			node.append(child instanceof Node ? child : String(child));
	return node;
}

export function setAttributes(node, attributes) {
	for (const [name, value] of Object.entries(attributes ?? {}))
		if (value === true) node.setAttribute(name, "");
		else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
	return node;
}

export const el = (tag, attributes, ...children) => fill(setAttributes(document.createElement(tag), attributes), children);
export const svg = (tag, attributes, ...children) => fill(setAttributes(document.createElementNS(SVG, tag), attributes), children);

/* Sets only what changed, so that a screen reader and a selection are left alone. */
export function setText(node, text) {
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
export const icon = (name) =>
	svg("svg", { class: "icon", viewBox: "0 0 16 16", "aria-hidden": "true", focusable: "false" }, svg("path", { d: ICONS[name] ?? ICONS.none }));
export const stateLabel = (state) => el("span", { class: `state ${STATES.includes(state) ? state : ""}` }, icon(state), state);

export const say = (text) => setText(byId("announce"), text);
