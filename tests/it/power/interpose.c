// Stands between a program and the C library's file calls (LD_PRELOAD), for the tests in
// this directory alone.
//
// Of every file below the directory POWER_DIR it
//
// - appends each write, truncation, creation, removal, renaming and sync to the trace at
//   POWER_TRACE, in the order in which they took effect, with their bytes;
// - lets the n-th call of a chosen kind on a chosen file fail, or write only a half, as
//   the rules at POWER_CONTROL say: a file that the test writes while the program runs.
//
// It does not sync: the tests decide from the trace what a power cut leaves, so what
// reaches the real disk is of no interest, and the program is much faster.
//
// What goes past the C library (raw system calls, shared memory) is not seen. The tests
// compare the trace with the real files, so that nobody takes it for whole when it is not.
//
// `trace.rs` reads the records, `control.rs` writes the rules: keep all three together.

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define MAX_FD 65536
#define RULES 16
// Others write meanwhile, and the next group gathers, as on a real disk.
#define SYNC_MICROSECONDS 300

enum kind { OPENED = 1, CREATED, WRITTEN, TRUNCATED, SYNC_BEGUN, SYNC_ENDED, REMOVED, RENAMED };

// What a rule may be about; 0 in a rule means any.
enum call { WRITE = 1, TRUNCATE, SYNC, OPEN, REMOVE, RENAME, ALLOCATE, READ };
enum role { DATABASE = 1, LOG, SHARED_MEMORY, DIRECTORY, OTHER };

struct rule {
    uint32_t call;   // 0: no rule
    uint32_t role;
    uint32_t from;   // the first matching call that it affects, counted from 1
    uint32_t until;  // the last
    uint32_t error;  // errno; 0: a write of more than one byte writes only a half
    uint32_t seen;   // matching calls so far
    uint32_t hits;   // calls affected so far
    uint32_t page;   // of a read: the page of 4 KiB, counted from 1; 0: any
};

struct record {
    uint32_t kind;
    uint32_t failed;
    uint64_t file;    // the inode's number
    uint64_t offset;  // of a write; the length of a truncation; the number of a sync
    uint64_t length;  // of what follows: bytes written, a path, two paths with a 0 between
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *directory;
static size_t directory_length;
static int trace = -1;
static struct rule *rules;
static uint64_t syncs;
static struct { uint64_t file; enum role role; } open_files[MAX_FD];

static int (*real_open)(const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_pread)(int, void *, size_t, off64_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_writev)(int, const struct iovec *, int);
static int (*real_ftruncate)(int, off64_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_fallocate)(int, off64_t, off64_t);
static int (*real_unlink)(const char *);
static int (*real_unlinkat)(int, const char *, int);
static int (*real_rename)(const char *, const char *);

static void give_up(const char *what) {
    fprintf(stderr, "interpose.c: %s: %s\n", what, strerror(errno));
    abort();
}

static const char *needed(const char *name) {
    const char *value = getenv(name);
    if (!value) give_up(name);
    return value;
}

__attribute__((constructor)) static void start(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_pread = dlsym(RTLD_NEXT, "pread64");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_write = dlsym(RTLD_NEXT, "write");
    real_writev = dlsym(RTLD_NEXT, "writev");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fallocate = dlsym(RTLD_NEXT, "posix_fallocate64");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_unlinkat = dlsym(RTLD_NEXT, "unlinkat");
    real_rename = dlsym(RTLD_NEXT, "rename");
    directory = needed("POWER_DIR");
    directory_length = strlen(directory);
    trace = real_open(needed("POWER_TRACE"), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
    if (trace < 0) give_up("POWER_TRACE");
    int control = real_open(needed("POWER_CONTROL"), O_RDWR | O_CLOEXEC);
    if (control < 0) give_up("POWER_CONTROL");
    rules = mmap(0, sizeof(struct rule) * RULES, PROT_READ | PROT_WRITE, MAP_SHARED, control, 0);
    if (rules == MAP_FAILED) give_up("POWER_CONTROL");
    real_close(control);
}

// One system call for each record: the test appends its own records to the same file.
static void note(enum kind kind, int failed, uint64_t file, uint64_t offset,
                 const struct iovec *parts, int count) {
    struct iovec all[count + 1];
    struct record record = {kind, (uint32_t)failed, file, offset, 0};
    for (int i = 0; i < count; i++) {
        all[i + 1] = parts[i];
        record.length += parts[i].iov_len;
    }
    all[0] = (struct iovec){&record, sizeof record};
    ssize_t whole = (ssize_t)(sizeof record + record.length);
    if (real_writev(trace, all, count + 1) != whole) give_up("the trace");
}

static void note_bytes(enum kind kind, uint64_t file, uint64_t offset, const void *bytes, size_t length) {
    struct iovec part = {(void *)bytes, length};
    note(kind, 0, file, offset, &part, 1);
}

static int is_below(const char *path) {
    return !strncmp(path, directory, directory_length) &&
           (path[directory_length] == '/' || path[directory_length] == 0);
}

static int ends_with(const char *path, const char *end) {
    size_t path_length = strlen(path), end_length = strlen(end);
    return path_length >= end_length && !strcmp(path + path_length - end_length, end);
}

static enum role role_of(const char *path) {
    if (ends_with(path, "-wal")) return LOG;
    if (ends_with(path, "-shm")) return SHARED_MEMORY;
    if (ends_with(path, ".db")) return DATABASE;
    return strlen(path) == directory_length ? DIRECTORY : OTHER;
}

// The rule that this call falls under, if any. Every rule counts for itself.
static struct rule *affected(enum call call, enum role role, uint64_t page) {
    struct rule *found = 0;
    for (int i = 0; i < RULES; i++) {
        struct rule *rule = &rules[i];
        if (__atomic_load_n(&rule->call, __ATOMIC_ACQUIRE) != call) continue;
        if (rule->role && rule->role != role) continue;
        if (rule->page && rule->page != page) continue;
        uint32_t seen = __atomic_add_fetch(&rule->seen, 1, __ATOMIC_ACQ_REL);
        if (!found && seen >= rule->from && seen <= rule->until) {
            __atomic_add_fetch(&rule->hits, 1, __ATOMIC_ACQ_REL);
            found = rule;
        }
    }
    return found;
}

static int fails_at(enum call call, enum role role, uint64_t page) {
    struct rule *rule = affected(call, role, page);
    if (!rule || !rule->error) return 0;
    errno = (int)rule->error;
    return 1;
}

static int fails(enum call call, enum role role) { return fails_at(call, role, 0); }

static uint64_t tracked(int fd) { return fd >= 0 && fd < MAX_FD ? open_files[fd].file : 0; }

static int opened(const char *path, int flags, mode_t mode) {
    if (!is_below(path)) return real_open(path, flags, mode);
    pthread_mutex_lock(&lock);
    int fd = -1;
    if (!fails(OPEN, role_of(path))) {
        int made = (flags & O_CREAT) && access(path, F_OK) != 0;
        fd = real_open(path, flags, mode);
        struct stat status;
        if (fd >= 0 && fd < MAX_FD && !fstat(fd, &status)) {
            open_files[fd].file = status.st_ino;
            open_files[fd].role = role_of(path);
            note_bytes(made ? CREATED : OPENED, status.st_ino, 0, path, strlen(path));
            if (flags & O_TRUNC) note(TRUNCATED, 0, status.st_ino, 0, 0, 0);
        }
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE(flags, mode)                          \
    mode_t mode = 0;                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {         \
        va_list rest;                              \
        va_start(rest, flags);                     \
        mode = (mode_t)va_arg(rest, int);          \
        va_end(rest);                              \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(path, flags, mode);
}

int open64(const char *path, int flags, ...) {
    MODE(flags, mode)
    return opened(path, flags, mode);
}

int openat(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    if (path[0] == '/') return opened(path, flags, mode);
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, mode)
    if (path[0] == '/') return opened(path, flags, mode);
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

int close(int fd) {
    if (tracked(fd)) {
        pthread_mutex_lock(&lock);
        open_files[fd].file = 0;
        pthread_mutex_unlock(&lock);
    }
    return real_close(fd);
}

// SQLite reads a page at a time. Of what is read there is no record.
static ssize_t was_read(int fd, void *bytes, size_t length, off64_t offset) {
    if (tracked(fd) && fails_at(READ, open_files[fd].role, (uint64_t)offset / 4096 + 1)) return -1;
    return real_pread(fd, bytes, length, offset);
}

ssize_t pread64(int fd, void *bytes, size_t length, off64_t offset) {
    return was_read(fd, bytes, length, offset);
}

ssize_t pread(int fd, void *bytes, size_t length, off_t offset) {
    return was_read(fd, bytes, length, offset);
}

// Writes at `offset`, or at the file's own position if it is negative.
static ssize_t written(int fd, const void *bytes, size_t length, off64_t offset) {
    if (!tracked(fd))
        return offset < 0 ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
    pthread_mutex_lock(&lock);
    ssize_t count = -1;
    struct rule *rule = affected(WRITE, open_files[fd].role, 0);
    if (rule && rule->error) {
        errno = (int)rule->error;
    } else {
        if (rule && length > 1) length /= 2;
        off64_t at = offset < 0 ? lseek64(fd, 0, SEEK_CUR) : offset;
        count = offset < 0 ? real_write(fd, bytes, length) : real_pwrite(fd, bytes, length, offset);
        if (count > 0) note_bytes(WRITTEN, tracked(fd), (uint64_t)at, bytes, (size_t)count);
    }
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return count;
}

ssize_t write(int fd, const void *bytes, size_t length) { return written(fd, bytes, length, -1); }

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    return written(fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return written(fd, bytes, length, offset);
}

// The first part alone, as the system may do too.
ssize_t writev(int fd, const struct iovec *parts, int count) {
    if (!tracked(fd) || count < 1) return real_writev(fd, parts, count);
    return written(fd, parts[0].iov_base, parts[0].iov_len, -1);
}

static int truncated(int fd, off64_t length) {
    if (!tracked(fd)) return real_ftruncate(fd, length);
    pthread_mutex_lock(&lock);
    int result = fails(TRUNCATE, open_files[fd].role) ? -1 : real_ftruncate(fd, length);
    if (!result) note(TRUNCATED, 0, tracked(fd), (uint64_t)length, 0, 0);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncated(fd, length); }

// Room that is set aside becomes a part of the file when it lies beyond its end.
static int allocated(int fd, off64_t offset, off64_t length) {
    if (!tracked(fd)) return real_fallocate(fd, offset, length);
    pthread_mutex_lock(&lock);
    struct stat status;
    int result = fails(ALLOCATE, open_files[fd].role) ? errno : real_fallocate(fd, offset, length);
    if (!result && !fstat(fd, &status)) note(TRUNCATED, 0, tracked(fd), (uint64_t)status.st_size, 0, 0);
    pthread_mutex_unlock(&lock);
    return result;
}

int posix_fallocate(int fd, off_t offset, off_t length) { return allocated(fd, offset, length); }
int posix_fallocate64(int fd, off64_t offset, off64_t length) { return allocated(fd, offset, length); }

// A sync covers what was written before it began.
static int synced(int fd, int (*real)(int)) {
    if (!tracked(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    uint64_t file = tracked(fd), number = ++syncs + ((uint64_t)getpid() << 32);
    note(SYNC_BEGUN, 0, file, number, 0, 0);
    pthread_mutex_unlock(&lock);
    usleep(SYNC_MICROSECONDS);
    pthread_mutex_lock(&lock);
    int failed = fails(SYNC, open_files[fd].role), error = errno;
    note(SYNC_ENDED, failed, file, number, 0, 0);
    pthread_mutex_unlock(&lock);
    if (failed) errno = error;
    return failed ? -1 : 0;
}

int fsync(int fd) { return synced(fd, real_fsync); }
int fdatasync(int fd) { return synced(fd, real_fdatasync); }

static int removed(int at, const char *path, int flags) {
    if (!is_below(path)) return at == AT_FDCWD && !flags ? real_unlink(path) : real_unlinkat(at, path, flags);
    pthread_mutex_lock(&lock);
    int result = fails(REMOVE, role_of(path)) ? -1 : real_unlinkat(at, path, flags);
    if (!result) note_bytes(REMOVED, 0, 0, path, strlen(path));
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

int unlink(const char *path) { return removed(AT_FDCWD, path, 0); }
int unlinkat(int at, const char *path, int flags) { return removed(at, path, flags); }

int rename(const char *from, const char *to) {
    if (!is_below(from) && !is_below(to)) return real_rename(from, to);
    pthread_mutex_lock(&lock);
    int result = fails(RENAME, role_of(from)) ? -1 : real_rename(from, to);
    struct iovec paths[] = {{(void *)from, strlen(from) + 1}, {(void *)to, strlen(to)}};
    if (!result) note(RENAMED, 0, 0, 0, paths, 2);
    int error = errno;
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
