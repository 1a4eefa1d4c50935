/*
 * results.js - the chosen job: its verdict and its files
 */
import { byId, el, icon, setText } from "./elements.js";
import { bytes, count, lastPart, plural } from "./text.js";
import { ask, getJson, readToken, reasonOf, Refused, report } from "./service.js";
import { heat } from "./heat.js";
import { plots } from "./plots.js";

const BLOB_BYTES = 1 << 30; /* a file that is larger does not go through the memory of the browser */

/* --- verdict -------------------------------------------------------------------------------- */

/* A job that ended without results has no files; then there is nothing to ask for. */
export async function readResults(watch) {
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
export function awaitResults(job) {
	showNoVerdict("Not yet", "In the end, what was written is read again and held against what was computed.");
	heat.expect(job);
	plots.expect();
}

/* ... and goes when it cannot come any more. */
export function forgoResults(job) {
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

/* --- files ---------------------------------------------------------------------------------- */

/* A link that works with a token too: then the script fetches what it leads to. */
export function resourceLink(path, text, name, size) {
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
