/*
 * progress.c - how far a job or a transfer is: a bar on a terminal, else lines
 */
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"

#define REDRAW_MS 100

static unsigned terminal_width(void)
{
	struct winsize size;
	return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 20 ? size.ws_col : 80;
}

static void draw_line(const char *line)
{
	fprintf(stderr, "\r%.*s\033[K", (int)terminal_width() - 1, line);
	fflush(stderr);
}

/* 0 to 1, whatever a service says. */
static double share_done(const struct mc_progress *p)
{
	double done = p->layers_total > 0
			  ? ((double)p->layers_done + p->layer_fraction) / (double)p->layers_total
			  : 1;
	return done >= 0 && done <= 1 ? done : done > 1 ? 1 : 0;
}

static void draw_bar(const struct progress_display *d, const struct mc_progress *p)
{
	char bar[25], spent[32], left[32] = "", before[48], behind[240], line[320];
	double done = share_done(p);

	if (p->seconds_left >= 0)
		seconds_text(p->seconds_left, left);
	snprintf(before, sizeof before, "%s %3.0f%% [", p->phase, 100 * done);
	snprintf(behind, sizeof behind, "] %zu/%zu  %s%s%s  %s", p->layers_done, p->layers_total,
	    seconds_text(p->seconds, spent), left[0] != '\0' ? ", left " : "", left, d->coverage);
	/* words are worth more than a long bar */
	size_t taken = strlen(before) + strlen(behind) + 1, width = terminal_width();
	size_t room = width > taken + 4 ? width - taken : 4;
	size_t cells = room < sizeof bar - 1 ? room : sizeof bar - 1;
	memset(bar, '.', cells);
	memset(bar, '#', (size_t)(done * (double)cells));
	bar[cells] = '\0';
	snprintf(line, sizeof line, "%s%s%s", before, bar, behind);
	draw_line(line);
}

static void say_line(struct progress_display *d, const struct mc_progress *p)
{
	char spent[32], left[32] = "";

	if (strcmp(p->phase, "calibrate") != 0) {
		if (strcmp(p->phase, d->phase_said) != 0)
			fprintf(stderr, "%s ...\n", p->phase);
		snprintf(d->phase_said, sizeof d->phase_said, "%s", p->phase);
		return;
	}
	if (p->layers_done == d->layers_said || p->layer_fraction > 0)
		return;
	d->layers_said = p->layers_done;
	if (p->seconds_left >= 0)
		seconds_text(p->seconds_left, left);
	fprintf(stderr, "layer %zu of %zu done, %s%s%s%s%s\n", p->layers_done, p->layers_total,
	    seconds_text(p->seconds, spent), left[0] != '\0' ? ", left " : "", left,
	    d->coverage[0] != '\0' ? ", " : "", d->coverage);
}

void progress_show(struct progress_display *display, const struct mc_progress *progress)
{
	if (display->terminal)
		draw_bar(display, progress);
	else
		say_line(display, progress);
}

void progress_clear(const struct progress_display *display)
{
	if (display->terminal)
		fprintf(stderr, "\r\033[K");
}

static int64_t clock_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void progress_bytes(
    struct progress_display *display, const char *name, uint64_t done, uint64_t total)
{
	char a[32], b[32], line[320];

	if (!display->terminal)
		return;
	/* they come in small pieces; a terminal is slow */
	if (done != total && clock_ms() - display->drawn_ms < REDRAW_MS)
		return;
	display->drawn_ms = clock_ms();
	snprintf(line, sizeof line, "%.200s %3.0f%%  %s of %s", name,
	    total > 0 ? 100.0 * (double)done / (double)total : 100.0, bytes_text(done, a),
	    bytes_text(total, b));
	draw_line(line);
}
