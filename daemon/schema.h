/*
 * schema.h - the tables of the store and how they came to be
 */
#ifndef MOECALD_SCHEMA_H
#define MOECALD_SCHEMA_H

#define SCHEMA_APPLICATION_ID 0x6d6f6563 /* "moec" */
/* Step i brings a database from user_version i to i + 1. Steps that were released are never edited. */
extern const char *const schema_steps[];
extern const int schema_version; /* number of steps */

#endif
