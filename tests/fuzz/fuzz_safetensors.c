/*
 * fuzz_safetensors.c - any bytes as a safetensors file
 *
 * Whatever is accepted must keep its promises: tensors in order without holes up to the end of the
 * file, found by name, readable from the first byte to the last.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "moecal/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length);

static void require(bool truth)
{
	if (!truth)
		abort();
}

static void check_file(const struct mc_st_file *file, const uint8_t *data, size_t length)
{
	uint64_t at = length;
	struct mc_error err;

	mc_error_init(&err);
	require(file->size == length);
	for (size_t i = file->count; i-- > 0;) {
		const struct mc_st_entry *entry = &file->entries[i];
		unsigned char byte;

		require(entry->offset <= at && entry->offset + entry->bytes == at);
		require(mc_st_find(file, entry->name) == entry);
		at = entry->offset;
		if (entry->bytes == 0)
			continue;
		require(mc_st_read(file, entry, 0, 1, &byte, &err) && byte == data[at]);
		require(mc_st_read(file, entry, entry->bytes - 1, 1, &byte, &err));
		require(byte == data[at + entry->bytes - 1]);
	}
	require(at >= 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t length)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);
	struct mc_st_file file;
	struct mc_error err;

	mc_error_init(&err);
	require(fd >= 0);
	require(pwrite(fd, data, length, 0) == (ssize_t)length);
	if (mc_st_open_fd(&file, fd, "fuzz", &err))
		check_file(&file, data, length);
	else
		require(err.code == MC_CORRUPT);
	mc_st_close(&file);
	return 0;
}
