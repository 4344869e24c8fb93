/* What is ours as files, for scripts: databases of the store, and the journals that are there. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bridge.h"
#include "open.h"
#include "sqlite3.h"

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

static Journal *journals;

/* Never through SQLite's allocator: its tests count what it hands out. */
void *allocate(size_t size) {
  void *memory = calloc(1, size);
  if (!memory) abort();
  return memory;
}

static Journal *find_journal(const char *path) {
  Journal *found;
  pthread_mutex_lock(&mutex);
  for (found = journals; found && strcmp(found->path, path) != 0; found = found->next) {}
  pthread_mutex_unlock(&mutex);
  return found;
}

void forget_journal(const char *path) {
  Journal **place, *found;
  pthread_mutex_lock(&mutex);
  for (place = &journals; *place && strcmp((*place)->path, path) != 0; place = &(*place)->next) {}
  found = *place;
  if (found) *place = found->next;
  pthread_mutex_unlock(&mutex);
  if (found) free(found->bytes);
  free(found);
}

void open_journal(Open *open, int scripts) {
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

void close_journal(Open *open) {
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
char *scripts_journal(const char *path, int flags, size_t *size) {
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
int is_scripts(const char *path) {
  Journal *journal = find_journal(path);
  return journal && journal->scripts && !journal->open && journal->size > 0;
}

void changed(void) {
  if (bridge_names_changed) bridge_names_changed();
}

int on_host(const char *path) {
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

int in_root(const char *path) {
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

/* The VFS under test, for a script: one that another process has at this moment shows nothing, and the test is no pass. */
static sqlite3_vfs *to_see(void) {
  sqlite3_vfs *vfs = under_test();
  if (!vfs) litefleet_suite_unseen();
  return vfs;
}

static int64_t size_of(const char *path) {
  Journal *journal = find_journal(path);
  Open *writer = journal ? NULL : find_writer(path);
  sqlite3_int64 size = 0;
  if (writer) return writer->methods->xFileSize(writer->file, &size) == SQLITE_OK ? size : -1;
  if (!journal) return to_see() ? litefleet_suite_size(path) : -1;
  if (!journal->open) return (int64_t)journal->size;
  return journal->open->methods->xFileSize(journal->open->file, &size) == SQLITE_OK ? size : -1;
}

int64_t bridge_size(const char *path) {
  int64_t size;
  begin_call();
  size = size_of(path);
  end_call();
  return size;
}

static int64_t read_at(const char *path, uint64_t at, void *out, size_t count) {
  Journal *journal = find_journal(path);
  Open *writer = journal ? NULL : find_writer(path);
  int64_t size = size_of(path);
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

int64_t bridge_read(const char *path, uint64_t at, void *out, size_t count) {
  int64_t there;
  begin_call();
  there = read_at(path, at, out, count);
  end_call();
  return there;
}

static void resize(Journal *journal, size_t size) {
  journal->bytes = realloc(journal->bytes, size + 1);
  if (!journal->bytes) abort();
  if (size > journal->size) memset(journal->bytes + journal->size, 0, size - journal->size);
  journal->size = size;
}

static int write_at(const char *path, uint64_t at, const void *bytes, size_t count) {
  Journal *journal = find_journal(path);
  if (!journal) return !to_see() || litefleet_suite_write(path, at, bytes, count);
  journal->scripts = 1;
  if (!journal->open) {
    if (at + count > journal->size) resize(journal, (size_t)at + count);
    memcpy(journal->bytes + at, bytes, count);
    return 0;
  }
  return journal->open->methods->xWrite(journal->open->file, bytes, (int)count, (sqlite3_int64)at) != SQLITE_OK;
}

int bridge_write(const char *path, uint64_t at, const void *bytes, size_t count) {
  int failed;
  begin_call();
  failed = write_at(path, at, bytes, count);
  end_call();
  return failed;
}

static int truncate_to(const char *path, uint64_t size) {
  Journal *journal = find_journal(path);
  int failed;
  if (journal && !journal->open) {
    journal->scripts = 1;
    resize(journal, (size_t)size);
    return 0;
  }
  if (journal) return journal->open->methods->xTruncate(journal->open->file, (sqlite3_int64)size) != SQLITE_OK;
  if (!to_see()) return 1;
  failed = litefleet_suite_truncate(path, size);
  changed();
  return failed;
}

int bridge_truncate(const char *path, uint64_t size) {
  int failed;
  begin_call();
  failed = truncate_to(path, size);
  end_call();
  return failed;
}

int bridge_delete(const char *path) {
  int failed = 0;
  begin_call();
  if (find_journal(path)) {
    forget_journal(path);
  } else {
    failed = !to_see() || litefleet_suite_delete(path);
  }
  changed();
  end_call();
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
  if (!in_root(folder)) return;
  begin_call();
  snprintf(prefix, sizeof(prefix), "%s/", folder);
  if (to_see()) litefleet_suite_list(prefix, list_one, &listing);
  end_call();
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
int bring_in(const char *path) {
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
