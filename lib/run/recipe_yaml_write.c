/*
 * recipe_yaml_write.c - JSON to YAML as PyYAML writes it by default; the other wall around libyaml
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

#include "recipe_yaml.h"

static int append(void *out, unsigned char *data, size_t length)
{
	struct mc_error err;

	mc_error_init(&err);
	return mc_buf_add(out, data, length, &err) ? 1 : 0;
}

/* The shortest digits that are read as the same number, with a point, as the reader wants it. */
static void print_real(char text[40], double value)
{
	int digits = 1;

	do
		snprintf(text, 32, "%.*g", digits, value);
	while (strtod(text, NULL) != value && digits++ < 17);
	if (strchr(text, '.') != NULL)
		return;
	char *e = strchr(text, 'e'), rest[16] = "";
	if (e != NULL) {
		snprintf(rest, sizeof rest, "%s", e);
		*e = '\0';
	}
	snprintf(text + strlen(text), 40 - strlen(text), ".0%s", rest);
}

/* A text that would be read as something else is quoted. */
static bool reads_as_text(const char *text)
{
	struct mc_json *value = mc_yaml_plain(text);
	bool same = value != NULL && mc_json_type(value) == MC_JSON_STRING;

	mc_json_free(value);
	return same && strcmp(text, "<<") != 0 && strcmp(text, "=") != 0;
}

static bool emit_text(yaml_emitter_t *emitter, const char *text, bool plain)
{
	yaml_event_t event;

	return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
		   (int)strlen(text), plain, true, YAML_ANY_SCALAR_STYLE) &&
	       yaml_emitter_emit(emitter, &event);
}

static bool emit_scalar(yaml_emitter_t *emitter, const struct mc_json *value)
{
	char text[40] = "null";

	switch (mc_json_type(value)) {
	case MC_JSON_STRING:
		return emit_text(emitter, mc_json_string(value, NULL),
		    reads_as_text(mc_json_string(value, NULL)));
	case MC_JSON_BOOL:
		snprintf(text, sizeof text, "%s", mc_json_bool(value) ? "true" : "false");
		break;
	case MC_JSON_INTEGER:
		snprintf(text, sizeof text, "%lld", (long long)mc_json_integer(value));
		break;
	case MC_JSON_REAL:
		print_real(text, mc_json_number(value));
		break;
	case MC_JSON_NULL:
	case MC_JSON_ARRAY:
	case MC_JSON_OBJECT:
		break;
	}
	return emit_text(emitter, text, true);
}

static bool is_container(const struct mc_json *value)
{
	return mc_json_type(value) == MC_JSON_OBJECT || mc_json_type(value) == MC_JSON_ARRAY;
}

/* Whether nothing is inside but scalars: on one line then. */
static bool is_leaf(const struct mc_json *value)
{
	struct mc_json_iter member = mc_json_iter(value);

	while (mc_json_next(&member))
		if (is_container(member.value))
			return false;
	for (size_t i = 0; mc_json_type(value) == MC_JSON_ARRAY && i < mc_json_size(value); i++)
		if (is_container(mc_json_at(value, i)))
			return false;
	return true;
}

static bool emit(yaml_emitter_t *emitter, const struct mc_json *value)
{
	bool object = mc_json_type(value) == MC_JSON_OBJECT, leaf = is_leaf(value), ok;
	struct mc_json_iter member = mc_json_iter(value);
	yaml_event_t event;

	if (!is_container(value))
		return emit_scalar(emitter, value);
	if (object)
		ok = yaml_mapping_start_event_initialize(&event, NULL, NULL, true,
		    leaf ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE);
	else
		ok = yaml_sequence_start_event_initialize(&event, NULL, NULL, true,
		    leaf ? YAML_FLOW_SEQUENCE_STYLE : YAML_BLOCK_SEQUENCE_STYLE);
	ok = ok && yaml_emitter_emit(emitter, &event);
	while (ok && mc_json_next(&member))
		ok = emit_text(emitter, member.key, reads_as_text(member.key)) &&
		     emit(emitter, member.value);
	for (size_t i = 0; ok && !object && i < mc_json_size(value); i++)
		ok = emit(emitter, mc_json_at(value, i));
	ok = ok && (object ? yaml_mapping_end_event_initialize(&event)
			   : yaml_sequence_end_event_initialize(&event));
	return ok && yaml_emitter_emit(emitter, &event);
}

bool mc_yaml_write(const struct mc_json *value, struct mc_buf *out, struct mc_error *err)
{
	yaml_emitter_t emitter;
	yaml_event_t event;

	if (!yaml_emitter_initialize(&emitter))
		return mc_fail(err, MC_NO_MEMORY, "YAML", "no memory to write YAML");
	yaml_emitter_set_output(&emitter, append, out);
	yaml_emitter_set_unicode(&emitter, true);
	yaml_emitter_set_width(&emitter, 88);
	bool ok = yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
		  yaml_emitter_emit(&emitter, &event) &&
		  yaml_document_start_event_initialize(&event, NULL, NULL, NULL, true) &&
		  yaml_emitter_emit(&emitter, &event) && emit(&emitter, value) &&
		  yaml_document_end_event_initialize(&event, true) &&
		  yaml_emitter_emit(&emitter, &event) && yaml_stream_end_event_initialize(&event) &&
		  yaml_emitter_emit(&emitter, &event);
	yaml_emitter_delete(&emitter);
	return ok || mc_fail(err, MC_NO_MEMORY, "YAML", "no memory to write YAML");
}
