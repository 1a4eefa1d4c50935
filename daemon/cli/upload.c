/*
 * upload.c - a file of data becomes a dataset of the service
 */
#include "client.h"

#include <string.h>
#include <unistd.h>

#include "moecal/file.h"
#include "moecal/root.h"

/* NULL when the name does not tell. */
static const char *media_type(const char *path)
{
	static const struct {
		const char *ending, *type;
	} types[] = {{".jsonl", "application/x-ndjson"}, {".ndjson", "application/x-ndjson"},
	    {".txt", "text/plain"}, {".npy", "application/octet-stream"},
	    {".safetensors", "application/octet-stream"}};
	size_t length = strlen(path);

	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		size_t ending = strlen(types[i].ending);
		if (length > ending && strcmp(path + length - ending, types[i].ending) == 0)
			return types[i].type;
	}
	return NULL;
}

struct sending {
	struct progress_display *display;
	const char *name;
	uint64_t bytes;
};

static void show(void *ctx, uint64_t bytes)
{
	const struct sending *sending = ctx;

	progress_bytes(sending->display, sending->name, bytes, sending->bytes);
}

static int send_file(struct client *client, const struct upload *upload, int fd, uint64_t bytes,
    const char *type, bool json, struct mc_json **ret)
{
	struct progress_display display = {.terminal = !json && isatty(STDERR_FILENO) == 1};
	struct sending sending = {.display = &display, .name = upload->path, .bytes = bytes};
	struct client_answer answer;
	struct mc_buf path;
	struct mc_error err;

	mc_error_init(&err);
	mc_buf_init(&path, 8192);
	if (!mc_buf_addf(&path, &err, "/v1/datasets") ||
	    !query_add(&path, "id", upload->id, &err) ||
	    !query_add(&path, "text_column", upload->text_column, &err)) {
		mc_buf_release(&path);
		return report_error(&err, json, false);
	}
	struct client_request request = {.method = "POST",
	    .path = mc_buf_text(&path),
	    .file_type = type,
	    .file_fd = fd,
	    .file_bytes = bytes,
	    .key = upload->key,
	    .silence_s = CLIENT_SILENCE_LONG_S,
	    .moved = show,
	    .ctx = &sending};
	client_call(client, &request, &answer);
	progress_clear(&display);
	int code = client_report(client, &answer, json);
	*ret = answer.json;
	if (code != EXIT_DONE) {
		client_answer_release(&answer);
		*ret = NULL;
	}
	mc_buf_release(&path);
	return code;
}

int upload_dataset(
    struct client *client, const struct upload *upload, bool json, struct mc_json **ret)
{
	const char *type = media_type(upload->path);
	struct mc_error err;
	uint64_t bytes;
	int fd = -1;

	*ret = NULL;
	mc_error_init(&err);
	if (type == NULL)
		(void)mc_fail(&err, MC_INVALID, upload->path,
		    "its name must end with .jsonl, .ndjson, .txt, .npy or .safetensors, so that "
		    "the service knows what it gets");
	if (type == NULL || !mc_root_open(NULL, upload->path, &fd, &err))
		return report_error(&err, json, false);
	bool ok = mc_file_size(fd, upload->path, &bytes, &err) &&
		  (bytes > 0 || mc_fail(&err, MC_INVALID, upload->path, "is empty"));
	int code = ok ? send_file(client, upload, fd, bytes, type, json, ret)
		      : report_error(&err, json, false);
	mc_close(fd);
	return code;
}
