/*
 * http_body.c - bodies: JSON into memory, uploads into a file with their digest
 *
 * The library takes no answer while a body is coming, so after a refusal the rest is read and thrown
 * away, for a few seconds at most.
 */
#include "http_parts.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "log.h"

#include "moecal/file.h"

#define DEEPEST_BODY 32 /* a recipe needs about 8; threads of connections have small stacks */

bool http_uploads_prepare(const char *state, struct mc_error *err)
{
	char folder[4096], path[4096 + 256 + 1];
	if ((size_t)snprintf(folder, sizeof(folder), "%s/uploads", state) >= sizeof(folder))
		return mc_fail(err, MC_INVALID, "state", "the path of the state folder is too long");
	if (!mc_file_make_folders(folder, err))
		return false;
	DIR *dir = opendir(folder);
	if (!dir)
		return mc_fail(err, MC_IO, folder, "the folder of uploads cannot be read");
	for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
		size_t length = strlen(entry->d_name);
		if (strncmp(entry->d_name, "req_", 4) != 0 || length < 5 ||
		    strcmp(entry->d_name + length - 5, ".part") != 0)
			continue;
		snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
		unlink(path);
	}
	closedir(dir);
	return true;
}

static void refuse_space(struct http_exchange *x, const struct mc_error *err)
{
	if (err->code == MC_NO_SPACE) {
		problem_reply(&x->response, PROBLEM_DISK_LOW, "The disk is full: the upload was dropped.");
		return;
	}
	log_error(NULL, "receiving an upload", err);
	problem_reply(&x->response, PROBLEM_INTERNAL,
	    "The upload could not be written; the service's log has the details.");
}

static bool open_upload(struct http_exchange *x)
{
	struct http_request *request = &x->request;
	struct mc_error err;
	mc_error_init(&err);
	x->digest = mc_sha256_new(&err);
	if (!x->digest) {
		refuse_space(x, &err);
		return false;
	}
	int length = snprintf(request->upload_path, sizeof(request->upload_path),
	    "%s/uploads/%s.part", x->server->service->settings.state, request->id);
	if ((size_t)length >= sizeof(request->upload_path))
		mc_fail(&err, MC_INTERNAL, "state", "the path of the state folder is too long");
	else
		x->upload_fd =
		    open(request->upload_path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (x->upload_fd >= 0)
		return true;
	if (err.code == MC_OK)
		mc_fail_errno(&err, errno, request->upload_path, "cannot be made");
	request->upload_path[0] = '\0';
	refuse_space(x, &err);
	return false;
}

bool http_body_begin(struct http_exchange *x)
{
	if (!x->has_body)
		return true;
	if (!x->to_file) {
		mc_buf_init(&x->body, x->limit);
		return true;
	}
	seat_upload(x->server->seats, x->seat);
	return open_upload(x);
}

bool http_body_add(struct http_exchange *x, const char *bytes, size_t length)
{
	struct mc_error err;
	mc_error_init(&err);
	x->received += length;
	if (x->received > x->limit) {
		problem_reply(&x->response, PROBLEM_TOO_LARGE,
		    "The body has more than the %llu bytes that are allowed.",
		    (unsigned long long)x->limit);
		return false;
	}
	if (!x->to_file) {
		if (mc_buf_add(&x->body, bytes, length, &err))
			return true;
		problem_reply(&x->response, PROBLEM_BUSY, "There is no memory for this just now.");
		return false;
	}
	if (mc_file_write(x->upload_fd, bytes, length, x->request.upload_path, &err) &&
	    mc_sha256_add(x->digest, bytes, length, &err))
		return true;
	refuse_space(x, &err);
	return false;
}

static bool end_json(struct http_exchange *x)
{
	struct mc_error err;
	mc_error_init(&err);
	if (x->body.length == 0)
		return true;
	/* one at a time: bodies of every connection at once would hold their trees together */
	pthread_mutex_lock(&x->server->parsing);
	if (mc_json_screen(x->body.data, x->body.length, DEEPEST_BODY, "body", &err))
		x->request.json = mc_json_parse(x->body.data, x->body.length, "body", &err);
	pthread_mutex_unlock(&x->server->parsing);
	mc_buf_release(&x->body);
	if (x->request.json)
		return true;
	if (err.code == MC_NO_MEMORY)
		problem_reply(&x->response, PROBLEM_BUSY, "There is no memory for this just now.");
	else
		problem_reply(&x->response, PROBLEM_JSON, "%s", err.text);
	return false;
}

bool http_body_end(struct http_exchange *x)
{
	struct mc_error err;
	if (!x->has_body)
		return true;
	if (!x->to_file)
		return end_json(x);
	mc_error_init(&err);
	x->request.upload_bytes = x->received;
	int fd = x->upload_fd;
	x->upload_fd = -1;
	/* some file systems say only now that there was no space */
	if (close(fd) != 0)
		mc_fail_errno(&err, errno, x->request.upload_path, "cannot be closed");
	else if (mc_sha256_hex(x->digest, x->request.upload_sha256, &err))
		return true;
	refuse_space(x, &err);
	return false;
}

void http_body_release(struct http_exchange *x)
{
	mc_close(x->upload_fd);
	x->upload_fd = -1;
	if (x->request.upload_path[0] != '\0')
		unlink(x->request.upload_path);
	x->request.upload_path[0] = '\0';
	mc_sha256_free(x->digest);
	x->digest = NULL;
	mc_buf_release(&x->body);
	mc_json_free(x->request.json);
	x->request.json = NULL;
}
