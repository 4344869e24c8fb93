/* unlink(), stat() and access() over what is ours, for programs that look for databases and delete them themselves: linked
** with -Wl,--wrap=unlink,--wrap=stat,--wrap=access. */
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bridge.h"

int __real_unlink(const char *path);
int __real_stat(const char *path, struct stat *out);
int __real_access(const char *path, int mode);

int __wrap_unlink(const char *path) {
  char full[PATH_ROOM];
  if (bridge_full_path(path, full) || !bridge_is_ours(full)) return __real_unlink(path);
  if (!bridge_delete(full)) return 0;
  errno = EIO;
  return -1;
}

int __wrap_stat(const char *path, struct stat *out) {
  char full[PATH_ROOM];
  int64_t size;
  if (bridge_full_path(path, full) || !bridge_is_ours(full)) return __real_stat(path, out);
  size = bridge_size(full);
  memset(out, 0, sizeof(*out));
  out->st_mode = S_IFREG | (mode_t)bridge_mode(full);
  out->st_nlink = 1;
  out->st_size = size > 0 ? size : 0;
  return 0;
}

int __wrap_access(const char *path, int mode) {
  char full[PATH_ROOM];
  if (bridge_full_path(path, full) || !bridge_is_ours(full)) return __real_access(path, mode);
  if (!(mode & ~(bridge_mode(full) >> 6))) return 0;
  errno = EACCES;
  return -1;
}
