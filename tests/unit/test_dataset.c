/*
 * test_dataset.c - sequences from files of every kind: what is taken, in which order, and what is
 * refused
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "moecal/dataset.h"
#include "moecal/fault.h"
#include "moecal/file.h"
#include "moecal/safetensors.h"
#include "moecal/sha256.h"

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

/* Overwritten by the second call after it. */
static const char *path_of(const char *name)
{
	static char paths[2][256];
	static unsigned turn;

	turn = !turn;
	snprintf(paths[turn], sizeof(paths[turn]), "%s/%s", folder, name);
	return paths[turn];
}

static void write_bytes(const char *name, const void *bytes, size_t length)
{
	FILE *file = fopen(path_of(name), "w");

	assert_non_null(file);
	assert_int_equal(fwrite(bytes, 1, length, file), length);
	fclose(file);
}

static void write_text(const char *name, const char *text)
{
	write_bytes(name, text, strlen(text));
}

/* Letters a to z are ids 0 to 25; BOS is 26. Other characters are nothing. */
static struct mc_tokenizer *letters(void)
{
	static const char json[] =
	    "{\"version\":\"1.0\",\"added_tokens\":[],\"normalizer\":null,\"pre_tokenizer\":null,"
	    "\"post_processor\":{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":"
	    "{\"id\":\"<s>\"}},{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"<s>\":{\"id\":"
	    "\"<s>\",\"ids\":[26]}}},\"model\":{\"type\":\"BPE\",\"vocab\":{\"a\":0,\"b\":1,"
	    "\"c\":2,\"d\":3,\"e\":4,\"f\":5,\"z\":25},\"merges\":[]}}";
	struct mc_error err;
	struct mc_tokenizer *tokenizer;

	mc_error_init(&err);
	tokenizer = mc_tokenizer_new(json, strlen(json), NULL, 0, &err);
	assert_non_null(tokenizer);
	return tokenizer;
}

static const struct mc_dataset_options plain = {
    .max_seq_length = 100, .add_special = MC_ADD_SPECIAL_NO, .vocab_size = 100};

/* "0 1 2|3" in a buffer that the next call overwrites. */
static const char *shown(const struct mc_dataset *dataset)
{
	static char text[4096];
	size_t length = 0;

	assert_int_equal(dataset->start[0], 0);
	assert_int_equal(dataset->start[dataset->sequences], dataset->tokens);
	text[0] = '\0';
	for (size_t s = 0; s < dataset->sequences; s++) {
		for (uint64_t i = dataset->start[s]; i < dataset->start[s + 1]; i++)
			length += (size_t)snprintf(text + length, sizeof(text) - length, "%s%u",
			    i > dataset->start[s] ? " "
			    : s > 0               ? "|"
						  : "",
			    dataset->ids[i]);
	}
	return text;
}

static const char *load(const struct mc_dataset_source *sources, size_t count,
    struct mc_dataset_options options, struct mc_dataset *ret)
{
	struct mc_tokenizer *tokenizer = letters();
	struct mc_dataset dataset;
	struct mc_error err;
	const char *text;

	mc_error_init(&err);
	if (!mc_dataset_load(&dataset, sources, count, &options, NULL, tokenizer, &err))
		fail_msg("%s: %s", err.where, err.text);
	mc_tokenizer_free(tokenizer);
	text = shown(&dataset);
	if (ret)
		*ret = dataset;
	else
		mc_dataset_release(&dataset);
	return text;
}

static const char *load_file(const char *name, struct mc_dataset_options options)
{
	return load(&(struct mc_dataset_source){.path = path_of(name)}, 1, options, NULL);
}

static void assert_refused(const char *name, enum mc_code code, const char *where, const char *says)
{
	const struct mc_dataset_source source = {.path = path_of(name)};
	struct mc_tokenizer *tokenizer = letters();
	struct mc_dataset dataset;
	struct mc_error err;

	mc_error_init(&err);
	if (mc_dataset_load(&dataset, &source, 1, &plain, NULL, tokenizer, &err))
		fail_msg("%s was not refused: %s", name, says);
	if (err.code != code || !strstr(err.where, where) || !strstr(err.text, says))
		fail_msg("%s: %s: '%s', expected %s: '%s'", mc_code_name(err.code), err.where,
		    err.text, where, says);
	assert_null(dataset.ids);
	mc_tokenizer_free(tokenizer);
}

/* --- JSONL ------------------------------------------------------------------------------------ */

static void test_jsonl(void **state)
{
	struct mc_dataset dataset;

	(void)state;
	write_text("a.jsonl", "{\"text\": \"abc\", \"id\": 7}\n\n{\"text\":\"d\"}\r\n  \t\n"
			      "{\"text\":\"zz\",\"input_ids\":[99, 0]}\n{\"text\":\"?\"}\n"
			      "{\"text\":\"ef\"}");
	assert_string_equal(
	    load(&(struct mc_dataset_source){.path = path_of("a.jsonl")}, 1, plain, &dataset),
	    "0 1 2|3|99 0|4 5");
	assert_int_equal(dataset.sequences, 4);
	assert_int_equal(dataset.tokens, 8);
	assert_int_equal(dataset.samples_read, 5);
	assert_int_equal(dataset.empty_samples, 1);
	mc_dataset_release(&dataset);
}

static void test_text_column(void **state)
{
	const struct mc_dataset_source source = {
	    .path = path_of("column.jsonl"), .text_column = "body"};

	(void)state;
	write_text("column.jsonl", "{\"text\":\"zz\",\"body\":\"ab\"}\n{\"body\":\"c\"}\n");
	assert_string_equal(load(&source, 1, plain, NULL), "0 1|2");
}

static void test_special_tokens(void **state)
{
	struct mc_dataset_options options = plain;

	(void)state;
	write_text("bos.jsonl", "{\"text\":\"ab\"}\n{\"input_ids\":[1]}\n");
	options.add_special = MC_ADD_SPECIAL_AUTO;
	assert_string_equal(load_file("bos.jsonl", options), "26 0 1|1");
	/* What is cut off is the end, not what was put in front. */
	options.max_seq_length = 2;
	assert_string_equal(load_file("bos.jsonl", options), "26 0|1");
}

static void test_jsonl_refused(void **state)
{
	static const struct {
		const char *text, *where, *says;
		enum mc_code code;
	} cases[] = {
	    {"{\"text\":\"a\"}\n{\"text\":\"b\"\n", ":2", "JSON", MC_INVALID},
	    {"{\"text\":\"a\"}\n\n[1]\n", ":3", "array", MC_INVALID},
	    {"{\"texts\":\"a\"}\n", ":1", "\"text\"", MC_INVALID},
	    {"{\"text\":7}\n", ":1", "integer", MC_INVALID},
	    {"{\"input_ids\":\"1 2\"}\n", ":1", "input_ids", MC_UNSUPPORTED},
	    {"{\"input_ids\":[1,2.5]}\n", ":1", "real", MC_UNSUPPORTED},
	    {"{\"input_ids\":[[1]]}\n", ":1", "array", MC_UNSUPPORTED},
	    {"{\"input_ids\":[1]}\n{\"input_ids\":[5,100]}\n", ":2", "100", MC_INVALID},
	    {"{\"input_ids\":[-1]}\n", ":1", "-1", MC_INVALID},
	    {"{\"input_ids\":[18446744073709551616]}\n", ":1", "JSON", MC_INVALID},
	    {"{\"text\":\"a\",\"text\":\"b\"}\n", ":1", "JSON", MC_INVALID},
	    {"", "bad.jsonl", "no samples", MC_INVALID},
	    {"\n \n", "bad.jsonl", "no samples", MC_INVALID},
	    {"{\"text\":\"?\"}\n{\"input_ids\":[]}\n", "bad.jsonl", "yields a token", MC_INVALID},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_text("bad.jsonl", cases[i].text);
		assert_refused("bad.jsonl", cases[i].code, cases[i].where, cases[i].says);
	}
}

/* The line's number is kept, however long the path. */
static void test_long_path(void **state)
{
	char name[201];

	(void)state;
	memset(name, 'n', sizeof(name) - 1);
	strcpy(name + sizeof(name) - 7, ".jsonl");
	write_text(name, "{\"text\":\"a\"}\n{\"text\":1}\n");
	assert_refused(name, MC_INVALID, ":2", "integer");
}

static void test_line_limit(void **state)
{
	const size_t length = ((size_t)64 << 20) + ((size_t)2 << 20);
	char *line = malloc(length);

	(void)state;
	memset(line, 'a', length);
	memcpy(line, "{\"text\":\"", 9);
	write_bytes("long.jsonl", line, length);
	assert_refused("long.jsonl", MC_INVALID, "long.jsonl", "line 1");
	unlink(path_of("long.jsonl"));
	free(line);
}

/* --- choosing --------------------------------------------------------------------------------- */

static void test_limits(void **state)
{
	const struct mc_dataset_source sources[] = {
	    {.path = path_of("one.jsonl"), .num_samples = 2}, {.path = path_of("two.jsonl")}};
	struct mc_dataset_options options = plain;
	struct mc_dataset dataset;

	(void)state;
	write_text("one.jsonl", "{\"text\":\"a\"}\n{\"text\":\"bb\"}\nnot read\n");
	write_text("two.jsonl", "{\"text\":\"c\"}\n{\"text\":\"dd\"}\n{\"text\":\"e\"}\n");
	assert_string_equal(load(sources, 2, options, NULL), "0|1 1|2|3 3|4");
	options.num_samples = 3;
	assert_string_equal(load(sources, 2, options, &dataset), "0|1 1|2");
	mc_dataset_release(&dataset);
	options.max_seq_length = 1;
	assert_string_equal(load(sources, 2, options, NULL), "0|1|2");
	options.max_seq_length = UINT64_MAX;
	options.num_samples = 0;
	assert_string_equal(load(sources, 2, options, NULL), "0|1 1|2|3 3|4");
}

/* What is not needed is not read: a bad line behind the last chosen sample does not matter. */
static void test_reads_no_further(void **state)
{
	struct mc_dataset_options options = plain;

	(void)state;
	write_text("tail.jsonl", "{\"text\":\"abc\"}\n{\"text\":\"d\"}\nno JSON\n");
	options.num_samples = 2;
	assert_string_equal(load_file("tail.jsonl", options), "0 1 2|3");
	options.concatenate = true;
	options.max_seq_length = 2;
	assert_string_equal(load_file("tail.jsonl", options), "0 1|2 3");
}

static void test_concatenate(void **state)
{
	struct mc_dataset_options options = plain;
	struct mc_error err;
	struct mc_dataset dataset;
	const struct mc_dataset_source source = {.path = path_of("join.jsonl")};

	(void)state;
	write_text("join.jsonl",
	    "{\"input_ids\":[1,2]}\n{\"input_ids\":[]}\n{\"input_ids\":[3,4,5,6,7]}\n");
	options.concatenate = true;
	options.max_seq_length = 3;
	assert_string_equal(load_file("join.jsonl", options), "1 2 3|4 5 6");
	options.max_seq_length = 7;
	assert_string_equal(load_file("join.jsonl", options), "1 2 3 4 5 6 7");
	options.max_seq_length = 2;
	options.num_samples = 2;
	assert_string_equal(load_file("join.jsonl", options), "1 2|3 4");
	options.max_seq_length = 8;
	mc_error_init(&err);
	assert_false(mc_dataset_load(&dataset, &source, 1, &options, NULL, NULL, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "7"));
}

/* The order is part of the promise: these were worked out by a second program from the definition
 * (splitmix64; place i from the last down is swapped with place random mod (i + 1)). */
static void test_shuffle(void **state)
{
	struct mc_dataset_options options = plain;

	(void)state;
	write_text("order.jsonl",
	    "{\"input_ids\":[0]}\n{\"input_ids\":[1]}\n{\"input_ids\":[2]}\n{\"input_ids\":[3]}\n"
	    "{\"input_ids\":[4]}\n{\"input_ids\":[5]}\n{\"input_ids\":[6]}\n{\"input_ids\":[7]}\n");
	options.shuffle = true;
	assert_string_equal(load_file("order.jsonl", options), "2|5|0|3|4|6|1|7");
	options.seed = 42;
	assert_string_equal(load_file("order.jsonl", options), "3|1|6|2|4|0|7|5");
	options.num_samples = 3;
	assert_memory_equal(load_file("order.jsonl", options), "3|1|6|2|4|0|7|5", 5);
	options.concatenate = true;
	options.max_seq_length = 8;
	options.num_samples = 1;
	assert_string_equal(load_file("order.jsonl", options), "3 1 6 2 4 0 7 5");
}

/* --- texts ------------------------------------------------------------------------------------ */

static void test_txt(void **state)
{
	(void)state;
	write_text("a.txt", "ab\nc {");
	assert_string_equal(load_file("a.txt", plain), "0 1 2");
	write_text("b.TXT.txt", "{\"text\":\"z\"}");
	assert_string_equal(load_file("b.TXT.txt", plain), "4 25");
	write_text("empty.txt", "");
	assert_refused("empty.txt", MC_INVALID, "empty.txt", "yields a token");
}

static void test_unknown_kind(void **state)
{
	(void)state;
	write_text("data.parquet", "PAR1 whatever");
	assert_refused("data.parquet", MC_UNSUPPORTED, "data.parquet", "jsonl");
	write_text("upload", "{\"text\":\"ab\"}\n");
	assert_string_equal(load_file("upload", plain), "0 1");
	assert_refused("missing.jsonl", MC_NOT_FOUND, "missing.jsonl", "");
}

/* --- .npy ------------------------------------------------------------------------------------- */

/* Version 1 unless said otherwise; the header is padded as NumPy pads it. */
static void write_npy(
    const char *name, unsigned version, const char *dict, const void *data, size_t length)
{
	unsigned char file[512] = "\x93NUMPY";
	size_t fixed = version == 1 ? 10 : 12, header = 64 * 2 - fixed, at;

	file[6] = (unsigned char)version;
	file[8] = (unsigned char)header;
	memset(file + fixed, ' ', header);
	memcpy(file + fixed, dict, strlen(dict));
	at = fixed + header;
	file[at - 1] = '\n';
	memcpy(file + at, data, length);
	write_bytes(name, file, at + length);
}

static void test_npy_types(void **state)
{
	static const uint8_t u1[] = {1, 2, 99};
	static const uint16_t u2[] = {1, 2, 99};
	static const uint32_t u4[] = {1, 2, 99};
	static const int32_t i4[] = {1, 2, 99};
	static const int64_t i8[] = {1, 2, 99};
	static const uint64_t u8[] = {1, 2, 99};
	static const struct {
		const char *descr;
		const void *data;
		size_t length;
	} cases[] = {{"|u1", u1, sizeof(u1)}, {"<u2", u2, sizeof(u2)}, {"<u4", u4, sizeof(u4)},
	    {"<i4", i4, sizeof(i4)}, {"<i8", i8, sizeof(i8)}, {"<u8", u8, sizeof(u8)}};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char dict[128];

		for (unsigned version = 1; version <= 3; version++) {
			snprintf(dict, sizeof(dict),
			    "{'descr': '%s', 'fortran_order': False, 'shape': (3,), }",
			    cases[i].descr);
			write_npy("t.npy", version, dict, cases[i].data, cases[i].length);
			assert_string_equal(load_file("t.npy", plain), "1 2 99");
		}
		snprintf(dict, sizeof(dict),
		    "{'shape': (3, 1), 'fortran_order': False, 'descr': '%s'}", cases[i].descr);
		write_npy("t.npy", 1, dict, cases[i].data, cases[i].length);
		assert_string_equal(load_file("t.npy", plain), "1|2|99");
	}
}

static void test_npy_choice(void **state)
{
	static const uint8_t data[] = {1, 2, 3, 4, 5, 6};
	struct mc_dataset_options options = plain;
	const struct mc_dataset_source source = {.path = path_of("rows.npy"), .num_samples = 2};

	(void)state;
	write_npy(
	    "rows.npy", 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (3, 2), }", data, 6);
	assert_string_equal(load_file("rows.npy", options), "1 2|3 4|5 6");
	assert_string_equal(load(&source, 1, options, NULL), "1 2|3 4");
	options.max_seq_length = 1;
	assert_string_equal(load_file("rows.npy", options), "1|3|5");
}

static void test_npy_refused(void **state)
{
#define DICT(descr, order, shape)                                                                  \
	"{'descr': '" descr "', 'fortran_order': " order ", 'shape': " shape ", }"
	static const struct {
		const char *dict;
		size_t length;
	} cases[] = {
	    {DICT(">i4", "False", "(2,)"), 8},
	    {DICT("<f4", "False", "(2,)"), 8},
	    {DICT("<i4", "True", "(1, 2)"), 8},
	    {DICT("<i4", "False", "()"), 8},
	    {DICT("<i4", "False", "(2)"), 8},
	    {DICT("<i4", "False", "(1, 1, 2)"), 8},
	    {DICT("<i4", "False", "(-2,)"), 8},
	    {DICT("<i4", "False", "(3,)"), 8},
	    {DICT("<i4", "False", "(2,)"), 9},
	    {DICT("<i4", "False", "(1,)"), 8},
	    {DICT("<i4", "False", "(18446744073709551615, 18446744073709551615)"), 8},
	    {DICT("<i4", "False", "(4611686018427387904, 4)"), 0},
	    {DICT("<i4", "False", "(1099511627775, 0)"), 0},
	    {DICT("<i4", "False", "(0, 4)"), 0},
	    {"{'descr': '<i4', 'fortran_order': False, }", 8},
	    {"{'descr': '<i4', 'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", 8},
	    {"{'descr': 'descr': '<i4', 'fortran_order': False, 'shape': (2,), }", 8},
	    {"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), 'x': 1, }", 8},
	    {"{'descr': '<i4', 'fortran_order': False, 'shape': (2,), } x", 8},
	    {"{'descr': '<i4' 'fortran_order': False, 'shape': (2,), }", 8},
	    {"{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (2,), }", 8},
	    {"[]", 8},
	};
	static const unsigned char data[16] = {0};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		const struct mc_dataset_source source = {.path = path_of("bad.npy")};
		struct mc_dataset dataset;
		struct mc_error err;

		mc_error_init(&err);
		write_npy("bad.npy", 1, cases[i].dict, data, cases[i].length);
		if (mc_dataset_load(&dataset, &source, 1, &plain, NULL, NULL, &err))
			fail_msg("not refused: %s", cases[i].dict);
		assert_non_null(strstr(err.where, "bad.npy"));
		assert_true(
		    err.code == MC_CORRUPT || err.code == MC_UNSUPPORTED || err.code == MC_INVALID);
	}
	write_npy("bad.npy", 4, DICT("<i4", "False", "(2,)"), data, 8);
	assert_refused("bad.npy", MC_UNSUPPORTED, "bad.npy", "4");
	write_text("short.npy", "\x93NUMPY\x01");
	assert_refused("short.npy", MC_CORRUPT, "short.npy", "");
	write_text("no.npy", "something else, but long enough");
	assert_refused("no.npy", MC_CORRUPT, "no.npy", "");
}

static void test_npy_ids(void **state)
{
	static const int32_t data[] = {1, 2, 3, 100, -1, 5};

	(void)state;
	write_npy("ids.npy", 1, "{'descr': '<i4', 'fortran_order': False, 'shape': (3, 2), }", data,
	    sizeof(data));
	assert_refused("ids.npy", MC_INVALID, "ids.npy row 1", "100");
	write_npy("ids.npy", 1, "{'descr': '<i4', 'fortran_order': False, 'shape': (1, 2), }",
	    data + 4, 8);
	assert_refused("ids.npy", MC_INVALID, "ids.npy row 0", "-1");
	/* 2^63 and above */
	write_npy("ids.npy", 1, "{'descr': '<u8', 'fortran_order': False, 'shape': (1,), }",
	    "\x01\x00\x00\x00\x00\x00\x00\x80", 8);
	assert_refused("ids.npy", MC_INVALID, "ids.npy row 0", "outside");
}

/* --- safetensors ------------------------------------------------------------------------------ */

static void write_tensor(const char *file, const char *name, enum mc_dtype dtype, unsigned rank,
    const uint64_t *shape, const void *data, size_t length)
{
	struct mc_error err;
	struct mc_st_writer *writer;

	mc_error_init(&err);
	writer = mc_st_writer_new(path_of(file), &err);
	assert_non_null(writer);
	assert_true(mc_st_writer_declare(writer, name, dtype, rank, shape, &err));
	assert_true(mc_st_writer_begin(writer, &err));
	assert_true(mc_st_writer_data(writer, data, length, &err));
	assert_true(mc_st_writer_finish(writer, &err));
	mc_st_writer_free(writer);
}

static void test_safetensors(void **state)
{
	static const int64_t ids[] = {1, 2, 3, 4};
	static const uint64_t rows[] = {2, 2, 1}, none[] = {UINT64_C(1) << 40, 0};

	(void)state;
	write_tensor("ids.safetensors", "input_ids", MC_I64, 2, rows, ids, sizeof(ids));
	assert_string_equal(load_file("ids.safetensors", plain), "1 2|3 4");
	/* The magic is stronger than the name. */
	assert_int_equal(rename(path_of("ids.safetensors"), path_of("ids.txt")), 0);
	assert_string_equal(load_file("ids.txt", plain), "1 2|3 4");
	write_tensor("ids.safetensors", "input_ids", MC_I32, 1, rows, ids, 8);
	assert_string_equal(load_file("ids.safetensors", plain), "1 0");
	write_tensor("ids.safetensors", "other", MC_I64, 2, rows, ids, sizeof(ids));
	assert_refused("ids.safetensors", MC_INVALID, "ids.safetensors", "input_ids");
	write_tensor("ids.safetensors", "input_ids", MC_F32, 2, rows, ids, 16);
	assert_refused("ids.safetensors", MC_UNSUPPORTED, "ids.safetensors", "F32");
	write_tensor("ids.safetensors", "input_ids", MC_I64, 3, rows, ids, sizeof(ids));
	assert_refused("ids.safetensors", MC_UNSUPPORTED, "ids.safetensors", "rank");
	write_tensor("ids.safetensors", "input_ids", MC_I64, 2, none, ids, 0);
	assert_refused("ids.safetensors", MC_INVALID, "ids.safetensors", "no ids");
	write_text("ids.safetensors", "no");
	assert_refused("ids.safetensors", MC_CORRUPT, "ids.safetensors", "");
}

/* --- about files ------------------------------------------------------------------------------ */

static void test_holds_ids(void **state)
{
	static const struct {
		const char *name, *text;
		bool holds;
	} cases[] = {
	    {"h.jsonl", "\n{\"input_ids\":[1]}\nno JSON, and not looked at\n", true},
	    {"h.jsonl", "{\"text\":\"a\"}\n{\"input_ids\":[1]}\n", false},
	    {"h.txt", "{\"input_ids\":[1]}\n", false},
	};
	struct mc_error err;
	bool holds;

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		write_text(cases[i].name, cases[i].text);
		assert_true(mc_dataset_holds_ids(path_of(cases[i].name), NULL, &holds, &err));
		assert_int_equal(holds, cases[i].holds);
	}
	write_npy("h.npy", 1, "{'descr': '|u1', 'fortran_order': False, 'shape': (1,), }", "a", 1);
	assert_true(mc_dataset_holds_ids(path_of("h.npy"), NULL, &holds, &err));
	assert_true(holds);
	write_text("h.jsonl", "no JSON\n");
	assert_false(mc_dataset_holds_ids(path_of("h.jsonl"), NULL, &holds, &err));
}

/* Ids need no tokenizer, texts do; and what a tokenizer makes must be in the vocabulary too. */
static void test_tokenizer_needed(void **state)
{
	const struct mc_dataset_source source = {.path = path_of("mixed.jsonl")};
	struct mc_dataset_options options = plain;
	struct mc_dataset dataset;
	struct mc_error err;

	(void)state;
	write_text("mixed.jsonl", "{\"input_ids\":[1]}\n{\"text\":\"az\"}\n");
	mc_error_init(&err);
	assert_false(mc_dataset_load(&dataset, &source, 1, &plain, NULL, NULL, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.where, ":2"));
	options.vocab_size = 25;
	struct mc_tokenizer *tokenizer = letters();
	mc_error_init(&err);
	assert_false(mc_dataset_load(&dataset, &source, 1, &options, NULL, tokenizer, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.where, ":2"));
	assert_non_null(strstr(err.text, "25"));
	mc_tokenizer_free(tokenizer);
}

static void test_digest(void **state)
{
	char hex[MC_SHA256_HEX];
	uint64_t bytes;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	write_text("digest.txt", "abc");
	assert_true(mc_dataset_digest(path_of("digest.txt"), NULL, hex, &bytes, &err));
	assert_int_equal(bytes, 3);
	assert_string_equal(
	    hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

#ifdef MC_FAULTS
static void test_faults(void **state)
{
	static const char *const kinds[] = {"alloc", "read"};
	const struct mc_dataset_source source = {.path = path_of("fault.jsonl")};
	struct mc_dataset_options options = plain;
	struct mc_tokenizer *tokenizer = letters();

	(void)state;
	options.concatenate = options.shuffle = true;
	options.max_seq_length = 2;
	write_text("fault.jsonl", "{\"text\":\"abc\"}\n{\"input_ids\":[7,8]}\n");
	for (size_t k = 0; k < 2; k++) {
		bool done = false;

		for (long n = 1; !done; n++) {
			struct mc_dataset dataset;
			struct mc_error err;

			mc_error_init(&err);
			mc_fault_arm(kinds[k], n);
			done = mc_dataset_load(
			    &dataset, &source, 1, &options, NULL, tokenizer, &err);
			mc_fault_disarm();
			if (done)
				mc_dataset_release(&dataset);
			else
				assert_true(err.code == MC_NO_MEMORY || err.code == MC_IO);
		}
	}
	mc_tokenizer_free(tokenizer);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_jsonl),
	    cmocka_unit_test(test_text_column),
	    cmocka_unit_test(test_special_tokens),
	    cmocka_unit_test(test_jsonl_refused),
	    cmocka_unit_test(test_long_path),
	    cmocka_unit_test(test_line_limit),
	    cmocka_unit_test(test_limits),
	    cmocka_unit_test(test_reads_no_further),
	    cmocka_unit_test(test_concatenate),
	    cmocka_unit_test(test_shuffle),
	    cmocka_unit_test(test_txt),
	    cmocka_unit_test(test_unknown_kind),
	    cmocka_unit_test(test_npy_types),
	    cmocka_unit_test(test_npy_choice),
	    cmocka_unit_test(test_npy_refused),
	    cmocka_unit_test(test_npy_ids),
	    cmocka_unit_test(test_safetensors),
	    cmocka_unit_test(test_holds_ids),
	    cmocka_unit_test(test_tokenizer_needed),
	    cmocka_unit_test(test_digest),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_faults),
#endif
	};

	return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
