/*
 * command_model.c - moecal evaluate, tokenize: use a model
 */
#include <stdlib.h>
#include <string.h>

#include "cli.h"

#include "moecal/dataset.h"
#include "moecal/dequantize.h"
#include "moecal/evaluate.h"
#include "moecal/file.h"
#include "moecal/linalg.h"
#include "moecal/root.h"

/* --- tokenizer of a folder -------------------------------------------------------------------- */

static struct mc_tokenizer *tokenizer_of(const char *folder, struct mc_error *err)
{
	struct mc_buf json, config;
	struct mc_error absent;
	int fd = -1;
	struct mc_tokenizer *tokenizer = NULL;

	mc_error_init(&absent);
	mc_buf_init(&json, (size_t)256 << 20);
	mc_buf_init(&config, (size_t)256 << 20);
	if (mc_root_open_folder(NULL, folder, &fd, err)) {
		int file = -1, config_file = -1;
		bool ok = mc_root_open_at(NULL, fd, folder, "tokenizer.json", &file, err) &&
			  mc_file_read_all(file, "tokenizer.json", &json, err);
		bool has_config = ok && mc_root_open_at(NULL, fd, folder, "tokenizer_config.json",
					    &config_file, &absent);
		if (ok && has_config)
			ok = mc_file_read_all(config_file, "tokenizer_config.json", &config, err);
		else if (ok && absent.code != MC_NOT_FOUND)
			ok = mc_fail(err, absent.code, absent.where, "%s", absent.text);
		if (ok)
			tokenizer = mc_tokenizer_new(mc_buf_text(&json), json.length,
			    has_config ? mc_buf_text(&config) : NULL, config.length, err);
		mc_close(file);
		mc_close(config_file);
		mc_close(fd);
	}
	mc_buf_release(&json);
	mc_buf_release(&config);
	return tokenizer;
}

/* --- evaluate --------------------------------------------------------------------------------- */

struct evaluate_arguments {
	const char *model, *dataset;
	uint64_t num_samples, max_seq_length, threads;
	bool json;
};

static int read_evaluate(struct evaluate_arguments *a, int argc, char **argv)
{
	*a = (struct evaluate_arguments){.max_seq_length = 2048};
	for (int i = 1; i < argc; i++) {
		uint64_t *number = strcmp(argv[i], "--num-samples") == 0      ? &a->num_samples
				   : strcmp(argv[i], "--max-seq-length") == 0 ? &a->max_seq_length
				   : strcmp(argv[i], "--threads") == 0        ? &a->threads
									      : NULL;
		if (strcmp(argv[i], "--json") == 0) {
			a->json = true;
		} else if (number != NULL && i + 1 < argc) {
			char *end;
			*number = strtoull(argv[++i], &end, 10);
			if (*end != '\0' || argv[i][0] == '-' || *number == 0 || *number > 1 << 24)
				return usage_error(
				    argv[0], "%s needs a count, not '%s'", argv[i - 1], argv[i]);
		} else if (argv[i][0] == '-' || a->dataset != NULL) {
			return usage_error(argv[0], "unexpected '%s'", argv[i]);
		} else if (a->model == NULL) {
			a->model = argv[i];
		} else {
			a->dataset = argv[i];
		}
	}
	return a->dataset != NULL
		   ? EXIT_DONE
		   : usage_error(argv[0], "a checkpoint folder and a dataset are needed");
}

static bool evaluate(const struct evaluate_arguments *a, const struct mc_model *model,
    const struct mc_env *env, struct mc_evaluation *ret, struct mc_error *err)
{
	struct mc_dataset_source source = {.path = a->dataset};
	struct mc_dataset_options options = {.num_samples = a->num_samples,
	    .max_seq_length = a->max_seq_length,
	    .vocab_size = model->config.vocab};
	struct mc_tokenizer *tokenizer = NULL;
	struct mc_dataset dataset;
	bool holds_ids;

	if (!mc_dataset_holds_ids(a->dataset, NULL, &holds_ids, err))
		return false;
	if (!holds_ids && (tokenizer = tokenizer_of(a->model, err)) == NULL)
		return false;
	bool ok = mc_dataset_load(&dataset, &source, 1, &options, NULL, tokenizer, err);
	mc_tokenizer_free(tokenizer);
	if (!ok)
		return false;
	ok = mc_evaluate(model, &dataset, MC_DTYPE_COUNT, NULL, NULL, NULL, env, ret, err);
	mc_dataset_release(&dataset);
	return ok;
}

static bool print_evaluation(const struct mc_evaluation *e, bool json, struct mc_error *err)
{
	if (!json) {
		printf("perplexity %.5f\nloss       %.6f\npredicted  %llu tokens\n", e->perplexity,
		    e->loss, (unsigned long long)e->predicted);
		return true;
	}
	struct mc_json *root = mc_json_new_object();
	bool ok = mc_json_set(root, "perplexity", mc_json_new_real(e->perplexity), err) &&
		  mc_json_set(root, "loss", mc_json_new_real(e->loss), err) &&
		  mc_json_set(root, "predicted", mc_json_new_integer((int64_t)e->predicted), err) &&
		  print_json(root, err);
	mc_json_free(root);
	return ok;
}

int command_evaluate(int argc, char **argv)
{
	struct evaluate_arguments a;
	struct session session = {.quiet = true};
	struct mc_evaluation evaluation;
	struct mc_model model;
	struct mc_error err;
	int code = read_evaluate(&a, argc, argv);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	if (!session_open(&session, a.threads, 0, &err))
		return report_error(&err, a.json, false);
	bool ok = mc_dequantize_open(&model, NULL, a.model, &err);
	if (ok) {
		ok = evaluate(&a, &model, &session.env, &evaluation, &err);
		mc_model_close(&model);
	}
	session_close(&session);
	ok = ok && print_evaluation(&evaluation, a.json, &err);
	return ok ? EXIT_DONE : report_error(&err, a.json, false);
}

/* --- tokenize --------------------------------------------------------------------------------- */

struct tokenize_arguments {
	const char *model, *file;
	enum mc_add_special add_special;
	bool match_special, json;
};

static int read_tokenize(struct tokenize_arguments *a, int argc, char **argv)
{
	*a = (struct tokenize_arguments){.match_special = true};
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--json") == 0) {
			a->json = true;
		} else if (strcmp(argv[i], "--no-match-special") == 0) {
			a->match_special = false;
		} else if (strcmp(argv[i], "--add-special-tokens") == 0 && i + 1 < argc) {
			const char *value = argv[++i];
			if (strcmp(value, "auto") != 0 && strcmp(value, "true") != 0 &&
			    strcmp(value, "false") != 0)
				return usage_error(argv[0],
				    "--add-special-tokens is auto, true or false, not '%s'", value);
			a->add_special = value[0] == 'a'   ? MC_ADD_SPECIAL_AUTO
					 : value[0] == 't' ? MC_ADD_SPECIAL_YES
							   : MC_ADD_SPECIAL_NO;
		} else if ((argv[i][0] == '-' && argv[i][1] != '\0') || a->file != NULL) {
			return usage_error(argv[0], "unexpected '%s'", argv[i]);
		} else if (a->model == NULL) {
			a->model = argv[i];
		} else {
			a->file = argv[i];
		}
	}
	return a->model != NULL ? EXIT_DONE : usage_error(argv[0], "a checkpoint folder is needed");
}

static bool tokenize_line(const struct tokenize_arguments *a, struct mc_tokenizer *tokenizer,
    const char *line, size_t length, struct mc_error *err)
{
	struct mc_ids ids = {0};
	struct mc_json *value = NULL;

	if (a->json) {
		value = mc_json_parse(line, length, "input", err);
		if (value == NULL)
			return false;
		if (mc_json_type(value) != MC_JSON_STRING) {
			mc_json_free(value);
			return mc_fail(err, MC_INVALID, "input", "a line must be a JSON string");
		}
		line = mc_json_string(value, &length);
	}
	bool ok = mc_tokenizer_encode(
	    tokenizer, line, length, a->add_special, a->match_special, &ids, err);
	for (size_t i = 0; ok && i < ids.count; i++)
		printf("%s%u", i > 0 ? a->json ? "," : " " : a->json ? "[" : "", ids.ids[i]);
	if (ok)
		printf("%s\n", !a->json ? "" : ids.count == 0 ? "[]" : "]");
	mc_ids_release(&ids);
	mc_json_free(value);
	return ok;
}

int command_tokenize(int argc, char **argv)
{
	struct tokenize_arguments a;
	struct mc_error err;
	char *line = NULL;
	size_t capacity = 0;
	ssize_t length;
	int code = read_tokenize(&a, argc, argv);

	if (code != EXIT_DONE)
		return code;
	mc_error_init(&err);
	struct mc_tokenizer *tokenizer = tokenizer_of(a.model, &err);
	bool standard = a.file == NULL || strcmp(a.file, "-") == 0;
	FILE *in = tokenizer == NULL ? NULL : standard ? stdin : fopen(a.file, "re");
	bool ok = in != NULL ||
		  mc_fail(&err, MC_NOT_FOUND, a.file != NULL ? a.file : "", "cannot be opened");
	while (ok && (length = getline(&line, &capacity, in)) >= 0) {
		if (length > 0 && line[length - 1] == '\n')
			length--;
		ok = tokenize_line(&a, tokenizer, line, (size_t)length, &err);
	}
	free(line);
	if (in != NULL && !standard)
		fclose(in);
	mc_tokenizer_free(tokenizer);
	return ok ? EXIT_DONE : report_error(&err, false, false);
}
