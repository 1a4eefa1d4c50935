/*
 * test_auth.c - the token file, what a header says, new tokens
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auth.h"

#include "moecal/fault.h"
#include "moecal/file.h"

/* Digests by sha256sum: of "read-token-of-grafana", "submit-token-of-ci", "admin-token-of-anna". */
#define READ_TOKEN "read-token-of-grafana"
#define READ_DIGEST "77731d26fc2e734178edfc738bb7e6bc9a27d99d2181e1ff8e36a00e9cb32cff"
#define SUBMIT_TOKEN "submit-token-of-ci"
#define SUBMIT_DIGEST "e801d6ec5a225e98e27c3c393eb2b8beb1521787ee00a1f4d88371931a9e5242"
#define ADMIN_TOKEN "admin-token-of-anna"
#define ADMIN_DIGEST "3286b4dc9736f756e04133a4a381372ded56915039a2c03f0f0f69867dbb1a41"

static char folder[] = "/tmp/moecal-auth-XXXXXX";
static char path[64];

static void put(const void *text, size_t length, unsigned mode)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	assert_int_equal(fwrite(text, 1, length, file), length);
	assert_int_equal(fclose(file), 0);
	assert_int_equal(chmod(path, mode), 0);
}

static struct tokens *read_text(const char *text, struct mc_error *err)
{
	put(text, strlen(text), 0600);
	mc_error_init(err);
	return tokens_read(path, err);
}

static enum scope find(const struct tokens *tokens, const char *authorization, const char *name)
{
	const char *found = NULL;
	enum scope scope = tokens_find(tokens, authorization, &found);

	assert_non_null(found);
	assert_string_equal(found, name);
	return scope;
}

static struct tokens *read_three(void)
{
	struct mc_error err;
	struct tokens *tokens = read_text("# who may what\n"
					  "\n"
					  "grafana read " READ_DIGEST "\n"
					  "  ci-1\tsubmit   " SUBMIT_DIGEST "  # the pipeline\r\n"
					  "#old admin " READ_DIGEST "\n"
					  "anna.b admin " ADMIN_DIGEST,
	    &err);

	assert_non_null(tokens);
	return tokens;
}

static void test_each_token_has_its_scope(void **state)
{
	struct tokens *tokens = read_three();

	(void)state;
	assert_int_equal(find(tokens, "Bearer " READ_TOKEN, "grafana"), SCOPE_READ);
	assert_int_equal(find(tokens, "Bearer " SUBMIT_TOKEN, "ci-1"), SCOPE_SUBMIT);
	assert_int_equal(find(tokens, "Bearer " ADMIN_TOKEN, "anna.b"), SCOPE_ADMIN);
	assert_int_equal(find(tokens, "bEARER  " ADMIN_TOKEN, "anna.b"), SCOPE_ADMIN);
	tokens_free(tokens);
}

static void test_everything_else_has_none(void **state)
{
	static const char *const rows[] = {
	    NULL,
	    "",
	    "Bearer",
	    "Bearer ",
	    READ_TOKEN,
	    "Basic " READ_TOKEN,
	    "Bearer" READ_TOKEN,
	    "Bearer\t" READ_TOKEN,
	    "Bearer " READ_TOKEN " ",
	    "Bearer " READ_TOKEN "x",
	    "Bearer read-token-of-grafan",
	    "Bearer Read-token-of-grafana",
	    "Bearer " READ_TOKEN " " ADMIN_TOKEN,
	    "Bearer " READ_DIGEST, /* what the file holds opens nothing */
	    "Bearer grafana",
	};
	struct tokens *tokens = read_three();

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
		assert_int_equal(find(tokens, rows[i], ""), SCOPE_NONE);
	tokens_free(tokens);
}

/* Only strings of 16 to 256 visible ASCII characters are tokens, whatever digests the file has. */
static void test_length_and_letters_of_a_token(void **state)
{
	/* of 15 and 16 times 'a', 256 and 257 times 'a', and "0123456789abcdef" with 0xe9 behind it
	 */
	struct mc_error err;
	struct tokens *tokens = read_text(
	    "a15 read ef2df0b539c6c23de0f4cbe42648c301ae0e22e887340a4599fb4ef4e2678e48\n"
	    "a16 read 0c0beacef8877bbf2416eb00f2b5dc96354e26dd1df5517320459b1236860f8c\n"
	    "a256 read 02d7160d77e18c6447be80c2e355c7ed4388545271702c50253b0914c65ce5fe\n"
	    "a257 read e8d95cc2b4bc198c54b40bd214df958afb65f5e73d2c2eafe0593cf5c635c1f0\n"
	    "latin read c7eb027a400df6a05be3687aa253e8e14a72ca0bda5496d9529e4e08ec1333e2\n",
	    &err);
	char text[300] = "Bearer ";

	(void)state;
	assert_non_null(tokens);
	memset(text + 7, 'a', 257);
	assert_int_equal(find(tokens, text, ""), SCOPE_NONE);
	text[7 + 256] = '\0';
	assert_int_equal(find(tokens, text, "a256"), SCOPE_READ);
	text[7 + 16] = '\0';
	assert_int_equal(find(tokens, text, "a16"), SCOPE_READ);
	text[7 + 15] = '\0';
	assert_int_equal(find(tokens, text, ""), SCOPE_NONE);
	assert_int_equal(find(tokens, "Bearer 0123456789abcdef\xe9", ""), SCOPE_NONE);
	tokens_free(tokens);
}

/* A digest that differs in one digit, at any place, is another token's. */
static void test_every_digit_counts(void **state)
{
	char line[128];
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < 64; i++) {
		snprintf(line, sizeof(line), "grafana read %s\n", READ_DIGEST);
		char *digit = line + 13 + i;
		*digit = *digit == '0' ? '1' : '0';
		struct tokens *tokens = read_text(line, &err);
		assert_non_null(tokens);
		assert_int_equal(find(tokens, "Bearer " READ_TOKEN, ""), SCOPE_NONE);
		tokens_free(tokens);
	}
}

static void test_digest_in_capitals(void **state)
{
	char line[128];
	struct mc_error err;

	(void)state;
	snprintf(line, sizeof(line), "grafana read %s\n", READ_DIGEST);
	for (char *at = line + 13; *at != '\0'; at++)
		if (*at >= 'a' && *at <= 'f')
			*at = (char)(*at - 'a' + 'A');
	struct tokens *tokens = read_text(line, &err);
	assert_non_null(tokens);
	assert_int_equal(find(tokens, "Bearer " READ_TOKEN, "grafana"), SCOPE_READ);
	tokens_free(tokens);
}

static void test_broken_files_are_refused(void **state)
{
	static const struct {
		const char *text;
		size_t line; /* 0: the file as a whole */
		const char *says;
	} rows[] = {
	    {"", 0, "has no token"},
	    {"# nobody\n\n", 0, "has no token"},
	    {"a read\n", 1, "2 of three fields"},
	    {"\n\na\n", 3, "1 of three fields"},
	    {"a read " READ_DIGEST " b\n", 1, "more than three"},
	    {"A read " READ_DIGEST "\n", 1, "the name"},
	    {"-a read " READ_DIGEST "\n", 1, "the name"},
	    {"a/b read " READ_DIGEST "\n", 1, "the name"},
	    {"a none " READ_DIGEST "\n", 1, "scope of 'a'"},
	    {"a Read " READ_DIGEST "\n", 1, "scope of 'a'"},
	    {"a read " READ_DIGEST "0\n", 1, "65 characters"},
	    {"a read " READ_TOKEN "\n", 1, "21 characters"},
	    {"a read g7731d26fc2e734178edfc738bb7e6bc9a27d99d2181e1ff8e36a00e9cb32cff\n", 1,
		"hex digits"},
	    {"a read " READ_DIGEST "\nb read " SUBMIT_DIGEST "\na admin " ADMIN_DIGEST "\n", 3,
		"taken by line 1"},
	    {"a read " READ_DIGEST "\n\nb admin " READ_DIGEST "\n", 3, "the same token as 'a'"},
	};
	char where[96];
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_null(read_text(rows[i].text, &err));
		assert_int_equal(err.code, MC_INVALID);
		if (rows[i].line > 0)
			snprintf(where, sizeof(where), "%s:%zu", path, rows[i].line);
		else
			snprintf(where, sizeof(where), "%s", path);
		assert_string_equal(err.where, where);
		assert_non_null(strstr(err.text, rows[i].says));
		assert_null(
		    strstr(err.text, READ_TOKEN)); /* a token in the wrong place stays secret */
	}
}

static void test_files_that_are_none(void **state)
{
	static const char zero[] = "a read " READ_DIGEST "\n\0b";
	struct mc_error err;

	(void)state;
	put(zero, sizeof(zero) - 1, 0600);
	mc_error_init(&err);
	assert_null(tokens_read(path, &err));
	assert_int_equal(err.code, MC_INVALID);

	assert_int_equal(unlink(path), 0);
	mc_error_init(&err);
	assert_null(tokens_read(path, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);

	mc_error_init(&err);
	assert_null(tokens_read(folder, &err));
	assert_int_equal(err.code, MC_INVALID);

	/* nobody writes it: this would wait for ever */
	assert_int_equal(mkfifo(path, 0600), 0);
	mc_error_init(&err);
	assert_null(tokens_read(path, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_int_equal(unlink(path), 0);
}

static void test_who_may_write_the_file(void **state)
{
	static const struct {
		unsigned mode;
		bool fine;
	} rows[] = {
	    {0400, true}, {0644, true}, {0640, true}, {0660, false}, {0602, false}, {0666, false}};
	static const char line[] = "a read " READ_DIGEST "\n";
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		unlink(path);
		put(line, sizeof(line) - 1, rows[i].mode);
		mc_error_init(&err);
		struct tokens *tokens = tokens_read(path, &err);
		assert_int_equal(tokens != NULL, rows[i].fine);
		if (!tokens) {
			assert_int_equal(err.code, MC_INVALID);
			assert_non_null(strstr(err.text, "others than its owner"));
		}
		tokens_free(tokens);
	}
	unlink(path);
}

static void test_made_tokens_open_doors(void **state)
{
	static const char *const names[] = {"read", "submit", "admin"};
	char token[3][64], line[256], file[1024] = "", header[256];
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	for (size_t i = 0; i < 3; i++) {
		assert_true(token_make(names[i], names[i], token[i], line, &err));
		assert_int_equal(strlen(token[i]), 43);
		assert_int_equal(
		    strspn(token[i], "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789-_"),
		    43);
		assert_null(strstr(line, token[i]));
		size_t length = strlen(file);
		snprintf(file + length, sizeof(file) - length, "%s\n", line);
	}
	assert_string_not_equal(token[0], token[1]);
	struct tokens *tokens = read_text(file, &err);
	assert_non_null(tokens);
	for (size_t i = 0; i < 3; i++) {
		snprintf(header, sizeof(header), "Bearer %s", token[i]);
		assert_int_equal(find(tokens, header, names[i]), SCOPE_READ + (int)i);
		assert_string_equal(scope_name((enum scope)(SCOPE_READ + (int)i)), names[i]);
	}
	assert_string_equal(scope_name(SCOPE_NONE), "none");
	tokens_free(tokens);
}

static void test_tokens_that_are_not_made(void **state)
{
	static const char *const rows[][2] = {{"a", "root"}, {"a", "none"}, {"a", ""}, {"", "read"},
	    {"A", "read"}, {"a b", "read"},
	    {"a1234567890123456789012345678901234567890123456789012345678901234", "read"}};
	char token[64], line[256];
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		mc_error_init(&err);
		assert_false(token_make(rows[i][0], rows[i][1], token, line, &err));
		assert_int_equal(err.code, MC_INVALID);
		assert_string_equal(err.where, "--make-token");
	}
}

#ifdef MC_FAULTS
static void test_memory_may_run_out(void **state)
{
	struct mc_error err;
	bool done = false;

	(void)state;
	for (long n = 1; !done; n++) {
		put("a read " READ_DIGEST "\n", 7 + 64 + 1, 0600);
		mc_error_init(&err);
		mc_fault_arm("alloc", n);
		struct tokens *tokens = tokens_read(path, &err);
		mc_fault_disarm();
		done = tokens != NULL;
		assert_true(done || err.code == MC_NO_MEMORY);
		assert_true(n > 1 || !done);
		tokens_free(tokens);
	}
}
#endif

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_each_token_has_its_scope),
	    cmocka_unit_test(test_everything_else_has_none),
	    cmocka_unit_test(test_length_and_letters_of_a_token),
	    cmocka_unit_test(test_every_digit_counts),
	    cmocka_unit_test(test_digest_in_capitals),
	    cmocka_unit_test(test_broken_files_are_refused),
	    cmocka_unit_test(test_files_that_are_none),
	    cmocka_unit_test(test_who_may_write_the_file),
	    cmocka_unit_test(test_made_tokens_open_doors),
	    cmocka_unit_test(test_tokens_that_are_not_made),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_memory_may_run_out),
#endif
	};

	if (!mkdtemp(folder))
		return 1;
	snprintf(path, sizeof(path), "%s/tokens", folder);
	int failed = cmocka_run_group_tests(tests, NULL, NULL);
	unlink(path);
	rmdir(folder);
	return failed;
}
