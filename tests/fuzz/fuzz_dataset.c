/*
 * fuzz_dataset.c - any bytes as a data file of ids: JSONL, NumPy or safetensors, told apart by
 * their content
 */
#include <stdint.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "moecal/dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mc_error err;
	struct mc_dataset dataset;
	char path[64];
	int fd = memfd_create("data", MFD_CLOEXEC);

	if (fd < 0)
		return 0;
	if (write(fd, data, size) == (ssize_t)size) {
		snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
		struct mc_dataset_source source = {.path = path};
		struct mc_dataset_options options = {.max_seq_length = 64,
		    .vocab_size = 1000,
		    .shuffle = true,
		    .concatenate = size % 2 == 1};
		mc_error_init(&err);
		if (mc_dataset_load(&dataset, &source, 1, &options, NULL, NULL, &err)) {
			mc_assert(dataset.sequences > 0 && dataset.tokens > 0);
			for (uint64_t i = 0; i < dataset.tokens; i++)
				mc_assert(dataset.ids[i] < options.vocab_size);
			mc_dataset_release(&dataset);
		}
	}
	close(fd);
	return 0;
}
