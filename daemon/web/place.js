/*
 * place.js - addresses of this page: #/ or #/jobs/ID, and the filters
 */
import { STATES } from "./elements.js";

/* What the address says; the event that tells of a change comes later than the change. */
export function readPlace() {
	const [path, query] = location.hash.replace(/^#/, "").split("?");
	const found = /^\/jobs\/([a-z0-9][a-z0-9._-]{0,63})$/.exec(path);
	const parameters = new URLSearchParams(query ?? "");
	return {
		job: found ? found[1] : null,
		states: new Set((parameters.get("state") ?? "").split(",").filter((state) => STATES.includes(state))),
		model: parameters.get("model") ?? "",
	};
}

export let place = readPlace(); /* what is shown */
export const movePlace = () => (place = readPlace());

export function addressOf(job, states = place.states, model = place.model) {
	const parts = [];
	if (states.size > 0) parts.push(`state=${STATES.filter((state) => states.has(state)).join(",")}`);
	if (model) parts.push(`model=${encodeURIComponent(model)}`);
	return `#/${job ? `jobs/${job}` : ""}${parts.length ? `?${parts.join("&")}` : ""}`;
}
