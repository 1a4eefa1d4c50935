/*
 * http_seats.c - the table of connections
 */
#include "http_seats.h"

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

#include "moecal/alloc.h"

#define JUST_CAME_MS 100 /* who connected so lately may still be about to ask */
#define SLOW_MS 1000

struct seat {
	bool taken, upload, cut, gone;
	int fd;
	enum seat_phase phase;
	int64_t began;  /* the connection, or the end of the answer before */
	int64_t active; /* the last byte that we know of */
	int64_t until;  /* 0: by the limits */
};

struct seats {
	pthread_mutex_t lock;
	unsigned taken;   /* slots with a connection */
	unsigned counted; /* of these, not sent away: the library takes its time to let go of those */
	size_t limit, allowed, count; /* the setting; with the reserve; slots */
	struct seat *items;
};

struct seats *seats_new(size_t count, size_t reserve, struct mc_error *err)
{
	struct seats *seats = mc_alloc(1, sizeof(*seats), "seats", err);
	if (!seats)
		return NULL;
	seats->items = mc_alloc(count + 3 * reserve, sizeof(*seats->items), "seats", err);
	if (!seats->items) {
		free(seats);
		return NULL;
	}
	seats->limit = count;
	seats->allowed = count + reserve;
	seats->count = count + 3 * reserve;
	pthread_mutex_init(&seats->lock, NULL);
	return seats;
}

void seats_free(struct seats *seats)
{
	if (!seats)
		return;
	pthread_mutex_destroy(&seats->lock);
	free(seats->items);
	free(seats);
}

struct seat *seats_take(struct seats *seats, int fd, int64_t now)
{
	struct seat *found = NULL;
	pthread_mutex_lock(&seats->lock);
	for (size_t i = 0; i < seats->count && !found; i++)
		if (!seats->items[i].taken)
			found = &seats->items[i];
	if (found) {
		*found = (struct seat){.taken = true, .fd = fd, .began = now, .active = now};
		seats->taken++;
		seats->counted++;
	}
	pthread_mutex_unlock(&seats->lock);
	return found;
}

void seats_leave(struct seats *seats, struct seat *seat)
{
	pthread_mutex_lock(&seats->lock);
	seats->counted -= !seat->cut;
	*seat = (struct seat){.fd = -1};
	seats->taken--;
	pthread_mutex_unlock(&seats->lock);
}

unsigned seats_count(struct seats *seats)
{
	pthread_mutex_lock(&seats->lock);
	unsigned count = seats->taken;
	pthread_mutex_unlock(&seats->lock);
	return count;
}

bool seats_full(struct seats *seats)
{
	pthread_mutex_lock(&seats->lock);
	bool full = seats->counted >= seats->allowed || seats->taken >= seats->count;
	pthread_mutex_unlock(&seats->lock);
	return full;
}

bool seats_are_over(struct seats *seats)
{
	pthread_mutex_lock(&seats->lock);
	bool over = seats->counted > seats->limit;
	pthread_mutex_unlock(&seats->lock);
	return over;
}

void seat_enter(struct seats *seats, struct seat *seat, enum seat_phase phase, int64_t now)
{
	pthread_mutex_lock(&seats->lock);
	if (phase == SEAT_WAITING) {
		seat->began = now;
		seat->upload = false;
		seat->until = 0;
	}
	seat->phase = phase;
	seat->active = now;
	pthread_mutex_unlock(&seats->lock);
}

void seat_touch(struct seats *seats, struct seat *seat, int64_t now)
{
	pthread_mutex_lock(&seats->lock);
	seat->active = now;
	pthread_mutex_unlock(&seats->lock);
}

void seat_upload(struct seats *seats, struct seat *seat)
{
	pthread_mutex_lock(&seats->lock);
	seat->upload = true;
	pthread_mutex_unlock(&seats->lock);
}

void seat_hurry(struct seats *seats, struct seat *seat, int64_t until)
{
	pthread_mutex_lock(&seats->lock);
	seat->until = until;
	pthread_mutex_unlock(&seats->lock);
}

int seat_fd(const struct seat *seat)
{
	return seat->fd;
}

static bool is_late(const struct seat *seat, const struct seat_limits *limits, int64_t now)
{
	int64_t whole = seat->upload ? limits->upload_ms : limits->request_ms;
	if (seat->phase == SEAT_ANSWERING)
		return false;
	return now - seat->began >= whole || now - seat->active >= limits->idle_ms ||
	       (seat->until != 0 && now >= seat->until);
}

/* Hangs up; the connection's thread wakes, sees the end and leaves. */
static void send_away(struct seats *seats, struct seat *seat, int how)
{
	shutdown(seat->fd, how);
	seat->cut = true;
	seats->counted--;
}

unsigned seats_cut(struct seats *seats, const struct seat_limits *limits, int64_t now)
{
	unsigned cut = 0;
	pthread_mutex_lock(&seats->lock);
	for (size_t i = 0; i < seats->count; i++) {
		struct seat *seat = &seats->items[i];
		if (!seat->taken || seat->cut || !is_late(seat, limits, now))
			continue;
		send_away(seats, seat, SHUT_RDWR);
		if (seat->phase == SEAT_RECEIVING)
			cut++;
	}
	pthread_mutex_unlock(&seats->lock);
	return cut;
}

/* The seat that has been longest in the phase, for at least so long. */
static struct seat *longest_in(struct seats *seats, enum seat_phase phase, int64_t least, int64_t now)
{
	struct seat *found = NULL;
	for (size_t i = 0; i < seats->count; i++) {
		struct seat *seat = &seats->items[i];
		if (seat->taken && !seat->cut && seat->phase == phase && now - seat->began >= least &&
		    (!found || seat->began < found->began))
			found = seat;
	}
	return found;
}

void seats_make_room(struct seats *seats, int64_t now)
{
	struct seat *seat = NULL;
	pthread_mutex_lock(&seats->lock);
	if (seats->counted >= seats->limit)
		seat = longest_in(seats, SEAT_WAITING, JUST_CAME_MS, now);
	if (!seat && seats->counted + 1 >= seats->allowed)
		seat = longest_in(seats, SEAT_RECEIVING, SLOW_MS, now);
	if (seat)
		send_away(seats, seat, SHUT_RDWR);
	pthread_mutex_unlock(&seats->lock);
}

unsigned seats_find_gone(struct seats *seats)
{
	unsigned found = 0;
	pthread_mutex_lock(&seats->lock);
	for (size_t i = 0; i < seats->count; i++) {
		struct seat *seat = &seats->items[i];
		struct pollfd look = {.fd = seat->fd, .events = POLLRDHUP};
		if (!seat->taken || seat->gone || seat->phase != SEAT_ANSWERING ||
		    poll(&look, 1, 0) != 1)
			continue;
		seat->gone = true;
		found++;
	}
	pthread_mutex_unlock(&seats->lock);
	return found;
}

bool seat_is_gone(struct seats *seats, const struct seat *seat)
{
	pthread_mutex_lock(&seats->lock);
	bool gone = seat->gone;
	pthread_mutex_unlock(&seats->lock);
	return gone;
}

void seats_dismiss(struct seats *seats, int64_t quiet_ms, int64_t now)
{
	pthread_mutex_lock(&seats->lock);
	for (size_t i = 0; i < seats->count; i++) {
		struct seat *seat = &seats->items[i];
		if (!seat->taken || seat->cut || seat->phase != SEAT_WAITING ||
		    now - seat->active < quiet_ms)
			continue;
		/* only the reading side: a request that is already here still gets its answer */
		send_away(seats, seat, SHUT_RD);
	}
	pthread_mutex_unlock(&seats->lock);
}
