/* Folders that list what is ours, and reading it by file descriptor: linked with
** -Wl,--wrap=open,--wrap=open64,--wrap=opendir,--wrap=readdir,--wrap=readdir64,--wrap=closedir. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bridge.h"

int __real_open(const char *path, int flags, ...);
DIR *__real_opendir(const char *path);
struct dirent *__real_readdir(DIR *folder);
int __real_closedir(DIR *folder);

/* A folder of the host that is open, and the names of ours in it that were not told yet. */
typedef struct Folder Folder;
struct Folder {
  DIR *host;
  char **names;
  size_t count, next_name;
  struct dirent entry;
  Folder *next;
};
static Folder *folders;

static Folder *find_folder(DIR *host) {
  Folder *found;
  for (found = folders; found && found->host != host; found = found->next) {}
  return found;
}

static void add_name(void *context, const char *name) {
  Folder *folder = context;
  char **names = realloc(folder->names, (folder->count + 1) * sizeof(*names));
  if (!names) abort();
  folder->names = names;
  if (!(names[folder->count++] = strdup(name))) abort();
}

DIR *__wrap_opendir(const char *path) {
  DIR *host = __real_opendir(path);
  char full[PATH_ROOM];
  Folder *folder;
  if (!host || bridge_full_path(path, full)) return host;
  folder = calloc(1, sizeof(*folder));
  if (!folder) abort();
  folder->host = host;
  bridge_list(full, add_name, folder);
  folder->next = folders;
  folders = folder;
  return host;
}

struct dirent *__wrap_readdir(DIR *host) {
  struct dirent *entry = __real_readdir(host);
  Folder *folder = entry ? NULL : find_folder(host);
  if (!folder || folder->next_name == folder->count) return entry;
  folder->entry.d_type = DT_REG;
  snprintf(folder->entry.d_name, sizeof(folder->entry.d_name), "%s", folder->names[folder->next_name++]);
  return &folder->entry;
}

/* Where both are the same: files of any size are the only kind there is. */
struct dirent64 *__wrap_readdir64(DIR *host) {
  _Static_assert(sizeof(struct dirent) == sizeof(struct dirent64), "64 bits");
  return (struct dirent64 *)__wrap_readdir(host);
}

int __wrap_closedir(DIR *host) {
  Folder **place, *found;
  for (place = &folders; *place && (*place)->host != host; place = &(*place)->next) {}
  found = *place;
  if (found) {
    *place = found->next;
    while (found->count) free(found->names[--found->count]);
    free(found->names);
    free(found);
  }
  return __real_closedir(host);
}

/* What is ours as a file in memory; -1 with errno where that fails. */
static int copy_of(const char *path) {
  char buffer[65536];
  int64_t at = 0, there;
  int file = memfd_create("litefleet", MFD_CLOEXEC);
  if (file < 0) return -1;
  while ((there = bridge_read(path, (uint64_t)at, buffer, sizeof(buffer))) > 0) {
    if (pwrite(file, buffer, (size_t)there, at) != there) break;
    at += there;
  }
  if (there == 0) return file;
  close(file);
  errno = EIO;
  return -1;
}

int __wrap_open(const char *path, int flags, ...) {
  char full[PATH_ROOM];
  int mode;
  va_list arguments;
  va_start(arguments, flags);
  mode = va_arg(arguments, int);
  va_end(arguments);
  /* Only to read: nothing that is written by file descriptor would reach a database. */
  if ((flags & (O_ACCMODE | O_CREAT)) == O_RDONLY && !bridge_full_path(path, full) && bridge_is_ours(full)) {
    return copy_of(full);
  }
  return __real_open(path, flags, mode);
}

int __wrap_open64(const char *path, int flags, ...) {
  int mode;
  va_list arguments;
  va_start(arguments, flags);
  mode = va_arg(arguments, int);
  va_end(arguments);
  return __wrap_open(path, flags, mode);
}
