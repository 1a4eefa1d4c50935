/*
 * verdict.c - the list of checks and its document
 */
#include "moecal/verdict.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "moecal/alloc.h"

void mc_verdict_init(struct mc_verdict *verdict)
{
	static const char *const names[] = {
#define X(id, name) name,
	    MC_CHECKS(X)
#undef X
	};
	*verdict = (struct mc_verdict){0};
	for (size_t i = 0; i < MC_CHECK_COUNT; i++)
		verdict->checks[i].name = names[i];
}

void mc_verdict_release(struct mc_verdict *verdict)
{
	for (size_t i = 0; i < MC_CHECK_COUNT; i++)
		for (size_t j = 0; j < verdict->checks[i].examples_count; j++)
			free(verdict->checks[i].examples[j]);
	mc_json_free(verdict->experts);
	*verdict = (struct mc_verdict){0};
}

void mc_verdict_pass(struct mc_verdict *verdict, enum mc_check_id check, uint64_t count)
{
	verdict->made[check] = true;
	verdict->checks[check].counted += count;
}

/* Names come from files and are cut to fit; a character that was cut is no text any more. */
static void make_text(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p != '\0'; p++) {
		size_t more = *p < 0x80   ? 0
			      : *p < 0xc2 ? 9
			      : *p < 0xe0 ? 1
			      : *p < 0xf0 ? 2
			      : *p < 0xf5 ? 3
					  : 9;
		size_t there = 0;
		while (there < more && (p[there + 1] & 0xc0) == 0x80)
			there++;
		bool whole = there == more && !(*p == 0xe0 && p[1] < 0xa0) &&
			     !(*p == 0xed && p[1] > 0x9f) && !(*p == 0xf0 && p[1] < 0x90) &&
			     !(*p == 0xf4 && p[1] > 0x8f);
		if (whole)
			p += more;
		else
			*p = '?';
	}
}

void mc_verdict_fail(struct mc_verdict *verdict, enum mc_check_id check, const char *fmt, ...)
{
	struct mc_check *c = &verdict->checks[check];
	struct mc_error err;
	char text[384];
	va_list args;

	mc_error_init(&err);
	verdict->made[check] = true;
	c->counted++;
	c->failed++;
	if (c->examples_count == MC_VERDICT_EXAMPLES)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof text, fmt, args);
	va_end(args);
	make_text(text);
	char *copy = mc_strdup(text, &err);
	if (copy != NULL)
		c->examples[c->examples_count++] = copy;
}

bool mc_verdict_valid(const struct mc_verdict *verdict)
{
	bool any = false;
	for (size_t i = 0; i < MC_CHECK_COUNT; i++) {
		if (verdict->checks[i].failed > 0)
			return false;
		any = any || (i != MC_CHECK_FILES && i != MC_CHECK_CONFIG &&
				 verdict->checks[i].counted > 0);
	}
	return any; /* nothing checked proves nothing */
}

static struct mc_json *check_json(const struct mc_check *check, struct mc_error *err)
{
	struct mc_json *one = mc_json_new_object(), *examples = mc_json_new_array();
	bool ok = mc_json_set(one, "name", mc_json_new_string(check->name), err) &&
		  mc_json_set(one, "passed", mc_json_new_bool(check->failed == 0), err) &&
		  mc_json_set(one, "counted", mc_json_new_integer((int64_t)check->counted), err) &&
		  mc_json_set(one, "failed", mc_json_new_integer((int64_t)check->failed), err) &&
		  mc_json_set(one, "examples", examples, err);
	for (size_t i = 0; ok && i < check->examples_count; i++)
		ok = mc_json_append(examples, mc_json_new_string(check->examples[i]), err);
	if (ok)
		return one;
	mc_json_free(one);
	return NULL;
}

struct mc_json *mc_verdict_json(const struct mc_verdict *verdict, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object(), *checks = mc_json_new_array();
	bool ok = mc_json_set(root, "valid", mc_json_new_bool(mc_verdict_valid(verdict)), err) &&
		  mc_json_set(root, "checks", checks, err);
	for (size_t i = 0; ok && i < MC_CHECK_COUNT; i++)
		if (verdict->made[i])
			ok = mc_json_append(checks, check_json(&verdict->checks[i], err), err);
	if (ok && verdict->experts != NULL)
		ok = mc_json_set(root, "experts", mc_json_copy(verdict->experts, err), err);
	if (ok)
		return root;
	mc_json_free(root);
	return NULL;
}
