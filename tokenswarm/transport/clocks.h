/* Clock readings in nanoseconds. */
#ifndef TOKENSWARM_CLOCKS_H
#define TOKENSWARM_CLOCKS_H

#include <stdint.h>
#include <time.h>

static inline int64_t nanoseconds(const struct timespec *time)
{
    return time->tv_sec * INT64_C(1000000000) + time->tv_nsec;
}

static inline int64_t read_clock(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return nanoseconds(&now);
}

static inline int64_t monotonic(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

/* CLOCK_REALTIME minus CLOCK_MONOTONIC: the tightest of up to four readings, as one may have been preempted. */
static inline int64_t clock_offset(void)
{
    int64_t offset = 0, tightest = INT64_MAX;
    for (int i = 0; i < 4 && tightest > 1000; i++) {
        int64_t before = monotonic();
        int64_t real = read_clock(CLOCK_REALTIME);
        int64_t after = monotonic();
        if (after - before < tightest) {
            tightest = after - before;
            offset = real - (before + tightest / 2);
        }
    }
    return offset;
}

static inline int64_t later(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

static inline int64_t earlier(int64_t a, int64_t b)
{
    return a < b ? a : b;
}
#endif
