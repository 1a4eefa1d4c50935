/*
 * command_derive.c - moecal derive: other schemes from what a finished job learned
 */
#include "cli.h"

#include "moecal/derive.h"

/* The source's spec with what the command changes, run or planned. */
static int derive(const struct spec_arguments *a, struct mc_source *source)
{
	struct mc_problems problems;
	struct mc_spec spec = {0};
	struct mc_error err;
	int code;

	mc_error_init(&err);
	mc_problems_init(&problems);
	struct mc_json *json = mc_source_spec(source, a->spec, &problems, &err);
	if (json == NULL)
		code = report_error(&err, a->json, false);
	else if (problems.total > 0) /* of keys, before those that follow from them */
		code = report_problems(&problems, a->json);
	else if (!mc_spec_parse(&spec, json, &problems, &err))
		code = report_error(&err, a->json, false);
	else if (problems.total > 0)
		code = report_problems(&problems, a->json);
	else
		code = a->plan_only ? spec_show_plan(&spec, a, source) : spec_run(&spec, a, source);
	mc_spec_release(&spec);
	mc_json_free(json);
	mc_problems_release(&problems);
	return code;
}

int command_derive(int argc, char **argv)
{
	struct mc_source source;
	struct spec_arguments a;
	struct mc_error err;
	int code = spec_arguments_read_derived(&a, argc, argv);

	if (code == EXIT_DONE && a.output == NULL && !a.plan_only)
		code = usage_error(argv[0], "-o DIR is needed: where the results go");
	mc_error_init(&err);
	if (code == EXIT_DONE && !mc_source_open(&source, a.source, &err)) {
		code = report_error(&err, a.json, false);
	} else if (code == EXIT_DONE) {
		code = derive(&a, &source);
		mc_source_close(&source);
	}
	spec_arguments_release(&a);
	return code;
}
