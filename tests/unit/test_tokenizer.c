/*
 * test_tokenizer.c - components of tokenizer.json one by one, and cases of the reference library
 */
#include "tokenizer_maker.h"

#include "moecal/fault.h"
#include "moecal/file.h"
#include "moecal/json.h"
#include "moecal/root.h"

/* --- words ------------------------------------------------------------------------------------ */

#define WHOLE_WORDS "\"ignore_merges\":true,"
#define SPLIT(pattern, behavior, invert)                                                           \
	"{\"type\":\"Split\",\"pattern\":{" pattern "},\"behavior\":\"" behavior                   \
	"\",\"invert\":" invert "}"

/* What the pieces of a-b--c are shows by tokens that are whole words. */
static void test_split_behaviors(void **state)
{
	static const char vocab[] = "{\"a\":0,\"b\":1,\"c\":2,\"-\":3,\"a-\":4,\"b-\":5,\"-b\":6,"
				    "\"-c\":7,\"--\":8,\"b--\":9}";
	static const struct {
		const char *pre, *ids;
	} cases[] = {
	    {SPLIT("\"String\":\"-\"", "Removed", "false"), "0 1 2"},
	    {SPLIT("\"String\":\"-\"", "Isolated", "false"), "0 3 1 3 3 2"},
	    {SPLIT("\"String\":\"-\"", "Contiguous", "false"), "0 3 1 8 2"},
	    {SPLIT("\"String\":\"-\"", "MergedWithPrevious", "false"), "4 5 3 2"},
	    {SPLIT("\"String\":\"-\"", "MergedWithNext", "false"), "0 6 3 7"},
	    {SPLIT("\"Regex\":\"-\"", "MergedWithNext", "false"), "0 6 3 7"},
	    {SPLIT("\"Regex\":\"[abc]\"", "Removed", "true"), "0 1 2"},
	    {SPLIT("\"Regex\":\"[abc]\"", "MergedWithPrevious", "true"), "4 9 2"},
	    {SPLIT("\"Regex\":\"[abc]\"", "Contiguous", "true"), "0 3 1 8 2"},
	    {SPLIT("\"Regex\":\"-\"", "Removed", "true"), "3 3 3"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mc_tokenizer *t = make(
		    (struct parts){.pre = cases[i].pre, .vocab = vocab, .model = WHOLE_WORDS});

		assert_encodes(t, "a-b--c", cases[i].ids);
		mc_tokenizer_free(t);
	}
}

static void test_digits(void **state)
{
	static const char vocab[] = "{\"a\":0,\"1\":1,\"2\":2,\"12\":3,\"½\":4,\"Ⅻ\":5,\"½Ⅻ\":6}";
	struct mc_tokenizer *each = make((struct parts){.vocab = vocab,
	    .model = WHOLE_WORDS,
	    .pre = "{\"type\":\"Digits\",\"individual_digits\":true}"});
	struct mc_tokenizer *runs = make((struct parts){.vocab = vocab,
	    .model = WHOLE_WORDS,
	    .pre = "{\"type\":\"Digits\",\"individual_digits\":false}"});

	(void)state;
	assert_encodes(each, "12a½Ⅻ", "1 2 0 4 5");
	assert_encodes(runs, "12a½Ⅻ", "3 0 6");
	mc_tokenizer_free(each);
	mc_tokenizer_free(runs);
}

/* A vocabulary of the 256 characters of the byte alphabet, in the order of bytes. */
static const char *byte_vocab(void)
{
	static char text[8192];
	size_t length = (size_t)snprintf(text, sizeof(text), "{");
	unsigned other = 0x100;

	for (unsigned byte = 0; byte < 256; byte++) {
		bool plain = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
			     byte >= 0xAE;

		length += (size_t)snprintf(text + length, sizeof(text) - length, "%s\"\\u%04x\":%u",
		    byte ? "," : "", plain ? byte : other, byte);
		other += !plain;
	}
	snprintf(text + length, sizeof(text) - length, "}");
	return text;
}

static void test_byte_level(void **state)
{
	const char *vocab = byte_vocab();
	char text[512], expected[2048];
	struct mc_tokenizer *t = make((struct parts){.vocab = vocab,
	    .pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":false,\"use_regex\":false}"});
	struct mc_tokenizer *prefixed = make((struct parts){.vocab = vocab,
	    .pre = "{\"type\":\"ByteLevel\",\"add_prefix_space\":true,\"trim_offsets\":true}"});
	size_t length = 0, shown = 0;

	(void)state;
	/* Every byte below 80, and every lead and following byte of two-byte characters. */
	for (unsigned c = 0; c < 128; c++)
		text[length++] = (char)c;
	for (unsigned lead = 0xC2; lead < 0xE0; lead++) {
		text[length++] = (char)lead;
		text[length++] = (char)(0x80 + (lead * 7) % 64);
	}
	for (size_t i = 0; i < length; i++)
		shown += (size_t)snprintf(expected + shown, sizeof(expected) - shown, "%s%u",
		    i ? " " : "", (unsigned char)text[i]);
	assert_string_equal(encode_as(t, text, length, MC_ADD_SPECIAL_YES, true), expected);
	assert_encodes(prefixed, "a", "32 97");
	assert_encodes(prefixed, " a", "32 97");
	assert_encodes(prefixed, "", "");
	mc_tokenizer_free(t);
	mc_tokenizer_free(prefixed);
}

static void test_metaspace(void **state)
{
	static const char vocab[] =
	    "{\"▁\":0,\"a\":1,\"b\":2,\"▁a\":3,\"▁b\":4,\"a▁b\":5,\"▁a▁b\":6}";
	static const char added[] =
	    "[{\"id\":7,\"content\":\"<x>\",\"single_word\":false,\"lstrip\":false,"
	    "\"rstrip\":false,\"normalized\":false,\"special\":true}]";
	static const struct {
		const char *scheme, *text, *ids;
	} cases[] = {
	    {"\"prepend_scheme\":\"first\",\"split\":true", "a b<x>a", "3 4 7 1"},
	    {"\"prepend_scheme\":\"first\",\"split\":true", "<x>a", "7 1"},
	    {"\"prepend_scheme\":\"always\",\"split\":true", "a b<x>a", "3 4 7 3"},
	    {"\"prepend_scheme\":\"never\",\"split\":true", "a b<x>a", "1 4 7 1"},
	    {"\"prepend_scheme\":\"always\",\"split\":false", "a b", "6"},
	    {"\"prepend_scheme\":\"never\",\"split\":false", "a b", "5"},
	    {"\"prepend_scheme\":\"always\"", " a", "3"},
	    {"\"prepend_scheme\":\"always\"", "▁a", "3"},
	    {"\"add_prefix_space\":true", "a", "3"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char pre[256];

		snprintf(pre, sizeof(pre), "{\"type\":\"Metaspace\",\"replacement\":\"▁\",%s}",
		    cases[i].scheme);
		struct mc_tokenizer *t = make((struct parts){
		    .pre = pre, .vocab = vocab, .added = added, .model = WHOLE_WORDS});
		assert_encodes(t, cases[i].text, cases[i].ids);
		mc_tokenizer_free(t);
	}
}

/* --- normalizers ------------------------------------------------------------------------------ */

static void test_forms(void **state)
{
	/* composed and decomposed forms as whole texts */
	static const char vocab[] = "{\"é\":0,\"e\\u0301\":1,\"각\":2,\"\\u1100\\u1161\\u11a8\":3,"
				    "\"ﬁ\":4,\"fi\":5,\"a\\u0323\\u0301\":6,\"ạ\\u0301\":7,"
				    "\"x각\":8,\"\\u0344\":9,\"\\u0308\\u0301\":10}";
	static const struct {
		const char *form, *text, *ids;
	} cases[] = {
	    {"NFC", "e\u0301", "0"},
	    {"NFC", "\u1100\u1161\u11a8", "2"},
	    {"NFC", "x\u1100\u1161\u11a8", "8"},
	    {"NFC", "ﬁ", "4"},
	    {"NFC", "a\u0301\u0323", "7"},
	    {"NFC", "\u0344", "10"},
	    {"NFD", "é", "1"},
	    {"NFD", "각", "3"},
	    {"NFD", "a\u0301\u0323", "6"},
	    {"NFKC", "ﬁ", "5"},
	    {"NFKC", "e\u0301", "0"},
	    {"NFKD", "ﬁ", "5"},
	    {"NFKD", "é", "1"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		char normalizer[64];

		snprintf(normalizer, sizeof(normalizer), "{\"type\":\"%s\"}", cases[i].form);
		struct mc_tokenizer *t = make(
		    (struct parts){.normalizer = normalizer, .vocab = vocab, .model = WHOLE_WORDS});
		assert_encodes(t, cases[i].text, cases[i].ids);
		mc_tokenizer_free(t);
	}
}

/* A long run of marks in the wrong order: sorted in a time that grows with their number only. */
static void test_many_marks(void **state)
{
	struct mc_tokenizer *t = make((struct parts){
	    .normalizer = "{\"type\":\"NFD\"}", .vocab = "{\"e\":0,\"\\u0301\":1,\"\\u0323\":2}"});
	const size_t pairs = 300000;
	char *text = malloc(1 + 4 * pairs);
	struct mc_ids ids = {0};
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	text[0] = 'e';
	for (size_t i = 0; i < pairs; i++)
		memcpy(text + 1 + 4 * i, "\u0301\u0323", 4);
	assert_true(
	    mc_tokenizer_encode(t, text, 1 + 4 * pairs, MC_ADD_SPECIAL_NO, true, &ids, &err));
	assert_int_equal(ids.count, 1 + 2 * pairs);
	for (size_t i = 0; i < pairs; i++) {
		assert_int_equal(ids.ids[1 + i], 2);
		assert_int_equal(ids.ids[1 + pairs + i], 1);
	}
	mc_ids_release(&ids);
	mc_tokenizer_free(t);
	free(text);
}

static void test_prepend_replace(void **state)
{
	struct mc_tokenizer *t = make((struct parts){
	    .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
			  "\"prepend\":\"_\"},{\"type\":\"Replace\",\"pattern\":{\"String\":"
			  "\"--\"},\"content\":\"+\"},{\"type\":\"Replace\",\"pattern\":"
			  "{\"Regex\":\"b{2,}\"},\"content\":\"\"}]}",
	    .vocab = "{\"_\":0,\"+\":1,\"-\":2,\"a\":3,\"b\":4}"});

	(void)state;
	assert_encodes(t, "a---a", "0 3 1 2 3");
	assert_encodes(t, "abbba", "0 3 3");
	assert_encodes(t, "ab", "0 3 4");
	assert_encodes(t, "", "");
	mc_tokenizer_free(t);
}

/* --- expressions ------------------------------------------------------------------------------ */

/* Does the expression, used as Split Removed, match exactly the whole character? */
static bool matches(const char *expression, const char *text)
{
	char pre[512];
	bool matched;

	snprintf(pre, sizeof(pre), SPLIT("\"Regex\":\"%s\"", "Removed", "false"), expression);
	struct mc_tokenizer *t = make(
	    (struct parts){.pre = pre, .vocab = "{\"?\":0}", .model = "\"unk_token\":\"?\","});
	matched = strcmp(encode(t, text), "") == 0;
	mc_tokenizer_free(t);
	return matched;
}

static void test_expressions(void **state)
{
	static const struct {
		const char *expression, *text;
		bool matched;
	} cases[] = {
	    {"\\\\s", "\u00a0", true},
	    {"\\\\s", "\u180e", false},
	    {"\\\\s", "\x1c", false},
	    {"\\\\S", "\u180e", true},
	    {"\\\\S", "\u3000", false},
	    {"[^\\\\s]", "\u180e", true},
	    {"[\\\\S]", "\u2028", false},
	    {"[x\\\\S]", "\u200b", true},
	    {"\\\\p{Han}", "中", true},
	    {"\\\\p{Han}", "。", false},
	    {"[\\\\p{Han}]", "。", false},
	    {"\\\\P{Han}", "。", true},
	    {"\\\\p{^L}", "1", true},
	    {"\\\\d", "٣", true},
	    {"\\\\w", "\u0301", true},
	    {"\\\\W", "_", false},
	    {"[\\\\W]", "-", true},
	    {"[\\\\W]", "a", false},
	    {"[\\\\p{Lo}\\\\p{Lu}&&[^\\\\p{Han}]]", "あ", true},
	    {"[\\\\p{Lo}\\\\p{Lu}&&[^\\\\p{Han}]]", "中", false},
	    {"[^\\\\p{Lo}&&[^\\\\p{Han}]]", "中", true},
	    {"[^\\\\p{Lo}&&[^\\\\p{Han}]]", "あ", false},
	    {"[a-z&&b-d&&[^c]]", "d", true},
	    {"[a-z&&b-d&&[^c]]", "c", false},
	    {"[a-z&&0-9]", "a", false},
	    {"[(x[.,!])]", "!", true},
	    {"[(x[.,!])]", "[", false},
	    {"[^(x[.,!])]", ",", false},
	    {"[[:digit:]x]", "٣", true},
	    {"[\\\\s-x]", "-", true},
	    {"[\\\\s-x]", "w", false},
	    {"[a-]", "-", true},
	    {"[]a]", "]", true},
	    {"(?i:'s)", "'ſ", true},
	    {"(?i:'s)|x", "X", false},
	    {"(?i)x", "X", true},
	    {"(?m:a.b)", "a\nb", true},
	    {"a.b", "a\nb", false},
	    {"a{,2}b", "aab", true},
	    {"a{,b", "a{,b", true},
	    {"\\\\h+", "09afAF", true},
	    {"\\\\v", "\v", true},
	    {"\\\\v", "\n", false},
	    {"\\\\u4e2d\\\\x{6587}\\\\x41", "中文A", true},
	    {"b$", "b", true},
	    {"a\\n^b", "a\nb", true},
	    {"(a|b)(?=c)c", "bc", true},
	    {"a++b", "aab", true},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		if (matches(cases[i].expression, cases[i].text) != cases[i].matched)
			fail_msg("%s on '%s': expected %d", cases[i].expression, cases[i].text,
			    cases[i].matched);
	}
}

/* A match of a million characters: past the stack of compiled expressions. */
static void test_long_match(void **state)
{
	struct mc_tokenizer *t = make(
	    (struct parts){.pre = SPLIT("\"Regex\":\"(?:(?!b)[a-z])*b\"", "Removed", "false"),
		.vocab = "{\"x\":0}"});
	const size_t length = 1000000;
	char *text = malloc(length);

	(void)state;
	memset(text, 'a', length);
	text[length - 1] = 'b';
	assert_string_equal(encode_as(t, text, length, MC_ADD_SPECIAL_NO, true), "");
	mc_tokenizer_free(t);
	free(text);
}

/* --- refusals --------------------------------------------------------------------------------- */

static void assert_refused(struct parts p, enum mc_code code, const char *says)
{
	struct mc_error err;
	struct mc_tokenizer *t;

	mc_error_init(&err);
	t = try_make(&p, &err);
	if (t)
		fail_msg("was not refused, expected: %s", says);
	if (!strstr(err.text, says))
		fail_msg("'%s' does not say '%s'", err.text, says);
	assert_int_equal(err.code, code);
	assert_non_null(strstr(err.where, "tokenizer"));
}

static void test_refused_components(void **state)
{
	(void)state;
	assert_refused((struct parts){.normalizer = "{\"type\":\"Lowercase\"}"}, MC_UNSUPPORTED,
	    "normalizer Lowercase");
	assert_refused((struct parts){.normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{"
						    "\"type\":\"NFC\"},{\"type\":\"Strip\"}]}"},
	    MC_UNSUPPORTED, "normalizer Strip");
	assert_refused((struct parts){.pre = "{\"type\":\"BertPreTokenizer\"}"}, MC_UNSUPPORTED,
	    "pre_tokenizer BertPreTokenizer");
	assert_refused((struct parts){.post = "{\"type\":\"RobertaProcessing\"}"}, MC_UNSUPPORTED,
	    "post_processor RobertaProcessing");
	assert_refused((struct parts){.model = "\"dropout\":0.1,"}, MC_UNSUPPORTED, "dropout");
	assert_refused((struct parts){.model = "\"end_of_word_suffix\":\"</w>\","}, MC_UNSUPPORTED,
	    "end_of_word_suffix");
	assert_refused((struct parts){.model = "\"novelty\":1,"}, MC_UNSUPPORTED, "novelty");
	assert_refused((struct parts){.pre = "{\"type\":\"Digits\",\"individual_digits\":true,"
					     "\"base\":8}"},
	    MC_UNSUPPORTED, "base");
	assert_refused(
	    (struct parts){.pre = "{\"type\":\"Digits\"}"}, MC_CORRUPT, "individual_digits");
	assert_refused((struct parts){.pre = "{\"type\":\"Metaspace\",\"replacement\":\"_\","
					     "\"add_prefix_space\":false}"},
	    MC_UNSUPPORTED, "add_prefix_space");
	assert_refused((struct parts){.pre = SPLIT("\"String\":\"x\"", "Scattered", "false")},
	    MC_UNSUPPORTED, "Scattered");
	assert_refused((struct parts){.vocab = "{\"a\":-1}"}, MC_CORRUPT, "-1");
	assert_refused((struct parts){.vocab = "{}"}, MC_CORRUPT, "vocabulary");
	assert_refused((struct parts){.merges = "[\"a zz\"]"}, MC_CORRUPT, "zz");
	assert_refused((struct parts){.merges = "[\"a\"]"}, MC_CORRUPT, "merge number 1");
	assert_refused((struct parts){.merges = "[[\"a\",\"a\"]]"}, MC_CORRUPT, "aa");
	assert_refused(
	    (struct parts){.added = "[{\"id\":1,\"content\":\"x\"}]"}, MC_CORRUPT, "single_word");
	assert_refused((struct parts){.config = "{"}, MC_CORRUPT, "not valid JSON");
	assert_refused((struct parts){.normalizer = "7"}, MC_CORRUPT, "needed an object");
}

static void test_refused_expressions(void **state)
{
	static const char *const refused[] = {"\\\\bx", "(a)\\\\1", "\\\\Kx", "a{2}+", "a{2}?",
	    "(?<n>x)", "(*ACCEPT)", "(?R)", "[a", "(a", "a)", "\\\\p{Nonsense}", "\\\\pL", "a(?i)b",
	    "\\\\x80", "[b-a]", "[[:punct:]]", "*", "\\\\Qx\\\\E", "\\\\ud800"};

	(void)state;
	for (size_t i = 0; i < sizeof(refused) / sizeof(refused[0]); i++) {
		char pre[256];

		snprintf(
		    pre, sizeof(pre), SPLIT("\"Regex\":\"%s\"", "Removed", "false"), refused[i]);
		assert_refused((struct parts){.pre = pre}, MC_UNSUPPORTED, "pre_tokenizer Split");
	}
}

static void test_refused_files(void **state)
{
	static const struct {
		const char *json, *says;
		enum mc_code code;
	} cases[] = {
	    {"", "JSON", MC_CORRUPT},
	    {"[]", "needed an object", MC_CORRUPT},
	    {"{\"version\":\"2.0\"}", "2.0", MC_UNSUPPORTED},
	    {"{\"novelty\":1}", "novelty", MC_UNSUPPORTED},
	    {"{\"model\":null}", "model", MC_CORRUPT},
	    {"{\"model\":{\"type\":\"Unigram\"}}", "model Unigram", MC_UNSUPPORTED},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mc_error err;

		mc_error_init(&err);
		assert_null(mc_tokenizer_new(cases[i].json, strlen(cases[i].json), NULL, 0, &err));
		assert_int_equal(err.code, cases[i].code);
		assert_non_null(strstr(err.text, cases[i].says));
	}
}

/* --- whole files ------------------------------------------------------------------------------ */

#define DATA "tests/data/tokenizers/"

static void read_text(const char *path, struct mc_buf *text)
{
	struct mc_error err;
	int fd = -1;

	mc_error_init(&err);
	mc_buf_init(text, 1 << 20);
	assert_true(mc_root_open(NULL, path, &fd, &err));
	assert_true(mc_file_read_all(fd, path, text, &err));
	mc_close(fd);
}

static void read_kind(const char *kind, struct mc_buf *json, struct mc_buf *config)
{
	char path[256];

	snprintf(path, sizeof(path), DATA "%s/tokenizer.json", kind);
	read_text(path, json);
	snprintf(path, sizeof(path), DATA "%s/tokenizer_config.json", kind);
	read_text(path, config);
}

static struct mc_tokenizer *open_kind(const char *kind)
{
	struct mc_buf json, config;
	struct mc_tokenizer *t;
	struct mc_error err;

	mc_error_init(&err);
	read_kind(kind, &json, &config);
	t = mc_tokenizer_new(
	    mc_buf_text(&json), json.length, mc_buf_text(&config), config.length, &err);
	assert_non_null(t);
	mc_buf_release(&json);
	mc_buf_release(&config);
	return t;
}

static void check_cases(const char *kind, const char *file, enum mc_add_special yes, bool special)
{
	struct mc_error err;
	struct mc_buf text;
	char path[256];
	size_t count = 0;

	mc_error_init(&err);
	struct mc_tokenizer *t = open_kind(kind);
	snprintf(path, sizeof(path), DATA "%s/%s", kind, file);
	read_text(path, &text);
	for (char *line = text.data, *end; (end = strchr(line, '\n')); line = end + 1, count++) {
		struct mc_json *json = mc_json_parse(line, (size_t)(end - line), path, &err);
		const struct mc_json *ids = mc_json_get(json, "ids");
		bool add = mc_json_bool(mc_json_get(json, "add_special_tokens"));
		struct mc_ids got = {0};
		size_t length;
		const char *bytes = mc_json_string(mc_json_get(json, "text"), &length);

		assert_true(mc_tokenizer_encode(
		    t, bytes, length, add ? yes : MC_ADD_SPECIAL_NO, special, &got, &err));
		if (got.count != mc_json_size(ids))
			fail_msg("%s:%zu: %zu ids", path, count + 1, got.count);
		for (size_t i = 0; i < got.count; i++) {
			assert_int_equal(got.ids[i], mc_json_integer(mc_json_at(ids, i)));
			assert_true(got.ids[i] < mc_tokenizer_size(t));
		}
		mc_ids_release(&got);
		mc_json_free(json);
	}
	assert_true(count >= 20);
	mc_buf_release(&text);
	mc_tokenizer_free(t);
}

static void test_reference_cases(void **state)
{
	(void)state;
	check_cases("qwen2", "cases.jsonl", MC_ADD_SPECIAL_YES, true);
	check_cases("qwen2", "cases.no_special.jsonl", MC_ADD_SPECIAL_YES, false);
	check_cases("qwen2", "auto.v4.jsonl", MC_ADD_SPECIAL_AUTO, true);
	check_cases("bos_flags", "cases.jsonl", MC_ADD_SPECIAL_YES, true);
	check_cases("bos_flags", "auto.v4.jsonl", MC_ADD_SPECIAL_AUTO, true);
}

#ifdef MC_FAULTS
/* The n-th allocation fails: NO_MEMORY, nothing lost, nothing left behind in the ids. */
static void test_faults(void **state)
{
	struct mc_buf json, config;
	bool done = false;

	(void)state;
	read_kind("bos_flags", &json, &config);
	for (long n = 1; !done; n += n < 60 ? 1 : n / 8) {
		struct mc_error err;
		struct mc_ids ids = {0};

		mc_error_init(&err);
		mc_fault_arm("alloc", n);
		struct mc_tokenizer *t = mc_tokenizer_new(
		    json.data, json.length, config.data, config.length, &err);
		done = t && mc_tokenizer_encode(
				t, "e\u0301 <a>  b\xff", 9, MC_ADD_SPECIAL_AUTO, true, &ids, &err);
		mc_fault_disarm();
		if (!done) {
			assert_int_equal(err.code, MC_NO_MEMORY);
			assert_int_equal(ids.count, 0);
		}
		mc_ids_release(&ids);
		mc_tokenizer_free(t);
	}
	mc_buf_release(&json);
	mc_buf_release(&config);
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_split_behaviors),
	    cmocka_unit_test(test_digits),
	    cmocka_unit_test(test_byte_level),
	    cmocka_unit_test(test_metaspace),
	    cmocka_unit_test(test_forms),
	    cmocka_unit_test(test_many_marks),
	    cmocka_unit_test(test_prepend_replace),
	    cmocka_unit_test(test_expressions),
	    cmocka_unit_test(test_long_match),
	    cmocka_unit_test(test_refused_components),
	    cmocka_unit_test(test_refused_expressions),
	    cmocka_unit_test(test_refused_files),
	    cmocka_unit_test(test_reference_cases),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_faults),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
