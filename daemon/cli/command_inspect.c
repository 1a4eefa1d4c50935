/*
 * command_inspect.c - moecal inspect: what is in a checkpoint, or in a file of calibration data
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"

#include "moecal/dataset.h"
#include "moecal/dequantize.h"

struct inspect_arguments {
	const char *path, *text_column;
	bool json, modules, digest;
	struct confinement confinement;
};

static bool inspect_json(
    const struct mc_model *model, bool modules, struct mc_json *root, struct mc_error *err)
{
	const struct mc_model_config *c = &model->config;
	size_t moe_layers = 0;

	for (size_t l = 0; l < c->layers; l++)
		moe_layers += c->is_moe[l];
	const struct {
		const char *key;
		uint64_t value;
	} numbers[] = {{"layers", c->layers}, {"moe_layers", moe_layers}, {"experts", c->experts},
	    {"experts_per_token", c->experts_per_token}, {"hidden", c->hidden},
	    {"expert_intermediate", c->expert_intermediate}, {"heads", c->heads},
	    {"kv_heads", c->kv_heads}, {"head_dim", c->head_dim}, {"vocabulary", c->vocab},
	    {"parameters", mc_model_parameters(model)}, {"bytes", model->checkpoint.bytes},
	    {"tensors", model->checkpoint.count}, {"shards", model->checkpoint.shards_count}};
	bool ok = mc_json_set(root, "model_type", mc_json_new_string(c->model_type), err) &&
		  mc_json_set(root, "architecture",
		      mc_json_new_string(model->arch->classes.causal_lm), err) &&
		  mc_json_set(
		      root, "dtype", mc_json_new_string(mc_dtype_name(model->dtype)), err) &&
		  mc_json_set(root, "format", mc_json_new_string(mc_model_format(model)), err);
	for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
		ok = mc_json_set(
		    root, numbers[i].key, mc_json_new_integer((int64_t)numbers[i].value), err);
	if (!ok || !modules)
		return ok;
	struct mc_json *list = mc_json_new_array();
	ok = mc_json_set(root, "modules", list, err);
	for (size_t i = 0; ok && i < model->modules_count; i++) {
		const struct mc_module *m = model->modules[i];
		struct mc_json *one = mc_json_new_object();
		ok = mc_json_append(list, one, err) &&
		     mc_json_set(one, "name", mc_json_new_string(m->name), err) &&
		     mc_json_set(one, "class", mc_json_new_string(m->class_name), err);
		if (ok && m->kind != MC_KIND_CONTAINER)
			ok = mc_json_set(one, "rows", mc_json_new_integer((int64_t)m->rows), err) &&
			     mc_json_set(one, "cols", mc_json_new_integer((int64_t)m->cols), err);
	}
	return ok;
}

/* One file as it is now: whoever has this can tell later whether the file is still the same. */
static bool add_file(struct mc_json *list, int fd, const char *name, struct mc_error *err)
{
	struct stat status;
	const char *slash = strrchr(name, '/');
	struct mc_json *one = mc_json_new_object();

	name = slash != NULL ? slash + 1 : name;
	if (fstat(fd, &status) != 0) {
		mc_json_free(one);
		return mc_fail_errno(err, errno, name, "cannot be looked at");
	}
	return mc_json_append(list, one, err) &&
	       mc_json_set(one, "name", mc_json_new_string(name), err) &&
	       mc_json_set(one, "bytes", mc_json_new_integer((int64_t)status.st_size), err) &&
	       mc_json_set(one, "inode", mc_json_new_integer((int64_t)status.st_ino), err) &&
	       mc_json_set(one, "mtime_ns",
		   mc_json_new_integer(
		       (int64_t)status.st_mtim.tv_sec * 1000000000 + status.st_mtim.tv_nsec),
		   err);
}

/* Files that a job would read beside the shards; a tokenizer need not be there. */
static bool add_small_files(
    const struct mc_checkpoint *checkpoint, struct mc_json *list, struct mc_error *err)
{
	static const char *const names[] = {
	    "config.json", "model.safetensors.index.json", "tokenizer.json"};
	bool ok = true;

	for (size_t i = 0; ok && i < sizeof names / sizeof *names; i++) {
		struct mc_error absent;
		int fd = -1;
		mc_error_init(&absent);
		if (mc_root_open_at(checkpoint->roots, checkpoint->folder_fd, checkpoint->path,
			names[i], &fd, &absent))
			ok = add_file(list, fd, names[i], err);
		else
			ok = absent.code == MC_NOT_FOUND ||
			     mc_fail(err, absent.code, absent.where, "%s", absent.text);
		if (fd >= 0)
			close(fd);
	}
	return ok;
}

static bool digest_json(
    const struct mc_checkpoint *checkpoint, struct mc_json *root, struct mc_error *err)
{
	char hex[65];
	struct mc_json *files = mc_json_new_array();
	bool ok = mc_json_set(root, "files", files, err);

	for (size_t i = 0; ok && i < checkpoint->shards_count; i++)
		ok = add_file(files, checkpoint->shards[i].fd, checkpoint->shards[i].name, err);
	return ok && add_small_files(checkpoint, files, err) &&
	       mc_checkpoint_digest(checkpoint, hex, err) &&
	       mc_json_set(root, "sha256", mc_json_new_string(hex), err);
}

static bool inspect_model(
    const struct inspect_arguments *a, struct mc_json *root, struct mc_error *err)
{
	struct mc_model model;

	if (!mc_dequantize_open(&model, a->confinement.roots, a->path, err))
		return false;
	bool ok = inspect_json(&model, a->modules, root, err) &&
		  (!a->digest || digest_json(&model.checkpoint, root, err));
	mc_model_close(&model);
	return ok;
}

static bool inspect_dataset(
    const struct inspect_arguments *a, struct mc_json *root, struct mc_error *err)
{
	struct mc_dataset_info info;
	struct mc_json *files = mc_json_new_array();
	int fd;

	if (!mc_root_open(a->confinement.roots, a->path, &fd, err)) {
		mc_json_free(files);
		return false;
	}
	/* looked at before it is read: a change meanwhile is then noticed later */
	bool ok = add_file(files, fd, a->path, err);
	close(fd);
	ok = mc_dataset_inspect(a->path, a->text_column, a->confinement.roots, &info, err) && ok;
	if (!ok) {
		mc_json_free(files);
		return false;
	}
	return mc_json_set(root, "files", files, err) &&
	       mc_json_set(root, "kind", mc_json_new_string(info.kind), err) &&
	       mc_json_set(root, "samples", mc_json_new_integer((int64_t)info.samples), err) &&
	       mc_json_set(root, "holds_ids", mc_json_new_bool(info.holds_ids), err) &&
	       mc_json_set(root, "bytes", mc_json_new_integer((int64_t)info.bytes), err) &&
	       mc_json_set(root, "sha256", mc_json_new_string(info.sha256), err);
}

static void print_inspection(const struct mc_json *root)
{
	for (size_t i = 0; i < mc_json_size(root); i++) {
		const char *key;
		const struct mc_json *value = mc_json_member(root, i, &key);
		if (mc_json_type(value) == MC_JSON_STRING)
			printf("%-20s %s\n", key, mc_json_string(value, NULL));
		else if (mc_json_type(value) == MC_JSON_INTEGER)
			printf("%-20s %lld\n", key, (long long)mc_json_integer(value));
	}
	const struct mc_json *modules = mc_json_get(root, "modules");
	for (size_t i = 0; i < mc_json_size(modules); i++) {
		const struct mc_json *m = mc_json_at(modules, i), *rows = mc_json_get(m, "rows");
		printf("%s  %s", mc_json_string(mc_json_get(m, "name"), NULL),
		    mc_json_string(mc_json_get(m, "class"), NULL));
		if (rows != NULL)
			printf("  [%lld, %lld]", (long long)mc_json_integer(rows),
			    (long long)mc_json_integer(mc_json_get(m, "cols")));
		printf("\n");
	}
}

static int read_arguments(struct inspect_arguments *a, int argc, char **argv, struct mc_error *err)
{
	*a = (struct inspect_arguments){0};
	for (int i = 1; i < argc; i++) {
		bool confines = confinement_is_option(argv[i]);
		if (strcmp(argv[i], "--json") == 0) {
			a->json = true;
		} else if (strcmp(argv[i], "--modules") == 0) {
			a->modules = true;
		} else if (strcmp(argv[i], "--digest") == 0) {
			a->digest = true;
		} else if ((confines || strcmp(argv[i], "--text-column") == 0) && i + 1 < argc) {
			i++;
			if (!confines)
				a->text_column = argv[i];
			else if (!confinement_set(&a->confinement, argv[i - 1], argv[i], err))
				return report_error(err, a->json, false);
		} else if (argv[i][0] == '-' || a->path != NULL) {
			return usage_error(argv[0], "unexpected '%s'", argv[i]);
		} else {
			a->path = argv[i];
		}
	}
	return a->path != NULL
		   ? EXIT_DONE
		   : usage_error(argv[0], "a checkpoint folder or a file of data is needed");
}

/* Whether the path is a file, so that it is data. What is neither is left to the model's reader,
 * whose message says what is needed. */
static bool is_file(const struct inspect_arguments *a)
{
	struct mc_error err;
	int fd = -1;

	mc_error_init(&err);
	bool file = mc_root_open(a->confinement.roots, a->path, &fd, &err);
	if (file)
		close(fd);
	return file;
}

int command_inspect(int argc, char **argv)
{
	struct inspect_arguments a;
	struct mc_error err;

	mc_error_init(&err);
	int code = read_arguments(&a, argc, argv, &err);
	if (code != EXIT_DONE) {
		confinement_release(&a.confinement);
		return code;
	}
	struct mc_json *root = mc_json_new_object();
	bool ok = is_file(&a) ? inspect_dataset(&a, root, &err) : inspect_model(&a, root, &err);
	ok = ok && (!a.json || print_json(root, &err));
	if (ok && !a.json)
		print_inspection(root);
	code = ok ? EXIT_DONE : report_error(&err, a.json, false);
	mc_json_free(root);
	confinement_release(&a.confinement);
	return code;
}
