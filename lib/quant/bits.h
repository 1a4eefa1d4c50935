/*
 * bits.h - a stream of values of 1..8 bits in 32-bit words, least significant bit first
 */
#ifndef MC_QUANT_BITS_H
#define MC_QUANT_BITS_H

#include <stddef.h>
#include <stdint.h>

struct mc_bit_writer {
	uint32_t *words;
	size_t stride; /* between words */
	uint64_t held; /* bits not written yet, from bit 0 */
	unsigned count;
};

static inline void mc_bits_put(struct mc_bit_writer *writer, uint32_t value, unsigned bits)
{
	writer->held |= (uint64_t)value << writer->count;
	writer->count += bits;
	if (writer->count < 32)
		return;
	*writer->words = (uint32_t)writer->held;
	writer->words += writer->stride;
	writer->held >>= 32;
	writer->count -= 32;
}

/* The last word, filled up with zeros. */
static inline void mc_bits_finish(struct mc_bit_writer *writer)
{
	if (writer->count > 0)
		*writer->words = (uint32_t)writer->held;
}

struct mc_bit_reader {
	const uint32_t *words;
	size_t stride;
	uint64_t held;
	unsigned count;
};

static inline uint32_t mc_bits_take(struct mc_bit_reader *reader, unsigned bits)
{
	if (reader->count < bits) {
		reader->held |= (uint64_t)*reader->words << reader->count;
		reader->words += reader->stride;
		reader->count += 32;
	}
	uint32_t value = (uint32_t)reader->held & ((1u << bits) - 1);
	reader->held >>= bits;
	reader->count -= bits;
	return value;
}

#endif
