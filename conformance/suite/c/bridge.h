/* What the parts of the bridge between SQLite's test programs and the Litefleet VFS share.
**
** A path of a test script means, in this order: a file of the host, a journal that some connection has open, a database in
** the store. "Ours" are the last two.
*/
#ifndef LITEFLEET_BRIDGE_H
#define LITEFLEET_BRIDGE_H

#include <stddef.h>
#include <stdint.h>

#define PATH_ROOM 1100

/* The static library. */
int litefleet_suite_start(int again); /* 1: registered, 0; -1: failed, -2: another process has the store */
int litefleet_suite_stop(void);
void litefleet_suite_leave(void);
void litefleet_suite_unseen(void);
int64_t litefleet_suite_size(const char *path);
int64_t litefleet_suite_read(const char *path, uint64_t at, void *out, size_t count);
int litefleet_suite_write(const char *path, uint64_t at, const void *bytes, size_t count);
int litefleet_suite_truncate(const char *path, uint64_t size);
int litefleet_suite_delete(const char *path);
int litefleet_suite_list(const char *prefix, void (*each)(void *, const char *), void *context);

/* vfs.c: ours as files. All paths are absolute and without "." and "..": what `bridge_full_path` makes. */
int bridge_full_path(const char *path, char *out);          /* 0, or 1 when it is too long */
int bridge_is_ours(const char *path);                       /* exists, and is ours */
int64_t bridge_size(const char *path);                      /* -1: there is none */
int64_t bridge_read(const char *path, uint64_t at, void *out, size_t count);
int bridge_write(const char *path, uint64_t at, const void *bytes, size_t count);
int bridge_truncate(const char *path, uint64_t size);       /* makes a database that does not exist */
int bridge_delete(const char *path);
void bridge_list(const char *folder, void (*each)(void *, const char *), void *context);
int bridge_mode(const char *path);                          /* permissions, 0644 unless a script has set them */
void bridge_set_mode(const char *path, int mode);
const char *bridge_root(void);                              /* the folder that the test runs in */

/* tclfs.c, where the program has Tcl: names have appeared or vanished, and Tcl may remember whose they were. */
void bridge_tcl_start(void) __attribute__((weak));
void bridge_names_changed(void) __attribute__((weak));

#endif
