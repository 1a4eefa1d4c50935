/*
 * moe_registry.c - which calibration module stands in for which class of MoE block
 */
#include "moecal/moe_context.h"

#include <stdlib.h>

#include "moecal/alloc.h"

#include "moe_module.h"
#include "name.h"

static bool restore_nothing(struct mc_module *replacement, struct mc_module *original,
    struct mc_module **ret, struct mc_error *err)
{
	(void)original;
	(void)err;
	*ret = replacement;
	return true;
}

bool mc_moe_registry_init(struct mc_moe_registry *registry, struct mc_error *err)
{
	const struct mc_architecture *arch;

	*registry = (struct mc_moe_registry){0};
	for (size_t i = 0; (arch = mc_architecture_at(i)) != NULL; i++) {
		struct mc_moe_calibration kind = {.class_name = arch->classes.moe,
		    .create = mc_moe_sparse_create,
		    .restore = mc_moe_sparse_restore};

		/* Dense families have no block; some families share one class. */
		if (kind.class_name == NULL ||
		    mc_moe_registry_find(registry, kind.class_name) != NULL)
			continue;
		if (!mc_moe_registry_add(registry, &kind, err)) {
			mc_moe_registry_release(registry);
			return false;
		}
	}
	return true;
}

void mc_moe_registry_release(struct mc_moe_registry *registry)
{
	free(registry->kinds);
	*registry = (struct mc_moe_registry){0};
}

bool mc_moe_registry_add(
    struct mc_moe_registry *registry, const struct mc_moe_calibration *kind, struct mc_error *err)
{
	if (kind->class_name == NULL || kind->class_name[0] == '\0')
		return mc_fail(err, MC_INVALID, "MoE registry",
		    "a calibration module must name the class that it stands in for");
	if (kind->create == NULL)
		return mc_fail(err, MC_INVALID, kind->class_name,
		    "the calibration module has no create; without it no block can be replaced");
	if (!kind->is_permanent && kind->restore == NULL)
		return mc_fail(err, MC_UNSUPPORTED, kind->class_name,
		    "the calibration module is not permanent and has no restore; "
		    "one that does not stay must say how the original comes back");

	const struct mc_moe_calibration *other = mc_moe_registry_find(registry, kind->class_name);
	if (other != NULL)
		return mc_fail(err, MC_CONFLICT, kind->class_name,
		    "a calibration module is registered for this class already, as '%s'",
		    other->class_name);
	if (!mc_grow((void **)&registry->kinds, &registry->capacity, registry->count + 1,
		sizeof *registry->kinds, "MoE registry", err))
		return false;

	struct mc_moe_calibration *added = &registry->kinds[registry->count++];
	*added = *kind;
	if (kind->is_permanent)
		added->restore = restore_nothing; /* what stays is its own restoration */
	return true;
}

const struct mc_moe_calibration *mc_moe_registry_find(
    const struct mc_moe_registry *registry, const char *class_name)
{
	for (size_t i = 0; class_name != NULL && i < registry->count; i++)
		if (mc_name_same(registry->kinds[i].class_name, class_name))
			return &registry->kinds[i];
	return NULL;
}
