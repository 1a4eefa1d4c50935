/*
 * dataset.c - from files to calibration sequences: kinds, choice, cutting, joining
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "dataset_parts.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/sha256.h"

#define MAX_TEXT ((size_t)256 << 20)
#define MAX_TOKENS ((uint64_t)1 << 34)

/* --- samples ---------------------------------------------------------------------------------- */

static bool reserve_sample(struct mc_samples *s, struct mc_error *err)
{
	return mc_grow(
	    (void **)&s->start, &s->capacity, s->count + 2, sizeof *s->start, "samples", err);
}

/* Ends the sample whose ids were appended since the last one; one without ids is counted and left
 * out. */
static void end_sample(struct mc_samples *s)
{
	uint64_t most = s->options->max_seq_length;

	s->read++;
	if (!s->options->concatenate && s->ids.count - s->start[s->count] > most)
		s->ids.count = s->start[s->count] + most;
	if (s->ids.count == s->start[s->count]) {
		s->empty++;
		return;
	}
	s->start[++s->count] = s->ids.count;
}

/* Shuffling chooses among all samples, file order among the first ones. */
bool mc_samples_are_enough(const struct mc_samples *s)
{
	const struct mc_dataset_options *o = s->options;

	if (o->shuffle || o->num_samples == 0)
		return false;
	return (o->concatenate ? s->ids.count / o->max_seq_length : s->count) >= o->num_samples;
}

bool mc_samples_add_ids(
    struct mc_samples *s, const int64_t *ids, size_t count, const char *where, struct mc_error *err)
{
	if (!reserve_sample(s, err) ||
	    (!s->count_only && !mc_grow((void **)&s->ids.ids, &s->ids.capacity,
				   s->ids.count + count, sizeof *s->ids.ids, "token ids", err)))
		return false;
	if (s->count_only && count == 0)
		s->empty++;
	for (size_t i = 0; i < count; i++) {
		if (ids[i] < 0 || (uint64_t)ids[i] >= s->options->vocab_size)
			return mc_fail(err, MC_INVALID, where,
			    "token id %lld at position %zu is outside the vocabulary of %llu",
			    (long long)ids[i], i, (unsigned long long)s->options->vocab_size);
		if (!s->count_only)
			s->ids.ids[s->ids.count++] = (uint32_t)ids[i];
	}
	if (s->count_only) {
		s->read++;
		return true;
	}
	end_sample(s);
	return s->ids.count <= MAX_TOKENS ||
	       mc_fail(err, MC_INVALID, s->path, "more than %llu tokens",
		   (unsigned long long)MAX_TOKENS);
}

bool mc_samples_add_text(
    struct mc_samples *s, const char *text, size_t length, const char *where, struct mc_error *err)
{
	size_t before = s->ids.count;
	struct mc_error reason;

	mc_error_init(&reason);
	if (s->count_only) {
		s->read++;
		s->empty += length == 0;
		return true;
	}
	if (s->tokenizer == NULL)
		return mc_fail(err, MC_INVALID, where,
		    "holds text, but there is no tokenizer to read it with");
	/* a sample of no text is no sample, whatever special tokens would be added to it */
	if (!reserve_sample(s, err))
		return false;
	if (length > 0 && !mc_tokenizer_encode(s->tokenizer, text, length, s->options->add_special,
			      true, &s->ids, &reason))
		return mc_fail(err, reason.code, where, "%s", reason.text);
	for (size_t i = before; i < s->ids.count; i++)
		if (s->ids.ids[i] >= s->options->vocab_size)
			return mc_fail(err, MC_INVALID, where,
			    "the tokenizer gives id %u, the model's vocabulary has %llu",
			    s->ids.ids[i], (unsigned long long)s->options->vocab_size);
	end_sample(s);
	return s->ids.count <= MAX_TOKENS ||
	       mc_fail(err, MC_INVALID, s->path, "more than %llu tokens",
		   (unsigned long long)MAX_TOKENS);
}

/* --- kinds ------------------------------------------------------------------------------------ */

static bool ends_with(const char *text, const char *ending)
{
	size_t n = strlen(text), m = strlen(ending);
	return n >= m && strcmp(text + n - m, ending) == 0;
}

/* By magic, then by name. */
static bool find_kind(int fd, const struct mc_roots *roots, const char *given,
    enum mc_dataset_kind *ret, struct mc_error *err)
{
	/* what the file is called, whatever the caller calls it */
	const char *path = mc_roots_file_path(roots, given);
	unsigned char head[16] = {0};
	ssize_t n = pread(fd, head, sizeof head, 0);

	if (n < 0)
		return mc_fail(err, MC_IO, given, "cannot be read");
	if (memcmp(head, "\x93NUMPY", 6) == 0)
		*ret = MC_DATA_NPY;
	else if (n >= 9 && head[8] == '{' && head[7] == 0 && head[6] == 0 && head[5] == 0)
		*ret = MC_DATA_SAFETENSORS;
	else if (ends_with(path, ".npy") || ends_with(path, ".safetensors"))
		return mc_fail(err, MC_CORRUPT, given, "does not begin as such a file does");
	else if (ends_with(path, ".txt") || ends_with(path, ".md"))
		*ret = MC_DATA_TEXT;
	else if (ends_with(path, ".jsonl") || ends_with(path, ".ndjson") ||
		 ends_with(path, ".json") || head[0] == '{')
		*ret = MC_DATA_JSONL;
	else
		return mc_fail(err, MC_UNSUPPORTED, given,
		    "is no kind of data that is known: .jsonl, .txt, .npy or .safetensors");
	return true;
}

static bool read_text_file(struct mc_samples *s, int fd, struct mc_error *err)
{
	struct mc_buf text;

	if (mc_samples_are_enough(s))
		return true;
	mc_buf_init(&text, MAX_TEXT);
	bool ok = mc_file_read_all(fd, s->path, &text, err) &&
		  mc_samples_add_text(s, mc_buf_text(&text), text.length, s->path, err);
	mc_buf_release(&text);
	return ok;
}

static bool read_source(struct mc_samples *s, const struct mc_dataset_source *source,
    const struct mc_roots *roots, struct mc_error *err)
{
	enum mc_dataset_kind kind;
	bool ok = false;
	int fd;

	s->path = source->path;
	s->left = source->num_samples > 0 ? source->num_samples : UINT64_MAX;
	if (!mc_root_open(roots, source->path, &fd, err))
		return false;
	if (!find_kind(fd, roots, source->path, &kind, err)) {
		close(fd);
		return false;
	}
	switch (kind) {
	case MC_DATA_JSONL:
		ok = mc_read_jsonl(
		    s, fd, source->text_column != NULL ? source->text_column : "text", err);
		break;
	case MC_DATA_TEXT:
		ok = read_text_file(s, fd, err);
		break;
	case MC_DATA_NPY:
		ok = mc_read_npy(s, fd, err);
		break;
	case MC_DATA_SAFETENSORS:
		return mc_read_id_tensor(s, fd, err); /* takes the descriptor over */
	}
	close(fd);
	return ok;
}

/* --- choosing --------------------------------------------------------------------------------- */

/* splitmix64: small, the same everywhere, good enough to shuffle. Source: Steele, Lea, Flood
 * (2014). */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15u;
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

/* Fisher-Yates; the remainder's bias is below 2^-30 for any number of samples that fits in memory.
 */
static void shuffle(size_t *order, size_t count, uint64_t seed)
{
	for (size_t i = count; i > 1; i--) {
		size_t j = next_random(&seed) % i, swap = order[i - 1];
		order[i - 1] = order[j];
		order[j] = swap;
	}
}

static void append(struct mc_dataset *d, const uint32_t *ids, uint64_t count)
{
	memcpy(d->ids + d->tokens, ids, count * sizeof *ids);
	d->tokens += count;
	d->start[++d->sequences] = d->tokens;
}

static void take_samples(
    struct mc_dataset *d, const struct mc_samples *s, const size_t *order, uint64_t most)
{
	for (size_t i = 0; i < s->count && d->sequences < most; i++)
		append(d, s->ids.ids + s->start[order[i]],
		    s->start[order[i] + 1] - s->start[order[i]]);
}

/* Everything joined in order and cut into whole chunks; the tail is dropped. */
static bool take_chunks(struct mc_dataset *d, const struct mc_samples *s, const size_t *order,
    uint64_t most, struct mc_error *err)
{
	uint64_t chunk = s->options->max_seq_length;
	uint32_t *joined = mc_alloc(s->ids.count, sizeof *joined, "joined samples", err);
	uint64_t total = 0;

	if (joined == NULL)
		return false;
	for (size_t i = 0; i < s->count; i++) {
		uint64_t n = s->start[order[i] + 1] - s->start[order[i]];
		memcpy(joined + total, s->ids.ids + s->start[order[i]], n * sizeof *joined);
		total += n;
	}
	for (uint64_t at = 0; total - at >= chunk && d->sequences < most; at += chunk)
		append(d, joined + at, chunk);
	free(joined);
	return d->sequences > 0 ||
	       mc_fail(err, MC_INVALID, s->path,
		   "the samples have %llu tokens together, one chunk needs %llu",
		   (unsigned long long)total, (unsigned long long)chunk);
}

static bool choose(struct mc_dataset *d, const struct mc_samples *s, struct mc_error *err)
{
	const struct mc_dataset_options *o = s->options;
	uint64_t most = o->num_samples > 0 ? o->num_samples : UINT64_MAX;
	size_t *order = mc_alloc(s->count, sizeof *order, "order of samples", err);
	/* a chunk has at least one token, so there are never more of them than tokens */
	size_t sequences = o->concatenate ? s->ids.count / o->max_seq_length + 1 : s->count;

	d->ids = mc_alloc(s->ids.count, sizeof *d->ids, "token ids", err);
	d->start = mc_alloc(sequences + 1, sizeof *d->start, "sequences", err);
	bool ok = order != NULL && d->ids != NULL && d->start != NULL;
	for (size_t i = 0; ok && i < s->count; i++)
		order[i] = i;
	if (ok && o->shuffle)
		shuffle(order, s->count, o->seed);
	if (ok && o->concatenate)
		ok = take_chunks(d, s, order, most, err);
	else if (ok)
		take_samples(d, s, order, most);
	free(order);
	return ok;
}

bool mc_dataset_load(struct mc_dataset *dataset, const struct mc_dataset_source *sources,
    size_t sources_count, const struct mc_dataset_options *options, const struct mc_roots *roots,
    struct mc_tokenizer *tokenizer, struct mc_error *err)
{
	struct mc_samples samples = {.options = options, .tokenizer = tokenizer, .path = "dataset"};
	bool ok = true;

	*dataset = (struct mc_dataset){0};
	mc_assert(options->max_seq_length > 0);
	for (size_t i = 0; ok && i < sources_count; i++)
		ok = read_source(&samples, &sources[i], roots, err);
	if (ok && samples.read == 0)
		ok = mc_fail(err, MC_INVALID, samples.path, "has no samples");
	if (ok && samples.count == 0)
		ok = mc_fail(err, MC_INVALID, samples.path,
		    "none of the %llu samples yields a token", (unsigned long long)samples.read);
	ok = ok && choose(dataset, &samples, err);
	dataset->samples_read = samples.read;
	dataset->empty_samples = samples.empty;
	mc_ids_release(&samples.ids);
	free(samples.start);
	if (!ok)
		mc_dataset_release(dataset);
	return ok;
}

void mc_dataset_release(struct mc_dataset *dataset)
{
	free(dataset->ids);
	free(dataset->start);
	*dataset = (struct mc_dataset){0};
}

bool mc_dataset_holds_ids(
    const char *path, const struct mc_roots *roots, bool *ret_holds, struct mc_error *err)
{
	enum mc_dataset_kind kind;
	int fd;

	if (!mc_root_open(roots, path, &fd, err))
		return false;
	bool ok = find_kind(fd, roots, path, &kind, err);
	if (ok && kind == MC_DATA_JSONL)
		ok = mc_jsonl_holds_ids(fd, path, ret_holds, err);
	else if (ok)
		*ret_holds = kind != MC_DATA_TEXT;
	close(fd);
	return ok;
}

static const char *const kind_names[] = {[MC_DATA_JSONL] = "jsonl",
    [MC_DATA_TEXT] = "txt",
    [MC_DATA_NPY] = "npy",
    [MC_DATA_SAFETENSORS] = "safetensors"};

bool mc_dataset_inspect(const char *path, const char *text_column, const struct mc_roots *roots,
    struct mc_dataset_info *ret, struct mc_error *err)
{
	struct mc_dataset_source source = {.path = path, .text_column = text_column};
	struct mc_dataset_options options = {
	    .max_seq_length = UINT64_MAX, .vocab_size = (uint64_t)UINT32_MAX + 1};
	struct mc_samples samples = {.options = &options, .count_only = true};
	enum mc_dataset_kind kind;
	int fd;

	*ret = (struct mc_dataset_info){0};
	if (!mc_root_open(roots, path, &fd, err))
		return false;
	bool ok = find_kind(fd, roots, path, &kind, err);
	close(fd);
	ok = ok && read_source(&samples, &source, roots, err) &&
	     (samples.read > 0 || mc_fail(err, MC_INVALID, path, "has no samples")) &&
	     (samples.read > samples.empty ||
		 mc_fail(err, MC_INVALID, path, "all of its %llu samples are empty",
		     (unsigned long long)samples.read)) &&
	     mc_dataset_holds_ids(path, roots, &ret->holds_ids, err) &&
	     mc_dataset_digest(path, roots, ret->sha256, &ret->bytes, err);
	if (ok) {
		ret->kind = kind_names[kind];
		ret->samples = samples.read;
	}
	free(samples.start);
	return ok;
}

bool mc_dataset_digest(const char *path, const struct mc_roots *roots, char ret_hex[65],
    uint64_t *ret_bytes, struct mc_error *err)
{
	int fd;

	if (!mc_root_open(roots, path, &fd, err))
		return false;
	bool ok = mc_sha256_fd(fd, path, ret_hex, ret_bytes, err);
	close(fd);
	return ok;
}
