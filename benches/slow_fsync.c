/* LD_PRELOAD shim: fsync and fdatasync at the price of a slower disk, one at a time, counted.
 *
 *   cc -shared -fPIC -O2 -o slow_fsync.so slow_fsync.c -ldl -lpthread
 *
 *   LITEFLEET_FSYNC_MICROS  least time of one call, default 1000; 0 leaves the calls at their own price, unlocked
 *   LITEFLEET_FSYNC_LOCK    file that serialises the calls of all processes, default /tmp/litefleet-fsync.lock
 *   LITEFLEET_FSYNC_COUNT   file to whose number the calls of this process are added when it exits
 *
 * flock belongs to an open file description, so it keeps processes apart but not the threads of one: those take
 * the mutex first. A forked child would share its parent's description, so it opens its own.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

typedef int (*sync_call)(int);

static sync_call real_fsync, real_fdatasync;
static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static int lock_fd = -1; /* guarded by turn */
static atomic_ulong calls;
static long price_micros = 1000;

static void die(const char *what) {
    perror(what); /* a measurement with a broken shim must not look like a result */
    abort();
}

/* Only the forking thread lives on in the child, and it holds turn (see before_fork). */
static void before_fork(void) { pthread_mutex_lock(&turn); }
static void after_fork_parent(void) { pthread_mutex_unlock(&turn); }
static void after_fork_child(void) {
    if (lock_fd >= 0) close(lock_fd);
    lock_fd = -1;
    atomic_store(&calls, 0);
    pthread_mutex_unlock(&turn);
}

__attribute__((constructor)) static void start(void) {
    real_fsync = (sync_call)dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = (sync_call)dlsym(RTLD_NEXT, "fdatasync");
    if (!real_fsync || !real_fdatasync) die("slow_fsync: dlsym");
    const char *micros = getenv("LITEFLEET_FSYNC_MICROS");
    if (micros) price_micros = strtol(micros, NULL, 10);
    pthread_atfork(before_fork, after_fork_parent, after_fork_child);
}

static void take_turn(void) {
    pthread_mutex_lock(&turn);
    if (lock_fd < 0) {
        const char *path = getenv("LITEFLEET_FSYNC_LOCK");
        lock_fd = open(path ? path : "/tmp/litefleet-fsync.lock", O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (lock_fd < 0) die("slow_fsync: lock file");
    }
    while (flock(lock_fd, LOCK_EX) != 0)
        if (errno != EINTR) die("slow_fsync: flock");
}

static void give_turn(void) {
    flock(lock_fd, LOCK_UN);
    pthread_mutex_unlock(&turn);
}

static int priced(sync_call real, int fd) {
    atomic_fetch_add(&calls, 1);
    if (price_micros <= 0) return real(fd);
    int entry_errno = errno;
    take_turn();
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (price_micros % 1000000) * 1000;
    until.tv_sec += price_micros / 1000000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    errno = entry_errno;
    int result = real(fd);
    int result_errno = errno;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {}
    give_turn();
    errno = result_errno;
    return result;
}

int fsync(int fd) { return priced(real_fsync, fd); }
int fdatasync(int fd) { return priced(real_fdatasync, fd); }

__attribute__((destructor)) static void finish(void) {
    const char *path = getenv("LITEFLEET_FSYNC_COUNT");
    if (!path) return;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return;
    flock(fd, LOCK_EX);
    char text[32] = {0};
    unsigned long before = read(fd, text, sizeof text - 1) > 0 ? strtoul(text, NULL, 10) : 0;
    int length = snprintf(text, sizeof text, "%lu\n", before + atomic_load(&calls));
    if (pwrite(fd, text, length, 0) == length) ftruncate(fd, length);
    close(fd); /* releases the lock */
}
