/*
 * fuzz_tokenizer.c - any bytes as tokenizer.json (before the first NUL) and as a text (behind it)
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mc_error err;
	struct mc_ids ids = {0};
	const uint8_t *end = memchr(data, 0, size);
	size_t length = end == NULL ? size : (size_t)(end - data);
	char *json = malloc(length + 1);

	if (json == NULL)
		return 0;
	memcpy(json, data, length);
	json[length] = '\0';
	mc_error_init(&err);
	struct mc_tokenizer *tokenizer = mc_tokenizer_new(json, length, NULL, 0, &err);
	if (tokenizer != NULL && end != NULL) {
		bool ok = mc_tokenizer_encode(tokenizer, (const char *)end + 1, size - length - 1,
		    MC_ADD_SPECIAL_YES, true, &ids, &err);
		for (size_t i = 0; ok && i < ids.count; i++)
			mc_assert(ids.ids[i] < mc_tokenizer_size(tokenizer));
	}
	mc_ids_release(&ids);
	mc_tokenizer_free(tokenizer);
	free(json);
	return 0;
}
