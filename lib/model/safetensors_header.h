/*
 * safetensors_header.h - inside the safetensors reader: header text to entries
 */
#ifndef MC_SAFETENSORS_HEADER_H
#define MC_SAFETENSORS_HEADER_H

#include "moecal/safetensors.h"

/*
 * Fills names, header, metadata, count and entries of `file`: in the header's order, offsets
 * counted from the start of the data, each entry right in itself (its shape takes the bytes it
 * spans). What the entries are to each other and to the file is the caller's to check.
 *
 * Owner    text is borrowed for the call; what was made before a failure is the file's
 * Errors   CORRUPT naming file and reason, NO_MEMORY
 */
bool mc_st_parse_header(
    struct mc_st_file *file, const char *text, size_t length, struct mc_error *err) MC_CHECKED;

#endif
