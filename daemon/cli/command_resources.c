/*
 * command_resources.c - moecal models, datasets: what the service may work on
 */
#include <string.h>

#include "client.h"

struct resource {
	const char *name, *thing; /* "models", "model" */
	bool has_upload, has_text_column;
	void (*print_list)(const struct mc_json *list);
	void (*print_one)(const struct mc_json *one);
};

struct arguments {
	struct client_options options;
	const char *operand[2]; /* action and what it is about */
	size_t operands;
	const char *id, *text_column;
	int64_t limit;
};

/* --- models ------------------------------------------------------------------------------------- */

static void print_models(const struct mc_json *list)
{
	char a[32], b[32];

	int id = column_width(list, "id", 20), type = column_width(list, "model_type", 10);

	printf("%-*s %-*s %6s %8s %10s %10s %s\n", id, "model", type, "type", "layers", "experts",
	    "parameters", "size", "dtype");
	for (size_t i = 0; i < mc_json_size(list); i++) {
		const struct mc_json *m = mc_json_at(list, i);
		print_cell(member_text(m, "id"), id + 1);
		print_cell(member_text(m, "model_type"), type);
		printf(" %6lld %8lld %10s %10s ", (long long)member_integer(m, "layers"),
		    (long long)member_integer(m, "experts"),
		    count_text(member_number(m, "parameters"), a),
		    bytes_text((uint64_t)member_integer(m, "bytes"), b));
		print_cell(member_text(m, "dtype"), 0);
		printf("%s\n", member_bool(m, "changed") ? "  its files were changed" : "");
	}
}

static void print_row(const char *name, const char *text)
{
	printf("%-12s ", name);
	print_cell(text, 0);
	putchar('\n');
}

static void print_model(const struct mc_json *m)
{
	char a[32], b[32];

	print_row("model", member_text(m, "id"));
	print_row("path", member_text(m, "path"));
	print_row("architecture", member_text(m, "architecture"));
	printf("%-12s %lld, %lld of them with %lld experts, %lld a token\n", "layers",
	    (long long)member_integer(m, "layers"), (long long)member_integer(m, "moe_layers"),
	    (long long)member_integer(m, "experts"),
	    (long long)member_integer(m, "experts_per_token"));
	printf("%-12s %s parameters, %s, ", "size", count_text(member_number(m, "parameters"), a),
	    bytes_text((uint64_t)member_integer(m, "bytes"), b));
	print_cell(member_text(m, "dtype"), 0);
	putchar('\n');
	print_row("digest", member_text(m, "digest"));
	print_row("created", member_text(m, "created_at"));
	if (member_bool(m, "changed"))
		print_row("changed", "its files are not those that were registered; add it again");
}

/* --- datasets ----------------------------------------------------------------------------------- */

static const char *place(const struct mc_json *dataset)
{
	const char *path = member_text(dataset, "path");
	return path[0] != '\0' ? path : "(uploaded)";
}

static void print_datasets(const struct mc_json *list)
{
	char text[32];

	int id = column_width(list, "id", 20);

	printf("%-*s %-12s %9s %10s  %s\n", id, "dataset", "kind", "samples", "size", "path");
	for (size_t i = 0; i < mc_json_size(list); i++) {
		const struct mc_json *d = mc_json_at(list, i);
		print_cell(member_text(d, "id"), id + 1);
		print_cell(member_text(d, "kind"), 12);
		printf(" %9lld %10s  ", (long long)member_integer(d, "samples"),
		    bytes_text((uint64_t)member_integer(d, "bytes"), text));
		print_cell(place(d), 0);
		printf("%s\n", member_bool(d, "changed") ? "  the file was changed" : "");
	}
}

static void print_dataset(const struct mc_json *d)
{
	char text[32];

	print_row("dataset", member_text(d, "id"));
	print_row("path", place(d));
	printf("%-12s %lld sample%s, %s, ", "data", (long long)member_integer(d, "samples"),
	    member_integer(d, "samples") == 1 ? "" : "s",
	    bytes_text((uint64_t)member_integer(d, "bytes"), text));
	print_cell(member_text(d, "kind"), 0);
	putchar('\n');
	if (member_text(d, "text_column")[0] != '\0')
		print_row("text column", member_text(d, "text_column"));
	print_row("sha256", member_text(d, "sha256"));
	print_row("created", member_text(d, "created_at"));
	if (member_bool(d, "changed"))
		print_row("changed", "it is not the file that was registered; add it again");
}

/* --- actions ------------------------------------------------------------------------------------ */

static int print_answer(const struct client *client, const struct resource *r,
    const struct arguments *a, const struct mc_json *document)
{
	struct mc_error err;

	mc_error_init(&err);
	if (member_text(document, "id")[0] == '\0')
		return client_wrong_answer(client, a->options.json);
	if (!a->options.json)
		r->print_one(document);
	else if (!print_json(document, &err))
		return report_error(&err, false, true);
	return EXIT_DONE;
}

static int list(struct client *client, const struct resource *r, const struct arguments *a)
{
	struct mc_json *document;
	struct mc_error err;
	char path[32];

	mc_error_init(&err);
	snprintf(path, sizeof path, "/v1/%s", r->name);
	int code = client_list(client, path, r->name, a->limit, a->options.json, &document);
	if (code != EXIT_DONE)
		return code;
	if (a->options.json && !print_json(document, &err))
		code = report_error(&err, false, true);
	if (!a->options.json) {
		r->print_list(mc_json_get(document, r->name));
		client_tell_more(document);
	}
	mc_json_free(document);
	return code;
}

static int add(struct client *client, const struct resource *r, const struct arguments *a)
{
	struct mc_json *body = mc_json_new_object();
	char path[32], key[CLIENT_KEY_SIZE];
	struct client_answer answer;
	struct mc_error err;

	mc_error_init(&err);
	snprintf(path, sizeof path, "/v1/%s", r->name);
	bool ok = mc_json_set(body, "path", mc_json_new_string(a->operand[1]), &err) &&
		  (a->id == NULL || mc_json_set(body, "id", mc_json_new_string(a->id), &err)) &&
		  (a->text_column == NULL ||
		      mc_json_set(body, "text_column", mc_json_new_string(a->text_column), &err)) &&
		  client_make_key(key, &err);
	struct client_request request = {.method = "POST",
	    .path = path,
	    .json = body,
	    .key = key,
	    .silence_s = CLIENT_SILENCE_LONG_S};
	int code = ok ? client_do(client, &request, a->options.json, &answer)
		      : report_error(&err, a->options.json, false);
	if (code == EXIT_DONE) {
		code = print_answer(client, r, a, answer.json);
		client_answer_release(&answer);
	}
	mc_json_free(body);
	return code;
}

static int upload(struct client *client, const struct resource *r, const struct arguments *a)
{
	struct upload what = {.path = a->operand[1], .id = a->id, .text_column = a->text_column};
	char key[CLIENT_KEY_SIZE];
	struct mc_json *dataset;
	struct mc_error err;

	mc_error_init(&err);
	if (!client_make_key(key, &err))
		return report_error(&err, a->options.json, false);
	what.key = key;
	int code = upload_dataset(client, &what, a->options.json, &dataset);
	if (code == EXIT_DONE)
		code = print_answer(client, r, a, dataset);
	mc_json_free(dataset);
	return code;
}

static int get_or_remove(struct client *client, const struct resource *r,
    const struct arguments *a, bool remove)
{
	struct client_answer answer;
	char path[160];
	struct client_request request = {.method = remove ? "DELETE" : "GET", .path = path};

	snprintf(path, sizeof path, "/v1/%s/%s", r->name, a->operand[1]);
	int code = client_do(client, &request, a->options.json, &answer);
	if (code != EXIT_DONE)
		return code;
	if (remove)
		client_print_removed(a->operand[1], a->options.json);
	else
		code = print_answer(client, r, a, answer.json);
	client_answer_release(&answer);
	return code;
}

/* --- arguments ---------------------------------------------------------------------------------- */

enum action { ACTION_LIST, ACTION_ADD, ACTION_UPLOAD, ACTION_GET, ACTION_REMOVE, ACTION_NONE };

static enum action find_action(const struct resource *r, const char *word)
{
	static const char *const words[] = {"list", "add", "upload", "get", "rm"};

	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (strcmp(words[i], word) == 0 && (i != ACTION_UPLOAD || r->has_upload))
			return (enum action)i;
	return ACTION_NONE;
}

static int read_arguments(struct arguments *a, const struct resource *r, int argc, char **argv,
    enum action *ret_action)
{
	const struct option_row table[] = {CLIENT_OPTION_ROWS(&a->options),
	    CLIENT_JSON_ROW(&a->options), {"--limit", OPTION_INTEGER, &a->limit, 0, 1000000},
	    {"--id", OPTION_TEXT, &a->id, 0, 0},
	    {r->has_text_column ? "--text-column" : NULL, OPTION_TEXT, &a->text_column, 0, 0}, {0}};

	*a = (struct arguments){.limit = 50};
	int code = options_read(table, argc, argv, a->operand, 2, &a->operands);
	if (code != EXIT_DONE)
		return code;
	*ret_action = a->operands == 0 ? ACTION_LIST : find_action(r, a->operand[0]);
	bool makes = *ret_action == ACTION_ADD || *ret_action == ACTION_UPLOAD;
	if (*ret_action == ACTION_NONE)
		return usage_error(argv[0], "'%s' is none of list, add, %sget, rm", a->operand[0],
		    r->has_upload ? "upload, " : "");
	if (*ret_action == ACTION_LIST && a->operands == 2)
		return usage_error(argv[0], "unexpected '%s'", a->operand[1]);
	if (*ret_action != ACTION_LIST && (a->operands < 2 || a->operand[1][0] == '\0'))
		return usage_error(argv[0], "%s needs %s of a %s", a->operand[0],
		    makes ? "the path" : "the id", r->thing);
	if (!makes && (a->id != NULL || a->text_column != NULL))
		return usage_error(argv[0], "--id and --text-column are for what is made");
	const char *id = makes ? a->id : a->operands == 2 ? a->operand[1] : NULL;
	if (id != NULL && !client_id_is_valid(id))
		return usage_error(argv[0],
		    "'%s' is no id: at most 64 of a-z, 0-9, '.', '_', '-', the first a letter or "
		    "a digit",
		    id);
	return EXIT_DONE;
}

static int command(const struct resource *r, int argc, char **argv)
{
	struct arguments a;
	enum action action;
	struct mc_error err;
	int code = read_arguments(&a, r, argc, argv, &action);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	struct client *client = client_open(&a.options, &err);
	if (client == NULL)
		return report_error(&err, a.options.json, false);
	switch (action) {
	case ACTION_ADD:
		code = add(client, r, &a);
		break;
	case ACTION_UPLOAD:
		code = upload(client, r, &a);
		break;
	case ACTION_GET:
	case ACTION_REMOVE:
		code = get_or_remove(client, r, &a, action == ACTION_REMOVE);
		break;
	case ACTION_LIST:
	case ACTION_NONE:
		code = list(client, r, &a);
		break;
	}
	client_close(client);
	return code;
}

int command_models(int argc, char **argv)
{
	static const struct resource models = {
	    "models", "model", false, false, print_models, print_model};

	return command(&models, argc, argv);
}

int command_datasets(int argc, char **argv)
{
	static const struct resource datasets = {
	    "datasets", "dataset", true, true, print_datasets, print_dataset};

	return command(&datasets, argc, argv);
}
