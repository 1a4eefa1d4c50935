/*
 * service.js - asking the service: tokens, answers, refusals, silence
 */
export const ROWS_A_PAGE = 200;
export const REFRESH_MS = 5000; /* the list, the counts, readiness */
export const LONGEST_PAUSE_MS = 10000; /* between two tries of a service that does not answer */
const TOKEN_KEY = "moecal-token";

export class Refused extends Error {
	constructor(status, problem) {
		super(problem?.detail || problem?.title || `The service answered ${status}.`);
		this.status = status;
	}
}

/* No answer at all. */
export class Unreachable extends Error {}

export const isAbort = (error) => error?.name === "AbortError";
export const reasonOf = (error) => (error instanceof Refused ? error.message : "The service does not answer.");

/* What is neither the service's nor the network's fault is ours, and must not stay unseen. */
export function report(error) {
	if (!(error instanceof Refused) && !(error instanceof Unreachable) && !isAbort(error)) console.error(error);
}

/* What others show or do about it: "reachable" and "refused", here; "locked", of token.js; "row", of list.js. */
const notices = new EventTarget();
export const tell = (name, detail) => notices.dispatchEvent(new CustomEvent(name, { detail }));
export const hear = (name, listener) => notices.addEventListener(name, ({ detail }) => listener(detail));

export const readToken = () => sessionStorage.getItem(TOKEN_KEY);
export const keepToken = (token) => sessionStorage.setItem(TOKEN_KEY, token);
export const dropToken = () => sessionStorage.removeItem(TOKEN_KEY);
export let locked = false; /* nothing is asked for before there is a token that is accepted */
hear("locked", (now) => (locked = now));

let reachable = true;
export function setReachable(now) {
	if (now === reachable) return;
	reachable = now;
	tell("reachable", now);
	if (now) for (const wake of [...hopeful]) wake();
}

function headersOf(more) {
	const token = readToken();
	return token ? { ...more, Authorization: `Bearer ${token}` } : { ...more };
}

/* A response that is a success or 304; everything else is thrown. */
export async function ask(path, { method = "GET", headers, signal } = {}) {
	const token = readToken();
	let response;
	try {
		response = await fetch(path, { method, headers: headersOf(headers), signal, cache: "no-store", redirect: "error" });
	} catch (error) {
		if (isAbort(error)) throw error;
		setReachable(false);
		throw new Unreachable(error.message);
	}
	setReachable(true);
	if (response.ok || response.status === 304) return response;
	const problem = await response.json().catch(() => null);
	if (response.status === 401 && token === readToken()) tell("refused", Boolean(token));
	throw new Refused(response.status, problem);
}

export const getJson = async (path, signal) => (await ask(path, { signal, headers: { Accept: "application/json" } })).json();

/* The newest answer of one address: {data, same}. Nothing is sent twice that did not change. */
export class Known {
	constructor() {
		this.path = null;
	}
	async get(path, signal) {
		const headers = { Accept: "application/json" };
		if (path === this.path && this.tag) headers["If-None-Match"] = this.tag;
		const response = await ask(path, { headers, signal });
		if (response.status === 304) return { data: this.data, same: true };
		const data = await response.json();
		Object.assign(this, { path, data, tag: response.headers.get("ETag") });
		return { data, same: false };
	}
}

export function sleep(ms, signal) {
	return new Promise((resolve) => {
		const timer = setTimeout(resolve, ms);
		signal?.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
	});
}

/* Whoever waits for a service that did not answer, and is told when it does again. */
const hopeful = new Set();

/* As sleep, but ends also when somebody else was answered. */
export async function rest(ms, signal) {
	const nap = new AbortController();
	const wake = () => nap.abort();
	hopeful.add(wake);
	signal.addEventListener("abort", wake);
	await sleep(ms, nap.signal);
	signal.removeEventListener("abort", wake);
	hopeful.delete(wake);
}

/* Runs a task now and then: at once when poked, not while nobody looks, seldom while it fails. */
export class Repeat {
	constructor(task, ms) {
		Object.assign(this, { task, ms, failures: 0, timer: 0, busy: false, again: false, on: false });
		this.wake = () => !document.hidden && this.poke();
		this.hope = () => this.failures > 0 && this.wake();
	}

	start() {
		if (!this.on) document.addEventListener("visibilitychange", this.wake);
		hopeful.add(this.hope);
		this.on = true;
		this.poke();
	}

	stop() {
		this.on = false;
		clearTimeout(this.timer);
		hopeful.delete(this.hope);
		document.removeEventListener("visibilitychange", this.wake);
	}

	async poke() {
		this.again = this.busy;
		if (this.busy || locked) return;
		clearTimeout(this.timer);
		this.busy = true;
		try {
			await this.task();
			this.failures = 0;
		} catch (error) {
			this.failures++;
			report(error);
		}
		this.busy = false;
		if (!this.on || locked) return;
		if (this.again) this.poke();
		else if (!document.hidden) this.plan();
	}

	/* Without a time of its own it is repeated only when it failed. */
	plan() {
		if (this.failures > 0) this.timer = setTimeout(() => this.poke(), Math.min(500 * 2 ** this.failures, LONGEST_PAUSE_MS));
		else if (this.ms) this.timer = setTimeout(() => this.poke(), this.ms);
	}
}
