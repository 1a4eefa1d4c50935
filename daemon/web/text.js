/*
 * text.js - numbers, times and jobs in words
 */
export const PHASES = ["calibrate", "export", "verify"];

/* --- numbers and times ---------------------------------------------------------------------- */

export const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const integers = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
export const count = (value) => (isNumber(value) ? integers.format(value) : "–");
export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
export const figures = (value, digits = 3) => (isNumber(value) ? String(Number(value.toPrecision(digits))) : "–");
export const precise = (value) => (isNumber(value) ? value.toPrecision(3) : "–");
export const shareText = (share) => (share > 0 && share < 0.0005 ? "<0.1 %" : `${share > 0 ? (100 * share).toFixed(1) : 0} %`);
export const percent = (share) => (isNumber(share) ? `${figures(share * 100)} %` : "–");

export function bytes(value) {
	if (!isNumber(value)) return "–";
	const units = ["B", "KiB", "MiB", "GiB", "TiB"];
	let unit = 0;
	while (value >= 1024 && unit < units.length - 1) {
		value /= 1024;
		unit++;
	}
	return `${unit === 0 ? value : value.toFixed(value < 10 ? 1 : 0)} ${units[unit]}`;
}

export function duration(seconds) {
	if (!isNumber(seconds)) return "–";
	if (seconds > 0 && seconds < 1) return `${Math.ceil(seconds * 1000)} ms`;
	if (seconds < 10) return `${seconds.toFixed(1)} s`;
	if (seconds < 59.5) return `${Math.round(seconds)} s`;
	if (seconds < 599.5) return `${Math.floor(Math.round(seconds) / 60)} min ${Math.round(seconds) % 60} s`;
	const minutes = Math.round(seconds / 60);
	if (minutes < 60) return `${minutes} min`;
	const hours = Math.floor(minutes / 60);
	if (hours < 48) return `${hours} h ${minutes % 60} min`;
	return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export function ago(time) {
	const seconds = (Date.now() - Date.parse(time)) / 1000;
	if (!(seconds > 3)) return "now";
	return `${seconds < 60 ? `${Math.floor(seconds)} s` : duration(seconds)} ago`;
}

export const wholeTime = (time) => new Date(time).toLocaleString("en-GB", { dateStyle: "medium", timeStyle: "medium" });

export function shortTime(time) {
	const date = new Date(time);
	const year = date.getFullYear() === new Date().getFullYear() ? {} : { year: "numeric" };
	return date.toLocaleString("en-GB", { day: "numeric", month: "short", ...year, hour: "2-digit", minute: "2-digit", ...(date < Date.now() ? { second: "2-digit" } : {}) });
}

export const clock = (time, seconds) =>
	new Date(time).toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit", ...(seconds ? { second: "2-digit" } : {}) });

export function median(sorted) {
	const half = sorted.length >> 1;
	return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/* --- what a job is called ------------------------------------------------------------------- */

export const lastPart = (path) => path.replace(/\/+$/, "").split("/").pop() || path;
export const modelName = (job) => lastPart(String(job.spec?.model ?? "model"));

export function recipeName(recipe) {
	if (typeof recipe === "string") return recipe.length <= 40 && !recipe.includes("\n") ? recipe : "a recipe";
	if (Array.isArray(recipe)) return recipe.length === 1 ? recipeName(recipe[0]) : `${recipe.length} modifiers`;
	if (recipe && typeof recipe === "object") {
		if (typeof recipe.scheme === "string") return recipe.scheme;
		for (const value of Object.values(recipe))
			if (value && typeof value === "object" && typeof value.scheme === "string") return value.scheme;
		return typeof recipe.type === "string" ? recipe.type : "a recipe";
	}
	return "no recipe";
}

export function datasetName(dataset) {
	if (!dataset) return "none";
	if (typeof dataset === "string") return lastPart(dataset);
	if (Array.isArray(dataset)) return dataset.map(datasetName).join(", ") || "none";
	return lastPart(String(dataset.path ?? "data"));
}

/* 0 to 1 of the layers; calibrating is nearly all of the time. */
export function doneShare(progress) {
	if (!progress || !(progress.layers_total > 0)) return 0;
	return Math.min(1, (progress.layers_done + (progress.layer_fraction ?? 0)) / progress.layers_total);
}

export const timeLeft = (progress) => (isNumber(progress?.seconds_left) ? `${duration(progress.seconds_left)} left` : "");

export const layersOf = (progress, plan) => progress?.layers_total ?? plan?.layers ?? 0;

/* What the caller wrote on the job. */
export const labelsOf = (spec) => Object.entries(spec?.metadata ?? {}).map(([name, value]) => [name, typeof value === "string" ? value : JSON.stringify(value)]);
