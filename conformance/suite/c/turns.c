/* The store under test, and whose turn it is to have it.
**
** An embedded store has one process. SQLite's tests start others while the first has databases open, and has locked none of
** them. So for as long as others run beside it, a process of a test has the store only while it has something locked in it:
** after that it closes the store, and with it each database beneath SQLite's open file, and opens them again when SQLite next
** wants something. What passes from one process to the other is what the store has on its disk. While one has the store, every
** lock of another is busy. A process that wants more than a lock then does not see what is there: it says so, and its test is
** no pass.
*/
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "open.h"

#define MARKS "LITEFLEET_SUITE_MARKS"
#define TURNS "LITEFLEET_SUITE_TURNS"

static sqlite3_vfs *litefleet; /* what is under test */
static int running;            /* its store is open */
static int elsewhere;          /* another process has it */
static int turns;              /* other processes were started, or have started this one */
static int was_started;        /* this one */
static int alive = -1;         /* a lock that those have which this one has started, for as long as they live */
static pthread_mutex_t turn;   /* held during a call, where there are turns */
static __thread int depth;     /* calls that this thread is in */
static __thread int holding;   /* of `turn` */
static __thread int keeping;   /* the store, until the next call */

pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
Open *buckets[BUCKETS];
int open_count;
int after_shutdown;

Open **bucket(sqlite3_file *file) { return &buckets[((uintptr_t)file >> 4) % BUCKETS]; }

Open *find(sqlite3_file *file) {
  Open *open;
  pthread_mutex_lock(&mutex);
  for (open = *bucket(file); open && open->file != file; open = open->next) {}
  pthread_mutex_unlock(&mutex);
  return open;
}

int lock_level(Open *open) {
  int level = 0;
  if ((open->flags & SQLITE_OPEN_MAIN_DB) && !open->away) {
    open->methods->xFileControl(open->file, SQLITE_FCNTL_LOCKSTATE, &level);
  }
  return level;
}

static int store_begins(const char *words) {
  const char *store = getenv("LITEFLEET_SUITE_STORE");
  return store && strncmp(store, words, strlen(words)) == 0;
}

/* A process that ends loses its locks, also when it only pretends to crash. Registered when the store has been opened: what
** a store does at the end of the process (FoundationDB's network stops) comes after that. */
static void at_exit(void) {
  if (store_begins("postgres:") || store_begins("fdb:")) litefleet_suite_leave();
}

/* The VFS under test, with its store open; NULL where that failed, or where another process has it. Then nothing of ours can
** be opened: never a file of the host's instead. Registering Litefleet's VFS puts it behind the default one, where it would
** become the default when a test removes that: the bridge goes in between. */
sqlite3_vfs *under_test(void) {
  static int leaves;
  int registered = litefleet_suite_start(after_shutdown);
  elsewhere = registered == -2;
  if (registered < 0) return NULL;
  if (!leaves) atexit(at_exit);
  leaves = running = 1;
  after_shutdown = 0;
  if (!litefleet) litefleet = sqlite3_vfs_find("litefleet");
  if (!litefleet || litefleet->szOsFile > host->szOsFile) abort();
  if (registered) sqlite3_vfs_register(&bridge, sqlite3_vfs_find(NULL) == &bridge);
  return litefleet;
}

int has_the_store_elsewhere(void) { return elsewhere; }

/* Whether nothing is open but databases, and none of them is locked. */
static int is_idle(void) {
  int index, idle = 1;
  pthread_mutex_lock(&mutex);
  for (index = 0; idle && open_count && index < BUCKETS; index++) {
    Open *open;
    for (open = buckets[index]; open && idle; open = open->next) {
      idle = open->away ||
             ((open->flags & SQLITE_OPEN_MAIN_DB) && !open->exclusive && lock_level(open) == SQLITE_LOCK_NONE);
    }
  }
  pthread_mutex_unlock(&mutex);
  return idle;
}

static void give_up(void) {
  int index;
  for (index = 0; open_count && index < BUCKETS; index++) {
    Open *open;
    for (open = buckets[index]; open; open = open->next) {
      if (open->away) continue;
      open->methods->xClose(open->file);
      open->file->pMethods = &methods;
      open->away = 1;
    }
  }
  running = 0;
  litefleet_suite_stop();
}

/* A lock of a file that others have inherited: it is theirs until the last of them ends. -1 where it cannot be had. */
static int lock_alive(int how) {
  const char *marks = getenv(MARKS);
  char path[PATH_ROOM];
  int file;
  if (!marks) return -1;
  snprintf(path, sizeof(path), "%s/alive-%ld", marks, (long)getpid());
  file = open(path, O_RDWR | O_CREAT, 0644);
  if (file >= 0 && flock(file, how) == 0) return file;
  if (file >= 0) close(file);
  return -1;
}

static int is_alone(void) {
  int file = was_started ? -1 : lock_alive(LOCK_EX | LOCK_NB);
  if (file >= 0) close(file);
  return file >= 0;
}

void begin_call(void) {
  if (depth++ || !turns) return;
  keeping = 0;
  pthread_mutex_lock(&turn);
  holding = 1;
}

void end_call(void) {
  if (--depth || !holding) return;
  if (running && !keeping && is_idle() && !is_alone()) give_up();
  holding = 0;
  pthread_mutex_unlock(&turn);
}

void keep_turn(void) { keeping = 1; }

/* Opens Litefleet's file again. SQLITE_BUSY where another process has the store, SQLITE_IOERR where it cannot be opened. */
int call_back(Open *open) {
  sqlite3_vfs *vfs;
  int code, flags;
  if (!open->away) return SQLITE_OK;
  vfs = under_test();
  if (!vfs) return has_the_store_elsewhere() ? SQLITE_BUSY : SQLITE_IOERR;
  code = vfs->xOpen(vfs, open->name, open->file, open->flags, &flags);
  open->methods = open->file->pMethods;
  open->file->pMethods = &methods;
  if (code != SQLITE_OK) return code;
  open->away = 0;
  if (open->mapped >= 0) {
    sqlite3_int64 mapped = open->mapped;
    open->methods->xFileControl(open->file, SQLITE_FCNTL_MMAP_SIZE, &mapped);
  }
  if (open->powersafe_overwrite >= 0) {
    int powersafe = open->powersafe_overwrite;
    open->methods->xFileControl(open->file, SQLITE_FCNTL_POWERSAFE_OVERWRITE, &powersafe);
  }
  return SQLITE_OK;
}

/* A process is about to be started. Threads do nothing else meanwhile: no test starts one in the middle of a call. */
static void before_fork(void) {
  if (!store_begins("embedded:")) return;
  if (getenv(MARKS)) {
    setenv(TURNS, "1", 1);
    turns = 1;
    alive = lock_alive(LOCK_SH);
  }
  if (running && is_idle()) give_up();
}

/* From now on the lock is that of the other alone. */
static void after_fork(void) {
  if (alive >= 0) close(alive);
  alive = -1;
}

/* From the beginning, where the process was started by another of the test. */
void take_turns(void) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
  pthread_mutex_init(&turn, &attributes);
  pthread_mutexattr_destroy(&attributes);
  turns = was_started = getenv(TURNS) != NULL && store_begins("embedded:");
  pthread_atfork(before_fork, after_fork, NULL);
}
