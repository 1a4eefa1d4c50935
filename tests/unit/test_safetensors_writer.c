/*
 * test_safetensors_writer.c - what is written: order, bytes, and that a failure leaves nothing
 * behind
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "moecal/fault.h"
#include "moecal/safetensors.h"

/* The disk is full from this many written bytes on; LONG_MAX: never. Ours stands before libc's. */
static long space_left = LONG_MAX;

ssize_t write(int fd, const void *bytes, size_t length)
{
	if (space_left == LONG_MAX || fd <= 2)
		return syscall(SYS_write, fd, bytes, length);
	if (space_left == 0 && length > 0) {
		errno = ENOSPC;
		return -1;
	}
	if ((long)length > space_left)
		length = (size_t)space_left;
	space_left -= (long)length;
	return syscall(SYS_write, fd, bytes, length);
}

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/moecal-test-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

/* Also fails when a test left more behind than out.safetensors. */
static int drop_folder(void **state)
{
	char path[128];

	(void)state;
	space_left = LONG_MAX;
	snprintf(path, sizeof(path), "%s/out.safetensors", folder);
	unlink(path);
	return rmdir(folder);
}

static const char *out_path(void)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/out.safetensors", folder);
	return path;
}

static bool exists(const char *suffix)
{
	char path[160];

	snprintf(path, sizeof(path), "%s%s", out_path(), suffix);
	return access(path, F_OK) == 0;
}

static struct mc_st_writer *new_writer(struct mc_error *err)
{
	struct mc_st_writer *writer;

	mc_error_init(err);
	writer = mc_st_writer_new(out_path(), err);
	assert_non_null(writer);
	return writer;
}

static void declare(struct mc_st_writer *writer, const char *name, enum mc_dtype dtype,
    unsigned rank, uint64_t a, uint64_t b)
{
	struct mc_error err;

	mc_error_init(&err);
	assert_true(
	    mc_st_writer_declare(writer, name, dtype, rank, (const uint64_t[]){a, b}, &err));
}

struct bytes {
	unsigned char *data;
	size_t length;
};

static struct bytes slurp(const char *path)
{
	struct bytes bytes = {0};
	FILE *file = fopen(path, "rb");

	assert_non_null(file);
	assert_int_equal(fseek(file, 0, SEEK_END), 0);
	bytes.length = (size_t)ftell(file);
	rewind(file);
	bytes.data = malloc(bytes.length + 1);
	assert_non_null(bytes.data);
	assert_int_equal(fread(bytes.data, 1, bytes.length, file), bytes.length);
	fclose(file);
	return bytes;
}

static void test_writer_order_and_bytes(void **state)
{
	static const char header[] =
	    "{\"__metadata__\":{\"format\":\"pt\"},"
	    "\"i\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]},"
	    "\"f.a\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[8,12]},"
	    "\"f.b\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[12,12]},"
	    "\"w\\\"\\\\é\":{\"dtype\":\"BF16\",\"shape\":[1,3],\"data_offsets\":[12,18]},"
	    "\"e\":{\"dtype\":\"F8_E4M3\",\"shape\":[2],\"data_offsets\":[18,20]},"
	    "\"u\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[20,21]}}";
	static const char *const order[] = {"i", "f.a", "f.b", "w\"\\é", "e", "u"};
	struct mc_error err;
	struct mc_st_writer *writer = new_writer(&err);
	struct bytes bytes;
	unsigned char data[21];
	uint64_t length;

	(void)state;
	for (size_t i = 0; i < sizeof(data); i++)
		data[i] = (unsigned char)(100 + i);
	declare(writer, "u", MC_U8, 1, 1, 0);
	declare(writer, "f.b", MC_F32, 1, 0, 0);
	declare(writer, "f.a", MC_F32, 0, 0, 0);
	declare(writer, "w\"\\é", MC_BF16, 2, 1, 3);
	declare(writer, "e", MC_F8_E4M3, 1, 2, 0);
	declare(writer, "i", MC_I64, 1, 1, 0);
	assert_true(mc_st_writer_begin(writer, &err));
	for (size_t i = 0; i < 6; i++)
		assert_string_equal(mc_st_writer_entry(writer, i)->name, order[i]);
	assert_null(mc_st_writer_entry(writer, 6));
	assert_true(mc_st_writer_data(writer, data, 3, &err)); /* in pieces that match no tensor */
	assert_true(mc_st_writer_data(writer, data + 3, 0, &err));
	assert_true(mc_st_writer_data(writer, data + 3, 18, &err));
	assert_true(exists(".partial"));
	assert_false(exists(""));
	assert_true(mc_st_writer_finish(writer, &err));
	assert_false(exists(".partial"));
	assert_true(exists(""));
	assert_int_equal(
	    mc_st_writer_entry(writer, 3)->offset, mc_st_writer_entry(writer, 0)->offset + 12);
	mc_st_writer_free(writer);
	assert_true(exists(""));

	bytes = slurp(out_path());
	length = bytes.data[0] | (uint64_t)bytes.data[1] << 8;
	for (int i = 2; i < 8; i++)
		assert_int_equal(bytes.data[i], 0);
	assert_int_equal(length % 8, 0);
	assert_true(length < sizeof(header) - 1 + 8);
	assert_memory_equal(bytes.data + 8, header, sizeof(header) - 1);
	for (size_t i = 8 + sizeof(header) - 1; i < 8 + length; i++)
		assert_int_equal(bytes.data[i], ' ');
	assert_int_equal(bytes.length, 8 + length + sizeof(data));
	assert_memory_equal(bytes.data + 8 + length, data, sizeof(data));
	free(bytes.data);
}

/* Many tensors through writer and reader, and every one of them found again. */
static void test_writer_to_reader(void **state)
{
	enum { COUNT = 5000 };
	struct mc_error err;
	struct mc_st_writer *writer = new_writer(&err);
	const struct mc_st_entry *entry;
	struct mc_st_file file;

	(void)state;
	for (unsigned i = 0; i < COUNT; i++) {
		char name[64];

		snprintf(name, sizeof(name), "model.layers.%u.experts.%u.weight", i / 64, i % 64);
		declare(writer, name, i % 3 ? MC_F32 : MC_U8, 1, 1 + i % 5, 0);
	}
	assert_true(mc_st_writer_begin(writer, &err));
	for (size_t i = 0; (entry = mc_st_writer_entry(writer, i)); i++) {
		unsigned char data[20];

		memset(data, entry->name[strlen("model.layers.")], sizeof(data));
		assert_true(mc_st_writer_data(writer, data, entry->bytes, &err));
	}
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);

	assert_true(mc_st_open_fd(&file, open(out_path(), O_RDONLY | O_CLOEXEC), "out", &err));
	assert_int_equal(file.count, COUNT);
	assert_string_equal(mc_json_string(mc_json_get(file.metadata, "format"), NULL), "pt");
	for (unsigned i = 0; i < COUNT; i++) {
		unsigned char data[20];
		char name[64];

		snprintf(name, sizeof(name), "model.layers.%u.experts.%u.weight", i / 64, i % 64);
		entry = mc_st_find(&file, name);
		assert_non_null(entry);
		assert_int_equal(entry->bytes, (i % 3 ? 4 : 1) * (1 + i % 5));
		assert_int_equal(entry->offset % (i % 3 ? 4 : 1), 0);
		assert_true(mc_st_read(&file, entry, 0, entry->bytes, data, &err));
		assert_int_equal(data[entry->bytes - 1], name[strlen("model.layers.")]);
	}
	mc_st_close(&file);
}

static void test_writer_no_tensors(void **state)
{
	struct mc_error err;
	struct mc_st_writer *writer = new_writer(&err);
	struct mc_st_file file;

	(void)state;
	assert_true(mc_st_writer_begin(writer, &err));
	assert_null(mc_st_writer_entry(writer, 0));
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);
	assert_true(mc_st_open_fd(&file, open(out_path(), O_RDONLY | O_CLOEXEC), "out", &err));
	assert_int_equal(file.count, 0);
	mc_st_close(&file);
}

static void refuse(struct mc_st_writer *writer, const char *name, enum mc_dtype dtype,
    unsigned rank, const uint64_t *shape, const char *text)
{
	struct mc_error err;

	mc_error_init(&err);
	assert_false(mc_st_writer_declare(writer, name, dtype, rank, shape, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, out_path());
	if (!strstr(err.text, text))
		fail_msg("'%s' does not say '%s'", err.text, text);
}

static void test_writer_refuses_declarations(void **state)
{
	static const uint64_t ones[9] = {1, 1, 1, 1, 1, 1, 1, 1, 1};
	static const uint64_t wide[2] = {(uint64_t)1 << 32, (uint64_t)1 << 32};
	static const uint64_t signs[2] = {(uint64_t)1 << 63, 0};
	static const uint64_t half[1] = {(uint64_t)1 << 60};
	static const uint64_t three[1] = {3};
	struct mc_error err;
	struct mc_st_writer *writer = new_writer(&err);

	(void)state;
	declare(writer, "a", MC_U8, 1, 1, 0);
	refuse(writer, "a", MC_F32, 1, ones, "'a' is declared twice");
	refuse(writer, "b", MC_U8, 9, ones, "9 dimensions");
	refuse(writer, "b", MC_U8, 2, wide, "too large");
	refuse(writer, "b", MC_U8, 2, signs, "too large");
	refuse(writer, "b", MC_F4, 1, three, "12 bits");
	refuse(writer, "__metadata__", MC_U8, 1, ones, "reserved");
	refuse(writer, "b\xFF", MC_U8, 1, ones, "UTF-8");
	for (char name[] = "h0"; name[1] < '7'; name[1]++)
		declare(writer, name, MC_U8, 1, half[0], 0);
	declare(writer, "h7", MC_U8, 1, half[0] - 2, 0);
	refuse(writer, "h8", MC_U8, 1, ones, "2^63");
	mc_st_writer_free(writer);
	assert_false(exists(".partial"));
	assert_false(exists(""));
}

static void test_writer_short_and_long_data(void **state)
{
	struct mc_error err;
	struct mc_st_writer *writer = new_writer(&err);

	(void)state;
	declare(writer, "a", MC_U8, 1, 4, 0);
	declare(writer, "b", MC_U8, 1, 4, 0);
	assert_true(mc_st_writer_begin(writer, &err));
	assert_false(mc_st_writer_finish(writer, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "tensor 'a' is not complete: 0 of the declared 8"));
	mc_error_init(&err);
	assert_true(mc_st_writer_data(writer, "12345", 5, &err));
	assert_false(mc_st_writer_finish(writer, &err));
	assert_non_null(strstr(err.text, "tensor 'b' is not complete: 5 of the declared 8"));
	mc_error_init(&err);
	assert_false(mc_st_writer_data(writer, "1234", 4, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "4 bytes of data were given where 3"));
	mc_error_init(&err);
	assert_true(mc_st_writer_data(writer, "678", 3, &err));
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);
	assert_true(exists(""));
}

/* Whatever byte the disk fills up at: NO_SPACE, the old file stays, nothing else does. */
static void test_writer_disk_full(void **state)
{
	FILE *old = fopen(out_path(), "w");
	struct bytes bytes;

	(void)state;
	assert_non_null(old);
	fputs("old", old);
	fclose(old);
	for (long room = 0; room < 1024; room += room < 16 ? 1 : 61) {
		struct mc_error err;
		struct mc_st_writer *writer = new_writer(&err);
		unsigned char data[1024] = {0};
		bool done;

		declare(writer, "a", MC_U8, 1, sizeof(data), 0);
		space_left = room;
		done = mc_st_writer_begin(writer, &err) &&
		       mc_st_writer_data(writer, data, sizeof(data), &err);
		space_left = LONG_MAX;
		assert_false(done);
		assert_int_equal(err.code, MC_NO_SPACE);
		assert_string_equal(err.where, out_path());
		/* room again: what was half written must not be taken for whole */
		mc_error_init(&err);
		assert_false(mc_st_writer_data(writer, data, sizeof(data), &err));
		mc_error_init(&err);
		assert_false(mc_st_writer_finish(writer, &err));
		mc_st_writer_free(writer);
		assert_false(exists(".partial"));
	}
	bytes = slurp(out_path());
	assert_int_equal(bytes.length, 3);
	free(bytes.data);
}

static void test_writer_stale_partial_and_no_folder(void **state)
{
	char path[160];
	char victim[160];
	struct mc_error err;
	struct mc_st_writer *writer;
	struct bytes bytes;
	FILE *file;

	(void)state;
	snprintf(path, sizeof(path), "%s.partial", out_path());
	snprintf(victim, sizeof(victim), "%s/victim", folder);
	file = fopen(victim, "w");
	assert_non_null(file);
	fputs("precious", file);
	fclose(file);
	assert_int_equal(symlink(victim, path), 0);
	writer = new_writer(&err); /* replaces the link, not what it leads to */
	declare(writer, "a", MC_U8, 1, 1, 0);
	assert_true(mc_st_writer_begin(writer, &err));
	assert_true(mc_st_writer_data(writer, "x", 1, &err));
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);
	bytes = slurp(victim);
	assert_int_equal(bytes.length, 8);
	free(bytes.data);
	unlink(victim);

	snprintf(path, sizeof(path), "%s/absent/out.safetensors", folder);
	assert_null(mc_st_writer_new(path, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	assert_string_equal(err.where, path);
}

#ifdef MC_FAULTS
static bool write_and_read(struct mc_error *err)
{
	struct mc_st_writer *writer = mc_st_writer_new(out_path(), err);
	uint64_t two = 2;
	bool done = writer && mc_st_writer_declare(writer, "a\xC3\xA9", MC_U8, 1, &two, err) &&
		    mc_st_writer_declare(writer, "b", MC_U8, 1, &two, err) &&
		    mc_st_writer_begin(writer, err) && mc_st_writer_data(writer, "abcd", 4, err) &&
		    mc_st_writer_finish(writer, err);
	struct mc_st_file file = {0};
	char got[2];

	mc_st_writer_free(writer);
	if (!done)
		return false;
	done = mc_st_open_fd(&file, open(out_path(), O_RDONLY | O_CLOEXEC), "out", err) &&
	       mc_st_read(&file, mc_st_find(&file, "b"), 0, 2, got, err);
	mc_st_close(&file);
	return done;
}

/* Each single allocation, read, write, sync and rename fails once: the right code, nothing left
 * behind. */
static void test_faults(void **state)
{
	static const struct {
		const char *kind;
		enum mc_code code;
	} kinds[] = {{"alloc", MC_NO_MEMORY}, {"read", MC_IO}, {"write", MC_NO_SPACE},
	    {"sync", MC_IO}, {"rename", MC_IO}};

	(void)state;
	for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
		bool done = false;
		long n;

		for (n = 1; !done; n++) {
			struct mc_error err;

			mc_error_init(&err);
			mc_fault_arm(kinds[k].kind, n);
			done = write_and_read(&err);
			mc_fault_disarm();
			if (!done && err.code != kinds[k].code)
				fail_msg("%s %ld: %s: %s", kinds[k].kind, n, mc_code_name(err.code),
				    err.text);
			assert_false(exists(".partial"));
		}
		assert_true(n > 2); /* at least one such point was met */
	}
}
#endif

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)
	const struct CMUnitTest tests[] = {
	    IN_FOLDER(test_writer_order_and_bytes),
	    IN_FOLDER(test_writer_to_reader),
	    IN_FOLDER(test_writer_no_tensors),
	    IN_FOLDER(test_writer_refuses_declarations),
	    IN_FOLDER(test_writer_short_and_long_data),
	    IN_FOLDER(test_writer_disk_full),
	    IN_FOLDER(test_writer_stale_partial_and_no_folder),
#ifdef MC_FAULTS
	    IN_FOLDER(test_faults),
#endif
	};

	return cmocka_run_group_tests_name("safetensors_writer", tests, NULL, NULL);
}
