/* C's stdio over what is ours: linked with -Wl,--wrap=fopen,--wrap=fopen64. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "bridge.h"

FILE *__real_fopen(const char *path, const char *mode);

struct Cookie {
  uint64_t at;
  int append;
  char path[PATH_ROOM];
};

static ssize_t cookie_read(void *cookie, char *out, size_t count) {
  struct Cookie *file = cookie;
  int64_t there = bridge_read(file->path, file->at, out, count);
  if (there > 0) file->at += (uint64_t)there;
  return (ssize_t)there;
}

static ssize_t cookie_write(void *cookie, const char *bytes, size_t count) {
  struct Cookie *file = cookie;
  if (file->append) file->at = (uint64_t)bridge_size(file->path);
  if (bridge_write(file->path, file->at, bytes, count)) {
    errno = EIO;
    return 0;
  }
  file->at += count;
  return (ssize_t)count;
}

static int cookie_seek(void *cookie, off64_t *offset, int whence) {
  struct Cookie *file = cookie;
  int64_t base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? (int64_t)file->at : bridge_size(file->path);
  if (base + *offset < 0) {
    errno = EINVAL;
    return -1;
  }
  file->at = (uint64_t)(base + *offset);
  *offset = (off64_t)file->at;
  return 0;
}

static int cookie_close(void *cookie) {
  free(cookie);
  return 0;
}

FILE *__wrap_fopen(const char *path, const char *mode) {
  static const cookie_io_functions_t functions = {cookie_read, cookie_write, cookie_seek, cookie_close};
  char full[PATH_ROOM];
  struct Cookie *cookie;
  FILE *file;
  if (bridge_full_path(path, full) || !bridge_is_ours(full)) return __real_fopen(path, mode);
  if (mode[0] == 'w' && bridge_truncate(full, 0)) {
    errno = EIO;
    return NULL;
  }
  cookie = calloc(1, sizeof(*cookie));
  if (!cookie) return NULL;
  cookie->append = mode[0] == 'a';
  strcpy(cookie->path, full);
  file = fopencookie(cookie, mode, functions);
  if (!file) free(cookie);
  return file;
}

FILE *__wrap_fopen64(const char *path, const char *mode) { return __wrap_fopen(path, mode); }
