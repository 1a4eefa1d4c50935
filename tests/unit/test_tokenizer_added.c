/*
 * test_tokenizer_added.c - added tokens in texts, and ids around texts
 */
#include "tokenizer_maker.h"

#define TOKEN(id, content, single, l, r, normalized, special)                                      \
	"{\"id\":" id ",\"content\":\"" content "\",\"single_word\":" single ",\"lstrip\":" l      \
	",\"rstrip\":" r ",\"normalized\":" normalized ",\"special\":" special "}"
#define PLAIN(id, content) TOKEN(id, content, "false", "false", "false", "false", "false")
#define SPECIAL(id, content) TOKEN(id, content, "false", "false", "false", "false", "true")

static const char vocab[] = "{\"a\":0,\"b\":1,\" \":2,\"<\":3,\">\":4,\"\\t\":5,\"_\":6,\"x\":7}";

struct text_case {
	const char *text, *ids;
};

static void check(struct parts p, const struct text_case *cases, size_t count)
{
	struct mc_tokenizer *t;

	p.vocab = vocab;
	t = make(p);
	for (size_t i = 0; i < count; i++)
		assert_encodes(t, cases[i].text, cases[i].ids);
	mc_tokenizer_free(t);
}
#define CHECK(p, cases) check(p, cases, sizeof(cases) / sizeof(cases[0]))

static void test_longest_first(void **state)
{
	static const struct text_case cases[] = {
	    {"<a>", "8"},
	    {"<a><b>", "9"},
	    {"<a><b", "8 3 1"},
	    {"x<a>x<a>", "7 8 7 8"},
	    {"<<a>>", "3 8 4"},
	    {"", ""},
	};

	(void)state;
	CHECK(((struct parts){.added = "[" SPECIAL("8", "<a>") "," SPECIAL("9", "<a><b>") "]"}),
	    cases);
}

static void test_strip(void **state)
{
	static const struct text_case left[] = {
	    {"a \t<a> b", "0 8 2 1"}, {"<a> <a>", "8 8"}, {" <a>", "8"}, {"a\u200b<a>", "0 8"}};
	static const struct text_case right[] = {
	    {"a <a> \tb", "0 2 8 1"},
	    {"<a>\u3000\u2028b", "8 1"},
	    /* The search goes on behind "<a>" itself: two spaces in what it swallowed are found,
	     * and the next gap begins behind them. */
	    {"<a>   b", "8 9 2 1"},
	};

	(void)state;
	CHECK(((struct parts){
		  .added = "[" TOKEN("8", "<a>", "false", "true", "false", "false", "true") "]"}),
	    left);
	CHECK(((struct parts){.added = "[" TOKEN("8", "<a>", "false", "false", "true", "false",
				  "true") "," PLAIN("9", "  ") "]"}),
	    right);
}

static void test_single_word(void **state)
{
	static const struct text_case cases[] = {
	    {"ab", "8"}, {"ab ab", "8 2 8"}, {"abx", "0 1 7"}, {"xab", "7 0 1"}, {"ab<", "8 3"},
	    {"_ab", "6 0 1"},
	    {"ab\u0301", "0 1"}, /* a mark is a word character, and unknown here */
	    {"ab\u200d", "0 1"}, /* so is a joiner */
	    {"ab\u00bd", "8"},   /* a fraction is none */
	};

	(void)state;
	CHECK(((struct parts){
		  .added = "[" TOKEN("8", "ab", "true", "false", "false", "false", "false") "]"}),
	    cases);
}

static void test_normalized(void **state)
{
	/* The content goes through the normalizer too, and only then is looked for. */
	static const struct text_case cases[] = {{"a b", "9"}, {"a<x>", "6 0 8"}, {"<x>a", "8 6 0"},
	    {"<x>a b", "8 9"}, {"xa b", "6 7 0 6 1"}};

	(void)state;
	CHECK(((struct parts){
		  .normalizer = "{\"type\":\"Sequence\",\"normalizers\":[{\"type\":\"Prepend\","
				"\"prepend\":\"_\"},{\"type\":\"Replace\",\"pattern\":{\"String\":"
				"\" \"},\"content\":\"_\"}]}",
		  .added = "[" SPECIAL("8", "<x>") "," TOKEN(
		      "9", "a b", "false", "false", "false", "true", "false") "]"}),
	    cases);
}

static void test_special_not_matched(void **state)
{
	struct mc_tokenizer *t = make((struct parts){
	    .vocab = vocab, .added = "[" SPECIAL("8", "axa") "," PLAIN("9", "xa") "]"});

	(void)state;
	assert_encodes(t, "axa xa", "8 2 9");
	/* A special token that does not count still covers its letters. */
	assert_string_equal(encode_as(t, "axa xa", 6, MC_ADD_SPECIAL_YES, false), "0 7 0 2 9");
	mc_tokenizer_free(t);
}

static void test_ids(void **state)
{
	/* "b" is in the vocabulary; the others are numbered on from its size. */
	struct mc_tokenizer *t = make((struct parts){.vocab = vocab,
	    .added = "[" PLAIN("77", "<1>") "," PLAIN("78", "b") "," PLAIN("79", "<2>") "]"});

	(void)state;
	assert_encodes(t, "<2>b<1>", "9 1 8");
	assert_int_equal(mc_tokenizer_size(t), 10);
	mc_tokenizer_free(t);
}

/* --- ids around a text ------------------------------------------------------------------------ */

#define TEMPLATE                                                                                   \
	"{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\","          \
	"\"type_id\":0}},{\"Sequence\":{\"id\":\"A\",\"type_id\":0}},{\"SpecialToken\":{\"id\":"   \
	"\"</s>\",\"type_id\":0}}],\"pair\":[],\"special_tokens\":{\"<s>\":{\"id\":\"<s>\","       \
	"\"ids\":[8],\"tokens\":[\"<s>\"]},\"</s>\":{\"id\":\"</"                                  \
	"s>\",\"ids\":[9,8],\"tokens\":[]}}}"
#define BOS_EOS "[" SPECIAL("8", "<s>") "," SPECIAL("9", "</s>") "]"

static void test_template(void **state)
{
	struct mc_tokenizer *t = make((struct parts){.vocab = vocab,
	    .added = BOS_EOS,
	    .post = "{\"type\":\"Sequence\",\"processors\":[{\"type\":\"ByteLevel\","
		    "\"add_prefix_space\":true,\"trim_offsets\":false},{\"type\":"
		    "\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"x\"}},"
		    "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{\"x\":{\"id\":\"x\","
		    "\"ids\":[7]}}}," TEMPLATE "]}"});

	(void)state;
	assert_encodes(t, "a", "8 7 0 9 8");
	assert_encodes(t, "", "8 7 9 8");
	assert_string_equal(encode_as(t, "a", 1, MC_ADD_SPECIAL_AUTO, true), "8 7 0 9 8");
	assert_string_equal(encode_as(t, "a", 1, MC_ADD_SPECIAL_NO, true), "0");
	mc_tokenizer_free(t);
}

static void test_flags(void **state)
{
	static const struct {
		const char *config, *ids;
	} cases[] = {
	    {NULL, "8 0 9 8"},
	    {"{}", "8 0 9 8"},
	    {"{\"tokenizer_class\":\"LlamaTokenizerFast\"}", "8 0 9 8"},
	    {"{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":null}", "8 0 9 8"},
	    {"{\"tokenizer_class\":\"Qwen2Tokenizer\",\"add_bos_token\":false}", "8 0 9 8"},
	    {"{\"tokenizer_class\":\"LlamaTokenizerFast\",\"add_bos_token\":true,"
	     "\"bos_token\":\"<s>\"}",
		"8 0"},
	    {"{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":false}", "0"},
	    {"{\"tokenizer_class\":\"LlamaTokenizer\",\"add_bos_token\":true,\"bos_token\":"
	     "{\"content\":\"<s>\"},\"add_eos_token\":true,\"eos_token\":\"</s>\"}",
		"8 0 9"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mc_tokenizer *t = make((struct parts){
		    .vocab = vocab, .added = BOS_EOS, .post = TEMPLATE, .config = cases[i].config});

		assert_string_equal(encode_as(t, "a", 1, MC_ADD_SPECIAL_AUTO, true), cases[i].ids);
		assert_encodes(t, "a", "8 0 9 8");
		assert_string_equal(encode_as(t, "a", 1, MC_ADD_SPECIAL_NO, true), "0");
		mc_tokenizer_free(t);
	}
}

static void test_flags_refused(void **state)
{
	static const struct {
		const char *config, *says;
	} cases[] = {
	    {"{\"tokenizer_class\":\"Llama\",\"add_bos_token\":true}", "bos_token"},
	    {"{\"tokenizer_class\":\"Llama\",\"add_bos_token\":true,\"bos_token\":\"<t>\"}", "<t>"},
	    {"{\"tokenizer_class\":\"Llama\",\"add_bos_token\":1}", "add_bos_token"},
	};

	(void)state;
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct mc_error err;

		mc_error_init(&err);
		assert_null(try_make(&(struct parts){.config = cases[i].config}, &err));
		assert_int_equal(err.code, MC_CORRUPT);
		assert_non_null(strstr(err.text, cases[i].says));
	}
}

static void test_template_refused(void **state)
{
	static const char *const posts[] = {
	    "{\"type\":\"TemplateProcessing\",\"single\":[]}",
	    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"B\"}}]}",
	    "{\"type\":\"TemplateProcessing\",\"single\":[{\"Sequence\":{\"id\":\"A\"}},"
	    "{\"Sequence\":{\"id\":\"A\"}}]}",
	    "{\"type\":\"TemplateProcessing\",\"single\":[{\"SpecialToken\":{\"id\":\"<s>\"}},"
	    "{\"Sequence\":{\"id\":\"A\"}}],\"special_tokens\":{}}",
	};

	(void)state;
	for (size_t i = 0; i < sizeof(posts) / sizeof(posts[0]); i++) {
		struct mc_error err;

		mc_error_init(&err);
		assert_null(try_make(&(struct parts){.post = posts[i]}, &err));
		assert_non_null(strstr(err.text, "TemplateProcessing"));
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_longest_first),
	    cmocka_unit_test(test_strip),
	    cmocka_unit_test(test_single_word),
	    cmocka_unit_test(test_normalized),
	    cmocka_unit_test(test_special_not_matched),
	    cmocka_unit_test(test_ids),
	    cmocka_unit_test(test_template),
	    cmocka_unit_test(test_flags),
	    cmocka_unit_test(test_flags_refused),
	    cmocka_unit_test(test_template_refused),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
