/* LD_PRELOAD shim: writes down what a process does to the files below one directory, in order, so that the state after
 * a power failure at any moment can be computed (power_loss.rs).
 *
 *   RECORD_ROOT  the directory
 *   RECORD_LOG   where the record goes; outside of the directory
 *   RECORD_FAIL  a file that may come and go: "errno count [thread]". While it is there that many fsyncs of journals that
 *                have something to write fail (those of threads with that name only), and what they were to write is
 *                lost, though it can be read; with a thread "*" also those that have nothing to write
 *
 * An entry: kind u8, inode u64, a u64, b u64, three lengths u32, then two paths and data. One mutex is held over the
 * call and its entry: the order of the entries is the order of the effects.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, MKDIR, WRITE, TRUNCATE, SYNC, RENAME, UNLINK, RMDIR, SYNC_DIR, LOST };
#define FDS 65536

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static size_t root_len;
static int out = -1;
static char *paths[FDS]; /* of descriptors below the root; guarded by turn, as is the next */
static char unsynced[FDS]; /* whether something was written through a descriptor since its last fsync */
static const char *fail;

#define REAL(name) ((__typeof__(&name))real(#name))
static void *real(const char *name) {
    void *f = dlsym(RTLD_NEXT, name);
    if (!f) { fprintf(stderr, "record: no %s\n", name); abort(); }
    return f;
}

__attribute__((constructor)) static void start(void) {
    const char *r = getenv("RECORD_ROOT"), *l = getenv("RECORD_LOG");
    if (!r || !l || !realpath(r, root)) { fprintf(stderr, "record: RECORD_ROOT and RECORD_LOG are needed\n"); abort(); }
    root_len = strlen(root);
    fail = getenv("RECORD_FAIL");
    out = REAL(open)(l, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (out < 0) { perror("record"); abort(); }
}

/* The path relative to the root, or NULL. */
static const char *below(const char *path) {
    if (strncmp(path, root, root_len) || (path[root_len] != '/' && path[root_len])) return NULL;
    return path[root_len] ? path + root_len + 1 : "";
}

static const char *absolute(int dirfd, const char *path, char *buffer) {
    if (path[0] == '/') return path;
    char link[64];
    ssize_t n;
    if (dirfd == AT_FDCWD) {
        if (!getcwd(buffer, PATH_MAX)) return path;
        n = strlen(buffer);
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", dirfd);
        n = readlink(link, buffer, PATH_MAX - 1);
        if (n < 0) return path;
    }
    snprintf(buffer + n, PATH_MAX - n, "/%s", path);
    return buffer;
}

static void note(int kind, uint64_t inode, uint64_t a, uint64_t b, const char *p1, const char *p2, const void *data,
                 uint32_t length) {
    unsigned char head[37];
    uint32_t l1 = strlen(p1), l2 = strlen(p2);
    head[0] = kind;
    memcpy(head + 1, &inode, 8);
    memcpy(head + 9, &a, 8);
    memcpy(head + 17, &b, 8);
    memcpy(head + 25, &l1, 4);
    memcpy(head + 29, &l2, 4);
    memcpy(head + 33, &length, 4);
    struct iovec v[4] = {{head, 37}, {(void *)p1, l1}, {(void *)p2, l2}, {(void *)data, length}};
    ssize_t want = 37 + (ssize_t)l1 + l2 + length;
    if (REAL(writev)(out, v, 4) != want) { fprintf(stderr, "record: cannot write\n"); abort(); }
}

static uint64_t inode_of(int fd) {
    struct stat s;
    return fstat(fd, &s) ? 0 : s.st_ino;
}

static int do_open(int dirfd, const char *path, int flags, mode_t mode) {
    char buffer[PATH_MAX];
    const char *full = absolute(dirfd, path, buffer), *rel = below(full);
    if (!rel) return REAL(openat)(dirfd, path, flags, mode);
    pthread_mutex_lock(&turn);
    int was = access(full, F_OK) == 0;
    int fd = REAL(openat)(dirfd, path, flags, mode);
    int saved = errno;
    if (fd >= 0 && fd < FDS) {
        free(paths[fd]);
        paths[fd] = strdup(rel);
        unsynced[fd] = 0;
        if (!was) note(CREATE, inode_of(fd), 0, 0, rel, "", "", 0);
        else if (flags & O_TRUNC) note(TRUNCATE, inode_of(fd), 0, 0, "", "", "", 0);
    }
    pthread_mutex_unlock(&turn);
    errno = saved;
    return fd;
}

#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, int); va_end(l); }

int open(const char *path, int flags, ...) { MODE_OF(flags) return do_open(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return do_open(AT_FDCWD, path, flags, mode); }
int openat(int d, const char *path, int flags, ...) { MODE_OF(flags) return do_open(d, path, flags, mode); }
int openat64(int d, const char *path, int flags, ...) { MODE_OF(flags) return do_open(d, path, flags, mode); }

int close(int fd) {
    pthread_mutex_lock(&turn);
    if (fd >= 0 && fd < FDS) { free(paths[fd]); paths[fd] = NULL; }
    int r = REAL(close)(fd);
    pthread_mutex_unlock(&turn);
    return r;
}

static int watched(int fd) { return fd >= 0 && fd < FDS && paths[fd]; }

static uint64_t position(int fd) {
    struct stat s;
    if (REAL(fcntl)(fd, F_GETFL) & O_APPEND) return fstat(fd, &s) ? 0 : s.st_size;
    return lseek(fd, 0, SEEK_CUR);
}

ssize_t write(int fd, const void *data, size_t n) {
    pthread_mutex_lock(&turn);
    uint64_t at = watched(fd) ? position(fd) : 0;
    ssize_t r = REAL(write)(fd, data, n);
    int saved = errno;
    if (r > 0 && watched(fd)) unsynced[fd] = 1, note(WRITE, inode_of(fd), at, 0, "", "", data, r);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}

ssize_t writev(int fd, const struct iovec *v, int n) {
    pthread_mutex_lock(&turn);
    uint64_t at = watched(fd) ? position(fd) : 0;
    ssize_t r = REAL(writev)(fd, v, n);
    int saved = errno;
    ssize_t left = r;
    for (int i = 0; i < n && left > 0 && watched(fd); i++) {
        ssize_t part = (ssize_t)v[i].iov_len < left ? (ssize_t)v[i].iov_len : left;
        unsynced[fd] = 1;
        note(WRITE, inode_of(fd), at, 0, "", "", v[i].iov_base, part);
        at += part;
        left -= part;
    }
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}

static ssize_t do_pwrite(int fd, const void *data, size_t n, off_t at) {
    pthread_mutex_lock(&turn);
    ssize_t r = REAL(pwrite)(fd, data, n, at);
    int saved = errno;
    if (r > 0 && watched(fd)) unsynced[fd] = 1, note(WRITE, inode_of(fd), at, 0, "", "", data, r);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) { return do_pwrite(fd, data, n, at); }
ssize_t pwrite64(int fd, const void *data, size_t n, off_t at) { return do_pwrite(fd, data, n, at); }

static int do_truncate(int fd, off_t length) {
    pthread_mutex_lock(&turn);
    int r = REAL(ftruncate)(fd, length);
    int saved = errno;
    if (!r && watched(fd)) note(TRUNCATE, inode_of(fd), length, 0, "", "", "", 0);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}
int ftruncate(int fd, off_t length) { return do_truncate(fd, length); }
int ftruncate64(int fd, off_t length) { return do_truncate(fd, length); }

/* The error with which an fsync is to fail, or 0. */
static int failure(int fd) {
    char text[64] = "", who[32] = "", name[32] = "";
    int error = 0, count = 0;
    const char *end = strrchr(paths[fd], '.');
    if (!fail || !end || strcmp(end, ".jnl")) return 0;
    int f = REAL(open)(fail, O_RDONLY | O_CLOEXEC);
    if (f < 0) return 0;
    ssize_t n = read(f, text, sizeof text - 1);
    REAL(close)(f);
    if (n <= 0 || sscanf(text, "%d %d %31s", &error, &count, who) < 2) return 0;
    int any = !strcmp(who, "*");
    pthread_getname_np(pthread_self(), name, sizeof name);
    if ((!any && !unsynced[fd]) || (who[0] && !any && strcmp(who, name))) return 0;
    if (count <= 1) {
        REAL(unlink)(fail);
        return error;
    }
    n = snprintf(text, sizeof text, "%d %d %s\n", error, count - 1, who);
    f = REAL(open)(fail, O_WRONLY | O_TRUNC | O_CLOEXEC);
    if (f < 0 || REAL(write)(f, text, n) != n) { perror("record"); abort(); }
    REAL(close)(f);
    return error;
}

/* What was written before the call was durable when it returned: the entry comes after the call. */
static int do_sync(int fd, int (*call)(int)) {
    pthread_mutex_lock(&turn);
    int error = watched(fd) ? failure(fd) : 0;
    int r = error ? -1 : call(fd);
    int saved = error ? error : errno;
    struct stat s;
    if (watched(fd) && (!r || error) && !fstat(fd, &s)) {
        note(error ? LOST : S_ISDIR(s.st_mode) ? SYNC_DIR : SYNC, s.st_ino, 0, 0, paths[fd], "", "", 0);
        unsynced[fd] = 0;
    }
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}
int fsync(int fd) { return do_sync(fd, REAL(fsync)); }
int fdatasync(int fd) { return do_sync(fd, REAL(fdatasync)); }

int renameat(int d1, const char *from, int d2, const char *to) {
    char b1[PATH_MAX], b2[PATH_MAX];
    const char *r1 = below(absolute(d1, from, b1)), *r2 = below(absolute(d2, to, b2));
    pthread_mutex_lock(&turn);
    int r = REAL(renameat)(d1, from, d2, to);
    int saved = errno;
    if (!r && r1 && r2) note(RENAME, 0, 0, 0, r1, r2, "", 0);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}
int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int d, const char *path, int flags) {
    char b[PATH_MAX];
    const char *rel = below(absolute(d, path, b));
    pthread_mutex_lock(&turn);
    int r = REAL(unlinkat)(d, path, flags);
    int saved = errno;
    if (!r && rel) note(flags & AT_REMOVEDIR ? RMDIR : UNLINK, 0, 0, 0, rel, "", "", 0);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
    char b[PATH_MAX];
    const char *rel = below(absolute(AT_FDCWD, path, b));
    pthread_mutex_lock(&turn);
    int r = REAL(mkdir)(path, mode);
    int saved = errno;
    if (!r && rel) note(MKDIR, 0, 0, 0, rel, "", "", 0);
    pthread_mutex_unlock(&turn);
    errno = saved;
    return r;
}
