/*
 * test_file.c - short files, durable writes and what failures leave behind, folders, links
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

#include "moecal/fault.h"
#include "moecal/file.h"

static char folder[64];
static char path_text[4][256];

/* A path in the test's own folder; the last four stay valid. */
static const char *in(const char *name)
{
	static unsigned next;
	char *text = path_text[next++ % 4];

	snprintf(text, sizeof(path_text[0]), "%s/%s", folder, name);
	return text;
}

static int make_scratch(void **state)
{
	(void)state;
	strcpy(folder, "/tmp/moecal-file-XXXXXX");
	return mkdtemp(folder) ? 0 : -1;
}

static int remove_scratch(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	return mc_file_remove_tree(folder, &err) && access(folder, F_OK) != 0 ? 0 : -1;
}

static void write_plain(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");

	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static void assert_content(const char *path, const char *expected)
{
	struct mc_error err;
	struct mc_buf buf;
	int fd = open(path, O_RDONLY);

	assert_true(fd >= 0);
	mc_error_init(&err);
	mc_buf_init(&buf, 1000);
	assert_true(mc_file_read_all(fd, path, &buf, &err));
	assert_string_equal(mc_buf_text(&buf), expected);
	mc_buf_release(&buf);
	close(fd);
}

static void test_read_at(void **state)
{
	struct mc_error err;
	char into[16] = "";
	uint64_t size = 0;
	int fd;

	(void)state;
	write_plain(in("ten"), "0123456789");
	fd = open(in("ten"), O_RDONLY);
	mc_error_init(&err);
	assert_true(mc_file_size(fd, "ten", &size, &err));
	assert_int_equal(size, 10);
	assert_true(mc_file_read_at(fd, into, 3, 4, "ten", &err));
	assert_string_equal(into, "456");
	assert_true(mc_file_read_at(fd, into, 0, 10, "ten", &err));
	assert_false(mc_file_read_at(fd, into, 4, 8, "ten", &err));
	assert_int_equal(err.code, MC_CORRUPT);
	assert_string_equal(err.text, "ends at byte 10, needed 12");
	mc_error_init(&err);
	assert_false(mc_file_read_at(fd, into, 1, 100, "ten", &err));
	assert_string_equal(err.text, "ends at byte 10, needed 101");
	mc_error_init(&err);
	assert_false(mc_file_read_at(fd, into, UINT64_MAX, 2, "ten", &err));
	assert_int_equal(err.code, MC_CORRUPT);
	mc_error_init(&err);
	assert_false(mc_file_read_at(fd, into, 1, INT64_MAX, "ten", &err));
	assert_int_equal(err.code, MC_CORRUPT);
	close(fd);
	mc_error_init(&err);
	assert_false(mc_file_read_at(-1, into, 1, 0, "closed", &err));
	assert_int_equal(err.code, MC_IO);
}

static void test_read_all(void **state)
{
	struct mc_error err;
	struct mc_buf buf;
	int ends[2], fd;

	(void)state;
	write_plain(in("ten"), "0123456789");
	fd = open(in("ten"), O_RDONLY);
	mc_error_init(&err);
	mc_buf_init(&buf, 10);
	assert_true(mc_file_read_all(fd, "ten", &buf, &err));
	assert_string_equal(mc_buf_text(&buf), "0123456789");
	mc_buf_release(&buf);
	mc_buf_init(&buf, 9);
	assert_false(mc_file_read_all(fd, "ten", &buf, &err));
	assert_int_equal(err.code, MC_INVALID);
	assert_string_equal(err.where, "ten");
	mc_buf_release(&buf);
	close(fd);
	/* A pipe, as standard input may be one. */
	assert_int_equal(pipe(ends), 0);
	assert_int_equal(write(ends[1], "{}", 2), 2);
	close(ends[1]);
	mc_error_init(&err);
	mc_buf_init(&buf, 9);
	assert_true(mc_file_read_all(ends[0], "-", &buf, &err));
	assert_string_equal(mc_buf_text(&buf), "{}");
	mc_buf_release(&buf);
	close(ends[0]);
}

/* More than one read() takes, on both sides. */
static void test_big(void **state)
{
	size_t length = 300001;
	char *bytes = malloc(length);
	struct mc_error err;
	struct mc_buf buf;
	int fd;

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < length; i++)
		bytes[i] = (char)(i * 31 >> 3);
	mc_error_init(&err);
	assert_true(mc_file_write_durable(in("big"), bytes, length, &err));
	fd = open(in("big"), O_RDONLY);
	mc_buf_init(&buf, length);
	assert_true(mc_file_read_all(fd, "big", &buf, &err));
	assert_int_equal(buf.length, length);
	assert_memory_equal(buf.data, bytes, length);
	mc_buf_release(&buf);
	free(bytes);
	close(fd);
}

static void test_write_durable(void **state)
{
	struct mc_error err;
	struct stat st;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_file_write_durable(in("spec.json"), "{}", 2, &err));
	assert_content(in("spec.json"), "{}");
	/* What a crash left behind, even as a link, is not written through. */
	write_plain(in("precious"), "keep");
	assert_int_equal(symlink(in("precious"), in("spec.json.partial")), 0);
	assert_true(mc_file_write_durable(in("spec.json"), "[1]", 3, &err));
	assert_content(in("spec.json"), "[1]");
	assert_content(in("precious"), "keep");
	assert_int_not_equal(lstat(in("spec.json.partial"), &st), 0);
	assert_true(mc_file_write_durable(in("empty"), "", 0, &err));
	assert_content(in("empty"), "");
	assert_false(mc_file_write_durable(in("absent/f"), "x", 1, &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	/* A folder in the way: the error comes from the rename, and nothing is left over. */
	assert_int_equal(mkdir(in("d"), 0777), 0);
	mc_error_init(&err);
	assert_false(mc_file_write_durable(in("d"), "x", 1, &err));
	assert_int_equal(err.code, MC_IO);
	assert_int_not_equal(lstat(in("d.partial"), &st), 0);
}

static void test_rename(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	write_plain(in("from"), "new");
	write_plain(in("to"), "old");
	assert_true(mc_file_rename_durable(in("from"), in("to"), &err));
	assert_content(in("to"), "new");
	assert_false(mc_file_exists(in("from")));
	assert_true(mc_file_exists(in("to")));
	assert_false(mc_file_rename_durable(in("from"), in("to"), &err));
	assert_int_equal(err.code, MC_NOT_FOUND);
	assert_content(in("to"), "new");
}

static void test_make_folders(void **state)
{
	struct mc_error err;
	struct stat st;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_file_make_folders(in("a/b//c/"), &err));
	assert_int_equal(stat(in("a/b/c"), &st), 0);
	assert_true(S_ISDIR(st.st_mode));
	assert_true(mc_file_make_folders(in("a/b/c"), &err));
	assert_true(mc_file_make_folders("/", &err));
	assert_true(mc_file_make_folders(".", &err));
	write_plain(in("a/file"), "x");
	assert_false(mc_file_make_folders(in("a/file"), &err));
	assert_int_equal(err.code, MC_CONFLICT);
	mc_error_init(&err);
	assert_false(mc_file_make_folders(in("a/file/below"), &err));
	assert_int_equal(err.code, MC_CONFLICT);
	assert_content(in("a/file"), "x");
}

static void test_remove_tree_follows_no_links(void **state)
{
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_file_make_folders(in("outside"), &err));
	write_plain(in("outside/keep"), "keep");
	assert_true(mc_file_make_folders(in("job/x/y"), &err));
	write_plain(in("job/x/y/f"), "f");
	write_plain(in("job/.hidden"), "f");
	assert_int_equal(symlink(in("outside"), in("job/x/link")), 0);
	assert_int_equal(symlink(in("outside/keep"), in("job/filelink")), 0);
	assert_int_equal(symlink("nowhere", in("job/dangling")), 0);
	assert_true(mc_file_remove_tree(in("job"), &err));
	assert_false(mc_file_exists(in("job")));
	assert_content(in("outside/keep"), "keep");
	assert_true(mc_file_remove_tree(in("job"), &err)); /* absent: fine */
	/* A link to a folder: the link goes, with and without a slash at its end. */
	assert_int_equal(symlink(in("outside"), in("link")), 0);
	assert_true(mc_file_remove_tree(in("link/"), &err));
	assert_false(mc_file_exists(in("link")));
	assert_content(in("outside/keep"), "keep");
}

static void test_free_bytes(void **state)
{
	uint64_t here = 0, deeper = 0;
	struct mc_error err;

	(void)state;
	mc_error_init(&err);
	assert_true(mc_file_free_bytes(folder, &here, &err));
	assert_true(mc_file_free_bytes(in("not/yet/made"), &deeper, &err));
	assert_true(here > 0 && deeper > 0);
	/* The same file system: other programs may write meanwhile, but not half of it. */
	assert_true(deeper > here / 2 && here > deeper / 2);
	assert_true(mc_file_free_bytes("not-made-here", &here, &err));
	write_plain(in("file"), "x");
	assert_true(mc_file_free_bytes(in("file/below"), &here, &err));
}

#ifdef MC_FAULTS
/* Whatever fails, the old content stays until the rename, and no .partial is left. */
static void test_faults(void **state)
{
	static const char *const kinds[] = {"alloc", "write", "sync", "rename"};
	struct mc_error err;

	(void)state;
	for (size_t i = 0; i < 4; i++) {
		for (long n = 1; n < 20; n++) {
			mc_error_init(&err);
			assert_true(mc_file_write_durable(in("f"), "old", 3, &err));
			mc_fault_arm(kinds[i], n);
			bool done = mc_file_write_durable(in("f"), "new", 3, &err);
			mc_fault_disarm();
			assert_false(mc_file_exists(in("f.partial")));
			if (done) {
				assert_content(in("f"), "new");
				assert_true(n > 1);
				break;
			}
			assert_int_not_equal(err.code, MC_OK);
			/* The second sync is the folder's, after the rename. */
			assert_content(in("f"), i == 2 && n == 2 ? "new" : "old");
			assert_true(n < 10);
		}
	}
	char into[3];
	int fd = open(in("f"), O_RDONLY);
	mc_error_init(&err);
	mc_fault_arm("read", 1);
	assert_false(mc_file_read_at(fd, into, 3, 0, "f", &err));
	assert_int_equal(err.code, MC_IO);
	mc_fault_disarm();
	close(fd);
}
#endif

int main(void)
{
#define IN_SCRATCH(f) cmocka_unit_test_setup_teardown(f, make_scratch, remove_scratch)
	const struct CMUnitTest tests[] = {
	    IN_SCRATCH(test_read_at),
	    IN_SCRATCH(test_read_all),
	    IN_SCRATCH(test_big),
	    IN_SCRATCH(test_write_durable),
	    IN_SCRATCH(test_rename),
	    IN_SCRATCH(test_make_folders),
	    IN_SCRATCH(test_remove_tree_follows_no_links),
	    IN_SCRATCH(test_free_bytes),
#ifdef MC_FAULTS
	    IN_SCRATCH(test_faults),
#endif
	};

	return cmocka_run_group_tests_name("file", tests, NULL, NULL);
}
