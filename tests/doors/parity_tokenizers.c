/*
 * parity_tokenizers.c - token ids against the reference library's, kind by kind
 *
 * usage: parity_tokenizers [--only KIND,...] [--require KIND,...] DIR
 *
 * DIR is a folder of kinds, or one kind: tokenizer.json, tokenizer_config.json and the cases
 *   cases.jsonl             the pipeline of tokenizer.json alone
 *   cases.no_special.jsonl  special added tokens are ordinary text
 *   auto.v4.jsonl           the flags of tokenizer_config.json obeyed, where they decide
 * one {"text", "ids", "add_special_tokens"} a line; the ids must be identical. Each folder of
 * DIR/unsupported holds a file that must be refused with a message that has the "component" of its
 * expect.json. A kind whose parts are not there yet (UNSUPPORTED, or no tokenizer.json) is listed
 * as "not yet", unless --only or --require names it. Exit: 0 all pass, 1 one does not, 2 nothing to
 * run.
 */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/json.h"
#include "moecal/root.h"
#include "moecal/tokenizer.h"

#define LARGEST_FILE ((size_t)256 << 20)

struct options {
	const char *only, *require, *folder;
};

struct tally {
	size_t cases, passed;
	char first[512]; /* the first difference */
};

enum outcome { PASSED, FAILED, NOT_YET };

/* --- files ------------------------------------------------------------------------------------ */

#define LONGEST_PATH 4096

/* "" when it is too long, which no file is called. */
static void join(char path[LONGEST_PATH], const char *folder, const char *name)
{
	if ((size_t)snprintf(path, LONGEST_PATH, "%s/%s", folder, name) >= LONGEST_PATH)
		path[0] = '\0';
}

static bool exists(const char *folder, const char *name)
{
	char path[LONGEST_PATH];
	struct stat st;

	join(path, folder, name);
	return stat(path, &st) == 0;
}

static bool read_file(
    const char *folder, const char *name, struct mc_buf *text, struct mc_error *err)
{
	char path[LONGEST_PATH];
	int fd = -1;
	bool ok;

	mc_buf_init(text, LARGEST_FILE);
	join(path, folder, name);
	ok = mc_root_open(NULL, path, &fd, err) && mc_file_read_all(fd, path, text, err);
	mc_close(fd);
	return ok;
}

static struct mc_tokenizer *open_tokenizer(const char *folder, struct mc_error *err)
{
	struct mc_buf json, config;
	struct mc_tokenizer *tokenizer = NULL;
	bool has_config = exists(folder, "tokenizer_config.json");

	mc_buf_init(&config, 0);
	if (read_file(folder, "tokenizer.json", &json, err) &&
	    (!has_config || read_file(folder, "tokenizer_config.json", &config, err)))
		tokenizer = mc_tokenizer_new(mc_buf_text(&json), json.length,
		    has_config ? mc_buf_text(&config) : NULL, config.length, err);
	mc_buf_release(&json);
	mc_buf_release(&config);
	return tokenizer;
}

/* Is the name an item of the list "a,b,c"? */
static bool is_listed(const char *list, const char *name)
{
	size_t length = strlen(name);

	while (list && *list) {
		size_t item = strcspn(list, ",");

		if (item == length && memcmp(list, name, length) == 0)
			return true;
		list += item + (list[item] == ',');
	}
	return false;
}

/* --- cases ------------------------------------------------------------------------------------ */

static void note(struct tally *tally, const char *file, size_t line, const char *what)
{
	if (tally->first[0] == '\0')
		snprintf(tally->first, sizeof(tally->first), "%.64s:%zu: %.400s", file, line, what);
}

static void compare(struct tally *tally, const char *file, size_t line, const struct mc_ids *got,
    const struct mc_json *expected)
{
	char what[256];
	size_t count = mc_json_size(expected), i = 0;

	while (i < count && i < got->count &&
	       mc_json_integer(mc_json_at(expected, i)) == (int64_t)got->ids[i])
		i++;
	if (i == count && i == got->count) {
		tally->passed++;
		return;
	}
	snprintf(what, sizeof(what), "id %zu of %zu is %lld, expected %lld of %zu", i, got->count,
	    i < got->count ? (long long)got->ids[i] : -1LL,
	    i < count ? (long long)mc_json_integer(mc_json_at(expected, i)) : -1LL, count);
	note(tally, file, line, what);
}

static bool is_case(const struct mc_json *json)
{
	const struct mc_json *ids = mc_json_get(json, "ids");

	for (size_t i = 0; i < mc_json_size(ids); i++) {
		if (mc_json_type(mc_json_at(ids, i)) != MC_JSON_INTEGER)
			return false;
	}
	return mc_json_type(ids) == MC_JSON_ARRAY &&
	       mc_json_type(mc_json_get(json, "text")) == MC_JSON_STRING &&
	       mc_json_type(mc_json_get(json, "add_special_tokens")) == MC_JSON_BOOL;
}

static void run_case(struct mc_tokenizer *tokenizer, const struct mc_json *json, const char *file,
    size_t line, enum mc_add_special yes, bool match_special, struct tally *tally)
{
	struct mc_ids ids = {0};
	struct mc_error err;
	const char *text;
	size_t length;

	mc_error_init(&err);
	text = mc_json_string(mc_json_get(json, "text"), &length);
	bool add = mc_json_bool(mc_json_get(json, "add_special_tokens"));
	if (mc_tokenizer_encode(
		tokenizer, text, length, add ? yes : MC_ADD_SPECIAL_NO, match_special, &ids, &err))
		compare(tally, file, line, &ids, mc_json_get(json, "ids"));
	else
		note(tally, file, line, err.text);
	mc_ids_release(&ids);
}

static void run_file(struct mc_tokenizer *tokenizer, const char *folder, const char *file,
    enum mc_add_special yes, bool match_special, struct tally *tally)
{
	struct mc_buf text;
	struct mc_error err;
	size_t line = 0, length;

	mc_error_init(&err);
	if (!read_file(folder, file, &text, &err)) {
		tally->cases++;
		note(tally, file, 0, err.text);
	}
	for (const char *p = mc_buf_text(&text), *end = p + text.length; p < end; p += length + 1) {
		const char *stop = memchr(p, '\n', (size_t)(end - p));

		length = (size_t)((stop ? stop : end) - p);
		line++;
		if (length == 0)
			continue;
		struct mc_json *json = mc_json_parse(p, length, file, &err);
		tally->cases++;
		if (is_case(json))
			run_case(tokenizer, json, file, line, yes, match_special, tally);
		else
			note(tally, file, line, "is no case");
		mc_json_free(json);
	}
	mc_buf_release(&text);
}

static enum outcome run_kind(const char *folder, const char *kind, bool required)
{
	struct tally tally = {0};
	struct mc_error err;
	struct mc_tokenizer *tokenizer = NULL;
	bool there = exists(folder, "tokenizer.json");

	mc_error_init(&err);
	if (there)
		tokenizer = open_tokenizer(folder, &err);
	if (!tokenizer) {
		bool bad = required || (there && err.code != MC_UNSUPPORTED);

		printf("%-24s %6s %6s  %s %s\n", kind, "-", "-", bad ? "FAILED:" : "not yet:",
		    there ? err.text : "no tokenizer.json, rank files are not read");
		return bad ? FAILED : NOT_YET;
	}
	run_file(tokenizer, folder, "cases.jsonl", MC_ADD_SPECIAL_YES, true, &tally);
	if (exists(folder, "cases.no_special.jsonl"))
		run_file(
		    tokenizer, folder, "cases.no_special.jsonl", MC_ADD_SPECIAL_YES, false, &tally);
	if (exists(folder, "auto.v4.jsonl"))
		run_file(tokenizer, folder, "auto.v4.jsonl", MC_ADD_SPECIAL_AUTO, true, &tally);
	mc_tokenizer_free(tokenizer);
	if (tally.cases == 0)
		snprintf(tally.first, sizeof(tally.first), "there are no cases");
	printf("%-24s %6zu %6zu  %s\n", kind, tally.cases, tally.passed, tally.first);
	return tally.passed == tally.cases && tally.cases > 0 ? PASSED : FAILED;
}

/* --- files that must be refused --------------------------------------------------------------- */

static enum outcome run_refusal(const char *folder, const char *kind)
{
	struct mc_error err, ignored;
	struct mc_buf text;
	struct mc_json *expect = NULL;
	const char *component = "", *verdict = NULL;

	mc_error_init(&err);
	mc_error_init(&ignored);
	if (read_file(folder, "expect.json", &text, &ignored))
		expect = mc_json_parse(mc_buf_text(&text), text.length, "expect.json", &ignored);
	if (mc_json_type(mc_json_get(expect, "component")) == MC_JSON_STRING)
		component = mc_json_string(mc_json_get(expect, "component"), NULL);
	struct mc_tokenizer *tokenizer = open_tokenizer(folder, &err);
	if (*component == '\0')
		verdict = "expect.json names no component";
	else if (tokenizer)
		verdict = "was not refused";
	else if (!strstr(err.text, component))
		verdict = "the message does not name the component";
	printf("unsupported/%-28s %s%s%s\n", kind,
	    verdict ? "FAILED: " : "refused: ", verdict ? verdict : err.text,
	    verdict && !tokenizer ? err.text : "");
	mc_tokenizer_free(tokenizer);
	mc_json_free(expect);
	mc_buf_release(&text);
	return verdict ? FAILED : PASSED;
}

/* --- folders ---------------------------------------------------------------------------------- */

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int visible(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

struct counts {
	size_t passed, failed, not_yet;
};

static void count(struct counts *counts, enum outcome outcome)
{
	counts->passed += outcome == PASSED;
	counts->failed += outcome == FAILED;
	counts->not_yet += outcome == NOT_YET;
}

static bool is_kind(const char *folder)
{
	return exists(folder, "cases.jsonl");
}

static bool run_folder(
    const struct options *options, const char *folder, bool refusals, struct counts *counts)
{
	struct dirent **entries = NULL;
	char path[LONGEST_PATH];
	int n = scandir(folder, &entries, visible, by_name);

	if (n < 0)
		return false;
	for (int i = 0; i < n; i++) {
		const char *name = entries[i]->d_name;
		bool named = is_listed(options->only, name) || is_listed(options->require, name);

		join(path, folder, name);
		if (refusals && exists(path, "expect.json")) {
			count(counts, run_refusal(path, name));
		} else if (!refusals && is_kind(path) &&
			   (!options->only || is_listed(options->only, name))) {
			count(counts, run_kind(path, name, named));
		}
		free(entries[i]);
	}
	free(entries);
	join(path, folder, "unsupported");
	if (!refusals && !options->only && exists(folder, "unsupported"))
		return run_folder(options, path, true, counts);
	return true;
}

/* Names in a list that no folder has. */
static size_t count_missing(const char *list, const char *folder)
{
	char path[LONGEST_PATH], name[256];
	size_t missing = 0;

	while (list && *list) {
		size_t item = strcspn(list, ",");

		snprintf(name, sizeof(name), "%.*s", (int)(item < 255 ? item : 255), list);
		join(path, folder, name);
		if (item > 0 && !is_kind(path)) {
			printf("%.*s: FAILED: no such kind\n", (int)item, list);
			missing++;
		}
		list += item + (list[item] == ',');
	}
	return missing;
}

int main(int argc, char **argv)
{
	struct options options = {0};
	struct counts counts = {0};

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--only") == 0 && i + 1 < argc) {
			options.only = argv[++i];
		} else if (strcmp(argv[i], "--require") == 0 && i + 1 < argc) {
			options.require = argv[++i];
		} else if (argv[i][0] == '-' || options.folder) {
			fprintf(stderr, "parity_tokenizers: unexpected '%s'\n", argv[i]);
			return 2;
		} else {
			options.folder = argv[i];
		}
	}
	if (!options.folder) {
		fprintf(stderr, "usage: %s [--only KIND,...] [--require KIND,...] DIR\n", argv[0]);
		return 2;
	}
	printf("%-24s %6s %6s  %s\n", "kind", "cases", "passed", "first difference");
	if (is_kind(options.folder)) {
		count(&counts, run_kind(options.folder, options.folder, true));
	} else if (!run_folder(&options, options.folder, false, &counts)) {
		fprintf(
		    stderr, "parity_tokenizers: %s cannot be read as a folder\n", options.folder);
		return 2;
	} else {
		counts.failed += count_missing(options.only, options.folder) +
				 count_missing(options.require, options.folder);
	}
	printf(
	    "%zu passed, %zu failed, %zu not yet\n", counts.passed, counts.failed, counts.not_yet);
	if (counts.passed + counts.failed == 0) {
		fprintf(stderr, "parity_tokenizers: nothing to run in %s\n", options.folder);
		return 2;
	}
	return counts.failed == 0 ? 0 : 1;
}
