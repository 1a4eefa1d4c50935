/*
 * command_diff.c - moecal diff: how far two calibrations are apart
 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#include "moecal/diff.h"

/* null in the document: nothing was compared, or it is no finite number. */
static const char *number_text(const struct mc_json *object, const char *key, char text[32])
{
	const struct mc_json *value = mc_json_get(object, key);

	if (mc_json_is_null(value))
		snprintf(text, 32, "-");
	else
		snprintf(text, 32, "%.4g", member_number(object, key));
	return text;
}

static void print_value(const struct mc_json *value)
{
	struct mc_error err;
	struct mc_buf text;

	mc_error_init(&err);
	mc_buf_init(&text, (size_t)64 << 20);
	if (value != NULL && mc_json_type(value) == MC_JSON_STRING) {
		print_plain(stdout, mc_json_string(value, NULL));
	} else if (!mc_json_is_null(value) && mc_json_write(value, MC_JSON_COMPACT, &text, &err)) {
		size_t length = text.length;
		char shown[84];
		snprintf(
		    shown, sizeof shown, "%.77s%s", mc_buf_text(&text), length > 77 ? "..." : "");
		print_plain(stdout, shown);
	} else {
		putchar('-');
	}
	mc_buf_release(&text);
}

static void print_side(const char *name, const struct mc_json *side)
{
	printf("%s  ", name);
	print_plain(stdout, member_text(side, "folder"));
	printf(": ");
	print_plain(stdout, member_text(side, "model"));
	if (member_bool(side, "finished"))
		printf(", %lld tokens\n", (long long)member_integer(side, "tokens"));
	else
		printf(", not finished: %lld layers are done\n",
		    (long long)member_integer(side, "layers_done"));
}

static void print_differences(const struct mc_json *list)
{
	int width = column_width(list, "key", 8);

	if (mc_json_size(list) == 0)
		printf("the two jobs were given the same\n");
	else
		printf("the two jobs are not the same:\n");
	for (size_t i = 0; i < mc_json_size(list); i++) {
		const struct mc_json *one = mc_json_at(list, i);
		printf("  ");
		print_cell(member_text(one, "key"), width);
		printf("  A ");
		print_value(mc_json_get(one, "a"));
		printf("\n  %*s  B ", width, "");
		print_value(mc_json_get(one, "b"));
		putchar('\n');
	}
}

/* --- drift ------------------------------------------------------------------------------------ */

/* Rows of a list, largest first: those that differ at all, and of them the first ones. */
struct shown {
	size_t differ, rows;
};

static struct shown rows_of(const struct mc_json *list, const char *key, int64_t limit)
{
	struct shown shown = {0};

	while (shown.differ < mc_json_size(list)) {
		const struct mc_json *one = mc_json_at(list, shown.differ),
				     *value = key == NULL ? NULL : mc_json_get(one, key);
		if (value != NULL && !mc_json_is_null(value) && member_number(one, key) == 0)
			break;
		shown.differ++;
	}
	shown.rows = limit > 0 && shown.differ > (size_t)limit ? (size_t)limit : shown.differ;
	return shown;
}

static void print_more(const struct mc_json *list, struct shown shown)
{
	if (shown.rows < shown.differ)
		printf("  ... and %zu more (--limit 0 shows all)\n", shown.differ - shown.rows);
	if (shown.differ < mc_json_size(list))
		printf("  %zu others are equal\n", mc_json_size(list) - shown.differ);
}

static void print_cells(const struct mc_json *list, bool experts, int64_t limit)
{
	struct shown shown = rows_of(list, "largest", limit);

	if (shown.rows == 0)
		return;
	printf("\n%s, largest first\n  %5s", experts ? "experts" : "layers", "layer");
	if (experts)
		printf(" %6s", "expert");
	for (int d = 0; d < MC_DRIFT_COUNT; d++)
		printf(" %9s", mc_drift_name((enum mc_drift)d));
	putchar('\n');
	for (size_t i = 0; i < shown.rows; i++) {
		const struct mc_json *cell = mc_json_at(list, i);
		char text[32];
		printf("  %5lld", (long long)member_integer(cell, "layer"));
		if (experts)
			printf(" %6lld", (long long)member_integer(cell, "expert"));
		for (int d = 0; d < MC_DRIFT_COUNT; d++)
			printf(" %9s", number_text(cell, mc_drift_name((enum mc_drift)d), text));
		putchar('\n');
	}
	print_more(list, shown);
}

static void print_coverage_rows(const struct mc_json *list, int64_t limit)
{
	struct shown shown = rows_of(list, "difference", limit);

	if (shown.rows == 0)
		return;
	printf("\ncoverage: shares of a layer's routed tokens\n  %5s %6s %10s %10s %9s %9s %10s\n",
	    "layer", "expert", "share A", "share B", "routed A", "routed B", "difference");
	for (size_t i = 0; i < shown.rows; i++) {
		const struct mc_json *one = mc_json_at(list, i);
		printf("  %5lld %6lld %10.5f %10.5f %9lld %9lld %10.5f\n",
		    (long long)member_integer(one, "layer"),
		    (long long)member_integer(one, "expert"), member_number(one, "share_a"),
		    member_number(one, "share_b"), (long long)member_integer(one, "routed_a"),
		    (long long)member_integer(one, "routed_b"), member_number(one, "difference"));
	}
	print_more(list, shown);
}

/* Entries with a name, two numbers and how far they are apart. */
static void print_pairs(
    const struct mc_json *list, const char *title, const char *a, const char *b, int64_t limit)
{
	struct shown shown = rows_of(list, "relative", limit);
	char left[32], right[32], apart[32];

	if (shown.rows == 0)
		return;
	printf("\n%s\n", title);
	for (size_t i = 0; i < shown.rows; i++) {
		const struct mc_json *one = mc_json_at(list, i);
		printf("  %9s  %10s  %10s  ", number_text(one, "relative", apart),
		    number_text(one, a, left), number_text(one, b, right));
		print_plain(stdout, member_text(one, "name"));
		putchar('\n');
	}
	print_more(list, shown);
}

static void print_only(const struct mc_json *only, const char *side, int64_t limit)
{
	static const char *const lists[] = {"layers", "modules", "parameters"};

	for (size_t k = 0; k < sizeof lists / sizeof *lists; k++) {
		const struct mc_json *list = mc_json_get(only, lists[k]);
		struct shown shown = rows_of(list, NULL, limit);
		if (shown.rows == 0)
			continue;
		printf("\nonly in %s: %zu %s\n", side, mc_json_size(list), lists[k]);
		for (size_t i = 0; i < shown.rows; i++) {
			printf("  ");
			print_value(mc_json_at(list, i));
			putchar('\n');
		}
		print_more(list, shown);
	}
}

static void print_unlike(const struct mc_json *list, int64_t limit)
{
	struct shown shown = rows_of(list, NULL, limit);

	if (shown.rows > 0)
		printf("\nparameters of another form, which cannot be compared: %zu\n",
		    mc_json_size(list));
	for (size_t i = 0; i < shown.rows; i++) {
		const struct mc_json *one = mc_json_at(list, i);
		printf("  ");
		print_plain(stdout, member_text(one, "name"));
		printf(": A %s, B %s\n", member_text(one, "a"), member_text(one, "b"));
	}
	print_more(list, shown);
}

static void print_diff(const struct mc_json *document, int64_t limit)
{
	const struct mc_json *largest = mc_json_get(document, "largest");
	char text[32];

	print_side("A", mc_json_get(document, "a"));
	print_side("B", mc_json_get(document, "b"));
	print_differences(mc_json_get(document, "differences"));
	printf("\nlargest difference");
	for (int d = 0; d < MC_DRIFT_COUNT; d++)
		printf("%s %s %s", d > 0 ? "," : ":", mc_drift_name((enum mc_drift)d),
		    number_text(largest, mc_drift_name((enum mc_drift)d), text));
	putchar('\n');
	print_cells(mc_json_get(document, "layers"), false, limit);
	print_cells(mc_json_get(document, "experts"), true, limit);
	print_coverage_rows(mc_json_get(document, "coverage"), limit);
	print_pairs(mc_json_get(document, "inputs"), "inputs: difference, absmax in A, in B",
	    "absmax_a", "absmax_b", limit);
	print_pairs(mc_json_get(document, "scales"),
	    "scales: largest difference, mean difference, elements that differ", "mean", "differ",
	    limit);
	print_pairs(mc_json_get(document, "errors"), "error: difference, error_relative in A, in B",
	    "error_a", "error_b", limit);
	print_unlike(mc_json_get(document, "unlike"), limit);
	print_only(mc_json_get(document, "only_a"), "A", limit);
	print_only(mc_json_get(document, "only_b"), "B", limit);
	if (!mc_json_is_null(mc_json_get(document, "threshold")))
		printf("\n%s the threshold of %.4g\n",
		    member_bool(document, "within") ? "within" : "OVER",
		    member_number(document, "threshold"));
}

/* --- the command ------------------------------------------------------------------------------ */

static int read_threshold(const char *command, const char *text, double *ret)
{
	char *end;

	*ret = -1;
	if (text == NULL)
		return EXIT_DONE;
	errno = 0;
	*ret = strtod(text, &end);
	if (text[0] == '\0' || *end != '\0' || errno != 0 || !isfinite(*ret) || *ret < 0)
		return usage_error(command, "--threshold needs a number from 0 on, not '%s'", text);
	return EXIT_DONE;
}

int command_diff(int argc, char **argv)
{
	const char *operands[2], *threshold_text = NULL;
	int64_t limit = 8;
	bool json = false, within = true;
	const struct option_row table[] = {{"--json", OPTION_FLAG, &json, 0, 0},
	    {"--threshold", OPTION_TEXT, &threshold_text, 0, 0},
	    {"--limit", OPTION_INTEGER, &limit, 0, INT64_MAX}, {0}};
	struct session session = {.quiet = true};
	struct mc_json *document = NULL;
	struct mc_error err;
	double threshold;
	size_t count;

	int code = options_read(table, argc, argv, operands, 2, &count);
	if (code == EXIT_DONE && count < 2)
		code = usage_error(argv[0], "two job folders are needed");
	if (code == EXIT_DONE)
		code = read_threshold(argv[0], threshold_text, &threshold);
	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	bool ok = session_open(&session, 1, 0, &err);
	if (ok) {
		ok = mc_diff(
		    operands[0], operands[1], threshold, &session.env, &document, &within, &err);
		session_close(&session);
	}
	ok = ok && (!json || print_json(document, &err));
	if (ok && !json)
		print_diff(document, limit);
	mc_json_free(document);
	/* 1 is the answer that they differ: a folder that cannot be read is none */
	if (!ok && err.code == MC_CORRUPT)
		err.code = MC_INVALID;
	if (!ok)
		return report_error(&err, json, false);
	return within ? EXIT_DONE : EXIT_JOB_FAILED;
}
