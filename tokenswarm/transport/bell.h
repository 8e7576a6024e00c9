/* A bell is an eventfd: rung to wake whoever polls it, silenced when he is up. */
#ifndef TOKENSWARM_BELL_H
#define TOKENSWARM_BELL_H

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* -1 with errno set. */
static inline int make_bell(void)
{
    return eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static inline void ring_bell(int bell)
{
    uint64_t one = 1;
    while (write(bell, &one, sizeof one) < 0 && errno == EINTR)
        ;
}

static inline void silence_bell(int bell)
{
    uint64_t count;
    while (read(bell, &count, sizeof count) < 0 && errno == EINTR)
        ;
}
#endif
