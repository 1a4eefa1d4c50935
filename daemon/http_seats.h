/*
 * http_seats.h - who is connected, and until when they may take their time
 *
 * All listeners share one table, so the limit of connections is one number. The library's own idle
 * timeout starts again with every byte, so a client that drips would stay for ever; and in its last
 * second it spins. Here a seat knows when its request began, and a tick hangs up on the late.
 */
#ifndef MOECALD_HTTP_SEATS_H
#define MOECALD_HTTP_SEATS_H

#include <stdint.h>

#include "moecal/error.h"

enum seat_phase {
	SEAT_WAITING,   /* no request line since the connection or the answer before */
	SEAT_RECEIVING, /* a request line is here, its last byte is not */
	SEAT_ANSWERING  /* a handler works or waits, or its answer is on its way: no deadline */
};

struct seat;
struct seats;

/* `count` seats, and `reserve` more that only probes of health should be answered on. */
struct seats *seats_new(size_t count, size_t reserve, struct mc_error *err) MC_CHECKED;
void seats_free(struct seats *seats);

/* NULL when all are taken. fd stays the caller's, open until seats_leave has returned. */
struct seat *seats_take(struct seats *seats, int fd, int64_t now);
void seats_leave(struct seats *seats, struct seat *seat);
unsigned seats_count(struct seats *seats);
bool seats_full(struct seats *seats); /* the reserve too */
bool seats_are_over(struct seats *seats); /* more are taken than `count` */
/* One more is about to come: when all are taken, the one that has kept a seat longest without asking
 * anything is sent away; when the reserve is nearly taken too, also one that is slow to ask. */
void seats_make_room(struct seats *seats, int64_t now);
/* Notes whose client hung up while it was waited for an answer; how many that were found now. */
unsigned seats_find_gone(struct seats *seats);
bool seat_is_gone(struct seats *seats, const struct seat *seat);

void seat_enter(struct seats *seats, struct seat *seat, enum seat_phase phase, int64_t now);
/* Something arrived. */
void seat_touch(struct seats *seats, struct seat *seat, int64_t now);
/* What is being received is an upload, which may take longer. */
void seat_upload(struct seats *seats, struct seat *seat);
/* What is being received will be refused: it is over at `until`. */
void seat_hurry(struct seats *seats, struct seat *seat, int64_t until);
int seat_fd(const struct seat *seat);

struct seat_limits {
	int64_t idle_ms, request_ms, upload_ms;
};
/* Hangs up on seats past their limits; returns how many of them were in the middle of a request. */
unsigned seats_cut(struct seats *seats, const struct seat_limits *limits, int64_t now);
/* Lets go of those who have not begun a request for quiet_ms. What has arrived is still read. */
void seats_dismiss(struct seats *seats, int64_t quiet_ms, int64_t now);

#endif
