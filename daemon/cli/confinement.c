/*
 * confinement.c - options of a caller that does not trust what the job names, such as the service
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "cli.h"

#include "moecal/alloc.h"

/* Ends this process when its parent ends, also when the parent is killed. */
static bool follow_parent(const char *text, struct mc_error *err)
{
	char *end;
	long parent = strtol(text, &end, 10);

	if (*end != '\0' || parent <= 0)
		return mc_fail(err, MC_INVALID, "--parent", "'%s' is no process id", text);
	if (prctl(PR_SET_PDEATHSIG, SIGKILL) != 0)
		return mc_fail_errno(err, errno, "--parent", "cannot follow it");
	/* it may have ended before we asked */
	return getppid() == (pid_t)parent ||
	       mc_fail(err, MC_CANCELED, "--parent", "process %ld is not there any more", parent);
}

static bool add_alias(
    struct confinement *confinement, const char *option, const char *text, struct mc_error *err)
{
	const char *equals = strchr(text, '=');

	if (equals == NULL)
		return mc_fail(err, MC_INVALID, option, "NAME=PATH is needed, not '%s'", text);
	char *name = mc_format(err, "%.*s", (int)(equals - text), text);
	bool ok = name != NULL && mc_roots_add_alias(confinement->roots, name, equals + 1,
				      strcmp(option, "--model-alias") == 0, err);
	free(name);
	return ok;
}

bool confinement_is_option(const char *option)
{
	static const char *const options[] = {
	    "--allow", "--model-alias", "--dataset-alias", "--parent", "--gflops"};

	for (size_t i = 0; i < sizeof options / sizeof *options; i++)
		if (strcmp(options[i], option) == 0)
			return true;
	return false;
}

bool confinement_set(
    struct confinement *confinement, const char *option, const char *value, struct mc_error *err)
{
	if (strcmp(option, "--parent") == 0)
		return follow_parent(value, err);
	if (strcmp(option, "--gflops") == 0) {
		char *end;
		confinement->gflops = strtod(value, &end);
		return (*end == '\0' && confinement->gflops > 0 && confinement->gflops < 1e9) ||
		       mc_fail(err, MC_INVALID, option, "'%s' is no rate", value);
	}
	if (confinement->roots == NULL)
		confinement->roots = mc_roots_new(err);
	if (confinement->roots == NULL)
		return false;
	if (strcmp(option, "--allow") == 0)
		return mc_roots_add(confinement->roots, value, err);
	return add_alias(confinement, option, value, err);
}

void confinement_release(struct confinement *confinement)
{
	mc_roots_free(confinement->roots);
	confinement->roots = NULL;
}
