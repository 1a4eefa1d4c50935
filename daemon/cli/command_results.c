/*
 * command_results.c - moecal coverage, quantization, verify: look at what a job left
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/parameters.h"
#include "moecal/statistics.h"
#include "moecal/verdict.h"

/* The flags and operands that these commands share. */
struct arguments {
	const char *operand[2];
	size_t operands;
	bool json, all;
	const char *original;
	int64_t limit;
};

static int read_arguments(struct arguments *a, int argc, char **argv, size_t most)
{
	*a = (struct arguments){.limit = 20};
	const struct option_row table[] = {{"--json", OPTION_FLAG, &a->json, 0, 0},
	    {"--all", OPTION_FLAG, &a->all, 0, 0},
	    {"--original", OPTION_TEXT, &a->original, 0, 0},
	    {"--limit", OPTION_INTEGER, &a->limit, 0, INT64_MAX}, {0}};
	int code = options_read(table, argc, argv, a->operand, most, &a->operands);

	if (code == EXIT_DONE && a->operands == 0)
		return usage_error(argv[0], "a folder is needed");
	return code;
}

/* --- coverage --------------------------------------------------------------------------------- */

/* A finished job says it in its verdict; one in work in its statistics. */
static struct mc_json *read_coverage(const char *folder, struct mc_error *err)
{
	struct mc_error absent;
	struct mc_json *coverage = NULL;

	mc_error_init(&absent);
	struct mc_json *verdict = read_json_file(folder, "verdict.json", &absent);
	if (verdict != NULL && mc_json_get(verdict, "experts") != NULL)
		coverage = mc_json_copy(mc_json_get(verdict, "experts"), err);
	mc_json_free(verdict);
	if (coverage != NULL || err->code != MC_OK)
		return coverage;
	char *path = mc_format(err, "%s/calibration.db", folder);
	struct mc_statistics *statistics = path == NULL ? NULL
							: mc_statistics_open(path, true, err);
	if (statistics != NULL)
		coverage = mc_statistics_coverage_json(statistics, 1, err);
	mc_statistics_close(statistics);
	free(path);
	return coverage;
}

int command_coverage(int argc, char **argv)
{
	struct arguments a;
	struct mc_error err;
	int code = read_arguments(&a, argc, argv, 1);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	struct mc_json *coverage = read_coverage(a.operand[0], &err);
	bool ok = coverage != NULL && (!a.json || print_json(coverage, &err));
	if (ok && !a.json)
		print_coverage(coverage, a.all);
	mc_json_free(coverage);
	return ok ? EXIT_DONE : report_error(&err, a.json, false);
}

/* --- quantization ----------------------------------------------------------------------------- */

static void print_parameters(const struct mc_json *document)
{
	const struct mc_json *list = mc_json_get(document, "parameters");

	for (size_t i = 0; i < mc_json_size(list); i++) {
		const struct mc_json *p = mc_json_at(list, i), *data = mc_json_get(p, "data"),
				     *shape = mc_json_get(p, "shape");
		printf("%s  %s [", mc_json_string(mc_json_get(p, "name"), NULL),
		    mc_json_string(mc_json_get(p, "dtype"), NULL));
		for (size_t d = 0; d < mc_json_size(shape); d++)
			printf("%s%lld", d > 0 ? ", " : "",
			    (long long)mc_json_integer(mc_json_at(shape, d)));
		printf("]\n   ");
		for (size_t d = 0; d < mc_json_size(data) && d < 6; d++)
			printf(" %.7g", mc_json_number(mc_json_at(data, d)));
		printf("%s\n", mc_json_size(data) > 6 ? " ..." : "");
	}
	if (!mc_json_is_null(mc_json_get(document, "next_cursor")))
		printf("more follow (--limit 0 shows all)\n");
}

int command_quantization(int argc, char **argv)
{
	struct arguments a;
	struct mc_error err;
	int code = read_arguments(&a, argc, argv, 2);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	char *path = mc_format(&err, "%s/quantization.safetensors", a.operand[0]);
	struct mc_json *document = path == NULL ? NULL
						: mc_parameters_json(path,
						      a.operands > 1 ? a.operand[1] : "", NULL,
						      (size_t)a.limit, 0, &err);
	bool ok = document != NULL;
	if (ok && mc_json_size(mc_json_get(document, "parameters")) == 0)
		ok = mc_fail(&err, MC_NOT_FOUND, a.operand[0],
		    "has no parameter whose name begins with '%s'",
		    a.operands > 1 ? a.operand[1] : "");
	if (ok && a.json)
		ok = print_json(document, &err);
	else if (ok)
		print_parameters(document);
	mc_json_free(document);
	free(path);
	return ok ? EXIT_DONE : report_error(&err, a.json, false);
}

/* --- verify ----------------------------------------------------------------------------------- */

/* A job folder holds model/; its original is named in its manifest. */
static bool find_checkpoint(
    const char *operand, char **ret_folder, char **ret_original, struct mc_error *err)
{
	struct mc_error absent;
	char *inside = mc_format(err, "%s/model/config.json", operand);
	bool is_job = inside != NULL && mc_file_exists(inside);

	free(inside);
	*ret_original = NULL;
	*ret_folder = is_job ? mc_format(err, "%s/model", operand) : mc_strdup(operand, err);
	if (*ret_folder == NULL || !is_job)
		return *ret_folder != NULL;
	mc_error_init(&absent);
	struct mc_json *spec = read_json_file(operand, "spec.json", &absent);
	const struct mc_json *model = spec == NULL ? NULL : mc_json_get(spec, "model");
	if (model != NULL && mc_json_type(model) == MC_JSON_STRING &&
	    mc_file_exists(mc_json_string(model, NULL)))
		*ret_original = mc_strdup(mc_json_string(model, NULL), err);
	mc_json_free(spec);
	return err->code == MC_OK;
}

int command_verify(int argc, char **argv)
{
	struct arguments a;
	struct session session = {.quiet = true};
	struct mc_error err;
	struct mc_verdict verdict;
	char *folder = NULL, *original = NULL;
	int code = read_arguments(&a, argc, argv, 1);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	mc_verdict_init(&verdict);
	bool ok = find_checkpoint(a.operand[0], &folder, &original, &err) &&
		  session_open(&session, 0, 0, &err);
	if (ok) {
		ok = mc_verify_checkpoint(&verdict, folder,
		    a.original != NULL ? a.original : original, &session.env, &err);
		session_close(&session);
	}
	struct mc_json *json = ok ? mc_verdict_json(&verdict, &err) : NULL;
	ok = json != NULL && (!a.json || print_json(json, &err));
	if (ok && !a.json)
		print_verdict(json);
	if (!ok)
		code = report_error(&err, a.json, false);
	else
		code = mc_verdict_valid(&verdict) ? EXIT_DONE : EXIT_VERDICT;
	mc_json_free(json);
	mc_verdict_release(&verdict);
	free(folder);
	free(original);
	return code;
}
