/* The VFS under test as the default of a test program.
**
** A `sqlite3_vfs` in front of Litefleet's, whose files are Litefleet's own. It does what a file system
** does and a store of databases need not: a database's name is its absolute path, a file that a script made with the
** operating system's means moves into the store when SQLite opens it, and SQLite's simulation of faults and its counters
** (`os_common.h` in its tree) work as in its own VFS. No call of SQLite's is answered here that Litefleet could answer.
*/
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bridge.h"
#include "faults.h"
#include "sqlite3.h"

#define OURS (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL)
#define BUCKETS 4096
#define JOURNALS (SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL)

/* A file that SQLite has open through us. */
typedef struct Open Open;
struct Open {
  sqlite3_file *file;
  const sqlite3_io_methods *methods; /* Litefleet's */
  int flags;
  int sync_folder;   /* a journal was made: its first sync also syncs the folder */
  pthread_t thread;  /* that locked it last */
  Open *next;        /* of the same bucket */
  char path[PATH_ROOM];
};

/* A journal as scripts see it, from when it is opened until it is deleted: SQLite closes one before it deletes it. SQLite
** itself sees none of these: it asks Litefleet, which keeps no journal. But one that a script has written, here or on the
** host, to see it rolled back, is there for SQLite as well. */
typedef struct Journal Journal;
struct Journal {
  Open *open;  /* while it is */
  char *bytes; /* what it had in it when it was closed */
  size_t size;
  int scripts; /* a script has written it */
  Journal *next;
  char path[PATH_ROOM];
};

static sqlite3_vfs bridge;      /* what SQLite uses */
static sqlite3_vfs *litefleet;  /* what is under test */
static sqlite3_vfs *host;       /* the operating system's */
static sqlite3_io_methods methods;
static Open *buckets[BUCKETS];
static int open_count;
static Journal *journals;
static int after_shutdown;      /* SQLite has forgotten Litefleet's VFS */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static Open **bucket(sqlite3_file *file) { return &buckets[((uintptr_t)file >> 4) % BUCKETS]; }

/* Never through SQLite's allocator: its tests count what it hands out. */
static void *allocate(size_t size) {
  void *memory = calloc(1, size);
  if (!memory) abort();
  return memory;
}

static Open *find(sqlite3_file *file) {
  Open *open;
  pthread_mutex_lock(&mutex);
  for (open = *bucket(file); open && open->file != file; open = open->next) {}
  pthread_mutex_unlock(&mutex);
  return open;
}

static int lock_level(Open *open) {
  int level = 0;
  if (open->flags & SQLITE_OPEN_MAIN_DB) open->methods->xFileControl(open->file, SQLITE_FCNTL_LOCKSTATE, &level);
  return level;
}

static Journal *find_journal(const char *path) {
  Journal *found;
  pthread_mutex_lock(&mutex);
  for (found = journals; found && strcmp(found->path, path) != 0; found = found->next) {}
  pthread_mutex_unlock(&mutex);
  return found;
}

static void forget_journal(const char *path) {
  Journal **place, *found;
  pthread_mutex_lock(&mutex);
  for (place = &journals; *place && strcmp((*place)->path, path) != 0; place = &(*place)->next) {}
  found = *place;
  if (found) *place = found->next;
  pthread_mutex_unlock(&mutex);
  if (found) free(found->bytes);
  free(found);
}

static void open_journal(Open *open, int scripts) {
  Journal *journal;
  forget_journal(open->path);
  journal = allocate(sizeof(*journal));
  journal->scripts = scripts;
  journal->open = open;
  strcpy(journal->path, open->path);
  pthread_mutex_lock(&mutex);
  journal->next = journals;
  journals = journal;
  pthread_mutex_unlock(&mutex);
}

static void close_journal(Open *open) {
  Journal *journal = find_journal(open->path);
  sqlite3_int64 size = 0, at;
  if (!journal || journal->open != open) return;
  journal->open = NULL;
  if (open->methods->xFileSize(open->file, &size) != SQLITE_OK || size <= 0) return;
  journal->bytes = allocate((size_t)size);
  journal->size = (size_t)size;
  for (at = 0; at < size; at += 1 << 20) {
    int count = size - at < 1 << 20 ? (int)(size - at) : 1 << 20;
    open->methods->xRead(open->file, journal->bytes + at, count, at);
  }
}

/* The bytes of a journal that a script has written; NULL where there is none that may be opened so. */
static char *scripts_journal(const char *path, int flags, size_t *size) {
  Journal *journal = find_journal(path);
  int writing = (flags & SQLITE_OPEN_READWRITE) != 0;
  struct stat facts;
  char *bytes = NULL;
  if (journal && journal->scripts && !journal->open) {
    bytes = allocate(journal->size + 1);
    memcpy(bytes, journal->bytes, *size = journal->size);
  } else if (!journal && access(path, writing ? R_OK | W_OK : R_OK) == 0 && stat(path, &facts) == 0) {
    int file = open(path, O_RDONLY);
    bytes = allocate((size_t)facts.st_size + 1);
    *size = file < 0 ? 0 : (size_t)read(file, bytes, (size_t)facts.st_size);
    if (file >= 0) close(file);
  }
  return bytes;
}

/* Whether a script has written a journal, so that SQLite finds it. */
static int is_scripts(const char *path) {
  Journal *journal = find_journal(path);
  return journal && journal->scripts && !journal->open && journal->size > 0;
}

static void changed(void) {
  if (bridge_names_changed) bridge_names_changed();
}

static int on_host(const char *path) {
  struct stat facts;
  return lstat(path, &facts) == 0;
}

/* --- paths --- */

const char *bridge_root(void) {
  static char root[PATH_ROOM];
  if (!root[0]) {
    const char *given = getenv("LITEFLEET_SUITE_ROOT");
    if (!given || strlen(given) >= sizeof(root)) given = "/";
    strcpy(root, given);
  }
  return root;
}

static int in_root(const char *path) {
  const char *root = bridge_root();
  size_t length = strlen(root);
  return strncmp(path, root, length) == 0 && (path[length] == '/' || path[length] == 0 || length == 1);
}

int bridge_full_path(const char *path, char *out) {
  size_t used = 0;
  if (path[0] != '/') {
    if (!getcwd(out, PATH_ROOM)) return 1;
    used = strlen(out);
    if (used == 1) used = 0;
  }
  while (*path) {
    size_t length;
    while (*path == '/') path++;
    length = strcspn(path, "/");
    if (length == 2 && path[0] == '.' && path[1] == '.') {
      while (used > 0 && out[--used] != '/') {}
    } else if (length > 0 && !(length == 1 && path[0] == '.')) {
      if (used + length + 2 > PATH_ROOM) return 1;
      out[used++] = '/';
      memcpy(out + used, path, length);
      used += length;
    }
    path += length;
  }
  if (used == 0) out[used++] = '/';
  out[used] = 0;
  return 0;
}

/* A process that ends loses its locks, also when it only pretends to crash. Registered when the store has been opened: what
** a store does at the end of the process (FoundationDB's network stops) comes after that. */
static void at_exit(void) {
  const char *store = getenv("LITEFLEET_SUITE_STORE");
  if (store && (strncmp(store, "postgres:", 9) == 0 || strncmp(store, "fdb:", 4) == 0)) litefleet_suite_leave();
}

/* The VFS under test, with its store open; NULL where that failed. Then nothing of ours can be opened: never a file of the
** host's instead. Registering Litefleet's VFS puts it behind the default one, where it would become the default when a test
** removes that: the bridge goes in between. */
static sqlite3_vfs *under_test(void) {
  static int leaves;
  int registered = litefleet_suite_start(after_shutdown);
  if (registered < 0) return NULL;
  if (!leaves) atexit(at_exit);
  leaves = 1;
  after_shutdown = 0;
  if (!litefleet) litefleet = sqlite3_vfs_find("litefleet");
  if (!litefleet || litefleet->szOsFile > host->szOsFile) abort();
  if (registered) sqlite3_vfs_register(&bridge, sqlite3_vfs_find(NULL) == &bridge);
  return litefleet;
}

/* --- ours as files, for scripts --- */

/* A script can take the right to write from a file: like SQLite's own VFS we then open it for reading only. */
typedef struct Permission Permission;
struct Permission {
  int mode;
  Permission *next;
  char path[PATH_ROOM];
};
static Permission *permissions;

/* `mutex` must be held until what is found is done with. */
static Permission *find_permission(const char *path) {
  Permission *found;
  for (found = permissions; found && strcmp(found->path, path) != 0; found = found->next) {}
  return found;
}

/* A journal has the permissions of its database, as SQLite's own VFS sees to. */
int bridge_mode(const char *path) {
  static const char suffix[] = "-journal";
  size_t length = strlen(path), end = sizeof(suffix) - 1;
  Permission *found;
  int mode;
  pthread_mutex_lock(&mutex);
  found = find_permission(path);
  if (!found && length > end && strcmp(path + length - end, suffix) == 0) {
    char database[PATH_ROOM];
    snprintf(database, sizeof(database), "%.*s", (int)(length - end), path);
    found = find_permission(database);
  }
  mode = found ? found->mode : 0644;
  pthread_mutex_unlock(&mutex);
  return mode;
}

void bridge_set_mode(const char *path, int mode) {
  Permission *found;
  pthread_mutex_lock(&mutex);
  found = find_permission(path);
  if (!found) {
    found = allocate(sizeof(*found));
    strcpy(found->path, path);
    found->next = permissions;
    permissions = found;
  }
  found->mode = mode;
  pthread_mutex_unlock(&mutex);
}

int bridge_is_ours(const char *path) { return in_root(path) && !on_host(path) && bridge_size(path) >= 0; }

/* The file of a connection of this thread that is writing a database: as on a disk, scripts see what it has written so far.
** Another thread may be using its file. */
static Open *find_writer(const char *path) {
  Open *found = NULL;
  int index;
  pthread_mutex_lock(&mutex);
  for (index = 0; !found && open_count && index < BUCKETS; index++) {
    for (found = buckets[index]; found; found = found->next) {
      if ((found->flags & SQLITE_OPEN_MAIN_DB) && pthread_equal(found->thread, pthread_self()) &&
          strcmp(found->path, path) == 0 && lock_level(found) >= SQLITE_LOCK_RESERVED) {
        break;
      }
    }
  }
  pthread_mutex_unlock(&mutex);
  return found;
}

int64_t bridge_size(const char *path) {
  Journal *journal = find_journal(path);
  Open *writer = journal ? NULL : find_writer(path);
  sqlite3_int64 size = 0;
  if (writer) return writer->methods->xFileSize(writer->file, &size) == SQLITE_OK ? size : -1;
  if (!journal) return under_test() ? litefleet_suite_size(path) : -1;
  if (!journal->open) return (int64_t)journal->size;
  return journal->open->methods->xFileSize(journal->open->file, &size) == SQLITE_OK ? size : -1;
}

int64_t bridge_read(const char *path, uint64_t at, void *out, size_t count) {
  Journal *journal = find_journal(path);
  Open *writer = journal ? NULL : find_writer(path);
  int64_t size = bridge_size(path);
  if (size < 0) return -1;
  if (at >= (uint64_t)size) return 0;
  if (count > (uint64_t)size - at) count = (size_t)((uint64_t)size - at);
  if (writer) {
    int code = writer->methods->xRead(writer->file, out, (int)count, (sqlite3_int64)at);
    return code == SQLITE_OK ? (int64_t)count : -1;
  }
  if (!journal) return litefleet_suite_read(path, at, out, count);
  if (!journal->open) {
    memcpy(out, journal->bytes + at, count);
    return (int64_t)count;
  }
  return journal->open->methods->xRead(journal->open->file, out, (int)count, (sqlite3_int64)at) == SQLITE_OK
             ? (int64_t)count
             : -1;
}

static void resize(Journal *journal, size_t size) {
  journal->bytes = realloc(journal->bytes, size + 1);
  if (!journal->bytes) abort();
  if (size > journal->size) memset(journal->bytes + journal->size, 0, size - journal->size);
  journal->size = size;
}

int bridge_write(const char *path, uint64_t at, const void *bytes, size_t count) {
  Journal *journal = find_journal(path);
  if (!journal) return litefleet_suite_write(path, at, bytes, count);
  journal->scripts = 1;
  if (!journal->open) {
    if (at + count > journal->size) resize(journal, (size_t)at + count);
    memcpy(journal->bytes + at, bytes, count);
    return 0;
  }
  return journal->open->methods->xWrite(journal->open->file, bytes, (int)count, (sqlite3_int64)at) != SQLITE_OK;
}

int bridge_truncate(const char *path, uint64_t size) {
  Journal *journal = find_journal(path);
  int failed;
  if (journal && !journal->open) {
    journal->scripts = 1;
    resize(journal, (size_t)size);
    return 0;
  }
  if (journal) return journal->open->methods->xTruncate(journal->open->file, (sqlite3_int64)size) != SQLITE_OK;
  if (!under_test()) return 1;
  failed = litefleet_suite_truncate(path, size);
  changed();
  return failed;
}

int bridge_delete(const char *path) {
  int failed = 0;
  if (find_journal(path)) {
    forget_journal(path);
  } else {
    failed = !under_test() || litefleet_suite_delete(path);
  }
  changed();
  return failed;
}

struct Listing {
  size_t folder;
  void (*each)(void *, const char *);
  void *context;
};

static void list_one(void *context, const char *path) {
  struct Listing *listing = context;
  if (!strchr(path + listing->folder, '/')) listing->each(listing->context, path + listing->folder);
}

void bridge_list(const char *folder, void (*each)(void *, const char *), void *context) {
  struct Listing listing = {strlen(folder) + 1, each, context};
  char prefix[PATH_ROOM + 1], path[PATH_ROOM];
  size_t done = 0;
  Journal *journal;
  if (!in_root(folder) || !under_test()) return;
  snprintf(prefix, sizeof(prefix), "%s/", folder);
  litefleet_suite_list(prefix, list_one, &listing);
  /* What is called for each name may look at the list itself. */
  do {
    size_t index = 0;
    pthread_mutex_lock(&mutex);
    for (journal = journals; journal && index < done; journal = journal->next) index++;
    if (journal) strcpy(path, journal->path);
    pthread_mutex_unlock(&mutex);
    if (journal && strncmp(path, prefix, strlen(prefix)) == 0) list_one(&listing, path);
    done++;
  } while (journal);
}

/* Moves a file that a script made with the operating system's means into the store. */
static int import(const char *path) {
  char *bytes = NULL;
  struct stat facts;
  int failed = 1;
  int file = open(path, O_RDONLY);
  if (file < 0 || fstat(file, &facts) != 0) goto done;
  bytes = malloc((size_t)facts.st_size + 1);
  if (!bytes || read(file, bytes, (size_t)facts.st_size) != facts.st_size) goto done;
  /* What was in the store under that name was replaced by the file. */
  if (litefleet_suite_size(path) >= 0 && litefleet_suite_delete(path)) goto done;
  if (litefleet_suite_truncate(path, 0)) goto done;
  if (facts.st_size > 0 && litefleet_suite_write(path, 0, bytes, (size_t)facts.st_size)) goto done;
  failed = unlink(path) != 0;
  bridge_set_mode(path, facts.st_mode & 0777);
  changed();
done:
  if (file >= 0) close(file);
  free(bytes);
  return failed;
}

/* --- methods of files --- */

static int file_close(sqlite3_file *file) {
  Open *open = find(file), **place;
  const sqlite3_io_methods *inner = open->methods;
  int journal = open->flags & JOURNALS;
  if (journal) close_journal(open);
  pthread_mutex_lock(&mutex);
  for (place = bucket(file); *place != open; place = &(*place)->next) {}
  *place = open->next;
  open_count--;
  pthread_mutex_unlock(&mutex);
  free(open);
  count_open(-1);
  if (journal) changed();
  return inner->xClose(file);
}

static int file_read(sqlite3_file *file, void *out, int count, sqlite3_int64 at) {
  Open *open = find(file);
  if (fault()) return SQLITE_IOERR_READ;
  if ((open->flags & SQLITE_OPEN_MAIN_DB) && lock_level(open) == SQLITE_LOCK_NONE) {
    /* The VFS that simulates crashes copies a file when it opens it, before any lock. */
    int64_t there = litefleet_suite_read(open->path, (uint64_t)at, out, (size_t)count);
    if (there < 0) there = 0;
    memset((char *)out + there, 0, (size_t)(count - there));
    return there < count ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
  }
  return open->methods->xRead(file, out, count, at);
}

static int file_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 at) {
  Open *open = find(file);
  if (fault()) return SQLITE_IOERR_WRITE;
  if (disk_full()) return SQLITE_FULL;
  return open->methods->xWrite(file, bytes, count, at);
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size) {
  Open *open = find(file);
  if (fault()) return SQLITE_IOERR_TRUNCATE;
  return open->methods->xTruncate(file, size);
}

static int file_sync(sqlite3_file *file, int flags) {
  Open *open = find(file);
  if (disk_full()) return SQLITE_FULL;
  count_sync((flags & 0x0f) == SQLITE_SYNC_FULL);
  if (fault()) return SQLITE_IOERR_FSYNC;
  if (open->sync_folder) count_sync(0);
  open->sync_folder = 0;
  return open->methods->xSync(file, flags);
}

static int file_size(sqlite3_file *file, sqlite3_int64 *out) {
  Open *open = find(file);
  if (fault()) return SQLITE_IOERR_FSTAT;
  if ((open->flags & SQLITE_OPEN_MAIN_DB) && lock_level(open) == SQLITE_LOCK_NONE) {
    int64_t size = litefleet_suite_size(open->path);
    *out = size < 0 ? 0 : size;
    return SQLITE_OK;
  }
  return open->methods->xFileSize(file, out);
}

static int file_lock(sqlite3_file *file, int level) {
  Open *open = find(file);
  open->thread = pthread_self();
  return open->methods->xLock(file, level);
}

static int file_unlock(sqlite3_file *file, int level) { return find(file)->methods->xUnlock(file, level); }

static int file_check_reserved(sqlite3_file *file, int *out) {
  if (fault()) return SQLITE_IOERR_CHECKRESERVEDLOCK;
  return find(file)->methods->xCheckReservedLock(file, out);
}

static int file_control(sqlite3_file *file, int operation, void *argument) {
  return find(file)->methods->xFileControl(file, operation, argument);
}

static int file_sector_size(sqlite3_file *file) { return find(file)->methods->xSectorSize(file); }

static int file_characteristics(sqlite3_file *file) { return find(file)->methods->xDeviceCharacteristics(file); }

static int file_fetch(sqlite3_file *file, sqlite3_int64 at, int count, void **out) {
  return find(file)->methods->xFetch(file, at, count, out);
}

static int file_unfetch(sqlite3_file *file, sqlite3_int64 at, void *lent) {
  return find(file)->methods->xUnfetch(file, at, lent);
}

static const sqlite3_io_methods in_front = {
    3,           file_close,  file_read,           file_write,   file_truncate,    file_sync,           file_size,
    file_lock,   file_unlock, file_check_reserved, file_control, file_sector_size, file_characteristics,
    NULL, NULL, NULL, NULL, file_fetch, file_unfetch,
};

/* --- methods of the VFS --- */

static int is_folder(const char *path) {
  struct stat facts;
  return stat(path, &facts) == 0 && S_ISDIR(facts.st_mode);
}

static int in_folder(const char *path) {
  char folder[PATH_ROOM];
  snprintf(folder, sizeof(folder), "%s", path);
  *strrchr(folder, '/') = 0;
  return !folder[0] || is_folder(folder);
}

static int vfs_open(sqlite3_vfs *self, const char *path, sqlite3_file *file, int flags, int *out_flags) {
  Open *open;
  char *bytes = NULL;
  size_t size = 0, at;
  int scripts, code, main_db = flags & SQLITE_OPEN_MAIN_DB;
  (void)self;
  file->pMethods = NULL;
  if (!path || !(flags & OURS) || !in_root(path) || is_folder(path)) {
    return host->xOpen(host, path, file, flags, out_flags);
  }
  if (!in_folder(path)) return SQLITE_CANTOPEN;
  if (!under_test()) return SQLITE_CANTOPEN;
  if (main_db && on_host(path) && import(path)) return SQLITE_CANTOPEN;
  if (main_db && litefleet_suite_size(path) < 0) {
    /* A file system shows a file from the moment that it is opened, and says at once that there is none. */
    if (!(flags & SQLITE_OPEN_CREATE) || litefleet_suite_truncate(path, 0)) return SQLITE_CANTOPEN;
    bridge_set_mode(path, 0644);
    changed();
  }
  if (main_db) {
    int mode = bridge_mode(path);
    if (!(mode & 0444)) return SQLITE_CANTOPEN;
    if (!(mode & 0222)) flags = (flags & ~(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
  }
  if ((flags & JOURNALS) && !(flags & SQLITE_OPEN_CREATE)) {
    bytes = scripts_journal(path, flags, &size);
    if (!bytes && on_host(path)) return SQLITE_CANTOPEN;
  }
  code = litefleet->xOpen(litefleet, path, file, flags, out_flags);
  for (at = 0; bytes && code == SQLITE_OK && at < size; at += 1 << 20) {
    code = file->pMethods->xWrite(file, bytes + at, size - at < 1 << 20 ? (int)(size - at) : 1 << 20, (sqlite3_int64)at);
  }
  scripts = bytes != NULL;
  free(bytes);
  if (code != SQLITE_OK) return code;
  open = allocate(sizeof(*open));
  open->file = file;
  open->methods = file->pMethods;
  open->flags = flags;
  open->sync_folder = (flags & JOURNALS) && (flags & SQLITE_OPEN_CREATE);
  snprintf(open->path, sizeof(open->path), "%s", path);
  file->pMethods = &methods;
  pthread_mutex_lock(&mutex);
  open->next = *bucket(file);
  *bucket(file) = open;
  open_count++;
  pthread_mutex_unlock(&mutex);
  count_open(1);
  if ((flags & JOURNALS) && !(flags & SQLITE_OPEN_READONLY)) {
    /* One that a script has put there is overwritten, or was read above. */
    if (on_host(path)) unlink(path);
    open_journal(open, scripts);
    changed();
  }
  return SQLITE_OK;
}

static int vfs_delete(sqlite3_vfs *self, const char *path, int sync) {
  int code;
  (void)self;
  if (!in_root(path) || on_host(path)) {
    /* It has the same faults and counters. */
    code = host->xDelete(host, path, sync);
    if (!in_root(path) || code != SQLITE_OK) return code;
  } else {
    if (fault()) return SQLITE_IOERR_DELETE;
    if (sync & 1) count_sync(0);
  }
  if (!under_test()) return SQLITE_IOERR_DELETE;
  forget_journal(path);
  code = litefleet->xDelete(litefleet, path, sync);
  changed();
  return code;
}

static int vfs_access(sqlite3_vfs *self, const char *path, int flags, int *out) {
  (void)self;
  if (fault()) return SQLITE_IOERR_ACCESS;
  if (!under_test()) return SQLITE_IOERR_ACCESS;
  if (in_root(path) && is_scripts(path)) {
    *out = 1;
    return SQLITE_OK;
  }
  if (in_root(path) && !on_host(path)) return litefleet->xAccess(litefleet, path, flags, out);
  {
    struct stat facts;
    *out = flags == SQLITE_ACCESS_EXISTS
               ? stat(path, &facts) == 0 && (!S_ISREG(facts.st_mode) || facts.st_size > 0)
               : access(path, R_OK | W_OK) == 0;
  }
  return SQLITE_OK;
}

static int vfs_full_path(sqlite3_vfs *self, const char *path, int room, char *out) {
  char full[PATH_ROOM];
  (void)self;
  if (bridge_full_path(path, full) || strlen(full) >= (size_t)room) return SQLITE_CANTOPEN;
  strcpy(out, full);
  return SQLITE_OK;
}

/* A process that is started can open the store, where nothing here has a database open. */
static void before_fork(void) {
  const char *store = getenv("LITEFLEET_SUITE_STORE");
  if (!open_count && store && strncmp(store, "embedded:", 9) == 0) litefleet_suite_stop();
}

/* What -DSQLITE_EXTRA_INIT names: SQLite calls it each time that it initialises. */
int litefleet_suite_init(const char *unused) {
  static int first = 1;
  (void)unused;
  if (!host) host = sqlite3_vfs_find(NULL);
  /* Litefleet's files are no larger than the host's. It is not asked yet: the store is opened when something is wanted of
  ** it, so that of several processes the one has it that was there first. */
  bridge = *host;
  /* Some test files leave at once where the default VFS is not called so. */
  bridge.zName = bridge_tcl_start ? "unix" : "litefleet-suite";
  bridge.pNext = NULL;
  bridge.xOpen = vfs_open;
  bridge.xDelete = vfs_delete;
  bridge.xAccess = vfs_access;
  bridge.xFullPathname = vfs_full_path;
  methods = in_front;
  after_shutdown = !first;
  if (first) {
    first = 0;
    pthread_atfork(before_fork, NULL, NULL);
    if (bridge_tcl_start) bridge_tcl_start();
  }
  return sqlite3_vfs_register(&bridge, 1);
}
