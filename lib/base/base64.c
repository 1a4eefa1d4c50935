/*
 * base64.c - bytes as text; libcrypto does the standard alphabet, the URL one is a change of letters
 */
#include "moecal/base64.h"

#include <openssl/evp.h>
#include <string.h>

#include "moecal/error.h"

void mc_base64_encode(const void *bytes, size_t length, char text[])
{
	mc_assert(length < 1 << 24);
	EVP_EncodeBlock((unsigned char *)text, bytes, (int)length);
}

void mc_base64url_encode(const void *bytes, size_t length, char text[])
{
	mc_base64_encode(bytes, length, text);
	for (char *c = text; *c != '\0'; c++) {
		if (*c == '+')
			*c = '-';
		else if (*c == '/')
			*c = '_';
		else if (*c == '=')
			*c = '\0'; /* padding is at the end */
	}
}

bool mc_base64url_decode(const char *text, void *ret_bytes, size_t size, size_t *ret_length)
{
	static const char letters[] =
	    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	size_t length = strlen(text), whole = length / 4 * 3, rest = length % 4;
	unsigned char *out = ret_bytes;

	/* libcrypto skips white space, so the alphabet is checked here */
	if (strspn(text, letters) != length || rest == 1 || whole + (rest ? rest - 1 : 0) > size)
		return false;
	for (size_t i = 0; i < length; i += 4) {
		unsigned char four[4] = "AAAA", three[3];
		size_t here = length - i < 4 ? length - i : 4;
		for (size_t j = 0; j < here; j++)
			four[j] = text[i + j] == '-'   ? '+'
				  : text[i + j] == '_' ? '/'
						       : (unsigned char)text[i + j];
		if (EVP_DecodeBlock(three, four, 4) != 3)
			return false;
		for (size_t j = here - 1; j < 3; j++)
			if (three[j] != 0)
				return false;
		memcpy(out + i / 4 * 3, three, here - 1);
	}
	*ret_length = whole + (rest ? rest - 1 : 0);
	return true;
}
