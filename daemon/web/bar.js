/*
 * bar.js - the bar on top: whether the service works, and how many jobs it has
 */
import { byId, el, icon, setText, STATES } from "./elements.js";
import { count } from "./text.js";
import { ask, getJson, hear, REFRESH_MS, Repeat, setReachable, Unreachable } from "./service.js";

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

export const topBar = new Repeat(async () => {
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

hear("reachable", (now) => {
	byId("offline").hidden = now;
	setText(byId("offline"), now ? "" : "The service does not answer. What you see may be old; this page keeps trying.");
	if (!now) showReadiness(false, "Does not answer");
});
hear("locked", (now) => {
	if (!now) return;
	byId("counts").replaceChildren();
	setText(byId("version"), "");
});
