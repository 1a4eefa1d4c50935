/*
 * test_root.c - what lies beneath the roots opens, hub caches too; nothing else does
 *
 * The tree of each test:
 *   hub/snapshots/x/{model.safetensors -> ../../blobs/abc, config.json}   hub/blobs/abc
 *   other/file      secret/key (beneath no root)      rooms -> hub
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "moecal/file.h"
#include "moecal/root.h"

static char folder[64];
static struct mc_roots *roots;
static char path_text[4][256];

static const char *in(const char *name)
{
	static unsigned next;
	char *text = path_text[next++ % 4];

	snprintf(text, sizeof(path_text[0]), "%s/%s", folder, name);
	return text;
}

static bool make_file(const char *name)
{
	FILE *file = fopen(in(name), "w");

	/* Each file holds its own name. */
	return file && fputs(name, file) >= 0 && fclose(file) == 0;
}

static int make_tree(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	strcpy(folder, "/tmp/moecal-root-XXXXXX");
	if (!mkdtemp(folder) || !mc_file_make_folders(in("hub/snapshots/x"), &err) ||
	    !mc_file_make_folders(in("hub/blobs"), &err) ||
	    !mc_file_make_folders(in("other"), &err) || !mc_file_make_folders(in("secret"), &err) ||
	    !make_file("hub/blobs/abc") || !make_file("hub/snapshots/x/config.json") ||
	    !make_file("other/file") || !make_file("secret/key") ||
	    symlink("../../blobs/abc", in("hub/snapshots/x/model.safetensors")) != 0 ||
	    symlink("hub", in("rooms")) != 0)
		return -1;
	roots = mc_roots_new(&err);
	return roots && mc_roots_add(roots, in("hub"), &err) ? 0 : -1;
}

static int remove_tree(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	mc_roots_free(roots);
	roots = NULL;
	return mc_file_remove_tree(folder, &err) ? 0 : -1;
}

/* Takes fd. */
static void assert_holds(int fd, const char *name)
{
	struct mc_error err;
	struct mc_buf buf;

	mc_error_init(&err);
	mc_buf_init(&buf, 1000);
	assert_true(mc_file_read_all(fd, name, &buf, &err));
	assert_string_equal(mc_buf_text(&buf), name);
	mc_buf_release(&buf);
	close(fd);
}

static void assert_opens(const char *path, const char *name)
{
	struct mc_error err;
	int fd = -1;

	mc_error_init(&err);
	if (!mc_root_open(roots, path, &fd, &err))
		fail_msg("%s: %s", path, err.text);
	assert_holds(fd, name);
}

static void assert_refused(const char *path, enum mc_code code)
{
	struct mc_error err;
	int fd = -1;

	mc_error_init(&err);
	if (mc_root_open(roots, path, &fd, &err))
		fail_msg("opened: %s", path);
	assert_int_equal(fd, -1);
	if (err.code != code)
		fail_msg("%s: %s: %s", path, mc_code_name(err.code), err.text);
	assert_string_equal(err.where, path);
}

static void test_beneath(void **state)
{
	(void)state;
	assert_opens(in("hub/blobs/abc"), "hub/blobs/abc");
	assert_opens("blobs/abc", "hub/blobs/abc");
	assert_opens("./blobs//./abc", "hub/blobs/abc");
	assert_opens(in("hub//snapshots/./x/config.json"), "hub/snapshots/x/config.json");
	assert_opens(in("hub/snapshots/x/model.safetensors"), "hub/blobs/abc");
	assert_opens("snapshots/../blobs/abc", "hub/blobs/abc");
}

static void test_outside(void **state)
{
	(void)state;
	assert_refused(in("secret/key"), MC_INVALID);
	assert_refused(in("hub/../secret/key"), MC_INVALID);
	assert_refused("../secret/key", MC_INVALID);
	assert_refused("snapshots/../../secret/key", MC_INVALID);
	assert_refused("/etc/passwd", MC_INVALID);
	/* Whether it exists outside is not told. */
	assert_refused(in("secret/absent"), MC_INVALID);
	assert_refused("../secret/absent", MC_INVALID);
	/* A folder whose name begins like the root's. */
	assert_int_equal(mkdir(in("hubble"), 0777), 0);
	assert_true(make_file("hubble/f"));
	assert_refused(in("hubble/f"), MC_INVALID);
}

static void test_links_that_escape(void **state)
{
	(void)state;
	assert_int_equal(symlink("../secret/key", in("hub/up")), 0);
	assert_int_equal(symlink(in("secret/key"), in("hub/absolute")), 0);
	assert_int_equal(symlink("../secret", in("hub/folder")), 0);
	assert_int_equal(symlink("/proc/self/root", in("hub/magic")), 0);
	assert_int_equal(symlink("loop", in("hub/loop")), 0);
	assert_int_equal(symlink("nowhere", in("hub/dangling")), 0);
	assert_refused("up", MC_INVALID);
	assert_refused("absolute", MC_INVALID);
	assert_refused(in("hub/absolute"), MC_INVALID);
	assert_refused("folder/key", MC_INVALID);
	assert_refused("magic/etc/passwd", MC_INVALID);
	assert_refused("loop", MC_INVALID);
	assert_refused("dangling", MC_NOT_FOUND);
}

static void test_aliases(void **state)
{
	struct mc_error err;
	int held, fd;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_roots_add_alias(roots, "tiny", in("hub/snapshots/x"), true, &err));
	assert_true(mc_roots_add_alias(roots, "tiny", in("hub/blobs/abc"), false, &err));
	assert_true(mc_roots_add_alias(roots, "stolen", in("secret/key"), false, &err));
	/* a file of that name, a file in the folder of that name, the folder itself */
	assert_opens("tiny", "hub/blobs/abc");
	assert_opens("tiny/config.json", "hub/snapshots/x/config.json");
	assert_true(mc_root_open_folder(roots, "tiny", &held, &err));
	assert_true(mc_root_open_at(roots, held, "tiny", "model.safetensors", &fd, &err));
	assert_holds(fd, "hub/blobs/abc");
	close(held);
	/* a name opens nothing that its path would not */
	assert_refused("stolen", MC_INVALID);
	assert_refused("tiny/../../../secret/key", MC_INVALID);
	assert_refused("tinyx", MC_NOT_FOUND);
	assert_string_equal(mc_roots_file_path(roots, "tiny"), in("hub/blobs/abc"));
	assert_string_equal(mc_roots_file_path(roots, "blobs/abc"), "blobs/abc");
	assert_false(mc_roots_add_alias(roots, "/a", in("hub"), true, &err));
	assert_int_equal(err.code, MC_INVALID);
}

static void test_links_between_roots(void **state)
{
	struct mc_error err;

	(void)state;
	assert_int_equal(symlink(in("other/file"), in("hub/absolute")), 0);
	assert_int_equal(symlink("../other", in("hub/folder")), 0);
	assert_int_equal(symlink(in("hub/blobs/abc"), in("hub/own")), 0);
	assert_opens("own", "hub/blobs/abc"); /* absolute, but back into its own root */
	assert_refused("absolute", MC_INVALID);
	mc_error_init(&err);
	assert_true(mc_roots_add(roots, in("other"), &err));
	assert_opens("absolute", "other/file");
	assert_opens("folder/file", "other/file");
	assert_opens("file", "other/file"); /* relative to the second root */
	assert_opens("blobs/abc", "hub/blobs/abc");
	assert_refused(in("secret/key"), MC_INVALID);
}

static void test_root_that_is_a_link(void **state)
{
	struct mc_error err;

	(void)state;
	mc_roots_free(roots);
	mc_error_init(&err);
	roots = mc_roots_new(&err);
	assert_refused(in("hub/blobs/abc"), MC_INVALID); /* an empty list allows nothing */
	assert_refused("blobs/abc", MC_INVALID);
	assert_true(mc_roots_add(roots, in("rooms/"), &err));
	assert_opens(in("rooms/blobs/abc"), "hub/blobs/abc");
	assert_opens(in("hub/blobs/abc"), "hub/blobs/abc");
	assert_refused(in("secret/key"), MC_INVALID);
}

static void test_only_regular_files(void **state)
{
	char name[5000];

	(void)state;
	assert_refused("blobs", MC_INVALID);
	assert_refused(".", MC_INVALID);
	assert_refused("", MC_INVALID);
	assert_refused("blobs/absent", MC_NOT_FOUND);
	assert_refused("blobs/abc/below", MC_INVALID);
	assert_int_equal(mkfifo(in("hub/pipe"), 0666), 0);
	assert_refused("pipe", MC_INVALID); /* and does not wait for a writer */
	memset(name, 'n', sizeof(name));
	name[sizeof(name) - 1] = '\0';
	struct mc_error err;
	int fd = -1;
	mc_error_init(&err);
	assert_false(mc_root_open(roots, name, &fd, &err));
	assert_int_equal(err.code, MC_INVALID);
}

static void test_open_at(void **state)
{
	static const char *const bad[] = {"", ".", "..", "a/b", "../x/config.json", "/etc/passwd"};
	struct mc_error err;
	int snapshot = -1, fd = -1;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_root_open_folder(roots, in("hub/snapshots/x"), &snapshot, &err));
	const char *path = in("hub/snapshots/x");
	assert_true(mc_root_open_at(roots, snapshot, path, "config.json", &fd, &err));
	assert_holds(fd, "hub/snapshots/x/config.json");
	assert_true(mc_root_open_at(roots, snapshot, path, "model.safetensors", &fd, &err));
	assert_holds(fd, "hub/blobs/abc");
	assert_int_equal(symlink("../../../secret/key", in("hub/snapshots/x/bad")), 0);
	path = in("hub/snapshots/x");
	fd = -1;
	assert_false(mc_root_open_at(roots, snapshot, path, "bad", &fd, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, in("hub/snapshots/x/bad"));
	/* Without roots any link may be followed. */
	mc_error_init(&err);
	path = in("hub/snapshots/x");
	assert_true(mc_root_open_at(NULL, snapshot, path, "bad", &fd, &err));
	assert_holds(fd, "secret/key");
	fd = -1;
	assert_false(mc_root_open_at(roots, snapshot, path, "absent", &fd, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
		mc_error_init(&err);
		assert_false(mc_root_open_at(NULL, snapshot, path, bad[i], &fd, &err));
		assert_int_equal(err.code, MC_INVALID);
	}
	close(snapshot);
	/* The folder named relative to its root. */
	mc_error_init(&err);
	assert_true(mc_root_open_folder(roots, "snapshots/x", &snapshot, &err));
	assert_true(
	    mc_root_open_at(roots, snapshot, "snapshots/x", "model.safetensors", &fd, &err));
	assert_holds(fd, "hub/blobs/abc");
	close(snapshot);
}

static void test_open_folder(void **state)
{
	struct mc_error err;
	int fd = -1;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_root_open_folder(roots, in("hub"), &fd, &err)); /* the root itself */
	close(fd);
	assert_true(mc_root_open_folder(roots, ".", &fd, &err));
	close(fd);
	fd = -1;
	assert_false(mc_root_open_folder(roots, in("hub/blobs/abc"), &fd, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_false(mc_root_open_folder(roots, in("secret"), &fd, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_false(mc_root_open_folder(roots, "absent", &fd, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	mc_error_init(&err);
	assert_true(mc_root_open_folder(NULL, in("secret"), &fd, &err));
	close(fd);
}

static void test_add(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_false(mc_roots_add(roots, in("absent"), &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	mc_error_init(&err);
	assert_false(mc_roots_add(roots, in("secret/key"), &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_refused(in("secret/key"), MC_INVALID);
	mc_error_init(&err);
	assert_true(mc_roots_add(roots, "/", &err)); /* everything, if one asks for it */
	assert_opens(in("secret/key"), "secret/key");
	mc_roots_free(NULL);
}

static void test_no_roots(void **state)
{
	struct mc_error err;
	int fd = -1;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_root_open(NULL, in("secret/key"), &fd, &err));
	assert_holds(fd, "secret/key");
	fd = -1;
	assert_false(mc_root_open(NULL, in("secret"), &fd, &err));
	assert_int_equal(err.code, MC_INVALID);
	mc_error_init(&err);
	assert_false(mc_root_open(NULL, in("absent"), &fd, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	mc_error_init(&err);
	assert_false(mc_root_open(NULL, "/dev/null", &fd, &err));
	assert_int_equal(err.code, MC_INVALID);
}

int main(void)
{
#define IN_TREE(f) cmocka_unit_test_setup_teardown(f, make_tree, remove_tree)
	const struct CMUnitTest tests[] = {
	    IN_TREE(test_beneath),
	    IN_TREE(test_outside),
	    IN_TREE(test_links_that_escape),
	    IN_TREE(test_aliases),
	    IN_TREE(test_links_between_roots),
	    IN_TREE(test_root_that_is_a_link),
	    IN_TREE(test_only_regular_files),
	    IN_TREE(test_open_at),
	    IN_TREE(test_open_folder),
	    IN_TREE(test_add),
	    IN_TREE(test_no_roots),
	};

	return cmocka_run_group_tests_name("root", tests, NULL, NULL);
}
