/* Preloaded into a process, puts its wall clock wrong: CLOCK_REALTIME as it reads it, and the kernel's receive stamps.
 *
 * CLOCK_MONOTONIC stays as it is, so to the process this is a machine with a clock that was set wrong. How wrong, in
 * nanoseconds, is the int64 in the file that SKEW_FILE names, read anew each time: whoever writes there steps the clock.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const int64_t SECOND = 1000000000;
static volatile int64_t *skew;

__attribute__((constructor)) static void open_skew(void)
{
    const char *path = getenv("SKEW_FILE");
    int fd = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
    void *page = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof *skew, PROT_READ, MAP_SHARED, fd, 0);
    if (page == MAP_FAILED) {
        fprintf(stderr, "skewed_clock: SKEW_FILE cannot be read\n");
        abort();
    }
    close(fd);
    skew = page;
}

static void shift(struct timespec *time)
{
    int64_t now = time->tv_sec * SECOND + time->tv_nsec + (skew == NULL ? 0 : *skew);
    time->tv_sec = now / SECOND;
    time->tv_nsec = now % SECOND;
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, now);
    if (result == 0 && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        shift(now);
    return result;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone)
{
    struct timespec time;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &time) < 0)
        return -1;
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *seconds)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (seconds != NULL)
        *seconds = now.tv_sec;
    return now.tv_sec;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    static ssize_t (*real)(int, struct msghdr *, int);
    if (real == NULL)
        real = dlsym(RTLD_NEXT, "recvmsg");
    ssize_t size = real(fd, message, flags);
    if (size < 0)
        return size;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_TIMESTAMPNS)
            continue;
        struct timespec stamp;
        memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
        shift(&stamp);
        memcpy(CMSG_DATA(c), &stamp, sizeof stamp);
    }
    return size;
}
