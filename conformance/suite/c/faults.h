/* SQLite's simulation of faults, and its counters: the globals of a program that is built with SQLITE_TEST, used as
** `os_common.h` of its tree uses them. Other programs have none of them. */
#ifndef LITEFLEET_FAULTS_H
#define LITEFLEET_FAULTS_H

#pragma weak sqlite3_io_error_hit
#pragma weak sqlite3_io_error_hardhit
#pragma weak sqlite3_io_error_pending
#pragma weak sqlite3_io_error_persist
#pragma weak sqlite3_io_error_benign
#pragma weak sqlite3_diskfull_pending
#pragma weak sqlite3_diskfull
#pragma weak sqlite3_open_file_count
#pragma weak sqlite3_sync_count
#pragma weak sqlite3_fullsync_count
extern int sqlite3_io_error_hit, sqlite3_io_error_hardhit, sqlite3_io_error_pending;
extern int sqlite3_io_error_persist, sqlite3_io_error_benign;
extern int sqlite3_diskfull_pending, sqlite3_diskfull;
extern int sqlite3_open_file_count, sqlite3_sync_count, sqlite3_fullsync_count;

static inline void note_fault(void) {
  sqlite3_io_error_hit++;
  if (!sqlite3_io_error_benign) sqlite3_io_error_hardhit++;
}

/* Whether this call is to fail with an I/O error. */
static inline int fault(void) {
  if (!&sqlite3_io_error_pending) return 0;
  if (!(sqlite3_io_error_persist && sqlite3_io_error_hit) && sqlite3_io_error_pending-- != 1) return 0;
  note_fault();
  return 1;
}

/* Whether this call is to find the disk full. */
static inline int disk_full(void) {
  if (!&sqlite3_diskfull_pending || !sqlite3_diskfull_pending) return 0;
  if (sqlite3_diskfull_pending != 1) {
    sqlite3_diskfull_pending--;
    return 0;
  }
  note_fault();
  sqlite3_diskfull = 1;
  sqlite3_io_error_hit = 1;
  return 1;
}

static inline void count_open(int change) {
  if (&sqlite3_open_file_count) sqlite3_open_file_count += change;
}

static inline void count_sync(int full) {
  if (!&sqlite3_sync_count) return;
  if (full) sqlite3_fullsync_count++;
  sqlite3_sync_count++;
}

#endif
