/*
 * output.c - numbers, tables and errors for people, JSON for programs
 */
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/root.h"

#include <unistd.h>

const char *count_text(double count, char text[32])
{
	static const char units[] = " kMGTPE";
	size_t unit = 0;

	while (count >= 1000 && units[unit + 1] != '\0') {
		count /= 1000;
		unit++;
	}
	if (unit == 0)
		snprintf(text, 32, "%.0f", count);
	else
		snprintf(text, 32, "%.*f %c", count < 10 ? 2 : 1, count, units[unit]);
	return text;
}

const char *bytes_text(uint64_t bytes, char text[32])
{
	static const char *const units[] = {"B", "kB", "MB", "GB", "TB", "PB"};
	double value = (double)bytes;
	size_t unit = 0;

	while (value >= 1000 && unit + 1 < sizeof units / sizeof *units) {
		value /= 1000;
		unit++;
	}
	snprintf(text, 32, unit == 0 ? "%.0f %s" : "%.1f %s", value, units[unit]);
	return text;
}

const char *seconds_text(double seconds, char text[32])
{
	if (seconds < 60)
		snprintf(text, 32, "%.1f s", seconds);
	else if (seconds < 3600)
		snprintf(text, 32, "%d:%02d", (int)seconds / 60, (int)seconds % 60);
	else
		snprintf(text, 32, "%d:%02d:%02d", (int)(seconds / 3600), (int)seconds / 60 % 60,
		    (int)seconds % 60);
	return text;
}

void print_json_line(const struct mc_json *value)
{
	struct mc_error err;
	struct mc_buf text;

	mc_error_init(&err);
	mc_buf_init(&text, (size_t)64 << 20);
	if (mc_json_write(value, MC_JSON_COMPACT, &text, &err))
		puts(mc_buf_text(&text));
	fflush(stdout);
	mc_buf_release(&text);
}

bool output_is_written(void)
{
	struct pollfd out = {.fd = STDOUT_FILENO};

	if (fflush(stdout) == 0 && !ferror(stdout))
		return true;
	/* who closed the other end of a pipe has read enough */
	return poll(&out, 1, 0) == 1 && (out.revents & POLLERR) != 0;
}

bool print_json(const struct mc_json *value, struct mc_error *err)
{
	struct mc_buf text;
	mc_buf_init(&text, (size_t)4 << 30);
	bool ok = mc_json_write(value, MC_JSON_PRETTY, &text, err);
	if (ok) {
		fwrite(text.data, 1, text.length, stdout);
		ok = output_is_written() ||
		     mc_fail(err, MC_IO, "standard output", "cannot be written");
	}
	mc_buf_release(&text);
	return ok;
}

/* --- text and documents that others wrote ---------------------------------------------------- */

void print_plain(FILE *out, const char *text)
{
	for (const unsigned char *p = (const unsigned char *)text; *p != '\0'; p++) {
		/* U+0080 to U+009F are control characters too */
		bool high = p[0] == 0xc2 && p[1] >= 0x80 && p[1] <= 0x9f;
		p += high;
		putc(high || *p < ' ' || *p == 0x7f ? '?' : *p, out);
	}
}

int text_width(const char *text)
{
	int width = 0;

	/* bytes that go on with a character are 10xxxxxx */
	for (; *text != '\0' && width < 4096; text++)
		width += (*text & 0xc0) != 0x80;
	return width;
}

void print_cell(const char *text, int width)
{
	int length = text_width(text);

	print_plain(stdout, text);
	printf("%*s", length < width ? width - length : 0, "");
}

int column_width(const struct mc_json *list, const char *key, int least)
{
	int width = least;

	for (size_t i = 0; i < mc_json_size(list); i++) {
		int own = text_width(member_text(mc_json_at(list, i), key));
		width = own > width ? own : width;
	}
	return width;
}

static const struct mc_json *member_of_type(
    const struct mc_json *object, const char *key, enum mc_json_type type)
{
	const struct mc_json *value = mc_json_get(object, key);
	return value != NULL && mc_json_type(value) == type ? value : NULL;
}

const char *member_text(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = member_of_type(object, key, MC_JSON_STRING);
	return value != NULL ? mc_json_string(value, NULL) : "";
}

int64_t member_integer(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = member_of_type(object, key, MC_JSON_INTEGER);
	return value != NULL ? mc_json_integer(value) : 0;
}

double member_number(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = member_of_type(object, key, MC_JSON_REAL);
	return value != NULL ? mc_json_number(value) : (double)member_integer(object, key);
}

bool member_bool(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = member_of_type(object, key, MC_JSON_BOOL);
	return value != NULL && mc_json_bool(value);
}

struct mc_json *read_json_file(const char *folder, const char *name, struct mc_error *err)
{
	struct mc_buf text;
	struct mc_json *json = NULL;
	int fd = -1;
	char *path = mc_format(err, "%s/%s", folder, name);

	mc_buf_init(&text, (size_t)1 << 30);
	if (path != NULL && mc_root_open(NULL, path, &fd, err) &&
	    mc_file_read_all(fd, path, &text, err))
		json = mc_json_parse(mc_buf_text(&text), text.length, path, err);
	if (fd >= 0)
		close(fd);
	mc_buf_release(&text);
	free(path);
	return json;
}

/* --- errors ----------------------------------------------------------------------------------- */

static int error_exit_code(const struct mc_error *err, bool begun)
{
	switch (err->code) {
	case MC_CANCELED:
		return session_signal() == SIGTERM ? EXIT_REQUEUE : EXIT_INTERRUPTED;
	case MC_INVALID:
	case MC_NOT_FOUND:
	case MC_CONFLICT:
	case MC_UNSUPPORTED:
		return begun ? EXIT_JOB_FAILED : EXIT_USAGE;
	case MC_OK:
	case MC_CORRUPT:
	case MC_NO_MEMORY:
	case MC_NO_SPACE:
	case MC_IO:
	case MC_INTERNAL:
		break;
	}
	return EXIT_JOB_FAILED;
}

void report_failure(
    const char *code, const char *where, const char *text, int exit_code, bool json)
{
	if (json) {
		struct mc_error e;
		struct mc_json *event = mc_json_new_object();
		mc_error_init(&e);
		if (mc_json_set(event, "event", mc_json_new_string("failed"), &e) &&
		    mc_json_set(event, "code", mc_json_new_string(code), &e) &&
		    mc_json_set(event, "where", mc_json_new_string(where), &e) &&
		    mc_json_set(event, "text", mc_json_new_string(text), &e) &&
		    mc_json_set(event, "exit", mc_json_new_integer(exit_code), &e))
			print_json_line(event);
		mc_json_free(event);
	}
	fprintf(stderr, "moecal: ");
	print_plain(stderr, where);
	fprintf(stderr, "%s", where[0] != '\0' ? ": " : "");
	print_plain(stderr, text);
	putc('\n', stderr);
}

int report_error(const struct mc_error *err, bool json, bool begun)
{
	int code = error_exit_code(err, begun);

	report_failure(mc_code_name(err->code), err->where, err->text, code, json);
	return code;
}

int report_problems(const struct mc_problems *problems, bool json)
{
	struct mc_error err;

	mc_error_init(&err);
	if (json) {
		struct mc_json *event = mc_json_new_object(), *list = mc_json_new_array();
		bool ok = mc_json_set(event, "event", mc_json_new_string("refused"), &err) &&
			  mc_json_set(event, "errors", list, &err);
		for (size_t i = 0; ok && i < problems->count; i++) {
			struct mc_json *one = mc_json_new_object();
			ok = mc_json_append(list, one, &err) &&
			     mc_json_set(one, "pointer",
				 mc_json_new_string(problems->items[i].pointer), &err) &&
			     mc_json_set(
				 one, "detail", mc_json_new_string(problems->items[i].text), &err);
		}
		if (ok)
			print_json_line(event);
		mc_json_free(event);
	}
	fprintf(stderr, "moecal: the spec has %zu error%s\n", problems->total,
	    problems->total == 1 ? "" : "s");
	for (size_t i = 0; i < problems->count; i++)
		fprintf(stderr, "  %s: %s\n",
		    problems->items[i].pointer[0] != '\0' ? problems->items[i].pointer : "/",
		    problems->items[i].text);
	return EXIT_USAGE;
}

/* --- tables ----------------------------------------------------------------------------------- */

static void print_starved(const struct mc_json *layer, char *text, size_t size)
{
	const struct mc_json *starved = mc_json_get(layer, "starved"),
			     *experts = mc_json_get(layer, "experts");
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < mc_json_size(starved) && used + 24 < size; i++) {
		const struct mc_json *index = mc_json_at(starved, i);
		int64_t e = mc_json_type(index) == MC_JSON_INTEGER ? mc_json_integer(index) : -1;
		const struct mc_json *expert = mc_json_at(experts, (size_t)e);
		used += (size_t)snprintf(text + used, size - used, "%s%lld (%lld)",
		    i > 0 ? ", " : "", (long long)e, (long long)member_integer(expert, "routed"));
		if (i == 11 && mc_json_size(starved) > 12) {
			snprintf(
			    text + used, size - used, " and %zu more", mc_json_size(starved) - 12);
			return;
		}
	}
}

void print_coverage(const struct mc_json *coverage, bool every_layer)
{
	const struct mc_json *layers = mc_json_get(coverage, "layers");
	size_t count = mc_json_size(layers), shown = 0;

	if (count == 0) {
		printf("coverage: no text was seen\n");
		return;
	}
	printf("coverage: tokens that the router sends to an expert; below %lld it counts as "
	       "starved\n",
	    (long long)member_integer(coverage, "floor_tokens"));
	printf("  %5s %9s %8s %8s %8s %6s  %s\n", "layer", "tokens", "poorest", "median", "richest",
	    "gini", "starved experts (tokens)");
	for (size_t i = 0; i < count; i++) {
		const struct mc_json *layer = mc_json_at(layers, i);
		char starved[400];
		print_starved(layer, starved, sizeof starved);
		if (!every_layer && count > 16 && starved[0] == '\0')
			continue;
		shown++;
		printf("  %5lld %9lld %8lld %8lld %8lld %6.3f  %s\n",
		    (long long)member_integer(layer, "index"), (long long)member_integer(layer, "tokens"),
		    (long long)member_integer(layer, "min"), (long long)member_integer(layer, "median"),
		    (long long)member_integer(layer, "max"), member_number(layer, "gini"),
		    starved[0] != '\0' ? starved : "-");
	}
	if (shown < count)
		printf("  %zu layers without a starved expert are not shown (--all shows them)\n",
		    count - shown);
	printf("  starved by routing alone: %lld experts\n",
	    (long long)member_integer(coverage, "starved_total"));
}

void print_verdict(const struct mc_json *verdict)
{
	const struct mc_json *checks = mc_json_get(verdict, "checks");

	printf("verdict: %s\n", member_bool(verdict, "valid") ? "valid" : "NOT VALID");
	for (size_t i = 0; i < mc_json_size(checks); i++) {
		const struct mc_json *check = mc_json_at(checks, i),
				     *examples = mc_json_get(check, "examples");
		printf("  ");
		print_cell(member_text(check, "name"), 26);
		printf(" %-6s %9lld checked", member_bool(check, "passed") ? "passed" : "FAILED",
		    (long long)member_integer(check, "counted"));
		if (member_integer(check, "failed") > 0)
			printf(", %lld failed", (long long)member_integer(check, "failed"));
		printf("\n");
		for (size_t j = 0; j < mc_json_size(examples); j++)
			if (mc_json_type(mc_json_at(examples, j)) == MC_JSON_STRING) {
				printf("      ");
				print_plain(stdout, mc_json_string(mc_json_at(examples, j), NULL));
				putchar('\n');
			}
	}
}
