/*
 * test_safetensors.c - the cases of tests/cases/safetensors/, then reading on demand
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "moecal/safetensors.h"

#define CASES "tests/cases/safetensors"

/* --- cases ----------------------------------------------------------------------------------- */

struct bytes {
	unsigned char *data;
	size_t length;
	size_t capacity;
};

static void append(struct bytes *bytes, const void *data, size_t length)
{
	if (bytes->length + length > bytes->capacity) {
		bytes->capacity = 2 * (bytes->length + length);
		bytes->data = realloc(bytes->data, bytes->capacity);
		assert_non_null(bytes->data);
	}
	if (length > 0)
		memcpy(bytes->data + bytes->length, data, length);
	bytes->length += length;
}

static void append_length(struct bytes *bytes, uint64_t length)
{
	for (int i = 0; i < 8; i++) {
		unsigned char byte = (unsigned char)(length >> (8 * i));

		append(bytes, &byte, 1);
	}
}

static void append_hex(struct bytes *bytes, const char *text)
{
	char *end;

	for (;; text = end) {
		unsigned char byte = (unsigned char)strtoul(text, &end, 16);

		if (end == text)
			break;
		append(bytes, &byte, 1);
	}
}

/* One line of a recipe; *auto_at is where a `length auto` stands, or -1. */
static void follow_line(struct bytes *bytes, const char *line, long *auto_at)
{
	const char *rest = strchr(line, ' ');

	rest = rest ? rest + 1 : "";
	if (line[0] == '#' || line[0] == '\0') {
		return;
	} else if (strcmp(line, "length auto") == 0) {
		*auto_at = (long)bytes->length;
		append_length(bytes, 0);
	} else if (strncmp(line, "length ", 7) == 0) {
		append_length(bytes, strtoull(rest, NULL, 10));
	} else if (strncmp(line, "text ", 5) == 0) {
		append(bytes, rest, strlen(rest));
	} else if (strncmp(line, "hex ", 4) == 0) {
		append_hex(bytes, rest);
	} else if (strncmp(line, "spaces ", 7) == 0) {
		for (long n = strtol(rest, NULL, 10); n > 0; n--)
			append(bytes, " ", 1);
	} else if (strncmp(line, "repeat ", 7) == 0) {
		char *text;

		for (long n = strtol(rest, &text, 10); n > 0; n--)
			append(bytes, text + 1, strlen(text + 1));
	} else {
		fail_msg("no such line in a recipe: %s", line);
	}
}

static void settle_length(struct bytes *bytes, long *auto_at)
{
	struct bytes length = {0};

	if (*auto_at < 0)
		return;
	append_length(&length, bytes->length - (size_t)*auto_at - 8);
	memcpy(bytes->data + *auto_at, length.data, 8);
	free(length.data);
	*auto_at = -1;
}

static char *read_line(FILE *file)
{
	char *line = NULL;
	size_t size = 0;
	ssize_t length = getline(&line, &size, file);

	if (length < 0) {
		free(line);
		return NULL;
	}
	if (length > 0 && line[length - 1] == '\n')
		line[length - 1] = '\0';
	return line;
}

static FILE *open_case(const char *name, const char *which)
{
	char path[512];
	FILE *file;

	snprintf(path, sizeof(path), CASES "/%s/%s", name, which);
	file = fopen(path, "r");
	if (!file)
		fail_msg("cannot open %s", path);
	return file;
}

static struct bytes make_file(const char *name)
{
	FILE *recipe = open_case(name, "recipe");
	struct bytes bytes = {0};
	long auto_at = -1;
	char *line;

	while ((line = read_line(recipe))) {
		if (strncmp(line, "data ", 5) == 0) {
			settle_length(&bytes, &auto_at);
			for (long i = 0; i < strtol(line + 5, NULL, 10); i++)
				append(&bytes, &(unsigned char){(unsigned char)i}, 1);
		} else {
			follow_line(&bytes, line, &auto_at);
		}
		free(line);
	}
	settle_length(&bytes, &auto_at);
	fclose(recipe);
	return bytes;
}

static int make_memfd(const void *data, size_t length)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	if (length > 0)
		assert_int_equal(pwrite(fd, data, length, 0), (ssize_t)length);
	return fd;
}

/* What a reader got out of the file, in the words of `expect`. */
static char *describe(const struct mc_st_file *file, uint64_t data_begin)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	struct mc_json_iter item = mc_json_iter(file->metadata);

	assert_non_null(out);
	fprintf(out, "ok\n");
	for (size_t i = 0; i < file->count; i++) {
		const struct mc_st_entry *entry = &file->entries[i];
		char shape[200];

		fprintf(out, "%s %s %llu %llu %s\n", mc_dtype_name(entry->dtype),
		    mc_shape_text(entry->rank, entry->shape, shape, sizeof(shape)),
		    (unsigned long long)(entry->offset - data_begin),
		    (unsigned long long)entry->bytes, entry->name);
	}
	while (mc_json_next(&item))
		fprintf(out, "%s=%s\n", item.key, mc_json_string(item.value, NULL));
	fclose(out);
	return text;
}

/* Every tensor must be found by its name, and its bytes be those at its place. */
static void check_access(const struct mc_st_file *file, const struct bytes *bytes)
{
	struct mc_error err;

	mc_error_init(&err);
	for (size_t i = 0; i < file->count; i++) {
		const struct mc_st_entry *entry = &file->entries[i];
		unsigned char *got = malloc(entry->bytes + 1);

		assert_ptr_equal(mc_st_find(file, entry->name), entry);
		assert_true(mc_st_read(file, entry, 0, entry->bytes, got, &err));
		assert_memory_equal(got, bytes->data + entry->offset, entry->bytes);
		free(got);
	}
	assert_null(mc_st_find(file, "no such tensor"));
}

static void compare_ok(const char *name, const struct mc_st_file *file, const struct bytes *bytes)
{
	FILE *expect = open_case(name, "expect");
	uint64_t length = 0;
	char wanted[8192];
	size_t wanted_length = fread(wanted, 1, sizeof(wanted) - 1, expect);
	char *got;

	fclose(expect);
	wanted[wanted_length] = '\0';
	for (int i = 0; i < 8; i++)
		length |= (uint64_t)bytes->data[i] << (8 * i);
	got = describe(file, 8 + length);
	if (strcmp(got, wanted) != 0)
		fail_msg("case %s: got\n%sexpected\n%s", name, got, wanted);
	free(got);
	check_access(file, bytes);
}

static void compare_error(const char *name, const struct mc_error *err)
{
	FILE *expect = open_case(name, "expect");
	char *line = read_line(expect);

	if (!line || strcmp(line, mc_code_name(err->code)) != 0)
		fail_msg("case %s: expected %s, got %s: %s", name, line ? line : "(nothing)",
		    mc_code_name(err->code), err->text);
	assert_string_equal(err->where, name);
	for (free(line); (line = read_line(expect)); free(line)) {
		if (!strstr(err->text, line))
			fail_msg("case %s: the error\n%s\ndoes not say\n%s", name, err->text, line);
	}
	fclose(expect);
}

static void run_case(const char *name)
{
	struct bytes bytes = make_file(name);
	struct mc_st_file file;
	struct mc_error err;

	mc_error_init(&err);
	if (mc_st_open_fd(&file, make_memfd(bytes.data, bytes.length), name, &err)) {
		assert_int_equal(file.size, bytes.length);
		compare_ok(name, &file, &bytes);
	} else {
		compare_error(name, &err);
	}
	mc_st_close(&file); /* also after a failure */
	free(bytes.data);
}

static int is_case(const struct dirent *item)
{
	return item->d_name[0] != '.' && item->d_type != DT_REG;
}

static void test_cases(void **state)
{
	struct dirent **items;
	int count = scandir(CASES, &items, is_case, alphasort);

	(void)state;
	assert_true(count > 100); /* else we are not in the repository's root */
	for (int i = 0; i < count; i++) {
		run_case(items[i]->d_name);
		free(items[i]);
	}
	free(items);
}

/* Cutting or lengthening a good file anywhere must be noticed, and must not crash. */
static void test_every_cut_is_refused(void **state)
{
	struct bytes bytes = make_file("ok-every-dtype");

	(void)state;
	append(&bytes, "x", 1);
	for (size_t length = 0; length <= bytes.length; length++) {
		struct mc_st_file file;
		struct mc_error err;
		bool opened;

		mc_error_init(&err);
		opened = mc_st_open_fd(&file, make_memfd(bytes.data, length), "cut", &err);
		assert_int_equal(opened, length == bytes.length - 1);
		if (!opened)
			assert_int_equal(err.code, MC_CORRUPT);
		mc_st_close(&file);
	}
	free(bytes.data);
}

static void test_read_parts_and_shrunk_file(void **state)
{
	struct bytes bytes = make_file("ok-order-by-offset");
	int fd = make_memfd(bytes.data, bytes.length);
	int other = dup(fd);
	const struct mc_st_entry *entry;
	struct mc_st_file file;
	struct mc_error err;
	unsigned char got[12];

	(void)state;
	mc_error_init(&err);
	assert_true(mc_st_open_fd(&file, fd, "parts", &err));
	entry = mc_st_find(&file, "z");
	assert_non_null(entry);
	assert_true(mc_st_read(&file, entry, 3, 2, got, &err));
	assert_int_equal(got[0], 7); /* data counts from 0; z begins at 4 */
	assert_int_equal(got[1], 8);
	assert_true(mc_st_read(&file, entry, 12, 0, got, &err));
	assert_int_equal(ftruncate(other, (off_t)bytes.length - 1), 0);
	assert_true(mc_st_read(&file, entry, 0, 11, got, &err));
	assert_false(mc_st_read(&file, entry, 0, 12, got, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.where, "parts");
	mc_st_close(&file);
	close(other);
	free(bytes.data);
}

static void test_shown_names(void **state)
{
	char text[MC_ST_SHOWN];
	char name[400];

	(void)state;
	assert_string_equal(mc_st_shown("model.a", text), "model.a");
	assert_string_equal(mc_st_shown("a\nb\x7F", text), "a?b?");
	assert_string_equal(mc_st_shown("", text), "");
	memset(name, 'x', sizeof(name));
	name[MC_ST_SHOWN - 1] = '\0';
	assert_string_equal(mc_st_shown(name, text), name); /* just fits */
	for (size_t shift = 0; shift < 3; shift++) {
		/* three-byte characters, cut at each of their bytes: only whole ones may stay */
		memset(name, 'x', shift);
		for (size_t i = shift; i + 3 < sizeof(name); i += 3)
			memcpy(name + i, "\xE4\xB8\x93", 4);
		mc_st_shown(name, text);
		assert_int_equal((strlen(text) - shift - 3) % 3, 0);
		assert_string_equal(text + strlen(text) - 3, "...");
		assert_true(strlen(text) > MC_ST_SHOWN - 8);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_cases),
	    cmocka_unit_test(test_every_cut_is_refused),
	    cmocka_unit_test(test_read_parts_and_shrunk_file),
	    cmocka_unit_test(test_shown_names),
	};

	return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
