/*
 * app.js - the status page of moecald: which of its parts is shown
 *
 * The list of jobs is asked for every few seconds; the chosen job is followed through its stream of
 * events. Whatever is drawn on a canvas or as a plot is also there as a table.
 */
import { byId, setAttributes } from "./elements.js";
import { hear, locked } from "./service.js";
import { addressOf, movePlace, place } from "./place.js";
import { topBar } from "./bar.js";
import { chooseFirst, firstPage, jobs, list, showFilters, showJobs } from "./list.js";
import { heat } from "./heat.js";
import { plots } from "./plots.js";
import { follow, watched } from "./watch.js";
import "./token.js";

let filterKey = "";

function route() {
	movePlace();
	showFilters();
	const key = addressOf(null);
	if (key !== filterKey) {
		filterKey = key;
		firstPage();
		if (!locked) list.poke();
	}
	byId("columns").classList.toggle("shows-job", place.job !== null);
	setAttributes(document.querySelector(".back a"), { href: addressOf(null) });
	if (place.job === null) document.title = "moecal";
	if (!locked) follow(place.job);
	showJobs();
	if (place.job === null && !locked && jobs.length > 0) chooseFirst();
}

window.addEventListener("hashchange", () => {
	const before = place.job;
	route();
	if (place.job === before) return;
	/* on a phone the job takes the place of the list */
	if (matchMedia("(max-width: 999px)").matches) {
		window.scrollTo(0, 0);
		byId(place.job ? "job" : "main").focus({ preventScroll: true });
	}
});

byId("skip").addEventListener("click", (event) => {
	event.preventDefault();
	const main = watched && !byId("job").hidden ? byId("job") : byId("main");
	main.focus();
	main.scrollIntoView();
});

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => heat.draw());
/* drawing changes the height, so only another width is a reason to draw */
let drawnWidth = 0;
new ResizeObserver(([entry]) => {
	const width = Math.round(entry.contentRect.width);
	if (width === drawnWidth || width === 0) return;
	drawnWidth = width;
	requestAnimationFrame(() => {
		heat.draw();
		if (watched) plots.show(watched.errors);
	});
}).observe(byId("job"));

hear("locked", (now) => {
	if (now) return;
	topBar.poke();
	route();
	list.poke();
});

route();
topBar.start();
list.start();
