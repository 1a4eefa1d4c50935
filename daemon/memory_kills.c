/*
 * memory_kills.c - see memory_kills.h
 */
#include "memory_kills.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

/* "oom_kill N" of a file of counters. */
static bool read_kills(const char *path, uint64_t *ret)
{
	char line[256];
	unsigned long long kills = 0;
	bool seen = false;
	FILE *file = fopen(path, "re");

	while (file != NULL && !seen && fgets(line, sizeof line, file) != NULL)
		seen = sscanf(line, "oom_kill %llu", &kills) == 1;
	if (file != NULL)
		fclose(file);
	*ret = kills;
	return seen;
}

uint64_t memory_kills(void)
{
	char line[512] = "", path[640];
	uint64_t kills = 0;
	FILE *file = fopen("/proc/self/cgroup", "re");

	while (file != NULL && fgets(line, sizeof line, file) != NULL && strncmp(line, "0::", 3) != 0)
		line[0] = '\0';
	if (file != NULL)
		fclose(file);
	line[strcspn(line, "\n")] = '\0';
	snprintf(path, sizeof path, "/sys/fs/cgroup%s/memory.events", line[0] != '\0' ? line + 3 : "");
	if (!read_kills(path, &kills) && !read_kills("/sys/fs/cgroup/memory.events", &kills))
		(void)!read_kills("/proc/vmstat", &kills);
	return kills;
}
