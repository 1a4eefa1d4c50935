/*
 * buf.c - a growing byte string with a maximum of its own
 */
#include "moecal/buf.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/fault.h"

void mc_buf_init(struct mc_buf *buf, size_t maximum)
{
	memset(buf, 0, sizeof(*buf));
	buf->maximum = maximum;
}

void mc_buf_release(struct mc_buf *buf)
{
	free(buf->data);
	mc_buf_init(buf, buf->maximum);
}

void mc_buf_clear(struct mc_buf *buf)
{
	buf->length = 0;
	if (buf->data)
		buf->data[0] = '\0';
}

/* Room for `more` bytes and the NUL. */
static bool reserve(struct mc_buf *buf, size_t more, struct mc_error *err)
{
	size_t need, capacity = buf->capacity < 64 ? 64 : buf->capacity;
	char *data;

	if (more > buf->maximum - buf->length)
		return mc_fail(err, MC_INVALID, "",
		    "%zu bytes and %zu more exceed the maximum of %zu", buf->length, more,
		    buf->maximum);
	if (more > SIZE_MAX / 4 || buf->length > SIZE_MAX / 4)
		return mc_fail(err, MC_NO_MEMORY, "", "no memory for a text of %zu bytes", more);
	need = buf->length + more + 1;
	if (need <= buf->capacity)
		return true;
	while (capacity < need)
		capacity *= 2;
	data = mc_fault_here("alloc") ? NULL : realloc(buf->data, capacity);
	if (!data)
		return mc_fail(err, MC_NO_MEMORY, "", "no memory for a text of %zu bytes", need);
	buf->data = data;
	buf->capacity = capacity;
	return true;
}

bool mc_buf_add(struct mc_buf *buf, const void *bytes, size_t length, struct mc_error *err)
{
	if (!reserve(buf, length, err))
		return false;
	if (length > 0)
		memcpy(buf->data + buf->length, bytes, length);
	buf->length += length;
	buf->data[buf->length] = '\0';
	return true;
}

bool mc_buf_addf(struct mc_buf *buf, struct mc_error *err, const char *fmt, ...)
{
	va_list args;
	int length;

	va_start(args, fmt);
	length = vsnprintf(NULL, 0, fmt, args);
	va_end(args);
	if (length < 0)
		return mc_fail(err, MC_INTERNAL, "", "a text could not be formatted");
	if (!reserve(buf, (size_t)length, err))
		return false;
	va_start(args, fmt);
	vsnprintf(buf->data + buf->length, (size_t)length + 1, fmt, args);
	va_end(args);
	buf->length += (size_t)length;
	return true;
}

const char *mc_buf_text(const struct mc_buf *buf)
{
	return buf->data ? buf->data : "";
}
