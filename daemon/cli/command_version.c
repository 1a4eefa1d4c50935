/*
 * command_version.c - moecal version: of the program, its libraries, and the service
 */
#include "client.h"

#include "moecal/versions.h"

/* *ret: what the service says of itself, owned. */
static int ask_service(const struct client_options *options, struct mc_json **ret)
{
	struct client_request request = {.path = "/v1/version"};
	struct client_answer answer;
	struct mc_error err;

	mc_error_init(&err);
	struct client *client = client_open(options, &err);
	if (client == NULL)
		return report_error(&err, options->json, false);
	int code = client_do(client, &request, options->json, &answer);
	if (code == EXIT_DONE)
		*ret = answer.json;
	client_close(client);
	return code;
}

static void print_versions(const struct mc_json *versions, const char *before)
{
	struct mc_json_iter member = mc_json_iter(versions);

	while (mc_json_next(&member)) {
		if (mc_json_type(member.value) != MC_JSON_STRING)
			continue;
		printf("%s%-10s ", before, member.key);
		print_cell(mc_json_string(member.value, NULL), 0);
		putchar('\n');
	}
}

static struct mc_json *own_versions(struct mc_error *err)
{
	struct session session = {.quiet = true};

	if (!session_open(&session, 1, 1 << 20, err))
		return NULL;
	struct mc_json *versions = mc_versions_json(err);
	session_close(&session);
	return versions;
}

int command_version(int argc, char **argv)
{
	struct client_options o = {0};
	const struct option_row table[] = {CLIENT_OPTION_ROWS(&o), CLIENT_JSON_ROW(&o), {0}};
	struct mc_json *versions, *service = NULL;
	const char *operand;
	size_t count;
	struct mc_error err;
	int code = options_read(table, argc, argv, &operand, 0, &count);

	if (code != EXIT_DONE)
		return code;
	if (o.url != NULL && (code = ask_service(&o, &service)) != EXIT_DONE)
		return code;
	mc_error_init(&err);
	versions = own_versions(&err);
	bool ok = versions != NULL;
	if (ok && o.json) {
		ok = (service == NULL ||
			 mc_json_set(versions, "service", mc_json_copy(service, &err), &err)) &&
		     print_json(versions, &err);
	} else if (ok) {
		print_versions(versions, "");
		if (service != NULL)
			printf("service    %s\n", o.url);
		print_versions(service, "  ");
	}
	mc_json_free(service);
	mc_json_free(versions);
	return ok ? EXIT_DONE : report_error(&err, o.json, false);
}
