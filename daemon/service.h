/*
 * service.h - what every part of the daemon shares
 */
#ifndef MOECALD_SERVICE_H
#define MOECALD_SERVICE_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "auth.h"
#include "http.h"
#include "log.h"
#include "metrics.h"
#include "runner.h"
#include "settings.h"
#include "store.h"

#include "moecal/root.h"

struct service {
	/* settings.* and tokens: read under the lock's reader side, replaced by a reload */
	pthread_rwlock_t lock;
	struct settings settings;
	struct tokens *tokens;  /* NULL: nobody needs a token */
	struct mc_roots *roots; /* the allowed folders; empty: none */
	char *program;          /* path of moecal */
	struct mc_json *version; /* the document of /v1/version */
	struct metrics *metrics;
	struct store *store;
	struct runner *runner;
	struct http_server *server;
	atomic_bool draining;
	atomic_uint watchers;   /* long polls and streams */
	_Atomic double gflops;  /* rate that the last plan measured; 0: none did */
	sem_t inspectors;       /* seats for plans and registrations */
};

/* One setting under the lock. */
#define service_setting(service, field)                                                            \
	__extension__({                                                                            \
		pthread_rwlock_rdlock(&(service)->lock);                                           \
		__auto_type value_ = (service)->settings.field;                                    \
		pthread_rwlock_unlock(&(service)->lock);                                           \
		value_;                                                                            \
	})

/* A seat among those who wait; false when all are taken (then answer at once). */
bool watcher_take(struct service *service);
void watcher_leave(struct service *service);

#endif
