/* The files that SQLite has open through the bridge, and whose turn it is to have the store. */
#ifndef LITEFLEET_OPEN_H
#define LITEFLEET_OPEN_H

#include <pthread.h>

#include "bridge.h"
#include "sqlite3.h"

#define BUCKETS 4096
#define JOURNALS (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL)

/* A file that SQLite has open through us. */
typedef struct Open Open;
struct Open {
  sqlite3_file *file;
  const sqlite3_io_methods *methods; /* Litefleet's */
  int flags;
  int sync_folder;          /* a journal was made: its first sync also syncs the folder */
  pthread_t thread;         /* that locked it last */
  const char *name;         /* as SQLite gave it, with its parameters behind it */
  int away;                 /* Litefleet's file is closed, since the store was given up */
  int exclusive;            /* locking_mode=EXCLUSIVE: it keeps its lock */
  int sector_size, characteristics;
  int powersafe_overwrite;  /* -1: never set */
  sqlite3_int64 mapped;     /* the limit that SQLite has set; -1: never */
  Open *next;               /* of the same bucket */
  char path[PATH_ROOM];
};

/* vfs.c */
extern sqlite3_vfs bridge;         /* what SQLite uses */
extern sqlite3_vfs *host;          /* the operating system's */
extern sqlite3_io_methods methods;

/* turns.c */
extern pthread_mutex_t mutex;      /* over what all threads use */
extern Open *buckets[BUCKETS];
extern int open_count;
extern int after_shutdown;         /* SQLite has forgotten Litefleet's VFS */
Open **bucket(sqlite3_file *file);
Open *find(sqlite3_file *file);
int lock_level(Open *open);
sqlite3_vfs *under_test(void);
int has_the_store_elsewhere(void); /* another process, when `under_test` was asked last */
void begin_call(void);
void end_call(void);
void keep_turn(void); /* what is called next belongs to this call */
int call_back(Open *open);
void take_turns(void);

/* scripts.c */
void *allocate(size_t size);
int in_root(const char *path);
int on_host(const char *path);
int bring_in(const char *path); /* a file that a script made, into the store; 1 after an error */
void changed(void);
void open_journal(Open *open, int scripts);
void close_journal(Open *open);
void forget_journal(const char *path);
int is_scripts(const char *path);
char *scripts_journal(const char *path, int flags, size_t *size);

#endif
