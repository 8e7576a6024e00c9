/* LD_PRELOADed into a process, gives it a wall clock that can be set without touching the machine's.
 *
 * From `set_wall_clock(ns)` on, CLOCK_REALTIME reads `ns` more than before, and so do the kernel's stamps of what
 * arrives from then on; what had arrived before keeps the stamp of the old clock, as on a machine whose clock is set.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

static _Atomic int64_t added, since = INT64_MAX; /* nanoseconds; of the machine's own clock */

static int (*real_clock_gettime)(clockid_t, struct timespec *);
static ssize_t (*real_recvmsg)(int, struct msghdr *, int);

__attribute__((constructor)) static void find_the_real_ones(void)
{
    real_clock_gettime = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    real_recvmsg = (ssize_t (*)(int, struct msghdr *, int))dlsym(RTLD_NEXT, "recvmsg");
}

static void shift(struct timespec *time)
{
    int64_t ns = time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
    if (ns >= atomic_load(&since)) {
        ns += atomic_load(&added);
        time->tv_sec = ns / 1000000000;
        time->tv_nsec = ns % 1000000000;
    }
}

void set_wall_clock(int64_t ns)
{
    struct timespec now;
    real_clock_gettime(CLOCK_REALTIME, &now);
    atomic_store(&added, ns);
    atomic_store(&since, now.tv_sec * INT64_C(1000000000) + now.tv_nsec);
}

int clock_gettime(clockid_t clock, struct timespec *time)
{
    if (!real_clock_gettime)
        find_the_real_ones();
    int result = real_clock_gettime(clock, time);
    if (result == 0 && clock == CLOCK_REALTIME)
        shift(time);
    return result;
}

int gettimeofday(struct timeval *time, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    time->tv_sec = now.tv_sec;
    time->tv_usec = now.tv_nsec / 1000;
    return 0;
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
    ssize_t size = real_recvmsg(fd, message, flags);
    if (size < 0)
        return size;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c))
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec stamp;
            memcpy(&stamp, CMSG_DATA(c), sizeof stamp);
            shift(&stamp);
            memcpy(CMSG_DATA(c), &stamp, sizeof stamp);
        }
    return size;
}
