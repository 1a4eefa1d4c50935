/*
 * versions.h - what this program is made of
 */
#ifndef MC_VERSIONS_H
#define MC_VERSIONS_H

#include "moecal/json.h"

/* {"moecal", "kernel", "sqlite", ...}: strings. After mc_linalg_init. New, owned. */
struct mc_json *mc_versions_json(struct mc_error *err) MC_CHECKED;

#endif
