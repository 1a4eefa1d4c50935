/*
 * test_checkpoint.c - which files of a folder count, which tensors of them, and the model's digest
 */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "moecal/checkpoint.h"
#include "moecal/fault.h"
#include "moecal/file.h"

#define INDEX "model.safetensors.index.json"

static char folder[64];

static int make_folder(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/moecal-test-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int drop_folder(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	return mc_file_remove_tree(folder, &err) ? 0 : -1;
}

static const char *path_of(const char *name)
{
	static char path[256];

	snprintf(path, sizeof(path), "%s/%s", folder, name);
	return path;
}

static void write_text(const char *name, const char *text)
{
	FILE *file = fopen(path_of(name), "w");

	assert_non_null(file);
	fputs(text, file);
	fclose(file);
}

/* `tensors`: names separated by spaces; each is U8 [4] filled with its last letter. */
static void write_shard(const char *name, const char *tensors)
{
	struct mc_error err;
	struct mc_st_writer *writer;
	const struct mc_st_entry *entry;
	char *list = strdup(tensors);
	char *rest = NULL;

	mc_error_init(&err);
	writer = mc_st_writer_new(path_of(name), &err);
	assert_non_null(writer);
	for (char *tensor = strtok_r(list, " ", &rest); tensor; tensor = strtok_r(NULL, " ", &rest))
		assert_true(mc_st_writer_declare(writer, tensor, MC_U8, 1, &(uint64_t){4}, &err));
	assert_true(mc_st_writer_begin(writer, &err));
	for (size_t i = 0; (entry = mc_st_writer_entry(writer, i)); i++) {
		char fill[4];

		memset(fill, entry->name[strlen(entry->name) - 1], sizeof(fill));
		assert_true(mc_st_writer_data(writer, fill, sizeof(fill), &err));
	}
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);
	free(list);
}

/* The tensors of the checkpoint, "name@shard ..."; reads and checks each one's bytes. */
static char *list_tensors(const struct mc_checkpoint *ckpt)
{
	char *text = NULL;
	size_t size = 0;
	FILE *out = open_memstream(&text, &size);
	struct mc_error err;

	assert_non_null(out);
	mc_error_init(&err);
	for (size_t i = 0; i < ckpt->count; i++) {
		const struct mc_ckpt_tensor *tensor = &ckpt->tensors[i];
		const char *name = tensor->entry->name;
		char got[4];

		fprintf(out, "%s%s@%s", i > 0 ? " " : "", name, ckpt->shards[tensor->shard].name);
		assert_ptr_equal(mc_checkpoint_find(ckpt, name), tensor);
		assert_true(mc_checkpoint_read(ckpt, tensor, 0, 4, got, &err));
		for (size_t k = 0; k < sizeof(got); k++)
			assert_int_equal(got[k], name[strlen(name) - 1]);
	}
	fclose(out);
	assert_null(mc_checkpoint_find(ckpt, "no such tensor"));
	return text;
}

static void expect_tensors(const char *expected)
{
	struct mc_checkpoint ckpt;
	struct mc_error err;
	char *got;

	mc_error_init(&err);
	if (!mc_checkpoint_open(&ckpt, NULL, folder, &err))
		fail_msg("%s: %s", err.where, err.text);
	assert_int_equal(ckpt.bytes, 4 * ckpt.count);
	got = list_tensors(&ckpt);
	assert_string_equal(got, expected);
	free(got);
	mc_checkpoint_close(&ckpt);
}

/* Each of the texts after `where` must be in the sentence; the last is NULL. */
static void expect_error(enum mc_code code, const char *where, ...)
{
	struct mc_checkpoint ckpt;
	struct mc_error err;
	const char *text;
	va_list texts;

	mc_error_init(&err);
	assert_false(mc_checkpoint_open(&ckpt, NULL, folder, &err));
	if (err.code != code)
		fail_msg("got %s: %s: %s", mc_code_name(err.code), err.where, err.text);
	assert_string_equal(err.where, where);
	va_start(texts, where);
	while ((text = va_arg(texts, const char *))) {
		if (!strstr(err.text, text))
			fail_msg("the error\n%s\ndoes not say\n%s", err.text, text);
	}
	va_end(texts);
	mc_checkpoint_close(&ckpt); /* also after a failure */
}

static void test_single_file(void **state)
{
	(void)state;
	write_shard("model.safetensors", "b c a");
	write_shard("other.safetensors", "d"); /* not part of the model */
	expect_tensors("a@model.safetensors b@model.safetensors c@model.safetensors");
}

static void test_no_tensors(void **state)
{
	(void)state;
	write_shard("model.safetensors", "");
	expect_tensors("");
}

static void test_index(void **state)
{
	(void)state;
	write_shard("x-1.safetensors", "c a unlisted");
	write_shard("x-2.safetensors", "b d");
	write_shard("model.safetensors", "e"); /* the index goes before */
	write_shard("consolidated.safetensors", "f");
	write_text(INDEX,
	    "{\"metadata\":{\"total_size\":1},\"weight_map\":{\"d\":\"x-2.safetensors\","
	    "\"c\":\"x-1.safetensors\",\"b\":\"x-2.safetensors\","
	    "\"a\":\"x-1.safetensors\"}}");
	expect_tensors("a@x-1.safetensors b@x-2.safetensors c@x-1.safetensors d@x-2.safetensors");
}

/* With an index a name may be in two shards; the index says which one counts. */
static void test_index_chooses(void **state)
{
	(void)state;
	write_shard("x-1.safetensors", "a b");
	write_shard("x-2.safetensors", "a b");
	write_text(INDEX, "{\"weight_map\":{\"a\":\"x-2.safetensors\",\"b\":\"x-1.safetensors\"}}");
	expect_tensors("a@x-2.safetensors b@x-1.safetensors");
}

static void test_index_names_absent_tensor(void **state)
{
	(void)state;
	write_shard("x-1.safetensors", "a");
	write_shard("x-2.safetensors", "b");
	write_text(INDEX, "{\"weight_map\":{\"a\":\"x-1.safetensors\",\"b\":\"x-1.safetensors\","
			  "\"c\":\"x-2.safetensors\"}}");
	expect_error(
	    MC_CORRUPT, INDEX, "tensor 'b'", "shard 'x-1.safetensors'", "does not have it", NULL);
}

static void test_index_names_missing_file(void **state)
{
	(void)state;
	write_shard("x-1.safetensors", "a");
	write_text(INDEX, "{\"weight_map\":{\"a\":\"x-1.safetensors\",\"b\":\"x-2.safetensors\"}}");
	expect_error(MC_CORRUPT, INDEX, "shard 'x-2.safetensors'", "not in the folder", NULL);
	/* a hub cache whose blob was deleted */
	assert_int_equal(symlink("../absent", path_of("x-2.safetensors")), 0);
	expect_error(MC_CORRUPT, INDEX, "shard 'x-2.safetensors'", NULL);
}

static void test_index_file_names(void **state)
{
	static const char *const bad[] = {"", ".", "..", "/x-1.safetensors", "../x-1.safetensors",
	    "./x-1.safetensors", "sub/x-1.safetensors", "x-1.safetensors/", "x\\u0000y"};
	char text[256];

	(void)state;
	write_shard("x-1.safetensors", "a");
	assert_int_equal(mkdir(path_of("sub"), 0777), 0);
	write_shard("sub/x-1.safetensors", "a");
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		snprintf(text, sizeof(text), "{\"weight_map\":{\"a\":\"%s\"}}", bad[i]);
		write_text(INDEX, text);
		expect_error(MC_CORRUPT, INDEX, "tensor 'a'", "plain file name", NULL);
	}
	write_text(INDEX, "{\"weight_map\":{\"a\":1}}");
	expect_error(MC_CORRUPT, INDEX, "tensor 'a'", "is integer", NULL);
	write_text(INDEX, "{\"weight_map\":{\"a\":\"sub\"}}");
	expect_error(MC_INVALID, "sub", NULL);
}

static void test_index_structure(void **state)
{
	(void)state;
	write_shard("x-1.safetensors", "a");
	write_text(INDEX, "");
	expect_error(MC_CORRUPT, INDEX, NULL);
	write_text(INDEX, "{\"weight_map\":{\"a\":\"x-1.safetensors\"}");
	expect_error(MC_CORRUPT, INDEX, NULL);
	write_text(INDEX, "[]");
	expect_error(MC_CORRUPT, INDEX, "weight_map is missing", NULL);
	write_text(INDEX, "{\"metadata\":{}}");
	expect_error(MC_CORRUPT, INDEX, "weight_map is missing", NULL);
	write_text(INDEX, "{\"weight_map\":[\"a\"]}");
	expect_error(MC_CORRUPT, INDEX, "weight_map is array", NULL);
	write_text(INDEX, "{\"weight_map\":{}}");
	expect_error(MC_CORRUPT, INDEX, "no tensors", NULL);
	write_text(INDEX, "{\"weight_map\":{\"a\":\"x-1.safetensors\",\"a\":\"x-1.safetensors\"}}");
	expect_error(MC_CORRUPT, INDEX, NULL);
}

/* An index that is there but cannot be used must not be passed over. */
static void test_index_is_a_folder(void **state)
{
	(void)state;
	write_shard("model.safetensors", "a");
	assert_int_equal(mkdir(path_of(INDEX), 0777), 0);
	expect_error(MC_INVALID, INDEX, NULL);
}

static void test_no_index(void **state)
{
	(void)state;
	write_shard("m-2.safetensors", "b");
	write_shard("m-1.safetensors", "c a");
	write_shard("consolidated.safetensors", "a z");
	write_shard("consolidated-00001.safetensors", "b y");
	write_shard(".hidden.safetensors", "x");
	write_shard("weights.safetensors.partial", "w");
	write_text("config.json", "{}");
	assert_int_equal(mkdir(path_of("original"), 0777), 0);
	write_shard("original/m.safetensors", "v");
	expect_tensors("a@m-1.safetensors b@m-2.safetensors c@m-1.safetensors");
}

static void test_no_index_same_tensor_twice(void **state)
{
	(void)state;
	write_shard("m-2.safetensors", "a b");
	write_shard("m-1.safetensors", "c a");
	expect_error(MC_CORRUPT, "m-2.safetensors", "tensor 'a'", "'m-1.safetensors'", NULL);
}

static void test_nothing_to_open(void **state)
{
	struct mc_checkpoint ckpt;
	struct mc_error err;

	(void)state;
	expect_error(MC_NOT_FOUND, folder, "no model.safetensors", NULL);
	write_shard("consolidated.safetensors", "a");
	expect_error(MC_NOT_FOUND, folder, NULL);
	mc_error_init(&err);
	assert_false(mc_checkpoint_open(&ckpt, NULL, path_of("absent"), &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	mc_checkpoint_close(&ckpt);
}

static void test_truncated_shard(void **state)
{
	struct stat info;

	(void)state;
	write_shard("x-1.safetensors", "a");
	write_shard("x-2.safetensors", "b c");
	write_text(INDEX, "{\"weight_map\":{\"a\":\"x-1.safetensors\",\"b\":\"x-2.safetensors\","
			  "\"c\":\"x-2.safetensors\"}}");
	assert_int_equal(stat(path_of("x-2.safetensors"), &info), 0);
	assert_int_equal(truncate(path_of("x-2.safetensors"), info.st_size - 1), 0);
	expect_error(MC_CORRUPT, "x-2.safetensors", "truncated", "tensor 'c'", NULL);
	assert_int_equal(truncate(path_of("x-2.safetensors"), 0), 0);
	expect_error(MC_CORRUPT, "x-2.safetensors", "0 bytes", NULL);
}

static void test_inverse_frequencies_are_ignored(void **state)
{
	(void)state;
	write_shard("model.safetensors",
	    "a model.layers.0.self_attn.rotary_emb.inv_freq a.rotary_emb.inv_freq.b");
	expect_tensors("a@model.safetensors a.rotary_emb.inv_freq.b@model.safetensors");
	/* listed, though neither the tensor nor its shard is there: still nothing to miss */
	write_text(INDEX, "{\"weight_map\":{\"a\":\"model.safetensors\","
			  "\"x.rotary_emb.inv_freq\":\"model.safetensors\","
			  "\"y.rotary_emb.inv_freq\":\"absent.safetensors\"}}");
	expect_tensors("a@model.safetensors");
}

static void test_read_file_and_part(void **state)
{
	struct mc_checkpoint ckpt;
	struct mc_error err;
	struct mc_buf buf;
	char got[2];

	(void)state;
	write_shard("model.safetensors", "a");
	write_text("config.json", "{\"x\": 1}\n");
	mc_error_init(&err);
	assert_true(mc_checkpoint_open(&ckpt, NULL, folder, &err));
	mc_buf_init(&buf, 100);
	assert_true(mc_checkpoint_read_file(&ckpt, "config.json", &buf, &err));
	assert_string_equal(mc_buf_text(&buf), "{\"x\": 1}\n");
	assert_false(mc_checkpoint_read_file(&ckpt, "tokenizer.json", &buf, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	mc_error_init(&err);
	assert_true(mc_checkpoint_read(&ckpt, mc_checkpoint_find(&ckpt, "a"), 2, 2, got, &err));
	assert_memory_equal(got, "aa", 2);
	mc_buf_release(&buf);
	mc_checkpoint_close(&ckpt);
}

/* The layout of a hub cache: links out of the folder, but beneath the allowed root. */
static void test_roots(void **state)
{
	struct mc_roots *roots;
	struct mc_checkpoint ckpt;
	struct mc_error err;
	char *snapshot;

	(void)state;
	mc_error_init(&err);
	assert_int_equal(mkdir(path_of("hub"), 0777), 0);
	assert_int_equal(mkdir(path_of("hub/snapshot"), 0777), 0);
	write_shard("hub/blob", "a");
	write_shard("outside", "a");
	assert_int_equal(symlink("../blob", path_of("hub/snapshot/model.safetensors")), 0);
	roots = mc_roots_new(&err);
	assert_non_null(roots);
	assert_true(mc_roots_add(roots, path_of("hub"), &err));
	snapshot = strdup(path_of("hub/snapshot"));
	assert_true(mc_checkpoint_open(&ckpt, roots, snapshot, &err));
	assert_non_null(mc_checkpoint_find(&ckpt, "a"));
	mc_checkpoint_close(&ckpt);
	assert_int_equal(unlink(path_of("hub/snapshot/model.safetensors")), 0);
	assert_int_equal(symlink("../../outside", path_of("hub/snapshot/model.safetensors")), 0);
	assert_false(mc_checkpoint_open(&ckpt, roots, snapshot, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_false(mc_checkpoint_open(&ckpt, roots, folder, &err));
	assert_int_equal(err.code, MC_INVALID);
	free(snapshot);
	mc_roots_free(roots);
}

#ifdef MC_FAULTS
static bool open_and_digest(struct mc_error *err)
{
	struct mc_checkpoint ckpt;
	char hex[65];
	bool done =
	    mc_checkpoint_open(&ckpt, NULL, folder, err) && mc_checkpoint_digest(&ckpt, hex, err);

	mc_checkpoint_close(&ckpt);
	return done;
}

static void fail_each(const char *kind, enum mc_code code)
{
	bool done = false;
	long n;

	for (n = 1; !done; n++) {
		struct mc_error err;

		mc_error_init(&err);
		mc_fault_arm(kind, n);
		done = open_and_digest(&err);
		mc_fault_disarm();
		if (!done && err.code != code)
			fail_msg("%s %ld: %s: %s", kind, n, mc_code_name(err.code), err.text);
	}
	assert_true(n > 4);
}

/* A failure on the way must be reported as what it is, never as an absent index or file. */
static void test_faults(void **state)
{
	(void)state;
	write_shard("x-1.safetensors", "a");
	write_shard("x-2.safetensors", "b");
	write_text("config.json", "{}");
	fail_each("alloc", MC_NO_MEMORY);
	fail_each("read", MC_IO);
	write_text(INDEX, "{\"weight_map\":{\"a\":\"x-1.safetensors\",\"b\":\"x-2.safetensors\"}}");
	fail_each("alloc", MC_NO_MEMORY);
	fail_each("read", MC_IO);
}
#endif

/* --- digest ---------------------------------------------------------------------------------- */

static void digest_now(char hex[65])
{
	struct mc_checkpoint ckpt;
	struct mc_error err;

	mc_error_init(&err);
	if (!mc_checkpoint_open(&ckpt, NULL, folder, &err) ||
	    !mc_checkpoint_digest(&ckpt, hex, &err))
		fail_msg("%s: %s", err.where, err.text);
	mc_checkpoint_close(&ckpt);
	assert_int_equal(strlen(hex), 64);
	assert_int_equal(strspn(hex, "0123456789abcdef"), 64);
}

static void expect_digest(const char *hex, bool same)
{
	char now[65];

	digest_now(now);
	if ((strcmp(now, hex) == 0) != same)
		fail_msg("the digest is %s, %s", now, same ? "needed the same" : "needed another");
}

static void flip_last_byte(const char *name)
{
	int fd = open(path_of(name), O_RDWR | O_CLOEXEC);
	off_t last = lseek(fd, 0, SEEK_END) - 1;
	unsigned char byte;

	assert_int_equal(pread(fd, &byte, 1, last), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, last), 1);
	close(fd);
}

static void test_digest_changes(void **state)
{
	char hex[65];

	(void)state;
	write_shard("model.safetensors", "a.x b.x");
	digest_now(hex);
	write_text("config.json", ""); /* an empty one is not the same as none */
	expect_digest(hex, false);
	write_text("config.json", "{\"a\":1}");
	digest_now(hex);
	expect_digest(hex, true);
	write_text("config.json", "{\"a\":2}");
	expect_digest(hex, false);
	write_text("config.json", "{\"a\":1}");
	expect_digest(hex, true);
	flip_last_byte("model.safetensors");
	expect_digest(hex, false);
	flip_last_byte("model.safetensors");
	expect_digest(hex, true);
	write_shard("model.safetensors", "a.x c.x"); /* same bytes, another name */
	expect_digest(hex, false);
	write_shard("model.safetensors", "a.x b.x c.x");
	expect_digest(hex, false);
	write_shard("model.safetensors", "a.x");
	expect_digest(hex, false);
	write_text("tokenizer.json", "{}");
	write_shard("model.safetensors", "a.x b.x");
	expect_digest(hex, true);
}

static void write_one(enum mc_dtype dtype, unsigned rank, const uint64_t *shape)
{
	struct mc_error err;
	struct mc_st_writer *writer;

	mc_error_init(&err);
	writer = mc_st_writer_new(path_of("model.safetensors"), &err);
	assert_non_null(writer);
	assert_true(mc_st_writer_declare(writer, "a", dtype, rank, shape, &err));
	assert_true(mc_st_writer_begin(writer, &err));
	assert_true(mc_st_writer_data(writer, "abcd", 4, &err));
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);
}

static void test_digest_sees_dtype_and_shape(void **state)
{
	char hex[65];

	(void)state;
	write_one(MC_U8, 1, (const uint64_t[]){4});
	digest_now(hex);
	write_one(MC_I8, 1, (const uint64_t[]){4});
	expect_digest(hex, false);
	write_one(MC_U8, 2, (const uint64_t[]){2, 2});
	expect_digest(hex, false);
	digest_now(hex);
	write_one(MC_U8, 2, (const uint64_t[]){4, 1}); /* same rank */
	expect_digest(hex, false);
	write_one(MC_U8, 2, (const uint64_t[]){2, 2});
	expect_digest(hex, true);
}

static void test_digest_does_not_see_shards(void **state)
{
	char hex[65];

	(void)state;
	write_text("config.json", "{}");
	write_shard("model.safetensors", "a b c d");
	digest_now(hex);
	write_shard("x-1.safetensors", "d a not-listed");
	write_shard("x-2.safetensors", "c b");
	write_text(INDEX, "{\"weight_map\":{\"c\":\"x-2.safetensors\",\"a\":\"x-1.safetensors\","
			  "\"b\":\"x-2.safetensors\",\"d\":\"x-1.safetensors\"}}");
	expect_tensors("a@x-1.safetensors b@x-2.safetensors c@x-2.safetensors d@x-1.safetensors");
	expect_digest(hex, true);
	flip_last_byte("x-2.safetensors");
	expect_digest(hex, false);
}

/* Larger than one chunk, the change in the last byte. */
static void test_digest_reads_every_byte(void **state)
{
	uint64_t bytes = ((uint64_t)4 << 20) + 1;
	unsigned char *zeros = calloc(bytes, 1);
	struct mc_st_writer *writer;
	struct mc_error err;
	char hex[65];

	(void)state;
	mc_error_init(&err);
	writer = mc_st_writer_new(path_of("model.safetensors"), &err);
	assert_non_null(writer);
	assert_true(mc_st_writer_declare(writer, "a", MC_U8, 1, &bytes, &err));
	assert_true(mc_st_writer_begin(writer, &err));
	assert_true(mc_st_writer_data(writer, zeros, bytes, &err));
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);
	free(zeros);
	digest_now(hex);
	flip_last_byte("model.safetensors");
	expect_digest(hex, false);
}

int main(void)
{
#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, drop_folder)
	const struct CMUnitTest tests[] = {
	    IN_FOLDER(test_single_file),
	    IN_FOLDER(test_no_tensors),
	    IN_FOLDER(test_index),
	    IN_FOLDER(test_index_chooses),
	    IN_FOLDER(test_index_names_absent_tensor),
	    IN_FOLDER(test_index_names_missing_file),
	    IN_FOLDER(test_index_file_names),
	    IN_FOLDER(test_index_structure),
	    IN_FOLDER(test_index_is_a_folder),
	    IN_FOLDER(test_no_index),
	    IN_FOLDER(test_no_index_same_tensor_twice),
	    IN_FOLDER(test_nothing_to_open),
	    IN_FOLDER(test_truncated_shard),
	    IN_FOLDER(test_inverse_frequencies_are_ignored),
	    IN_FOLDER(test_read_file_and_part),
	    IN_FOLDER(test_roots),
	    IN_FOLDER(test_digest_changes),
	    IN_FOLDER(test_digest_sees_dtype_and_shape),
	    IN_FOLDER(test_digest_does_not_see_shards),
	    IN_FOLDER(test_digest_reads_every_byte),
#ifdef MC_FAULTS
	    IN_FOLDER(test_faults),
#endif
	};

	return cmocka_run_group_tests_name("checkpoint", tests, NULL, NULL);
}
