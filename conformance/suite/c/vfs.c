/* The VFS under test as the default of a test program.
**
** A `sqlite3_vfs` in front of Litefleet's, whose files are Litefleet's own. It does what a file system
** does and a store of databases need not: a database's name is its absolute path, a file that a script made with the
** operating system's means moves into the store when SQLite opens it, and SQLite's simulation of faults and its counters
** (`os_common.h` in its tree) work as in its own VFS. No call of SQLite's is answered here that Litefleet could answer.
*/
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bridge.h"
#include "faults.h"
#include "open.h"
#include "sqlite3.h"

#define OURS (SQLITE_OPEN_MAIN_DB | SQLITE_OPEN_MAIN_JOURNAL | SQLITE_OPEN_SUPER_JOURNAL | SQLITE_OPEN_WAL)

sqlite3_vfs bridge;
sqlite3_vfs *host;
sqlite3_io_methods methods;

/* --- what SQLite asks of a file; a call begins with `begin_call` and ends with `end_call` --- */

static int file_close(sqlite3_file *file) {
  Open *open = find(file), **place;
  const sqlite3_io_methods *inner;
  int journal = open->flags & JOURNALS, away, code = SQLITE_OK;
  begin_call();
  inner = open->methods;
  if (journal) close_journal(open);
  pthread_mutex_lock(&mutex);
  for (place = bucket(file); *place != open; place = &(*place)->next) {}
  *place = open->next;
  open_count--;
  pthread_mutex_unlock(&mutex);
  away = open->away;
  free(open);
  count_open(-1);
  if (journal) changed();
  if (!away) code = inner->xClose(file);
  end_call();
  return code;
}

/* Without a lock, as the VFS that simulates crashes reads a file when it opens it: what is committed. */
static int is_unlocked(Open *open) {
  return (open->flags & SQLITE_OPEN_MAIN_DB) && lock_level(open) == SQLITE_LOCK_NONE;
}

static int read_open(Open *open, void *out, int count, sqlite3_int64 at) {
  enum { sector = 512 };
  int64_t there;
  if (fault()) return SQLITE_IOERR_READ;
  if (!is_unlocked(open)) return open->methods->xRead(open->file, out, count, at);
  there = under_test() ? litefleet_suite_read(open->path, (uint64_t)at, out, (size_t)count) : 0;
  if (there < 0) there = 0;
  memset((char *)out + there, 0, (size_t)(count - there));
  /* It goes through the whole file, sector by sector. */
  if (count >= sector && there == count) keep_turn();
  return there < count ? SQLITE_IOERR_SHORT_READ : SQLITE_OK;
}

static int write_open(Open *open, const void *bytes, int count, sqlite3_int64 at) {
  int code;
  if (fault()) return SQLITE_IOERR_WRITE;
  if (disk_full()) return SQLITE_FULL;
  code = call_back(open);
  return code ? code : open->methods->xWrite(open->file, bytes, count, at);
}

static int truncate_open(Open *open, sqlite3_int64 size) {
  int code;
  if (fault()) return SQLITE_IOERR_TRUNCATE;
  code = call_back(open);
  return code ? code : open->methods->xTruncate(open->file, size);
}

static int sync_open(Open *open, int flags) {
  int code;
  if (disk_full()) return SQLITE_FULL;
  count_sync((flags & 0x0f) == SQLITE_SYNC_FULL);
  if (fault()) return SQLITE_IOERR_FSYNC;
  if (open->sync_folder) count_sync(0);
  open->sync_folder = 0;
  code = call_back(open);
  return code ? code : open->methods->xSync(open->file, flags);
}

static int size_open(Open *open, sqlite3_int64 *out) {
  int64_t size;
  if (fault()) return SQLITE_IOERR_FSTAT;
  if (!is_unlocked(open)) return open->methods->xFileSize(open->file, out);
  size = under_test() ? litefleet_suite_size(open->path) : 0;
  *out = size < 0 ? 0 : size;
  return SQLITE_OK;
}

static int lock_open(Open *open, int level) {
  int code = call_back(open);
  open->thread = pthread_self();
  return code ? code : open->methods->xLock(open->file, level);
}

static int unlock_open(Open *open, int level) {
  return open->away ? SQLITE_OK : open->methods->xUnlock(open->file, level);
}

static int check_reserved_open(Open *open, int *out) {
  int code;
  if (fault()) return SQLITE_IOERR_CHECKRESERVEDLOCK;
  code = call_back(open);
  return code ? code : open->methods->xCheckReservedLock(open->file, out);
}

/* What must outlast the store's being given up, and what needs no store. */
static int control_open(Open *open, int operation, void *argument) {
  if (operation == SQLITE_FCNTL_LOCKSTATE && open->away) {
    *(int *)argument = SQLITE_LOCK_NONE;
    return SQLITE_OK;
  }
  if (operation == SQLITE_FCNTL_MMAP_SIZE) {
    sqlite3_int64 wanted = *(sqlite3_int64 *)argument, before = open->mapped;
    if (wanted >= 0) open->mapped = wanted;
    if (open->away) {
      *(sqlite3_int64 *)argument = before < 0 ? 0 : before;
      return SQLITE_OK;
    }
  } else if (operation == SQLITE_FCNTL_POWERSAFE_OVERWRITE && *(int *)argument >= 0) {
    open->powersafe_overwrite = *(int *)argument != 0;
  } else if (operation == SQLITE_FCNTL_PRAGMA) {
    char **words = argument;
    int mode = sqlite3_stricmp(words[1], "locking_mode") == 0 && words[2];
    if (mode) open->exclusive = sqlite3_stricmp(words[2], "exclusive") == 0;
    if (open->away && !mode && sqlite3_stricmp(words[1], "journal_mode") != 0 &&
        sqlite3_strnicmp(words[1], "litefleet", 9) != 0) {
      return SQLITE_NOTFOUND;
    }
  }
  if (call_back(open) != SQLITE_OK) return SQLITE_NOTFOUND;
  return open->methods->xFileControl(open->file, operation, argument);
}

static int file_read(sqlite3_file *file, void *out, int count, sqlite3_int64 at) {
  int code;
  begin_call();
  code = read_open(find(file), out, count, at);
  end_call();
  return code;
}

static int file_write(sqlite3_file *file, const void *bytes, int count, sqlite3_int64 at) {
  int code;
  begin_call();
  code = write_open(find(file), bytes, count, at);
  end_call();
  return code;
}

static int file_truncate(sqlite3_file *file, sqlite3_int64 size) {
  int code;
  begin_call();
  code = truncate_open(find(file), size);
  end_call();
  return code;
}

static int file_sync(sqlite3_file *file, int flags) {
  int code;
  begin_call();
  code = sync_open(find(file), flags);
  end_call();
  return code;
}

static int file_size(sqlite3_file *file, sqlite3_int64 *out) {
  int code;
  begin_call();
  code = size_open(find(file), out);
  end_call();
  return code;
}

static int file_lock(sqlite3_file *file, int level) {
  int code;
  begin_call();
  code = lock_open(find(file), level);
  end_call();
  return code;
}

static int file_unlock(sqlite3_file *file, int level) {
  int code;
  begin_call();
  code = unlock_open(find(file), level);
  end_call();
  return code;
}

static int file_check_reserved(sqlite3_file *file, int *out) {
  int code;
  begin_call();
  code = check_reserved_open(find(file), out);
  end_call();
  return code;
}

static int file_control(sqlite3_file *file, int operation, void *argument) {
  int code;
  begin_call();
  code = control_open(find(file), operation, argument);
  end_call();
  return code;
}

static int file_sector_size(sqlite3_file *file) {
  Open *open = find(file);
  return open->away ? open->sector_size : open->methods->xSectorSize(file);
}

static int file_characteristics(sqlite3_file *file) {
  Open *open = find(file);
  return open->away ? open->characteristics : open->methods->xDeviceCharacteristics(file);
}

/* Only under a lock. */
static int file_fetch(sqlite3_file *file, sqlite3_int64 at, int count, void **out) {
  return find(file)->methods->xFetch(file, at, count, out);
}

static int file_unfetch(sqlite3_file *file, sqlite3_int64 at, void *lent) {
  Open *open = find(file);
  return open->away ? SQLITE_OK : open->methods->xUnfetch(file, at, lent);
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

static Open *remember(const char *path, sqlite3_file *file, int flags) {
  Open *open = allocate(sizeof(*open));
  open->file = file;
  open->methods = file->pMethods;
  open->flags = flags;
  open->sync_folder = (flags & JOURNALS) && (flags & SQLITE_OPEN_CREATE);
  open->name = path;
  open->mapped = open->powersafe_overwrite = -1;
  open->sector_size = open->methods ? open->methods->xSectorSize(file) : 4096;
  open->characteristics =
      open->methods ? open->methods->xDeviceCharacteristics(file) : SQLITE_IOCAP_POWERSAFE_OVERWRITE;
  snprintf(open->path, sizeof(open->path), "%s", path);
  file->pMethods = &methods;
  pthread_mutex_lock(&mutex);
  open->next = *bucket(file);
  *bucket(file) = open;
  open_count++;
  pthread_mutex_unlock(&mutex);
  count_open(1);
  return open;
}

static int open_ours(const char *path, sqlite3_file *file, int flags, int *out_flags) {
  Open *open;
  char *bytes = NULL;
  size_t size = 0, at;
  int scripts, code, main_db = flags & SQLITE_OPEN_MAIN_DB;
  sqlite3_vfs *litefleet = under_test();
  if (!litefleet && main_db && has_the_store_elsewhere() && !on_host(path)) {
    /* It is looked at when it is locked: until then it is busy. */
    open = remember(path, file, flags);
    open->away = 1;
    if (out_flags) *out_flags = flags;
    return SQLITE_OK;
  }
  if (!litefleet) return SQLITE_CANTOPEN;
  if (main_db && on_host(path) && bring_in(path)) return SQLITE_CANTOPEN;
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
  open = remember(path, file, flags);
  if ((flags & JOURNALS) && !(flags & SQLITE_OPEN_READONLY)) {
    /* One that a script has put there is overwritten, or was read above. */
    if (on_host(path)) unlink(path);
    open_journal(open, scripts);
    changed();
  }
  return SQLITE_OK;
}

static int vfs_open(sqlite3_vfs *self, const char *path, sqlite3_file *file, int flags, int *out_flags) {
  int code;
  (void)self;
  file->pMethods = NULL;
  /* SQLite's own looks at the file of the database for it, which the host does not have. */
  if (path && (flags & JOURNALS) && in_root(path) && is_folder(path)) return SQLITE_CANTOPEN;
  if (!path || !(flags & OURS) || !in_root(path) || is_folder(path)) {
    return host->xOpen(host, path, file, flags, out_flags);
  }
  if (!in_folder(path)) return SQLITE_CANTOPEN;
  begin_call();
  code = open_ours(path, file, flags, out_flags);
  end_call();
  return code;
}

static int delete_ours(const char *path, int sync) {
  sqlite3_vfs *litefleet;
  int code;
  if (!in_root(path) || on_host(path)) {
    /* It has the same faults and counters. */
    code = host->xDelete(host, path, sync);
    if (!in_root(path) || code != SQLITE_OK) return code;
  } else {
    if (fault()) return SQLITE_IOERR_DELETE;
    if (sync & 1) count_sync(0);
  }
  litefleet = under_test();
  if (!litefleet) return SQLITE_IOERR_DELETE;
  forget_journal(path);
  code = litefleet->xDelete(litefleet, path, sync);
  changed();
  return code;
}

static int vfs_delete(sqlite3_vfs *self, const char *path, int sync) {
  int code;
  (void)self;
  begin_call();
  code = delete_ours(path, sync);
  end_call();
  return code;
}

static int access_ours(const char *path, int flags, int *out) {
  sqlite3_vfs *litefleet;
  if (fault()) return SQLITE_IOERR_ACCESS;
  litefleet = under_test();
  if (!litefleet) return SQLITE_IOERR_ACCESS;
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

static int vfs_access(sqlite3_vfs *self, const char *path, int flags, int *out) {
  int code;
  (void)self;
  begin_call();
  code = access_ours(path, flags, out);
  end_call();
  return code;
}

static int vfs_full_path(sqlite3_vfs *self, const char *path, int room, char *out) {
  char full[PATH_ROOM];
  (void)self;
  if (bridge_full_path(path, full) || strlen(full) >= (size_t)room) return SQLITE_CANTOPEN;
  strcpy(out, full);
  return SQLITE_OK;
}

/* --- another of SQLite's own, by which tests open a second time what is open: a database of the store is the same one --- */

static sqlite3_vfs other;       /* what SQLite uses */
static sqlite3_vfs *host_other; /* unix-none */

/* A database of the store, or a journal of one. */
static int is_of_ours(const char *path) {
  static const char suffix[] = "-journal";
  size_t length = strlen(path), end = sizeof(suffix) - 1;
  char database[PATH_ROOM];
  if (bridge_is_ours(path)) return 1;
  if (length <= end || length >= PATH_ROOM || strcmp(path + length - end, suffix) != 0) return 0;
  snprintf(database, sizeof(database), "%.*s", (int)(length - end), path);
  return bridge_is_ours(database);
}

static int other_open(sqlite3_vfs *self, const char *path, sqlite3_file *file, int flags, int *out_flags) {
  if (path && (flags & OURS) && is_of_ours(path)) return vfs_open(self, path, file, flags, out_flags);
  return host_other->xOpen(host_other, path, file, flags, out_flags);
}

static int other_delete(sqlite3_vfs *self, const char *path, int sync) {
  return is_of_ours(path) ? vfs_delete(self, path, sync) : host_other->xDelete(host_other, path, sync);
}

static int other_access(sqlite3_vfs *self, const char *path, int flags, int *out) {
  return is_of_ours(path) ? vfs_access(self, path, flags, out) : host_other->xAccess(host_other, path, flags, out);
}

static void register_other(void) {
  sqlite3_vfs *found = sqlite3_vfs_find("unix-none");
  if (!found) return;
  if (found != &other) {
    host_other = found;
    other = *found;
    other.pNext = NULL;
    other.xOpen = other_open;
    other.xDelete = other_delete;
    other.xAccess = other_access;
  }
  sqlite3_vfs_register(&other, 0);
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
    take_turns();
    if (bridge_tcl_start) bridge_tcl_start();
  }
  if (bridge_tcl_start) register_other();
  return sqlite3_vfs_register(&bridge, 1);
}
