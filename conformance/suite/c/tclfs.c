/* A file system of Tcl's for what is ours: all file commands of a script (`file`, `glob`, `open`) pass through it. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <tcl.h>
#include <time.h>
#include <unistd.h>
#include <utime.h>

#include "bridge.h"

/* --- channels --- */

struct Channel {
  Tcl_WideInt at;
  int mode; /* TCL_READABLE, TCL_WRITABLE */
  int append;
  int descriptor; /* Of nothing: a script may open files until there are none left. */
  char path[PATH_ROOM];
};

static int channel_close(ClientData data, Tcl_Interp *interp) {
  struct Channel *channel = data;
  (void)interp;
  close(channel->descriptor);
  free(channel);
  return 0;
}

static int channel_close2(ClientData data, Tcl_Interp *interp, int flags) {
  if (flags & (TCL_CLOSE_READ | TCL_CLOSE_WRITE)) return EINVAL;
  return channel_close(data, interp);
}

static int channel_input(ClientData data, char *out, int room, int *error) {
  struct Channel *channel = data;
  int64_t there = bridge_read(channel->path, (uint64_t)channel->at, out, (size_t)room);
  if (there < 0) {
    *error = EIO;
    return -1;
  }
  channel->at += there;
  return (int)there;
}

static int channel_output(ClientData data, const char *bytes, int count, int *error) {
  struct Channel *channel = data;
  if (channel->append) channel->at = bridge_size(channel->path);
  if (bridge_write(channel->path, (uint64_t)channel->at, bytes, (size_t)count)) {
    *error = EIO;
    return -1;
  }
  channel->at += count;
  return count;
}

static Tcl_WideInt channel_seek_wide(ClientData data, Tcl_WideInt offset, int whence, int *error) {
  struct Channel *channel = data;
  Tcl_WideInt base = whence == SEEK_SET ? 0 : whence == SEEK_CUR ? channel->at : bridge_size(channel->path);
  if (base + offset < 0) {
    *error = EINVAL;
    return -1;
  }
  return channel->at = base + offset;
}

static int channel_seek(ClientData data, long offset, int whence, int *error) {
  return (int)channel_seek_wide(data, offset, whence, error);
}

static void channel_watch(ClientData data, int mask) {
  (void)data;
  (void)mask;
}

static int channel_truncate(ClientData data, Tcl_WideInt length) {
  struct Channel *channel = data;
  return bridge_truncate(channel->path, (uint64_t)length) ? EIO : 0;
}

static const Tcl_ChannelType channel_type = {
    .typeName = "litefleet",
    .version = TCL_CHANNEL_VERSION_5,
    .closeProc = channel_close,
    .inputProc = channel_input,
    .outputProc = channel_output,
    .seekProc = channel_seek,
    .watchProc = channel_watch,
    .close2Proc = channel_close2,
    .wideSeekProc = channel_seek_wide,
    .truncateProc = channel_truncate,
};

/* --- the file system --- */

static Tcl_Filesystem filesystem;

static const char *text(Tcl_Obj *path) {
  Tcl_Obj *normal = Tcl_FSGetNormalizedPath(NULL, path);
  return normal ? Tcl_GetString(normal) : NULL;
}

static int fs_has(Tcl_Obj *path, ClientData *data) {
  const char *name = text(path);
  (void)data;
  return name && bridge_is_ours(name) ? TCL_OK : -1;
}

static Tcl_Obj *fs_separator(Tcl_Obj *path) {
  (void)path;
  return Tcl_NewStringObj("/", 1);
}

static int fs_stat(Tcl_Obj *path, Tcl_StatBuf *out) {
  const char *name = text(path);
  int64_t size = name ? bridge_size(name) : -1;
  const char *letter;
  if (size < 0) {
    errno = ENOENT;
    return -1;
  }
  memset(out, 0, sizeof(*out));
  out->st_mode = S_IFREG | bridge_mode(name);
  out->st_nlink = 1;
  out->st_uid = getuid();
  out->st_gid = getgid();
  out->st_size = size;
  out->st_atime = out->st_mtime = out->st_ctime = time(NULL);
  for (letter = name; *letter; letter++) out->st_ino = out->st_ino * 131 + (unsigned char)*letter;
  return 0;
}

static int fs_access(Tcl_Obj *path, int mode) {
  const char *name = text(path);
  int allowed = name ? bridge_mode(name) >> 6 : 0;
  if (name && bridge_size(name) >= 0 && !(mode & (R_OK | W_OK | X_OK) & ~allowed)) return 0;
  errno = name && bridge_size(name) >= 0 ? EACCES : ENOENT;
  return -1;
}

static Tcl_Channel fs_open(Tcl_Interp *interp, Tcl_Obj *path, int mode, int permissions) {
  struct Channel *channel;
  const char *name = text(path);
  int access = mode & O_ACCMODE, descriptor;
  static int number;
  char handle[40];
  Tcl_Channel made;
  (void)permissions;
  descriptor = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    if (interp) Tcl_SetObjResult(interp, Tcl_ObjPrintf("couldn't open \"%s\": %s", Tcl_GetString(path), Tcl_PosixError(interp)));
    return NULL;
  }
  channel = calloc(1, sizeof(*channel));
  if (!channel || !name || ((mode & O_TRUNC) && bridge_truncate(name, 0))) {
    if (interp) Tcl_SetObjResult(interp, Tcl_ObjPrintf("couldn't open \"%s\"", Tcl_GetString(path)));
    close(descriptor);
    free(channel);
    errno = EIO;
    return NULL;
  }
  channel->descriptor = descriptor;
  channel->mode = access == O_RDONLY ? TCL_READABLE : access == O_WRONLY ? TCL_WRITABLE : TCL_READABLE | TCL_WRITABLE;
  channel->append = (mode & O_APPEND) != 0;
  strcpy(channel->path, name);
  snprintf(handle, sizeof(handle), "litefleet%d", number++);
  made = Tcl_CreateChannel(&channel_type, handle, channel, channel->mode);
  /* Each flush is a transaction: few of them. */
  Tcl_SetChannelBufferSize(made, 1000000);
  return made;
}

struct Match {
  Tcl_Obj *result, *folder;
  const char *pattern;
};

static void match_one(void *context, const char *name) {
  struct Match *match = context;
  Tcl_Obj *path;
  if (!Tcl_StringMatch(name, match->pattern)) return;
  path = Tcl_DuplicateObj(match->folder);
  Tcl_AppendStringsToObj(path, "/", name, (char *)NULL);
  if (bridge_is_ours(Tcl_GetString(path))) Tcl_ListObjAppendElement(NULL, match->result, path);
}

static int fs_match(Tcl_Interp *interp, Tcl_Obj *result, Tcl_Obj *path, const char *pattern, Tcl_GlobTypeData *types) {
  struct Match match = {result, NULL, pattern};
  const char *name = text(path);
  (void)interp;
  if (!name) return TCL_OK;
  if (!pattern) {
    /* Whether `path` itself is of a type. */
    if (bridge_is_ours(name) && !(types && (types->type & (TCL_GLOB_TYPE_DIR | TCL_GLOB_TYPE_MOUNT)))) {
      Tcl_ListObjAppendElement(NULL, result, path);
    }
    return TCL_OK;
  }
  /* Names of ours stand in folders of the host: Tcl asks for them as for mount points. */
  if (types && !(types->type & TCL_GLOB_TYPE_MOUNT)) return TCL_OK;
  match.folder = Tcl_FSGetNormalizedPath(NULL, path);
  bridge_list(name, match_one, &match);
  return TCL_OK;
}

static int fs_utime(Tcl_Obj *path, struct utimbuf *times) {
  (void)path;
  (void)times;
  return 0;
}

static const char *const *fs_attribute_names(Tcl_Obj *path, Tcl_Obj **names) {
  static const char *const all[] = {"-permissions", NULL};
  (void)path;
  *names = NULL;
  return all;
}

static int fs_attribute(Tcl_Interp *interp, int index, Tcl_Obj *path, Tcl_Obj **out) {
  const char *name = text(path);
  (void)interp;
  (void)index;
  if (!name) return TCL_ERROR;
  *out = Tcl_ObjPrintf("%05o", bridge_mode(name));
  return TCL_OK;
}

/* As Tcl does: a number, or letters such as r--r--r--. */
static int fs_set_attribute(Tcl_Interp *interp, int index, Tcl_Obj *path, Tcl_Obj *value) {
  const char *name = text(path), *letters = Tcl_GetString(value);
  int mode = 0, at;
  (void)index;
  if (!name) return TCL_ERROR;
  if (strlen(letters) == 9 && strchr("r-", letters[0])) {
    for (at = 0; at < 9; at++) mode |= (letters[at] != '-') << (8 - at);
  } else {
    Tcl_Obj *octal = letters[0] >= '0' && letters[0] <= '9' && strlen(letters) >= 4 && letters[0] == '0' && letters[1] != 'o'
                         ? Tcl_ObjPrintf("0o%s", letters)
                         : Tcl_DuplicateObj(value);
    int code;
    Tcl_IncrRefCount(octal);
    code = Tcl_GetIntFromObj(interp, octal, &mode);
    Tcl_DecrRefCount(octal);
    if (code != TCL_OK) return TCL_ERROR;
  }
  bridge_set_mode(name, mode & 0777);
  return TCL_OK;
}

static int fs_delete(Tcl_Obj *path) {
  const char *name = text(path);
  if (name && !bridge_delete(name)) return 0;
  errno = EIO;
  return -1;
}

/* Tcl then copies through channels. What was there is deleted first, as a file system's copy does. */
static int fs_copy(Tcl_Obj *from, Tcl_Obj *to) {
  const char *name = text(to);
  (void)from;
  if (name && bridge_is_ours(name)) bridge_delete(name);
  errno = EXDEV;
  return -1;
}

static Tcl_Filesystem filesystem = {
    .typeName = "litefleet",
    .structureLength = sizeof(Tcl_Filesystem),
    .version = TCL_FILESYSTEM_VERSION_1,
    .pathInFilesystemProc = fs_has,
    .filesystemSeparatorProc = fs_separator,
    .statProc = fs_stat,
    .accessProc = fs_access,
    .openFileChannelProc = fs_open,
    .matchInDirectoryProc = fs_match,
    .utimeProc = fs_utime,
    .fileAttrStringsProc = fs_attribute_names,
    .fileAttrsGetProc = fs_attribute,
    .fileAttrsSetProc = fs_set_attribute,
    .deleteFileProc = fs_delete,
    .copyFileProc = fs_copy,
    .renameFileProc = fs_copy,
    .lstatProc = fs_stat,
};

void bridge_tcl_start(void) { Tcl_FSRegister(NULL, &filesystem); }

void bridge_names_changed(void) { Tcl_FSMountsChanged(&filesystem); }
