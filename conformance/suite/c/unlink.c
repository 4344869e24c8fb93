/* unlink() over what is ours, for programs that delete databases themselves: linked with -Wl,--wrap=unlink. */
#include <errno.h>

#include "bridge.h"

int __real_unlink(const char *path);

int __wrap_unlink(const char *path) {
  char full[PATH_ROOM];
  if (bridge_full_path(path, full) || !bridge_is_ours(full)) return __real_unlink(path);
  if (!bridge_delete(full)) return 0;
  errno = EIO;
  return -1;
}
