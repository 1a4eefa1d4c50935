/*
 * test_settings.c - settings from defaults, file and command line; errors; addresses
 */
#include "settings_world.h"

#include "moecal/fault.h"

/* --- values ------------------------------------------------------------------------------------
 */

static void test_defaults(void **state)
{
	struct settings settings;

	(void)state;
	must_read(&settings, NULL, NO_WORDS);
	assert_int_equal(settings.listen.count, 1);
	assert_string_equal(settings.listen.items[0], "127.0.0.1:8460");
	assert_string_equal(settings.state, DEFAULT_STATE);
	assert_int_equal(settings.allow.count, 0);
	assert_null(settings.token_file);
	assert_null(settings.program);
	assert_null(settings.config);
	assert_int_equal(settings.jobs, 1);
	assert_int_equal(settings.body_bytes, 256 * 1024);
	assert_int_equal(settings.upload_bytes, (uint64_t)4 << 30);
	assert_int_equal(settings.upload_seconds, 3600);
	assert_int_equal(settings.register_seconds, 600);
	assert_int_equal(settings.keep_seconds, 30 * 86400);
	assert_string_equal(settings.log_level, "info");
	assert_false(settings.log_requests);
	settings_release(&settings);
	assert_null(settings.sources);
	settings_release(&settings);
}

static void test_file_values(void **state)
{
	struct settings settings;

	(void)state;
	must_read(&settings,
	    "# a comment = 1\n"
	    "\n"
	    "   \t\n"
	    "jobs=3\r\n"
	    "  threads  =  8  # of sixteen\n"
	    "memory_bytes = 96G\n"
	    "state = /srv/a b#c = d # e\n"
	    "program = \" /opt/#1 \\\"x\\\\y\\z\" # quoted\n"
	    "log_requests = true\n"
	    "log_level = debug\n"
	    "keep_seconds = 90",
	    NO_WORDS);
	assert_int_equal(settings.jobs, 3);
	assert_int_equal(settings.threads, 8);
	assert_int_equal(settings.memory_bytes, (uint64_t)96 << 30);
	assert_string_equal(settings.state, "/srv/a b#c = d");
	assert_string_equal(settings.program, " /opt/#1 \"x\\y\\z");
	assert_true(settings.log_requests);
	assert_string_equal(settings.log_level, "debug");
	assert_int_equal(settings.keep_seconds, 90);
	assert_string_equal(settings.config, config);
	settings_release(&settings);
}

static void test_units(void **state)
{
	static const struct {
		const char *option, *value;
		uint64_t number;
		size_t offset;
	} rows[] = {
	    {"--memory-bytes", "0", 0, offsetof(struct settings, memory_bytes)},
	    {"--memory-bytes", "123", 123, offsetof(struct settings, memory_bytes)},
	    {"--memory-bytes", "3K", 3072, offsetof(struct settings, memory_bytes)},
	    {"--memory-bytes", "5M", 5 << 20, offsetof(struct settings, memory_bytes)},
	    {"--memory-bytes", "2T", (uint64_t)2 << 40, offsetof(struct settings, memory_bytes)},
	    {"--memory-bytes", "9223372036854775807", INT64_MAX,
		offsetof(struct settings, memory_bytes)},
	    {"--keep-seconds", "60", 60, offsetof(struct settings, keep_seconds)},
	    {"--keep-seconds", "75s", 75, offsetof(struct settings, keep_seconds)},
	    {"--keep-seconds", "5m", 300, offsetof(struct settings, keep_seconds)},
	    {"--keep-seconds", "2h", 7200, offsetof(struct settings, keep_seconds)},
	    {"--keep-seconds", "7d", 604800, offsetof(struct settings, keep_seconds)},
	    {"--keep-seconds", "3650d", 315360000, offsetof(struct settings, keep_seconds)},
	    {"--jobs", "64", 64, offsetof(struct settings, jobs)},
	    {"--jobs", "0001", 1, offsetof(struct settings, jobs)},
	};
	struct settings settings;
	uint64_t number;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		must_read(&settings, NULL, WORDS(rows[i].option, rows[i].value));
		memcpy(&number, (char *)&settings + rows[i].offset, sizeof(number));
		assert_int_equal(number, rows[i].number);
		settings_release(&settings);
	}
}

static void test_values_that_are_none(void **state)
{
	static const char *const words[] = {"--jobs=0", "--jobs=65", "--jobs=-1", "--jobs=+1",
	    "--jobs=1K", "--jobs=1.5", "--jobs= 1", "--jobs=0x1", "--jobs=one",
	    "--jobs=18446744073709551617", "--jobs=", "--body-bytes=1023", "--body-bytes=65M",
	    "--body-bytes=2k", "--body-bytes=2KB", "--body-bytes=K", "--body-bytes=2h",
	    "--memory-bytes=8388608T", "--memory-bytes=16777216T",
	    "--memory-bytes=9223372036854775808", "--keep-seconds=0", "--keep-seconds=3651d",
	    "--keep-seconds=1M", "--keep-seconds=1 h", "--log-requests=yes",
	    "--log-requests=", "--log-level=warn", "--state=", "--state=a\nb", "--allow=a\x7f"};
	enum settings_action action;
	struct settings settings;
	struct mc_error err;
	char option[32];

	(void)state;
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		assert_false(read_with(&settings, NULL, WORDS(words[i]), &action, &err));
		assert_int_equal(err.code, MC_INVALID);
		snprintf(option, sizeof(option), "%.*s", (int)strcspn(words[i], "="), words[i]);
		assert_string_equal(err.where, option);
		assert_null(settings.sources); /* nothing is left to release */
	}
}

/* --- sources -----------------------------------------------------------------------------------
 */

static void test_later_sources_replace(void **state)
{
	static const char text[] = "listen = unix:/run/a\n"
				   "allow = /srv/a\n"
				   "jobs = 2\n"
				   "allow = /srv/b\n"
				   "listen = [::1]:0\n"
				   "threads = 7\n";
	struct settings settings;

	(void)state;
	must_read(&settings, text, NO_WORDS);
	assert_int_equal(settings.listen.count, 2); /* without the default */
	assert_string_equal(settings.listen.items[0], "unix:/run/a");
	assert_string_equal(settings.listen.items[1], "[::1]:0");
	assert_int_equal(settings.allow.count, 2);
	settings_release(&settings);

	must_read(&settings, text, WORDS("--allow=/srv/c", "--jobs", "5", "--jobs=6"));
	assert_int_equal(settings.allow.count, 1); /* without those of the file */
	assert_string_equal(settings.allow.items[0], "/srv/c");
	assert_int_equal(settings.listen.count, 2);
	assert_int_equal(settings.jobs, 6);
	assert_int_equal(settings.threads, 7);
	settings_release(&settings);

	must_read(&settings, NULL, WORDS("--allow", "/a", "--jobs", "2", "--allow", "/b"));
	assert_int_equal(settings.allow.count, 2);
	assert_string_equal(settings.allow.items[1], "/b");
	settings_release(&settings);
}

/* A list of many lines keeps all of them, in order. */
static void test_long_lists(void **state)
{
	struct settings settings;
	char *text = NULL, item[32];
	size_t length;
	FILE *out = open_memstream(&text, &length);

	(void)state;
	assert_non_null(out);
	for (int i = 0; i < 1000; i++)
		fprintf(out, "host = h%d.example\n", i);
	assert_int_equal(fclose(out), 0);
	must_read(&settings, text, NO_WORDS);
	assert_int_equal(settings.host.count, 1000);
	for (int i = 0; i < 1000; i++) {
		snprintf(item, sizeof(item), "h%d.example", i);
		assert_string_equal(settings.host.items[i], item);
	}
	settings_release(&settings);
	free(text);
}

static void test_forms_of_options(void **state)
{
	struct settings settings;

	(void)state;
	must_read(&settings, NULL, WORDS("--queued_jobs=7", "--log-requests", "--state=--x"));
	assert_int_equal(settings.queued_jobs, 7);
	assert_true(settings.log_requests);
	assert_string_equal(settings.state, "--x");
	settings_release(&settings);
	must_read(
	    &settings, "log_requests = true\n", WORDS("--log-requests", "false", "--jobs", "2"));
	assert_false(settings.log_requests);
	assert_int_equal(settings.jobs, 2);
	settings_release(&settings);
	must_read(&settings, NULL, WORDS("--log-requests=true", "--allow=/a=b"));
	assert_true(settings.log_requests);
	assert_string_equal(settings.allow.items[0], "/a=b");
	settings_release(&settings);
}

static void test_lines_that_are_refused(void **state)
{
	static const struct {
		const char *text;
		size_t line;
		const char *says;
	} rows[] = {
	    {"jobs\n", 1, "name = value"},
	    {"\n[moecald]\n", 2, "name = value"},
	    {"= 3\n", 1, "'' is not a setting"},
	    {"job = 3\n", 1, "is jobs meant?"},
	    {"#\n\nqueued-jobs = 3\n", 3, "is queued_jobs meant?"},
	    {"colour = red\n", 1, "'colour' is not a setting"},
	    {"config = /etc/x\n", 1, "not a setting"},
	    {"jobs = 2\n# more\njobs = 2\n", 3, "the first time in line 1"},
	    {"jobs =\n", 1, "jobs: has no value"},
	    {"jobs = # none\n", 1, "jobs: has no value"},
	    {"jobs = 200\n", 1, "jobs: is '200', needed is a whole number from 1 to 64"},
	    {"body_bytes = 1G\n", 1, "needed is a size from 1K to 64M"},
	    {"keep_seconds = 0\n", 1, "needed is a time from 1 to 3650d"},
	    {"upload_bytes = 5\n", 1, "needed is a size, at least 1K"},
	    {"log_requests = 1\n", 1, "true or false"},
	    {"state = \"/a\n", 1, "not closed"},
	    {"state = \"/a\\\"\n", 1, "not closed"},
	    {"state = \"/a\" b\n", 1, "behind the closing quote"},
	    {"state = \"\"\n", 1, "no value"},
	    {"state = /a\tb\n", 1, "control character"},
	    {"\nlog_level = warning2\n", 2, "is warning meant?"},
	    {"jobs = 2\nlisten = 0.0.0.0:80\n", 2, "token_file"},
	};
	enum settings_action action;
	struct settings settings;
	struct mc_error err;
	char where[96];

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_false(read_with(&settings, rows[i].text, NO_WORDS, &action, &err));
		assert_int_equal(err.code, MC_INVALID);
		snprintf(where, sizeof(where), "%s:%zu", config, rows[i].line);
		assert_string_equal(err.where, where);
		if (!strstr(err.text, rows[i].says))
			fail_msg("'%s' does not say '%s'", err.text, rows[i].says);
	}
}

static void test_files_that_are_none(void **state)
{
	static const char zero[] = "jobs = 2\n\0threads = 3\n";
	enum settings_action action;
	struct settings settings;
	struct mc_error err;

	(void)state;
	assert_false(
	    read_with(&settings, NULL, WORDS("--config", "/nowhere/moecald.conf"), &action, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	assert_string_equal(err.where, "/nowhere/moecald.conf");
	assert_false(read_with(&settings, NULL, WORDS("--config", folder), &action, &err));
	assert_int_equal(err.code, MC_IO);
	put(config, zero, sizeof(zero) - 1);
	assert_false(read_with(&settings, NULL, WORDS("--config", config), &action, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_non_null(strstr(err.text, "byte 0"));
	put(config, "", 0);
	assert_true(read_with(&settings, NULL, WORDS("--config", config), &action, &err));
	settings_release(&settings);
}

static void test_words_that_are_refused(void **state)
{
	static const struct {
		const char *words[3], *where, *says;
	} rows[] = {
	    {{"serve"}, "serve", "not an option"},
	    {{""}, "", "not an option"},
	    {{"-x"}, "-x", "not an option"},
	    {{"--"}, "--", "not an option"},
	    {{"--=3"}, "--", "not an option"},
	    {{"--job", "3"}, "--job", "is --jobs meant?"},
	    {{"--queued-job=3"}, "--queued-job", "is --queued-jobs meant?"},
	    {{"--chek-config"}, "--chek-config", "is --check-config meant?"},
	    {{"--confg=x"}, "--confg", "is --config meant?"},
	    {{"--colour"}, "--colour", "is not an option"},
	    {{"--jobs"}, "--jobs", "needs a value"},
	    {{"--jobs", "--threads"}, "--jobs", "needs a value"},
	    {{"--config"}, "--config", "needs a value"},
	    {{"--config=a", "--config=b"}, "--config", "comes twice"},
	    {{"--check-config=x"}, "--check-config", "takes no value"},
	    {{"--check-config", "--print-config"}, "--print-config", "--check-config"},
	    {{"--make-token"}, "--make-token", "needs a value"},
	    {{"--make-token", "a"}, "--make-token", "needs a value"},
	};
	enum settings_action action;
	struct settings settings;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_false(read_with(&settings, NULL,
		    WORDS(rows[i].words[0], rows[i].words[1], rows[i].words[2]), &action, &err));
		assert_int_equal(err.code, MC_INVALID);
		assert_string_equal(err.where, rows[i].where);
		if (!strstr(err.text, rows[i].says))
			fail_msg("'%s' does not say '%s'", err.text, rows[i].says);
	}
}

static void test_actions(void **state)
{
	static const struct {
		const char *words[4];
		enum settings_action action;
	} rows[] = {
	    {{"--print-config"}, SETTINGS_PRINT},
	    {{"--jobs", "2", "--check_config"}, SETTINGS_CHECK},
	    {{"--help"}, SETTINGS_HELP},
	    {{"-h"}, SETTINGS_HELP},
	    {{"--version"}, SETTINGS_VERSION},
	    {{"--make-token", "a", "read"}, SETTINGS_MAKE_TOKEN},
	    /* these need no settings, so that broken ones are not in the way */
	    {{"--config", "/nowhere/x", "--help"}, SETTINGS_HELP},
	    {{"--jobs", "many", "--version"}, SETTINGS_VERSION},
	};
	enum settings_action action;
	struct settings settings;
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_true(read_with(&settings, NULL,
		    WORDS(rows[i].words[0], rows[i].words[1], rows[i].words[2], rows[i].words[3]),
		    &action, &err));
		assert_int_equal(action, rows[i].action);
		if (action == SETTINGS_MAKE_TOKEN) {
			assert_string_equal(settings.token_name, "a");
			assert_string_equal(settings.token_scope, "read");
		} else {
			assert_null(settings.token_name);
		}
		settings_release(&settings);
	}
	assert_false(
	    read_with(&settings, NULL, WORDS("--jobs", "many", "--check-config"), &action, &err));
}

/* --- addresses ---------------------------------------------------------------------------------
 */

/* Each is accepted without tokens, and with tokens, or not. */
static void try_listeners(const char *const *listeners, bool without, bool with)
{
	enum settings_action action;
	struct settings settings;
	struct mc_error err;

	for (; *listeners; listeners++) {
		bool open = read_with(
		    &settings, NULL, WORDS("--listen", *listeners), &action, &err);
		if (open)
			settings_release(&settings);
		else
			assert_string_equal(err.where, "--listen");
		bool closed = read_with(&settings, NULL,
		    WORDS("--listen", *listeners, "--token-file", "/t"), &action, &err);
		if (closed)
			settings_release(&settings);
		if (open != without || closed != with)
			fail_msg("%s: %d without tokens, %d with", *listeners, open, closed);
	}
}

static void test_listeners(void **state)
{
	static const char *const local[] = {"127.0.0.1:8460", "127.0.0.1:0", "127.255.3.4:65535",
	    "[::1]:80", "localhost:80", "unix:/run/moecald.sock", "systemd", NULL};
	static const char *const open[] = {"0.0.0.0:8460", "[::]:8460", "192.168.1.7:8460",
	    "128.0.0.1:1", "126.255.255.255:1", "[fe80::1]:1", "[::2]:1", "[::ffff:10.0.0.1]:1",
	    NULL};
	static const char *const wrong[] = {"127.0.0.1", "127.0.0.1:", ":8460", "*:8460",
	    "127.1:80", "127.0.0.1:65536", "127.0.0.1:99999999999999999999", "127.0.0.1:+1",
	    "127.0.0.1:8x", "::1:8460", "[::1]8460", "[::1:8460", "[]:1", "[127.0.0.1]:1",
	    "[fe80::1%eth0]:1", "example.org:80", "localhost.:80", "http://127.0.0.1:80",
	    "unix:", "unix:a.sock", "Systemd", NULL};

	(void)state;
	try_listeners(local, true, true);
	try_listeners(open, false, true);
	try_listeners(wrong, false, false);
}

static void test_listeners_together(void **state)
{
	enum settings_action action;
	struct settings settings;
	struct mc_error err;
	char path[128] = "unix:/";

	(void)state;
	/* one that is open to others is enough */
	assert_false(read_with(&settings,
	    "listen = localhost:1\nlisten = unix:/a\nlisten = [::]:1\n", NO_WORDS, &action, &err));
	assert_non_null(strstr(err.where, "moecald.conf:3"));
	assert_false(read_with(
	    &settings, NULL, WORDS("--listen=systemd", "--listen=systemd"), &action, &err));
	/* sun_path has 108 bytes with the NUL */
	memset(path + 6, 'a', 106);
	must_read(&settings, NULL, WORDS("--listen", path));
	settings_release(&settings);
	path[6 + 106] = 'a';
	assert_false(read_with(&settings, NULL, WORDS("--listen", path), &action, &err));
	assert_non_null(strstr(err.text, "108 bytes"));
}

#ifdef MC_FAULTS
static void test_memory_may_run_out(void **state)
{
	enum settings_action action;
	struct settings settings;
	struct mc_error err;
	bool done = false;

	(void)state;
	for (long n = 1; !done; n++) {
		mc_fault_arm("alloc", n);
		done = read_with(&settings, "allow = /a\nallow = /b\nstate = /s\njobs = 2\n",
		    WORDS("--allow", "/c", "--state", "/t", "--log-requests"), &action, &err);
		mc_fault_disarm();
		assert_true(done || err.code == MC_NO_MEMORY);
		assert_true(n > 20 || !done);
	}
	settings_release(&settings);
}
#endif

static int run(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_defaults),
	    cmocka_unit_test(test_file_values),
	    cmocka_unit_test(test_units),
	    cmocka_unit_test(test_values_that_are_none),
	    cmocka_unit_test(test_later_sources_replace),
	    cmocka_unit_test(test_long_lists),
	    cmocka_unit_test(test_forms_of_options),
	    cmocka_unit_test(test_lines_that_are_refused),
	    cmocka_unit_test(test_files_that_are_none),
	    cmocka_unit_test(test_words_that_are_refused),
	    cmocka_unit_test(test_actions),
	    cmocka_unit_test(test_listeners),
	    cmocka_unit_test(test_listeners_together),
#ifdef MC_FAULTS
	    cmocka_unit_test(test_memory_may_run_out),
#endif
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	return run_in_folder(run);
}
