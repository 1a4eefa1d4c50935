/*
 * dataset_npy.c - token ids in arrays: NumPy files and safetensors
 *
 * NumPy: magic, version 1 to 3, a header that is a Python dictionary with exactly descr,
 * fortran_order and shape, then the data in C order. Only what is written here is accepted.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataset_parts.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/safetensors.h"

#define MAX_NPY_HEADER 65536

/* An array of integers in a file. */
struct id_array {
	size_t size; /* bytes of one element */
	bool is_signed;
	uint64_t rows, columns;
};

static int64_t element(const struct id_array *a, const unsigned char *p)
{
	uint64_t v = 0;

	for (size_t i = 0; i < a->size; i++)
		v |= (uint64_t)p[i] << (8 * i);
	if (a->is_signed && a->size < 8 && (v >> (8 * a->size - 1)) != 0)
		v |= UINT64_MAX << (8 * a->size);
	return (int64_t)v; /* u8 past 2^63 becomes negative, which is outside every vocabulary */
}

/* One row is one sample; rows are read one at a time. */
typedef bool read_row_fn(
    void *file, uint64_t offset, uint64_t bytes, void *into, struct mc_error *err);

static bool add_rows(struct mc_samples *s, const struct id_array *a, read_row_fn *read_row,
    void *file, struct mc_error *err)
{
	/* rows that take no byte could be countless in a small file */
	if (a->columns == 0)
		return mc_fail(err, MC_INVALID, s->path, "has no samples: its rows hold no ids");
	unsigned char *row = mc_alloc(a->columns, a->size, "a row of ids", err);
	int64_t *ids = mc_alloc(a->columns, sizeof *ids, "a row of ids", err);
	bool ok = row != NULL && ids != NULL;

	for (uint64_t r = 0; ok && r < a->rows && s->left > 0 && !mc_samples_are_enough(s);
	     r++, s->left--) {
		char where[192];
		snprintf(where, sizeof where, "%.160s row %llu", s->path, (unsigned long long)r);
		ok = read_row(file, r * a->columns * a->size, a->columns * a->size, row, err);
		for (uint64_t c = 0; ok && c < a->columns; c++)
			ids[c] = element(a, row + c * a->size);
		ok = ok && mc_samples_add_ids(s, ids, a->columns, where, err);
	}
	free(row);
	free(ids);
	return ok;
}

/* --- NumPy ------------------------------------------------------------------------------------ */

static void skip_space(const char **p)
{
	while (**p == ' ')
		(*p)++;
}

static bool take(const char **p, const char *text)
{
	skip_space(p);
	size_t n = strlen(text);
	if (strncmp(*p, text, n) != 0)
		return false;
	*p += n;
	return true;
}

static bool take_number(const char **p, uint64_t *ret)
{
	char *end;

	skip_space(p);
	if (!isdigit((unsigned char)**p))
		return false;
	*ret = strtoull(*p, &end, 10);
	*p = end;
	return *ret < (uint64_t)1 << 40;
}

/* '<u2' and so on; '|' for single bytes. */
static bool take_descr(const char **p, struct id_array *a)
{
	char order, kind, size;

	skip_space(p);
	if ((*p)[0] != '\'' || strlen(*p) < 5 || (*p)[4] != '\'')
		return false;
	order = (*p)[1];
	kind = (*p)[2];
	size = (*p)[3];
	*p += 5;
	if ((kind != 'u' && kind != 'i') || strchr("1248", size) == NULL ||
	    (order != '<' && !(order == '|' && size == '1')))
		return false;
	a->size = (size_t)(size - '0');
	a->is_signed = kind == 'i';
	return true;
}

static bool take_shape(const char **p, struct id_array *a)
{
	uint64_t first, second;

	if (!take(p, "(") || !take_number(p, &first) || !take(p, ","))
		return false;
	if (take(p, ")")) {
		a->rows = 1;
		a->columns = first;
		return true;
	}
	if (!take_number(p, &second))
		return false;
	(void)take(p, ",");
	a->rows = first;
	a->columns = second;
	return take(p, ")");
}

/* A comma, or the end of the dictionary. */
static bool end_member(const char **p)
{
	return take(p, ",") || **p == '}';
}

/* The keys in any order, each once; behind the dictionary spaces and one line feed. */
static bool parse_dictionary(const char *p, struct id_array *a)
{
	bool descr = false, order = false, shape = false, ok;

	if (!take(&p, "{"))
		return false;
	while (!take(&p, "}")) {
		if (!descr && take(&p, "'descr':"))
			ok = descr = take_descr(&p, a);
		else if (!order && take(&p, "'fortran_order':"))
			ok = order = take(&p, "False");
		else if (!shape && take(&p, "'shape':"))
			ok = shape = take_shape(&p, a);
		else
			ok = false;
		if (!ok || !end_member(&p))
			return false;
	}
	skip_space(&p);
	return descr && order && shape && strcmp(p, "\n") == 0;
}

static bool read_npy_header(
    int fd, const char *path, struct id_array *a, uint64_t *ret_data, struct mc_error *err)
{
	unsigned char fixed[12];
	char text[MAX_NPY_HEADER + 1];

	if (!mc_file_read_at(fd, fixed, 10, 0, path, err))
		return false;
	unsigned version = fixed[6];
	uint64_t length = (uint64_t)fixed[8] | (uint64_t)fixed[9] << 8, begin = 10;
	if (version < 1 || version > 3)
		return mc_fail(err, MC_UNSUPPORTED, path,
		    "NumPy format version %u; 1, 2 and 3 are known", version);
	if (version >= 2) {
		if (!mc_file_read_at(fd, fixed, 12, 0, path, err))
			return false;
		length |= (uint64_t)fixed[10] << 16 | (uint64_t)fixed[11] << 24;
		begin = 12;
	}
	if (length > MAX_NPY_HEADER)
		return mc_fail(err, MC_CORRUPT, path, "its header says it has %llu bytes",
		    (unsigned long long)length);
	if (!mc_file_read_at(fd, text, length, begin, path, err))
		return false;
	text[length] = '\0';
	if (strlen(text) != length || !parse_dictionary(text, a))
		return mc_fail(err, MC_UNSUPPORTED, path,
		    "must be a C-ordered little-endian array of integers of rank 1 or 2, its "
		    "header is %.120s",
		    text);
	*ret_data = begin + length;
	return true;
}

struct npy_file {
	int fd;
	const char *path;
	uint64_t data;
};

static bool read_npy_row(
    void *file, uint64_t offset, uint64_t bytes, void *into, struct mc_error *err)
{
	const struct npy_file *f = file;
	return mc_file_read_at(f->fd, into, bytes, f->data + offset, f->path, err);
}

bool mc_read_npy(struct mc_samples *s, int fd, struct mc_error *err)
{
	struct npy_file file = {.fd = fd, .path = s->path};
	struct id_array a;
	uint64_t size, need;

	if (!read_npy_header(fd, s->path, &a, &file.data, err) ||
	    !mc_file_size(fd, s->path, &size, err))
		return false;
	if (!mc_mul(a.rows, a.columns, &need) || !mc_mul(need, a.size, &need) ||
	    !mc_add(need, file.data, &need) || need != size)
		return mc_fail(err, MC_CORRUPT, s->path,
		    "has %llu bytes, its header of [%llu, %llu] needs another number",
		    (unsigned long long)size, (unsigned long long)a.rows,
		    (unsigned long long)a.columns);
	return add_rows(s, &a, read_npy_row, &file, err);
}

/* --- safetensors ------------------------------------------------------------------------------ */

struct tensor_file {
	const struct mc_st_file *file;
	const struct mc_st_entry *entry;
};

static bool read_tensor_row(
    void *file, uint64_t offset, uint64_t bytes, void *into, struct mc_error *err)
{
	const struct tensor_file *f = file;
	return mc_st_read(f->file, f->entry, offset, bytes, into, err);
}

static bool describe(
    const struct mc_st_entry *entry, const char *path, struct id_array *a, struct mc_error *err)
{
	char shape[96];
	bool is_signed = entry->dtype == MC_I8 || entry->dtype == MC_I16 ||
			 entry->dtype == MC_I32 || entry->dtype == MC_I64;
	bool is_unsigned = entry->dtype == MC_U8 || entry->dtype == MC_U16 ||
			   entry->dtype == MC_U32 || entry->dtype == MC_U64;

	if ((!is_signed && !is_unsigned) || entry->rank < 1 || entry->rank > 2)
		return mc_fail(err, MC_UNSUPPORTED, path,
		    "input_ids is %s %s; needed integers of rank 1 or 2",
		    mc_dtype_name(entry->dtype),
		    mc_shape_text(entry->rank, entry->shape, shape, sizeof shape));
	*a = (struct id_array){.size = mc_dtype_bits(entry->dtype) / 8,
	    .is_signed = is_signed,
	    .rows = entry->rank == 2 ? entry->shape[0] : 1,
	    .columns = entry->shape[entry->rank - 1]};
	return true;
}

bool mc_read_id_tensor(struct mc_samples *s, int fd, struct mc_error *err)
{
	struct mc_st_file file;
	struct id_array a;

	if (!mc_st_open_fd(&file, fd, s->path, err))
		return false;
	struct tensor_file source = {.file = &file, .entry = mc_st_find(&file, "input_ids")};
	bool ok = source.entry != NULL ||
		  mc_fail(err, MC_INVALID, s->path, "has no tensor input_ids");
	ok = ok && describe(source.entry, s->path, &a, err) &&
	     add_rows(s, &a, read_tensor_row, &source, err);
	mc_st_close(&file);
	return ok;
}
