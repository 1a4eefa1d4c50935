/*
 * test_tokenizer_bpe.c - the model: order of merges, unknown characters, bytes, long words
 */
#include "tokenizer_maker.h"

#include "reference/bpe.h"

#include "moecal/error.h"

/* --- order ------------------------------------------------------------------------------------ */

static void test_rank_order(void **state)
{
	static const char vocab[] =
	    "{\"a\":0,\"b\":1,\"c\":2,\"ab\":3,\"bc\":4,\"abc\":5,\"aa\":6}";
	struct mc_tokenizer *first = make(
	    (struct parts){.vocab = vocab, .merges = "[\"a b\",\"b c\",\"ab c\",\"a a\"]"});
	struct mc_tokenizer *second = make((struct parts){
	    .vocab = vocab, .merges = "[[\"b\",\"c\"],[\"a\",\"b\"],[\"ab\",\"c\"]]"});

	(void)state;
	assert_encodes(first, "abc", "5");
	assert_encodes(second, "abc", "0 4");
	assert_encodes(first, "aaaaa", "6 6 0");
	assert_encodes(first, "", "");
	mc_tokenizer_free(first);
	mc_tokenizer_free(second);
}

static void test_merge_spellings(void **state)
{
	static const char vocab[] =
	    "{\"a\":0,\"b\":1,\" \":2,\"ab\":3,\"ba\":4,\"a b\":5,\"a \":6}";
	/* A comment has no rank; of one pair twice the later rank counts. */
	struct mc_tokenizer *comment = make((struct parts){
	    .vocab = vocab, .merges = "[\"#version: 0.2\",\"a b\",\"b a\",\"a b\"]"});
	struct mc_tokenizer *spaces = make(
	    (struct parts){.vocab = vocab, .merges = "[[\"a\",\" \"],[\"a \",\"b\"]]"});

	(void)state;
	assert_encodes(comment, "aba", "0 4");
	assert_encodes(spaces, "a b", "5");
	mc_tokenizer_free(comment);
	mc_tokenizer_free(spaces);
}

static void test_ignore_merges(void **state)
{
	static const char vocab[] = "{\"a\":0,\"b\":1,\"ab\":2,\"aab\":3}";
	struct mc_tokenizer *with = make((struct parts){
	    .vocab = vocab, .merges = "[\"a b\"]", .model = "\"ignore_merges\":true,"});
	struct mc_tokenizer *without = make((struct parts){.vocab = vocab, .merges = "[\"a b\"]"});

	(void)state;
	assert_encodes(with, "aab", "3");
	assert_encodes(without, "aab", "0 2");
	assert_encodes(with, "aaab", "0 0 2");
	mc_tokenizer_free(with);
	mc_tokenizer_free(without);
}

/* --- unknown characters ----------------------------------------------------------------------- */

static void test_unknown(void **state)
{
	static const char vocab[] = "{\"?\":0,\"a\":1,\"<0xC3>\":2,\"<0xA9>\":3,\"a?\":4}";
	static const struct {
		const char *model, *text, *ids;
	} cases[] = {
	    {"", "axya", "1 1"},
	    {"\"unk_token\":\"?\",", "axya", "1 0 0 1"},
	    {"\"unk_token\":\"?\",\"fuse_unk\":true,", "axya", "1 0 1"},
	    {"\"unk_token\":\"?\",", "axy", "1 0 0"},
	    {"\"byte_fallback\":true,", "aéa", "1 2 3 1"},
	    /* One byte of the character has no token: no byte is written. */
	    {"\"byte_fallback\":true,\"unk_token\":\"?\",", "aêa", "1 0 1"},
	    /* An unknown waits behind bytes, and joins with one on their other side. */
	    {"\"byte_fallback\":true,\"unk_token\":\"?\",", "xéa", "2 3 0 1"},
	    {"\"byte_fallback\":true,\"unk_token\":\"?\",", "xéya", "2 3 0 0 1"},
	    {"\"byte_fallback\":true,\"unk_token\":\"?\",\"fuse_unk\":true,", "xéya", "2 3 0 1"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mc_tokenizer *t = make(
		    (struct parts){.vocab = vocab, .model = cases[i].model});

		assert_encodes(t, cases[i].text, cases[i].ids);
		/* Once more, now from the cache of words. */
		assert_encodes(t, cases[i].text, cases[i].ids);
		mc_tokenizer_free(t);
	}
}

static void test_unknown_token_missing(void **state)
{
	struct mc_tokenizer *t = make((struct parts){.model = "\"unk_token\":\"<unk>\","});
	struct mc_ids ids = {0};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_encodes(t, "aa", "0 0");
	assert_false(mc_tokenizer_encode(t, "ab", 2, MC_ADD_SPECIAL_NO, true, &ids, &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_non_null(strstr(err.text, "<unk>"));
	assert_int_equal(ids.count, 0);
	mc_ids_release(&ids);
	mc_tokenizer_free(t);
}

static void test_invalid_utf8(void **state)
{
	static const struct {
		const char *bytes, *ids;
	} cases[] = {
	    {"a\xff"
	     "a",
		"1 0 1"},
	    {"\xe2\x82", "0"},
	    {"\xe2\x82"
	     "a",
		"0 1"},
	    {"\xf0\x9f\x92\xe9\xe9", "0 0 0"},
	    {"\xed\xa0\x80", "0 0 0"},
	    {"\xc0\x80", "0 0"},
	    {"\xf5\x80\x80\x80", "0 0 0 0"},
	    {"\xf4\x90\x80\x80", "0 0 0 0"},
	    {"\x80", "0"},
	};
	struct mc_tokenizer *t = make((struct parts){.vocab = "{\"\ufffd\":0,\"a\":1}"});

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
		assert_encodes(t, cases[i].bytes, cases[i].ids);
	mc_tokenizer_free(t);
}

static void test_nul(void **state)
{
	struct mc_tokenizer *t = make(
	    (struct parts){.vocab = "{\"a\":0,\"<0x00>\":1}", .model = "\"byte_fallback\":true,"});

	(void)state;
	assert_string_equal(encode_as(t, "a\0a", 3, MC_ADD_SPECIAL_NO, true), "0 1 0");
	mc_tokenizer_free(t);
}

/* --- against the definition ------------------------------------------------------------------- */

#define LETTERS 4
#define MERGES 60

static uint32_t next_random(uint32_t *state)
{
	*state = *state * 1664525u + 1013904223u;
	return *state >> 8;
}

/* Merges of random pairs whose results are new; what they read as is kept in names. */
static struct mc_tokenizer *random_model(uint32_t *seed, struct naive_merge merges[MERGES])
{
	static char names[LETTERS + MERGES][64];
	static char vocab[16384], list[16384];
	size_t count = LETTERS, used = 0, list_used = 0;

	for (size_t i = 0; i < LETTERS; i++)
		snprintf(names[i], sizeof(names[i]), "%c", (char)('a' + i));
	while (count < LETTERS + MERGES) {
		uint32_t left = next_random(seed) % (uint32_t)count;
		uint32_t right = next_random(seed) % (uint32_t)count;
		bool taken = strlen(names[left]) + strlen(names[right]) > 12;
		char name[128];

		snprintf(name, sizeof(name), "%.60s%.60s", names[left], names[right]);
		for (size_t i = 0; i < count; i++)
			taken = taken || strcmp(names[i], name) == 0;
		if (taken)
			continue;
		merges[count - LETTERS] = (struct naive_merge){left, right, (uint32_t)count};
		snprintf(names[count++], sizeof(names[0]), "%.63s", name);
	}
	for (size_t i = 0; i < count; i++)
		used += (size_t)snprintf(
		    vocab + used, sizeof(vocab) - used, "%s\"%s\":%zu", i ? "," : "{", names[i], i);
	for (size_t i = 0; i < MERGES; i++)
		list_used += (size_t)snprintf(list + list_used, sizeof(list) - list_used,
		    "%s[\"%s\",\"%s\"]", i ? "," : "[", names[merges[i].left],
		    names[merges[i].right]);
	snprintf(vocab + used, sizeof(vocab) - used, "}");
	snprintf(list + list_used, sizeof(list) - list_used, "]");
	return make((struct parts){.vocab = vocab, .merges = list});
}

static void test_against_definition(void **state)
{
	uint32_t seed = 7;

	(void)state;
	for (unsigned model = 0; model < 20; model++) {
		struct naive_merge merges[MERGES];
		struct mc_tokenizer *t = random_model(&seed, merges);

		for (unsigned word = 0; word < 40; word++) {
			/* Past 255 letters words are not cached. */
			size_t length = word == 0 ? 600 : 1 + next_random(&seed) % 40;
			char text[600];
			uint32_t symbols[600];
			struct mc_ids ids = {0};
			struct mc_error err;

			mc_error_init(&err);
			for (size_t i = 0; i < length; i++) {
				symbols[i] = next_random(&seed) % LETTERS;
				text[i] = (char)('a' + symbols[i]);
			}
			size_t count = naive_bpe(symbols, length, merges, MERGES);
			assert_true(mc_tokenizer_encode(
			    t, text, length, MC_ADD_SPECIAL_NO, true, &ids, &err));
			assert_int_equal(ids.count, count);
			assert_memory_equal(ids.ids, symbols, count * sizeof(*symbols));
			mc_ids_release(&ids);
		}
		mc_tokenizer_free(t);
	}
}

/* Long words in which spaces stand as marks: cut in front of them where the merges allow it. */
static void test_marks(void **state)
{
	static const char *const marks[] = {"▁", "a", "b", "?", "x"};
	static const char vocab[] = "{\"▁\":0,\"a\":1,\"b\":2,\"?\":3,\"▁a\":4,\"▁▁\":5,\"ab\":6,"
				    "\"▁ab\":7,\"▁▁ab\":8,\"▁▁▁\":9,\"a▁\":10,\"b▁\":11}";
	static const struct naive_merge merges[] = {{0, 1, 4}, {1, 2, 6}, {0, 0, 5}, {4, 2, 7},
	    {5, 6, 8}, {5, 0, 9}, {1, 0, 10}, {2, 0, 11}};
	struct mc_tokenizer *cut = make((struct parts){.vocab = vocab,
	    .model = "\"unk_token\":\"?\",",
	    .merges = "[\"▁ a\",\"a b\",\"▁ ▁\",\"▁a b\",\"▁▁ ab\",\"▁▁ ▁\"]"});
	struct mc_tokenizer *crossing = make((struct parts){.vocab = vocab,
	    .model = "\"unk_token\":\"?\",",
	    .merges = "[\"▁ a\",\"a b\",\"▁ ▁\",\"▁a b\",\"▁▁ ab\",\"▁▁ ▁\",\"a ▁\",\"b ▁\"]"});
	uint32_t seed = 3;

	(void)state;
	for (unsigned round = 0; round < 60; round++) {
		struct mc_tokenizer *t = round % 2 ? crossing : cut;
		uint32_t symbols[900];
		size_t length = 0, count = 900;
		char text[2701];
		struct mc_ids ids = {0};
		struct mc_error err;

		mc_error_init(&err);
		for (size_t i = 0; i < count; i++) {
			uint32_t symbol = next_random(&seed) % 5;

			symbols[i] = symbol < 4 ? symbol : 3; /* x is unknown */
			length += (size_t)snprintf(
			    text + length, sizeof(text) - length, "%s", marks[symbol]);
		}
		count = naive_bpe(symbols, count, merges, round % 2 ? 8 : 6);
		assert_true(
		    mc_tokenizer_encode(t, text, length, MC_ADD_SPECIAL_NO, true, &ids, &err));
		assert_int_equal(ids.count, count);
		assert_memory_equal(ids.ids, symbols, count * sizeof(*symbols));
		mc_ids_release(&ids);
	}
	mc_tokenizer_free(cut);
	mc_tokenizer_free(crossing);
}

/* With characters that vanish, marks on both sides of one meet. */
static void test_marks_around_nothing(void **state)
{
	struct mc_tokenizer *t = make(
	    (struct parts){.vocab = "{\"▁\":0,\"a\":1,\"▁▁\":2}", .merges = "[\"▁ ▁\"]"});
	char text[601];
	struct mc_ids ids = {0};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	memset(text, 'a', 600);
	memcpy(text, "▁x▁", 7);
	assert_true(mc_tokenizer_encode(t, text, 600, MC_ADD_SPECIAL_NO, true, &ids, &err));
	assert_int_equal(ids.count, 594);
	assert_int_equal(ids.ids[0], 2);
	mc_ids_release(&ids);
	mc_tokenizer_free(t);
}

/* A word of half a million letters: quadratic merging would take minutes. */
static void test_long_word(void **state)
{
	struct mc_tokenizer *t = make((struct parts){
	    .vocab = "{\"a\":0,\"aa\":1,\"aaaa\":2}", .merges = "[\"a a\",\"aa aa\"]"});
	const size_t length = 500003;
	char *text = malloc(length);
	struct mc_ids ids = {0};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	memset(text, 'a', length);
	assert_true(mc_tokenizer_encode(t, text, length, MC_ADD_SPECIAL_NO, true, &ids, &err));
	assert_int_equal(ids.count, length / 4 + 2);
	assert_int_equal(ids.ids[0], 2);
	assert_int_equal(ids.ids[length / 4], 1);
	assert_int_equal(ids.ids[length / 4 + 1], 0);
	mc_ids_release(&ids);
	mc_tokenizer_free(t);
	free(text);
}

/* More different words than are remembered at once. */
static void test_many_words(void **state)
{
	struct mc_tokenizer *t = make(
	    (struct parts){.vocab = "{\"0\":0,\"1\":1,\"2\":2,\"3\":3,\"4\":4,\"5\":5,\"6\":6,"
				    "\"7\":7,\"8\":8,\"9\":9}"});

	(void)state;
	for (unsigned round = 0; round < 2; round++) {
		for (unsigned i = 0; i < 80000; i++) {
			char word[16];
			struct mc_ids ids = {0};
			struct mc_error err;

			mc_error_init(&err);
			snprintf(word, sizeof(word), "%u", i);
			assert_true(mc_tokenizer_encode(
			    t, word, strlen(word), MC_ADD_SPECIAL_NO, true, &ids, &err));
			assert_int_equal(ids.count, strlen(word));
			for (size_t k = 0; k < ids.count; k++)
				assert_int_equal(ids.ids[k], word[k] - '0');
			mc_ids_release(&ids);
		}
	}
	mc_tokenizer_free(t);
}

static void test_size(void **state)
{
	struct mc_tokenizer *t = make((struct parts){.vocab = "{\"a\":41,\"b\":7}"});

	(void)state;
	assert_int_equal(mc_tokenizer_size(t), 42);
	mc_tokenizer_free(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rank_order),
	    cmocka_unit_test(test_merge_spellings),
	    cmocka_unit_test(test_ignore_merges),
	    cmocka_unit_test(test_unknown),
	    cmocka_unit_test(test_unknown_token_missing),
	    cmocka_unit_test(test_invalid_utf8),
	    cmocka_unit_test(test_nul),
	    cmocka_unit_test(test_against_definition),
	    cmocka_unit_test(test_marks),
	    cmocka_unit_test(test_marks_around_nothing),
	    cmocka_unit_test(test_long_word),
	    cmocka_unit_test(test_many_words),
	    cmocka_unit_test(test_size),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
