/*
 * token.js - the question for a token, and what happens to it
 */
import { byId, setText } from "./elements.js";
import { ask, dropToken, hear, keepToken, locked, readToken, reasonOf, tell } from "./service.js";

function lock(wrong) {
	setText(byId("token-error"), wrong ? "The service does not accept this token." : "");
	if (locked) return;
	dropToken();
	byId("columns").hidden = true;
	byId("token-panel").hidden = false;
	byId("forget").hidden = true;
	document.title = "moecal";
	tell("locked", true);
	byId("token").focus();
}

function unlock() {
	byId("columns").hidden = false;
	byId("token-panel").hidden = true;
	byId("forget").hidden = !readToken();
	tell("locked", false);
}

byId("token-form").addEventListener("submit", async (event) => {
	event.preventDefault();
	const given = byId("token").value.trim();
	if (!/^[\x21-\x7e]+$/.test(given)) {
		setText(byId("token-error"), "A token has neither spaces nor letters beyond ASCII.");
		return;
	}
	keepToken(given);
	try {
		await ask("/v1/version");
	} catch (error) {
		dropToken();
		if (error.status !== 401) setText(byId("token-error"), reasonOf(error));
		byId("token").select();
		return;
	}
	byId("token").value = "";
	setText(byId("token-error"), "");
	unlock();
	byId("main").focus();
});

/* What the token let see goes with it. */
byId("forget").addEventListener("click", () => {
	dropToken();
	location.reload();
});

hear("refused", lock);
byId("forget").hidden = !readToken();
