"""audit.py - what can be asked of any page: contrast, names, focus, width, markup

Expressions for Page.run(), and functions around them; each returns what is wrong, or what was found.
"""

# Text nodes that are seen, with the contrast of their colour against what lies behind them.
CONTRAST = r"""(() => {
	const parse = (text) => {
		const [r, g, b, a = 1] = (text.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
		return [r, g, b, a];
	};
	const over = ([r, g, b, a], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
	const luminance = (color) => {
		const [r, g, b] = color.map((c) => (c <= 10 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const ground = (node) => {
		const layers = [];
		for (let at = node; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
		return layers.reverse().reduce((under, color) => over(color, under), [255, 255, 255]);
	};
	const opacity = (node) => {
		let all = 1;
		for (let at = node; at; at = at.parentElement) all *= Number(getComputedStyle(at).opacity);
		return all;
	};
	const found = [];
	const look = (node, pseudo, text) => {
		const style = getComputedStyle(node, pseudo);
		const behind = ground(node);
		const [r, g, b, a] = parse(node instanceof SVGElement ? style.fill : style.color);
		const [x, y] = [luminance(over([r, g, b, a * opacity(node)], behind)), luminance(behind)];
		const size = parseFloat(style.fontSize);
		const large = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
		found.push({ text: text.trim().slice(0, 40), ratio: (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05), large });
	};
	const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
	for (let text = walker.nextNode(); text; text = walker.nextNode()) {
		const node = text.parentElement;
		if (!text.data.trim() || node.closest("script, noscript, option, .visually-hidden, .skip, :disabled")) continue;
		const box = node.getBoundingClientRect();
		if (box.width > 1 && box.height > 1 && node.checkVisibility({ visibilityProperty: true })) look(node, null, text.data);
	}
	for (const field of document.querySelectorAll("input[placeholder]")) if (field.checkVisibility()) look(field, "::placeholder", field.placeholder);
	return found;
})()"""

# The mark of a starved expert against the palest and the deepest ground that it can lie on.
MARK_CONTRAST = r"""(() => {
	const luminance = (hex) => {
		const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16)).map((c) => (c <= 10 ? c / 3294.6 : ((c / 255 + 0.055) / 1.055) ** 2.4));
		return 0.2126 * r + 0.7152 * g + 0.0722 * b;
	};
	const of = (name) => luminance(getComputedStyle(document.documentElement).getPropertyValue(name).trim());
	const [a, b] = [of("--heat-mark"), of("--heat-0")];
	return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
})()"""

FOCUSABLE = "a[href], button, input, select, summary, [tabindex='0']"

# Gives every control that should be reached a number.
NUMBER_CONTROLS = f"""(() => {{
	const all = [...document.querySelectorAll({FOCUSABLE!r})].filter((node) => !node.disabled && node.checkVisibility({{ visibilityProperty: true }}));
	all.forEach((node, i) => (node.dataset.audit = i));
	document.activeElement?.blur();
	window.scrollTo(0, 0);
	return all.map((node) => node.id || `${{node.tagName.toLowerCase()}} "${{node.textContent.trim().slice(0, 30)}}"`);
}})()"""

# Which one has the focus, and whether one sees it.
FOCUSED = """(() => {
	const node = document.activeElement;
	if (!node || node === document.body) return null;
	const style = getComputedStyle(node);
	const box = node.getBoundingClientRect();
	return {
		number: node.dataset.audit === undefined ? null : Number(node.dataset.audit),
		name: node.id || node.tagName,
		visible: node.matches(":focus-visible") && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
		onScreen: box.bottom > 0 && box.top < innerHeight,
	};
})()"""

# Headings that are seen, as [level, text].
HEADINGS = """[...document.querySelectorAll("h1, h2, h3, h4, h5, h6")].filter((node) => node.checkVisibility()).map((node) => [Number(node.tagName[1]), node.textContent])"""

# Tables that are seen and lack a caption, heads of columns or heads of rows; by id.
POOR_TABLES = """[...document.querySelectorAll("table")].filter((table) => table.checkVisibility()).filter((table) =>
	!table.caption?.textContent.trim() || ![...table.tHead.rows[0].cells].every((cell) => cell.tagName === "TH" && cell.scope === "col") ||
	![...table.tBodies[0].rows].every((row) => row.cells[0].tagName === "TH" && row.cells[0].scope === "row")).map((table) => table.id)"""

# What sticks out to the right of the window, not counting what scrolls within its own box.
TOO_WIDE = """(() => {
	const wide = document.documentElement.scrollWidth;
	return wide <= innerWidth ? [] : [`the page has ${wide} pixels, the window ${innerWidth}`, ...[...document.querySelectorAll("main *, header *")].filter((node) => node.getBoundingClientRect().right > innerWidth + 0.5 && !node.closest(".scroll, .heat-scroll, pre")).slice(0, 5).map((node) => node.id || node.className || node.tagName)];
})()"""

# Texts that a value which is not there has left behind.
NOTHINGS = r"""[...document.querySelectorAll("body *:not(script, pre, code)")].flatMap((node) => [...node.childNodes]).filter((node) => node.nodeType === Node.TEXT_NODE && node.parentElement.checkVisibility() && /\b(undefined|null|NaN|Infinity|true|false)\b|\[object/.test(node.data)).map((node) => node.data)"""

# Elements that a text of the service could have become.
FOREIGN = """[...document.querySelectorAll("img, iframe, object, embed, script:not([src='/assets/app.js'])")].map((node) => node.outerHTML)"""

# Sums up how far what is seen moves without anybody's doing; goes in before the page.
WATCH_SHIFTS = """window.shifts = [];
new PerformanceObserver((list) => {
	for (const entry of list.getEntries())
		if (!entry.hadRecentInput) shifts.push([entry.value, entry.sources.map(({ node, previousRect: a, currentRect: b }) => `${node?.id || node?.getAttribute?.("aria-labelledby") || node?.className || node?.nodeName} from ${a.y} to ${b.y}`).join(", ")]);
}).observe({ type: "layout-shift", buffered: true });"""


def poor_contrast(page):
    """(number of texts, those below 4.5, or 3 when they are large)"""
    found = page.run(CONTRAST)
    return len(found), [f"{one['text']!r} {one['ratio']:.2f}" for one in found if one["ratio"] < (3 if one["large"] else 4.5)]


def poor_focus(page):
    """Walks over the page with Tab: (number of controls, what is not reached or not seen to be)."""
    names = page.run(NUMBER_CONTROLS)
    reached, wrong = set(), []
    for _ in range(2 * len(names) + 10):
        page.key("Tab")
        at = page.run(FOCUSED)
        if at is None or at["number"] in reached:
            if len(reached) == len(names):
                break
            continue
        if not at["visible"] or not at["onScreen"]:
            wrong.append(f"{at['name']}: the focus is not seen")
        if at["number"] is not None:
            reached.add(at["number"])
    return len(names), wrong + [f"{name}: not reached" for i, name in enumerate(names) if i not in reached]


def nameless(page):
    """Roles of what can have the focus but has no name for those who do not see it."""
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    page.send("Accessibility.disable")
    found = []
    for node in nodes:
        focusable = any(p["name"] == "focusable" and p["value"].get("value") for p in node.get("properties", []))
        role = node.get("role", {}).get("value")
        if focusable and not node["ignored"] and role != "main" and not node.get("name", {}).get("value"):
            found.append(role)
    return found


def roles(page):
    page.send("Accessibility.enable")
    nodes = page.send("Accessibility.getFullAXTree")["nodes"]
    page.send("Accessibility.disable")
    return {(node.get("role", {}).get("value"), node.get("name", {}).get("value", "")) for node in nodes if not node["ignored"]}


def skipped_levels(page):
    headings = page.run(HEADINGS)
    return [text for (before, _), (level, text) in zip(headings, headings[1:]) if level > before + 1]
