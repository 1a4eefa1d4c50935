/*
 * command_fetch.c - moecal fetch: the files of a finished job, each checked by its digest
 *
 * A file comes in as NAME.part and gets its name when its digest is right; the manifest comes last.
 * So a folder with a manifest is complete, and the same command goes on where it was stopped.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "client.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/sha256.h"

#define MANIFEST "manifest.json"
#define MOST_TRIES 5
#define PIECE_BYTES ((size_t)1 << 18)

struct fetch {
	struct client *client;
	const char *id, *folder;
	bool json;
	struct progress_display display;
	struct mc_json *fetched; /* what this command brought; owned */
	uint64_t files, bytes, kept;
};

/* One file on its way. */
struct incoming {
	struct fetch *fetch;
	const char *path, *sha256; /* as the service lists it; borrowed */
	uint64_t bytes;
	char *name, *part; /* where it goes; owned */
	int fd;
	struct mc_sha256 *digest; /* of what is in the part */
	uint64_t have, asked_from;
	bool begun; /* this answer has begun */
};

/* --- names -------------------------------------------------------------------------------------- */

/* What a service says must not lead out of the folder: no empty, hidden or odd part. */
static bool path_is_safe(const char *path)
{
	size_t length = strlen(path);

	if (length == 0 || length > 1024 || path[0] == '/' || path[length - 1] == '/')
		return false;
	for (const char *part = path; part != NULL; part = strchr(part, '/')) {
		part += *part == '/';
		size_t n = strspn(part, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
					"0123456789._-");
		if (n == 0 || part[0] == '.' || (part[n] != '/' && part[n] != '\0'))
			return false;
	}
	return true;
}

/* What a service says of a file, as far as anything is done with it. */
static bool check_listed(
    const struct mc_json *listed, const char *path, const char *sha256, struct mc_error *err)
{
	const struct mc_json *bytes = mc_json_get(listed, "bytes");

	if (!path_is_safe(path))
		return mc_fail(err, MC_CORRUPT, "service", "it lists a file '%.200s'", path);
	if (strlen(sha256) != MC_SHA256_HEX - 1 ||
	    strspn(sha256, "0123456789abcdef") != MC_SHA256_HEX - 1)
		return mc_fail(err, MC_CORRUPT, path, "the service lists no digest of it");
	return (mc_json_type(bytes) == MC_JSON_INTEGER && mc_json_integer(bytes) >= 0) ||
	       mc_fail(err, MC_CORRUPT, path, "the service lists no size of it");
}

static bool make_parent(const char *name, struct mc_error *err)
{
	const char *slash = strrchr(name, '/');
	char *folder = mc_format(err, "%.*s", (int)(slash - name), name);
	bool ok = folder != NULL && mc_file_make_folders(folder, err);

	free(folder);
	return ok;
}

/* --- what is there ------------------------------------------------------------------------------ */

/* A file of this name that is the right one is kept; another one is not ours to overwrite. */
static bool look_for_whole(struct incoming *in, bool *ret_there, struct mc_error *err)
{
	char hex[MC_SHA256_HEX];
	uint64_t bytes;
	int fd = open(in->name, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

	*ret_there = fd >= 0;
	if (fd < 0)
		return errno == ENOENT || mc_fail_errno(err, errno, in->name, "cannot be opened");
	bool ok = mc_sha256_fd(fd, in->name, hex, &bytes, err) &&
		  (strcmp(hex, in->sha256) == 0 ||
		      mc_fail(err, MC_CONFLICT, in->name,
			  "is there and is another file than that of the job: remove it, or name "
			  "another folder with -o"));
	mc_close(fd);
	return ok;
}

/* The digest of the bytes that an earlier command left. */
static bool digest_part(struct incoming *in, struct mc_error *err)
{
	char *piece = mc_alloc(1, PIECE_BYTES, "a piece of a file", err);
	bool ok = piece != NULL;

	for (uint64_t at = 0; ok && at < in->have;) {
		size_t n = in->have - at < PIECE_BYTES ? (size_t)(in->have - at) : PIECE_BYTES;
		ok = mc_file_read_at(in->fd, piece, n, at, in->part, err) &&
		     mc_sha256_add(in->digest, piece, n, err);
		at += n;
	}
	free(piece);
	return ok && (lseek(in->fd, (off_t)in->have, SEEK_SET) >= 0 ||
			 mc_fail_errno(err, errno, in->part, "cannot be written"));
}

/* From the first byte again. */
static bool start_over(struct incoming *in, struct mc_error *err)
{
	mc_sha256_free(in->digest);
	in->have = 0;
	in->digest = mc_sha256_new(err);
	return in->digest != NULL &&
	       ((ftruncate(in->fd, 0) == 0 && lseek(in->fd, 0, SEEK_SET) == 0) ||
		   mc_fail_errno(err, errno, in->part, "cannot be written"));
}

/* Two that write it would spoil it, and one that is done has given it its name. Not every file
 * system has locks. */
static bool is_ours_alone(const struct incoming *in)
{
	struct stat opened, named;

	if (flock(in->fd, LOCK_EX | LOCK_NB) != 0 && errno == EWOULDBLOCK)
		return false;
	return fstat(in->fd, &opened) == 0 && stat(in->part, &named) == 0 &&
	       opened.st_ino == named.st_ino && opened.st_dev == named.st_dev;
}

static bool open_part(struct incoming *in, struct mc_error *err)
{
	in->fd = open(in->part, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0666);
	if (in->fd < 0)
		return mc_fail_errno(err, errno, in->part, "cannot be written");
	if (!is_ours_alone(in))
		return mc_fail(err, MC_CONFLICT, in->part, "is being written by another command");
	in->digest = mc_sha256_new(err);
	return in->digest != NULL && mc_file_size(in->fd, in->part, &in->have, err) &&
	       (in->have > in->bytes ? start_over(in, err) : digest_part(in, err));
}

/* --- one answer --------------------------------------------------------------------------------- */

static bool on_bytes(void *ctx, int status, const char *bytes, size_t length, struct mc_error *err)
{
	struct incoming *in = ctx;

	/* the whole although a part was asked for */
	if (!in->begun && status == 200 && in->have > 0 && !start_over(in, err))
		return false;
	in->begun = true;
	if (length > in->bytes - in->have)
		return mc_fail(err, MC_CORRUPT, in->path, "is longer than the service said");
	if (!mc_file_write(in->fd, bytes, length, in->part, err) ||
	    !mc_sha256_add(in->digest, bytes, length, err))
		return false;
	in->have += length;
	progress_bytes(&in->fetch->display, in->path, in->have, in->bytes);
	return true;
}

static enum client_outcome ask(struct incoming *in, struct client_answer *answer)
{
	char path[1200], range[48], condition[96];
	struct client_request request = {.path = path,
	    .accept = "*/*",
	    .header = {in->have > 0 ? range : NULL, in->have > 0 ? condition : NULL},
	    .sink = on_bytes,
	    .ctx = in};

	snprintf(path, sizeof path, "/v1/jobs/%s/artifacts/%s", in->fetch->id, in->path);
	snprintf(range, sizeof range, "Range: bytes=%llu-", (unsigned long long)in->have);
	snprintf(condition, sizeof condition, "If-Range: \"%s\"", in->sha256);
	in->asked_from = in->have;
	in->begun = false;
	return client_call(in->fetch->client, &request, answer);
}

/* Until all bytes are there; a connection that breaks is made again as long as it brings some. */
static int bring(struct incoming *in)
{
	struct client_answer answer;
	int tries = 0;

	while (in->have < in->bytes) {
		enum client_outcome outcome = ask(in, &answer);
		bool moved = in->have > in->asked_from;
		tries = moved ? 1 : tries + 1;
		if (outcome == CLIENT_DONE && moved) {
			client_answer_release(&answer);
			continue;
		}
		if (outcome == CLIENT_DONE) {
			answer.outcome = CLIENT_UNREACHABLE;
			(void)mc_fail(&answer.err, MC_IO, in->path, "the service sends nothing of it");
		}
		if (answer.outcome == CLIENT_UNREACHABLE && tries < MOST_TRIES) {
			client_answer_release(&answer);
			if (client_pause(tries))
				continue;
			answer.outcome = CLIENT_STOPPED;
		}
		progress_clear(&in->fetch->display);
		if (answer.outcome == CLIENT_REFUSED || answer.outcome == CLIENT_UNREACHABLE)
			fprintf(stderr, "moecal: %s cannot be fetched:\n", in->path);
		int code = client_report(in->fetch->client, &answer, in->fetch->json);
		client_answer_release(&answer);
		return code;
	}
	return EXIT_DONE;
}

/* --- one file ----------------------------------------------------------------------------------- */

/* *ret_right false: the digest is another one. */
static bool finish(struct incoming *in, bool *ret_right, struct mc_error *err)
{
	char hex[MC_SHA256_HEX];

	if (!mc_sha256_hex(in->digest, hex, err))
		return false;
	*ret_right = strcmp(hex, in->sha256) == 0;
	if (!*ret_right)
		return start_over(in, err);
	return (fsync(in->fd) == 0 || mc_fail_errno(err, errno, in->part, "cannot be written")) &&
	       mc_file_rename_durable(in->part, in->name, err);
}

static int fetch_bytes(struct incoming *in, struct mc_error *err)
{
	bool right = false;

	/* what an earlier command left may be of another job: then once from the start */
	for (int i = 0; i < 2 && !right; i++) {
		bool resumed = in->have > 0;
		int code = bring(in);
		if (code != EXIT_DONE)
			return code;
		if (!finish(in, &right, err))
			return report_error(err, in->fetch->json, true);
		if (!right && !resumed)
			break;
	}
	progress_clear(&in->fetch->display);
	if (right)
		return EXIT_DONE;
	(void)mc_fail(err, MC_CORRUPT, in->path,
	    "does not have the digest that the service says: it was damaged there or on the way");
	return report_error(err, in->fetch->json, true);
}

static bool note(struct fetch *fetch, const struct mc_json *listed, bool was_there, struct mc_error *err)
{
	char text[32];
	struct mc_json *one = mc_json_copy(listed, err);

	fetch->files++;
	fetch->bytes += (uint64_t)member_integer(listed, "bytes");
	fetch->kept += was_there;
	if (!fetch->json && !was_there)
		printf("%-10s %s/%s\n", bytes_text((uint64_t)member_integer(listed, "bytes"), text),
		    fetch->folder, member_text(listed, "path"));
	fflush(stdout);
	if (one == NULL)
		return false;
	mc_json_remove(one, "links");
	return mc_json_append(fetch->fetched, one, err) &&
	       mc_json_set(one, "fetched", mc_json_new_bool(!was_there), err);
}

static int fetch_one(struct fetch *fetch, const struct mc_json *listed)
{
	struct incoming in = {.fetch = fetch,
	    .path = member_text(listed, "path"),
	    .sha256 = member_text(listed, "sha256"),
	    .bytes = (uint64_t)member_integer(listed, "bytes"),
	    .fd = -1};
	struct mc_error err;
	bool there = false;
	int code = EXIT_DONE;

	mc_error_init(&err);
	bool ok = check_listed(listed, in.path, in.sha256, &err);
	if (ok) {
		in.name = mc_format(&err, "%s/%s", fetch->folder, in.path);
		in.part = mc_format(&err, "%s/%s.part", fetch->folder, in.path);
		ok = in.name != NULL && in.part != NULL && make_parent(in.name, &err) &&
		     look_for_whole(&in, &there, &err);
	}
	if (ok && !there) {
		ok = open_part(&in, &err);
		if (ok)
			code = fetch_bytes(&in, &err);
	}
	if (ok && code == EXIT_DONE)
		ok = note(fetch, listed, there, &err);
	if (!ok)
		code = report_error(&err, fetch->json, err.code != MC_CONFLICT);
	mc_sha256_free(in.digest);
	mc_close(in.fd);
	free(in.name);
	free(in.part);
	return code;
}

/* --- all ---------------------------------------------------------------------------------------- */

static int fetch_listed(struct fetch *fetch, const struct mc_json *list)
{
	int code = EXIT_DONE;

	for (int manifest = 0; manifest < 2; manifest++)
		for (size_t i = 0; code == EXIT_DONE && i < mc_json_size(list); i++) {
			const struct mc_json *one = mc_json_at(list, i);
			if ((strcmp(member_text(one, "path"), MANIFEST) == 0) == (manifest == 1))
				code = fetch_one(fetch, one);
		}
	return code;
}

static int print_fetched(struct fetch *fetch)
{
	char text[32];
	struct mc_error err;

	mc_error_init(&err);
	if (!fetch->json) {
		fprintf(stderr, "moecal: %llu files, %s in %s", (unsigned long long)fetch->files,
		    bytes_text(fetch->bytes, text), fetch->folder);
		if (fetch->kept > 0)
			fprintf(stderr, "; %llu were there", (unsigned long long)fetch->kept);
		putc('\n', stderr);
		return EXIT_DONE;
	}
	struct mc_json *document = mc_json_new_object();
	struct mc_json *files = fetch->fetched;
	fetch->fetched = NULL;
	bool ok = mc_json_set(document, "folder", mc_json_new_string(fetch->folder), &err) &&
		  mc_json_set(document, "bytes", mc_json_new_integer((int64_t)fetch->bytes), &err);
	ok = mc_json_set(document, "files", files, &err) && ok && print_json(document, &err);
	mc_json_free(document);
	return ok ? EXIT_DONE : report_error(&err, false, true);
}

static int fetch_job(struct fetch *fetch, const char *prefix)
{
	struct mc_json *document = NULL;
	struct mc_buf path;
	struct mc_error err;

	mc_error_init(&err);
	mc_buf_init(&path, 8192);
	fetch->fetched = mc_json_new_array();
	bool ok = (fetch->fetched != NULL || mc_fail(&err, MC_NO_MEMORY, "fetch", "no memory")) &&
		  mc_buf_addf(&path, &err, "/v1/jobs/%s/artifacts", fetch->id) &&
		  query_add(&path, "prefix", prefix, &err);
	int code = ok ? client_list(fetch->client, mc_buf_text(&path), "artifacts", 0, fetch->json,
			    &document)
		      : report_error(&err, fetch->json, false);
	mc_buf_release(&path);
	const struct mc_json *list = mc_json_get(document, "artifacts");
	if (code == EXIT_DONE && mc_json_size(list) == 0) {
		code = prefix != NULL ? EXIT_USAGE : EXIT_JOB_FAILED;
		report_failure("not-found", fetch->id,
		    prefix != NULL ? "the job has no file with this prefix"
				   : "the job left no files",
		    code, fetch->json);
	} else if (code == EXIT_DONE) {
		code = fetch_listed(fetch, list);
		if (code == EXIT_DONE)
			code = print_fetched(fetch);
		else if (code != EXIT_USAGE)
			fprintf(stderr, "moecal: the same command goes on from there\n");
	}
	mc_json_free(document);
	mc_json_free(fetch->fetched);
	return code;
}

int command_fetch(int argc, char **argv)
{
	struct client_options o = {0};
	struct fetch fetch = {0};
	const char *prefix = NULL;
	const struct option_row table[] = {CLIENT_OPTION_ROWS(&o), CLIENT_JSON_ROW(&o),
	    {"-o", OPTION_TEXT, &fetch.folder, 0, 0}, {"--output", OPTION_TEXT, &fetch.folder, 0, 0},
	    {"--prefix", OPTION_TEXT, &prefix, 0, 0}, {0}};
	struct mc_error err;
	int code = client_read_id(table, argc, argv, "job", &fetch.id);

	if (code != EXIT_DONE)
		return code;
	if (fetch.folder == NULL)
		fetch.folder = fetch.id;
	if (fetch.folder[0] == '\0')
		return usage_error(argv[0], "-o needs the name of a folder");
	mc_error_init(&err);
	fetch.json = o.json;
	fetch.display.terminal = !o.json && isatty(STDERR_FILENO) == 1;
	fetch.client = client_open(&o, &err);
	if (fetch.client == NULL)
		return report_error(&err, o.json, false);
	code = fetch_job(&fetch, prefix);
	client_close(fetch.client);
	return code;
}
