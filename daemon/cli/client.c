/*
 * client.c - requests to the service; the only door to libcurl
 */
#include "client.h"

#include <curl/curl.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/root.h"

#define CONNECT_SECONDS 10
#define MAX_ANSWER ((size_t)256 << 20)
#define MAX_TOKEN 4096
#define MAX_BASE 2048  /* an address is this and a path */
#define MAX_SOCKET 107 /* what the kernel takes */

struct client {
	CURL *curl;
	char *shown;         /* as the user named it */
	char *base;          /* what a path is added to */
	char *authorization; /* a whole header, or NULL */
	const char *token_from;
	const char *socket;  /* borrowed from the options or the environment, or NULL */
	bool is_local;       /* this machine: no proxy */
	int64_t timeout_s;
};

/* --- address ------------------------------------------------------------------------------------ */

static bool is_loopback(const char *host)
{
	return strcmp(host, "localhost") == 0 || strncmp(host, "127.", 4) == 0 ||
	       strcmp(host, "[::1]") == 0;
}

/* What must not be there: a password would be in the list of processes, a query makes no sense. */
static bool has_part(CURLU *parts, CURLUPart part)
{
	char *text = NULL;
	bool has = curl_url_get(parts, part, &text, 0) == CURLUE_OK;

	curl_free(text);
	return has;
}

static bool read_parts(struct client *client, CURLU *parts, const char *from, struct mc_error *err)
{
	char *scheme = NULL, *host = NULL, *whole = NULL;
	bool ok = curl_url_set(parts, CURLUPART_URL, client->shown, 0) == CURLUE_OK &&
		  curl_url_get(parts, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
		  curl_url_get(parts, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
		  curl_url_get(parts, CURLUPART_URL, &whole, 0) == CURLUE_OK &&
		  (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0);

	if (!ok)
		ok = mc_fail(err, MC_INVALID, from,
		    "'%s' is no address: http://HOST:PORT, https://HOST or unix:PATH is needed",
		    client->shown);
	else if (has_part(parts, CURLUPART_USER) || has_part(parts, CURLUPART_PASSWORD))
		ok = mc_fail(err, MC_INVALID, from,
		    "holds a name or a password; a token belongs into MOECAL_TOKEN_FILE");
	else if (has_part(parts, CURLUPART_QUERY) || has_part(parts, CURLUPART_FRAGMENT))
		ok = mc_fail(
		    err, MC_INVALID, from, "'%s' has more than host, port and path", client->shown);
	if (ok) {
		size_t length = strlen(whole);
		while (length > 0 && whole[length - 1] == '/')
			length--;
		client->is_local = is_loopback(host);
		client->base = mc_format(err, "%.*s", (int)length, whole);
		ok = client->base != NULL &&
		     (length <= MAX_BASE ||
			 mc_fail(err, MC_INVALID, from, "has more than %d characters", MAX_BASE));
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(whole);
	return ok;
}

static bool read_socket(struct client *client, const char *from, struct mc_error *err)
{
	client->socket = client->shown + 5;
	client->is_local = true;
	client->base = mc_strdup("http://localhost", err);
	if (client->base == NULL)
		return false;
	if (client->socket[0] == '\0')
		return mc_fail(err, MC_INVALID, from, "unix:PATH needs the path of a socket");
	return strlen(client->socket) <= MAX_SOCKET ||
	       mc_fail(err, MC_INVALID, from, "the path of a socket has at most %d characters",
		   MAX_SOCKET);
}

static bool read_address(struct client *client, const char *url, struct mc_error *err)
{
	const char *from = "--url";

	/* "--url $SERVICE" without a SERVICE must not reach another one */
	if (url != NULL && url[0] == '\0')
		return mc_fail(err, MC_INVALID, from,
		    "is empty: http://HOST:PORT, https://HOST or unix:PATH is needed");
	if (url == NULL) {
		url = getenv("MOECAL_URL");
		from = "MOECAL_URL";
	}
	if (url == NULL || url[0] == '\0')
		url = CLIENT_DEFAULT_URL;
	client->shown = mc_strdup(url, err);
	if (client->shown == NULL)
		return false;
	if (strncmp(url, "unix:", 5) == 0)
		return read_socket(client, from, err);
	CURLU *parts = curl_url();
	bool ok = parts != NULL ? read_parts(client, parts, from, err)
				: mc_fail(err, MC_NO_MEMORY, from, "there is no memory for it");
	curl_url_cleanup(parts);
	return ok;
}

/* --- token -------------------------------------------------------------------------------------- */

/* One word of visible characters: anything else would end the header. */
static bool take_token(struct client *client, const char *text, size_t length, const char *variable,
    const char *from, struct mc_error *err)
{
	while (length > 0 && (text[length - 1] == '\n' || text[length - 1] == '\r' ||
				 text[length - 1] == ' '))
		length--;
	for (size_t i = 0; i < length; i++)
		if (text[i] <= ' ' || text[i] > '~')
			return mc_fail(err, MC_INVALID, from, "must hold one token and nothing else");
	if (length == 0 || length > MAX_TOKEN)
		return mc_fail(err, MC_INVALID, from, length == 0 ? "holds no token"
								  : "is too long for a token");
	client->token_from = variable;
	client->authorization =
	    mc_format(err, "Authorization: Bearer %.*s", (int)length, text);
	return client->authorization != NULL;
}

static bool read_token(struct client *client, struct mc_error *err)
{
	const char *token = getenv("MOECAL_TOKEN"), *path = getenv("MOECAL_TOKEN_FILE");
	struct mc_buf text;
	struct mc_error cause;
	int fd = -1;

	if (token != NULL && token[0] != '\0')
		return take_token(
		    client, token, strlen(token), "MOECAL_TOKEN", "MOECAL_TOKEN", err);
	if (path == NULL || path[0] == '\0')
		return true;
	mc_error_init(&cause);
	mc_buf_init(&text, MAX_TOKEN + 2);
	bool ok = mc_root_open(NULL, path, &fd, &cause) &&
		  mc_file_read_all(fd, path, &text, &cause) &&
		  take_token(
		      client, mc_buf_text(&text), text.length, "MOECAL_TOKEN_FILE", path, &cause);
	mc_close(fd);
	mc_buf_release(&text);
	return ok || mc_fail(err, cause.code, "MOECAL_TOKEN_FILE", "%s: %s", path, cause.text);
}

/* --- life --------------------------------------------------------------------------------------- */

struct client *client_open(const struct client_options *options, struct mc_error *err)
{
	struct client *client = mc_alloc(1, sizeof *client, "client", err);

	if (client == NULL)
		return NULL;
	client->timeout_s = options->timeout_s;
	if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK ||
	    (client->curl = curl_easy_init()) == NULL)
		(void)mc_fail(err, MC_INTERNAL, "libcurl", "cannot be used");
	else if (read_address(client, options->url, err) && read_token(client, err)) {
		session_catch_signals();
		return client;
	}
	client_close(client);
	return NULL;
}

void client_close(struct client *client)
{
	if (client == NULL)
		return;
	curl_easy_cleanup(client->curl);
	curl_global_cleanup();
	free(client->shown);
	free(client->base);
	free(client->authorization);
	free(client);
}

const char *client_url(const struct client *client)
{
	return client->shown;
}

const char *client_token_from(const struct client *client)
{
	return client->token_from;
}

void client_answer_release(struct client_answer *answer)
{
	mc_json_free(answer->json);
	answer->json = NULL;
}

int64_t client_clock_s(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec;
}

/* --- one transfer ------------------------------------------------------------------------------- */

struct transfer {
	struct client *client;
	const struct client_request *request;
	struct mc_buf send, body;
	struct curl_slist *headers;
	char url[MAX_BASE + 4096], reason[CURL_ERROR_SIZE];
	curl_off_t moved;
	int64_t moved_at, silence_s;
	bool was_silent;
	struct mc_error err; /* of this side */
};

static int status_of(CURL *curl)
{
	long status = 0;

	curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
	return (int)status;
}

static size_t on_body(char *bytes, size_t one, size_t count, void *ctx)
{
	struct transfer *t = ctx;
	size_t length = one * count;
	int status = status_of(t->client->curl);
	bool ok = t->request->sink != NULL && (status == 200 || status == 206)
		      ? t->request->sink(t->request->ctx, status, bytes, length, &t->err)
		      : mc_buf_add(&t->body, bytes, length, &t->err);

	return ok ? length : CURL_WRITEFUNC_ERROR;
}

static size_t on_send(char *bytes, size_t one, size_t count, void *ctx)
{
	struct transfer *t = ctx;
	ssize_t n = read(t->request->file_fd, bytes, one * count);

	if (n >= 0)
		return (size_t)n;
	(void)mc_fail(&t->err, MC_IO, "upload", "the file cannot be read");
	return CURL_READFUNC_ABORT;
}

static int on_seek(void *ctx, curl_off_t offset, int origin)
{
	const struct transfer *t = ctx;

	return lseek(t->request->file_fd, offset, origin) >= 0 ? CURL_SEEKFUNC_OK
							       : CURL_SEEKFUNC_FAIL;
}

/* Called at least once a second, and after a signal at once. */
static int on_progress(
    void *ctx, curl_off_t down_all, curl_off_t down, curl_off_t up_all, curl_off_t up)
{
	struct transfer *t = ctx;

	(void)down_all;
	(void)up_all;
	if (session_signal() != 0)
		return 1;
	if (down + up != t->moved) {
		t->moved = down + up;
		t->moved_at = client_clock_s();
		if (t->request->moved != NULL)
			t->request->moved(t->request->ctx,
			    (uint64_t)(t->request->file_type != NULL ? up : down));
	}
	t->was_silent = client_clock_s() - t->moved_at > t->silence_s;
	return t->was_silent;
}

static bool add_header(struct transfer *t, const char *header)
{
	struct curl_slist *headers = curl_slist_append(t->headers, header);

	if (headers == NULL)
		return mc_fail(&t->err, MC_NO_MEMORY, "headers", "there is no memory for them");
	t->headers = headers;
	return true;
}

static bool add_header_value(struct transfer *t, const char *name, const char *value)
{
	char *header = mc_format(&t->err, "%s: %s", name, value);
	bool ok = header != NULL && add_header(t, header);

	free(header);
	return ok;
}

static bool prepare(struct transfer *t)
{
	const struct client_request *r = t->request;
	const char *type = r->json != NULL ? "application/json" : r->file_type;
	int length = snprintf(t->url, sizeof t->url, "%s%s", t->client->base, r->path);
	bool ok = add_header_value(t, "Accept", r->accept != NULL ? r->accept : "application/json");

	if (length < 0 || (size_t)length >= sizeof t->url)
		return mc_fail(&t->err, MC_INVALID, t->client->shown, "the address is too long");
	if (ok && type != NULL)
		ok = add_header_value(t, "Content-Type", type);
	if (ok && r->key != NULL)
		ok = add_header_value(t, "Idempotency-Key", r->key);
	if (ok && t->client->authorization != NULL)
		ok = add_header(t, t->client->authorization);
	for (size_t i = 0; ok && i < 2; i++)
		ok = r->header[i] == NULL || add_header(t, r->header[i]);
	if (ok && r->json != NULL)
		ok = mc_json_write(r->json, MC_JSON_COMPACT, &t->send, &t->err);
	if (ok && r->file_type != NULL && lseek(r->file_fd, 0, SEEK_SET) != 0)
		ok = mc_fail(&t->err, MC_IO, "upload", "the file cannot be read from its start");
	return ok;
}

/* Every option anew: the handle keeps only its connection. */
static bool set_options(struct transfer *t)
{
	const struct client *client = t->client;
	const struct client_request *r = t->request;
	CURL *curl = client->curl;
	int64_t connect_s = CONNECT_SECONDS < t->silence_s ? CONNECT_SECONDS : t->silence_s;
	bool ok = true;

	curl_easy_reset(curl);
#define SET(option, value) ok = curl_easy_setopt(curl, option, value) == CURLE_OK && ok
	SET(CURLOPT_URL, t->url);
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_CONNECTTIMEOUT, (long)connect_s);
	SET(CURLOPT_USERAGENT, "moecal/" MC_VERSION);
	SET(CURLOPT_ERRORBUFFER, t->reason);
	SET(CURLOPT_HTTPHEADER, t->headers);
	SET(CURLOPT_WRITEFUNCTION, on_body);
	SET(CURLOPT_WRITEDATA, t);
	SET(CURLOPT_XFERINFOFUNCTION, on_progress);
	SET(CURLOPT_XFERINFODATA, t);
	SET(CURLOPT_NOPROGRESS, 0L);
	if (client->socket != NULL)
		SET(CURLOPT_UNIX_SOCKET_PATH, client->socket);
	if (client->is_local)
		SET(CURLOPT_PROXY, "");
	if (r->json != NULL) {
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)t->send.length);
		SET(CURLOPT_POSTFIELDS, t->send.data);
	} else if (r->file_type != NULL) {
		SET(CURLOPT_POST, 1L);
		SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)r->file_bytes);
		SET(CURLOPT_READFUNCTION, on_send);
		SET(CURLOPT_READDATA, t);
		SET(CURLOPT_SEEKFUNCTION, on_seek);
		SET(CURLOPT_SEEKDATA, t);
	} else if (r->method != NULL && strcmp(r->method, "POST") == 0) {
		SET(CURLOPT_POSTFIELDSIZE, 0L);
		SET(CURLOPT_POSTFIELDS, "");
		/* no body has no type */
		ok = add_header(t, "Content-Type:") && ok;
		SET(CURLOPT_HTTPHEADER, t->headers);
	}
	if (r->method != NULL)
		SET(CURLOPT_CUSTOMREQUEST, r->method);
#undef SET
	return ok || mc_fail(&t->err, MC_INTERNAL, "libcurl", "does not take an option");
}

/* --- what came back ----------------------------------------------------------------------------- */

static bool has_type(CURL *curl, const char *type)
{
	const char *got = NULL;

	return curl_easy_getinfo(curl, CURLINFO_CONTENT_TYPE, &got) == CURLE_OK && got != NULL &&
	       strncasecmp(got, type, strlen(type)) == 0;
}

static enum client_outcome unreachable(
    struct transfer *t, struct client_answer *answer, const char *text)
{
	(void)mc_fail(&answer->err, MC_IO, t->client->shown, "%s", text);
	return CLIENT_UNREACHABLE;
}

static enum client_outcome read_answer(struct transfer *t, struct client_answer *answer)
{
	CURL *curl = t->client->curl;
	struct curl_header *header;
	curl_off_t after = 0;
	struct mc_error err;
	bool fine = answer->status >= 200 && answer->status < 300;

	if (curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &after) == CURLE_OK)
		answer->retry_after_s = after;
	answer->replayed = curl_easy_header(curl, "Idempotency-Replayed", 0, CURLH_HEADER, -1,
			       &header) == CURLHE_OK;
	mc_error_init(&err);
	if (t->body.length > 0 && (has_type(curl, "application/json") ||
				      has_type(curl, "application/problem+json")))
		answer->json =
		    mc_json_parse(t->body.data, t->body.length, t->client->shown, &err);
	if (!fine)
		return CLIENT_REFUSED;
	/* what went into a sink is of the type that was asked for, if one was */
	const char *type = t->request->accept;
	bool any = type == NULL || strcmp(type, "*/*") == 0;
	if (answer->status == 204 || answer->json != NULL ||
	    (t->request->sink != NULL && (any || has_type(curl, type))))
		return CLIENT_DONE;
	return unreachable(t, answer, CLIENT_NOT_MOECALD);
}

/* What curl says, but for connections: it tells neither of sockets nor what to do. */
static void explain_transfer(struct transfer *t, CURLcode code, char *text, size_t size)
{
	const char *what = t->reason[0] != '\0' ? t->reason : curl_easy_strerror(code);
	long number = 0;

	curl_easy_getinfo(t->client->curl, CURLINFO_OS_ERRNO, &number);
	if (code == CURLE_COULDNT_CONNECT && number != 0)
		what = strerror((int)number);
	bool nobody = code == CURLE_COULDNT_CONNECT || code == CURLE_COULDNT_RESOLVE_HOST;
	snprintf(text, size, "the service cannot be reached: %s%s", what,
	    nobody ? " (is moecald running there? --url or MOECAL_URL names another address)" : "");
}

static enum client_outcome explain(
    struct transfer *t, CURLcode code, struct client_answer *answer)
{
	char text[CURL_ERROR_SIZE + 128];

	if (session_signal() != 0)
		return CLIENT_STOPPED;
	if (t->err.code != MC_OK) {
		answer->err = t->err;
		return CLIENT_FAILED;
	}
	if (t->was_silent) {
		snprintf(text, sizeof text,
		    "the service said nothing for %lld seconds (--timeout waits longer)",
		    (long long)t->silence_s);
		return unreachable(t, answer, text);
	}
	explain_transfer(t, code, text, sizeof text);
	return unreachable(t, answer, text);
}

enum client_outcome client_send(
    struct client *client, const struct client_request *request, struct client_answer *answer)
{
	struct transfer t = {.client = client, .request = request, .moved_at = client_clock_s()};

	*answer = (struct client_answer){.outcome = CLIENT_FAILED};
	mc_error_init(&answer->err);
	mc_error_init(&t.err);
	mc_buf_init(&t.send, MAX_ANSWER);
	mc_buf_init(&t.body, MAX_ANSWER);
	t.silence_s = client->timeout_s > 0   ? client->timeout_s
		      : request->silence_s > 0 ? request->silence_s
					       : CLIENT_SILENCE_S;
	if (session_signal() != 0) {
		answer->outcome = CLIENT_STOPPED;
	} else if (prepare(&t) && set_options(&t)) {
		CURLcode code = curl_easy_perform(client->curl);
		answer->status = status_of(client->curl);
		answer->outcome =
		    code == CURLE_OK ? read_answer(&t, answer) : explain(&t, code, answer);
	} else {
		answer->err = t.err;
	}
	curl_slist_free_all(t.headers);
	mc_buf_release(&t.send);
	mc_buf_release(&t.body);
	return answer->outcome;
}
