/*
 * recovery.h - a start after any end: what was running, what lies about
 */
#ifndef MOECALD_RECOVERY_H
#define MOECALD_RECOVERY_H

#include "service.h"

/* Jobs that ran when the service ended go back to the queue; folders of jobs and files of datasets
 * that no row names are removed. Errors: the store's. */
bool recover(struct service *service, struct mc_error *err) MC_CHECKED;

#endif
