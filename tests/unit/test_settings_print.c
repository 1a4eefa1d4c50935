/*
 * test_settings_print.c - settings printed and read again, help, reload
 */
#include "settings_world.h"

static char *printed(const struct settings *settings)
{
	char *text = NULL;
	size_t length;
	FILE *out = open_memstream(&text, &length);

	assert_non_null(out);
	settings_print(settings, out);
	assert_int_equal(fclose(out), 0);
	return text;
}

/* --- printing ----------------------------------------------------------------------------------
 */

static void test_print_says_where_from(void **state)
{
	struct settings settings;
	char line[256];

	(void)state;
	must_read(&settings,
	    "allow = /srv/a\n"
	    "keep_seconds = 7d\n"
	    "allow = \"/srv/b #2\"\n",
	    WORDS("--memory-bytes=3G", "--log-requests"));
	char *text = printed(&settings);
	assert_non_null(strstr(text, "listen = 127.0.0.1:8460  # default\n"));
	assert_non_null(strstr(text, "state = " DEFAULT_STATE "  # default\n"));
	assert_non_null(strstr(text, "\n#token_file =  # default, not set\n"));
	snprintf(line, sizeof(line), "\nallow = /srv/a  # %s:1\nallow = \"/srv/b #2\"  # %s:3\n",
	    config, config);
	assert_non_null(strstr(text, line));
	snprintf(line, sizeof(line), "\nkeep_seconds = 7d  # %s:2\n", config);
	assert_non_null(strstr(text, line));
	assert_non_null(strstr(text, "\nmemory_bytes = 3G  # command line\n"));
	assert_non_null(strstr(text, "\nlog_requests = true  # command line\n"));
	free(text);
	settings_release(&settings);
}

static void same_list(const struct text_list *a, const struct text_list *b)
{
	assert_int_equal(a->count, b->count);
	for (size_t i = 0; i < a->count; i++)
		assert_string_equal(a->items[i], b->items[i]);
}

static void same_text(const char *a, const char *b)
{
	assert_int_equal(a == NULL, b == NULL);
	if (a)
		assert_string_equal(a, b);
}

#define SAME_TEXT(field) same_text(a->field, b->field);
#define SAME_LIST(field) same_list(&a->field, &b->field);
#define SAME_COUNT(field) assert_int_equal(a->field, b->field);
#define SAME_BYTES SAME_COUNT
#define SAME_SECONDS SAME_COUNT
#define SAME_FLAG SAME_COUNT

static void assert_same(const struct settings *a, const struct settings *b)
{
#define X(field, kind, initial, least, most, reloadable, help) SAME_##kind(field)
	SETTINGS(X)
#undef X
}

static void test_print_can_be_read_again(void **state)
{
	static const char *const texts[] = {
	    "",
	    ("program = \"#x\"\nstate = \"a \"\nallow = \" a\"\nallow = \"\\\"q\\\"\"\nallow = "
	     "a\"b\n"
	     "allow = \"a #\\\\\"\nallow = a\\b\nallow = a#b\nallow = \xc3\xbc\n"),
	    "listen = 0.0.0.0:1\nlisten = systemd\ntoken_file = /t\nupload_bytes = 3T\njobs = 64\n",
	};
	struct settings first, second;

	(void)state;
	for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
		must_read(&first, texts[i], WORDS("--wait-seconds", "2m", "--host", "a #b"));
		char *text = printed(&first);
		must_read(&second, text, NO_WORDS);
		assert_same(&first, &second);
		free(text);
		settings_release(&first);
		settings_release(&second);
	}
}

static void test_help_names_every_setting(void **state)
{
	char *text = NULL, option[64];
	size_t length;
	FILE *out = open_memstream(&text, &length);
	static const char *const names[] = {
#define X(field, kind, initial, least, most, reloadable, help) #field,
	    SETTINGS(X)
#undef X
		"config",
	    "print_config", "check_config", "make_token", "help", "version"};

	(void)state;
	assert_non_null(out);
	settings_help(out);
	assert_int_equal(fclose(out), 0);
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		snprintf(option, sizeof(option), "\n  --%s", names[i]);
		for (char *at = option; *at != '\0'; at++)
			if (*at == '_')
				*at = '-';
		if (!strstr(text, option))
			fail_msg("help does not name %s", option);
	}
	free(text);
}

/* --- reload ------------------------------------------------------------------------------------
 */

static void test_reload(void **state)
{
	struct settings settings, fresh;
	char restart[256];

	(void)state;
	must_read(&settings,
	    "jobs = 2\nconnections = 100\nallow = /a\nhost = x\nstop_seconds = 1m\n", NO_WORDS);
	must_read(&fresh,
	    "jobs = 3\nconnections = 200\nallow = /a\nallow = /b\nhost = y\nhost = z\n"
	    "token_file = /t\nlog_level = debug\nstop_seconds = 60\nlog_requests = true\n",
	    NO_WORDS);
	settings_reload(&settings, &fresh, restart);
	settings_release(&fresh); /* what was taken over does not go with it */
	assert_string_equal(restart, "allow, connections");
	assert_int_equal(settings.jobs, 3);
	assert_int_equal(settings.connections, 100);
	assert_int_equal(settings.allow.count, 1);
	assert_int_equal(settings.host.count, 2);
	assert_string_equal(settings.host.items[1], "z");
	assert_string_equal(settings.token_file, "/t");
	assert_string_equal(settings.log_level, "debug");
	assert_true(settings.log_requests);
	char *text = printed(&settings);
	assert_non_null(strstr(text, "connections = 100  #"));
	assert_non_null(strstr(text, "host = z  #"));
	free(text);
	settings_release(&settings);
}

/* The service replaces paths by the real ones; that is not a change which a reload should report.
 */
static void test_reload_compares_what_was_written(void **state)
{
	struct settings settings, fresh;
	char restart[256];

	(void)state;
	must_read(&settings, "allow = /a/../b\n", WORDS("--state", "there"));
	free(settings.allow.items[0]);
	settings.allow.items[0] = strdup("/b");
	free(settings.state);
	settings.state = strdup("/here/there");
	must_read(&fresh, "allow = /a/../b\n", WORDS("--state", "there"));
	settings_reload(&settings, &fresh, restart);
	settings_release(&fresh);
	assert_string_equal(restart, "");
	assert_string_equal(settings.allow.items[0], "/b");
	assert_string_equal(settings.state, "/here/there");

	must_read(&fresh, "allow = /b\n", WORDS("--state", "elsewhere"));
	settings_reload(&settings, &fresh, restart);
	settings_release(&fresh);
	assert_string_equal(restart, "state, allow");
	settings_release(&settings);
}

static void test_reload_of_everything(void **state)
{
	struct settings settings, fresh;
	char restart[256];

	(void)state;
	must_read(&settings, NULL, NO_WORDS);
	must_read(&fresh,
	    "listen = systemd\nstate = /s\nallow = /a\nprogram = /p\nconnections = 5\nwatchers = "
	    "5\n"
	    "body_bytes = 2K\nidle_seconds = 5\ninspectors = 5\nstop_seconds = 5\n",
	    NO_WORDS);
	settings_reload(&settings, &fresh, restart);
	assert_string_equal(restart,
	    "listen, state, allow, program, connections, watchers, body_bytes, "
	    "idle_seconds, inspectors, stop_seconds");
	settings_release(&fresh);
	settings_release(&settings);
}

static int run(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_print_says_where_from),
	    cmocka_unit_test(test_print_can_be_read_again),
	    cmocka_unit_test(test_help_names_every_setting),
	    cmocka_unit_test(test_reload),
	    cmocka_unit_test(test_reload_compares_what_was_written),
	    cmocka_unit_test(test_reload_of_everything),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
	return run_in_folder(run);
}
