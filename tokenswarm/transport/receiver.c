/* A thread that waits for sockets, reads them with the kernel's receive stamps and puts what came into a ring.
 *
 * It knows no Python and never holds the GIL, so however busy Python is, chunks are read as they come and none are
 * merged. Python drains the ring in batches when it gets round to it. Not here: the binding (receivermodule.c), and who
 * gets the bytes (receiver.py).
 *
 * Who may touch what:
 *   - Producers (the thread; Python in `receiver_read`) hold `lock`. It guards slots, polls, the offset and the filling
 *     of the ring. Nobody blocks under it: the longest thing done there is one non-blocking recvmsg.
 *   - The ring's one consumer is whoever holds the GIL, and takes no lock.
 *   - `asleep` and `starved` are changed by atomic exchanges alone. Of two exchanges of one variable the later one
 *     sees all that was done before the earlier one, so either the sleeper sees the work or the worker sees the
 *     sleeper, and no wake-up is lost.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bell.h"
#include "clocks.h"
#include "receiver.h"
#include "slots.h"

enum {
    MAX_EVENTS = 512,
    TCP_INQ_NUMBER = 36, /* older headers lack it */
};
enum { BUSY_READS = 8 }; /* in a millisecond */
enum { CLOCK_OF_USER, CLOCK_OF_POLL, CLOCK_OF_KERNEL }; /* as timing.Clock */
_Static_assert(sizeof(struct timespec) == 16, "the kernel's stamp is not what we take it for");

static const uint64_t CONTROL = 0; /* no connection's id: a serial number is at least 1 */
static const int64_t SETTLE_NS = 100000; /* more than passes between a segment's stamp and its socket being readable */
static const int64_t MILLISECOND = 1000000;
static const struct timespec REST = {.tv_nsec = 200000}; /* well below what counts as late */
static const int64_t STEP_NS = 100000; /* the clocks run at one rate: if they are further apart, one has been set */

/* Instants of CLOCK_MONOTONIC in nanoseconds that bound the arrival of what is read now. */
typedef struct {
    int64_t polled_at;     /* what the poll reported was there by then */
    int64_t unready_at;    /* what the poll reported was not yet there then */
    int64_t waiting_since; /* what the poll reported has waited no longer than since then */
} Polls;

struct Receiver {
    Ring ring;
    pthread_mutex_t lock;
    pthread_t thread;
    pid_t pid;
    int epoll, wake, control, schedstat;
    int64_t late_ns;
    Polls polls;
    Slots slots;
    int64_t offset;     /* CLOCK_REALTIME minus CLOCK_MONOTONIC */
    int64_t stepped_at; /* since when the offset is what it is: the wall clock was set not long before */
    /* The thread's own. */
    int64_t next_unready_at, run_delay, counted_since;
    int counted;
    bool busy;
    _Atomic bool asleep, starved, stopping;
    _Atomic uint64_t full_count;
    _Atomic int64_t full_ns, full_since;
};

/* How long this thread has been ready to run and had no processor since the last call; 0 where nobody tells. */
static int64_t take_run_delay(Receiver *r)
{
    char text[96], *rest;
    ssize_t size = r->schedstat < 0 ? -1 : pread(r->schedstat, text, sizeof text - 1, 0);
    if (size <= 0)
        return 0;
    text[size] = '\0';
    strtoll(text, &rest, 10); /* time on a processor comes first */
    int64_t delay = strtoll(rest, NULL, 10);
    int64_t since = delay - r->run_delay;
    r->run_delay = delay;
    return since;
}

/* Python has something to drain. */
static void wake_python(Receiver *r)
{
    if (atomic_exchange(&r->asleep, false))
        ring_bell(r->wake);
}

/* Receiving: all of it under the lock */

static void read_offset(Receiver *r)
{
    int64_t offset = clock_offset();
    if (llabs(offset - r->offset) > STEP_NS)
        r->stepped_at = monotonic();
    r->offset = offset;
}

/* Whether the wall clock that stamped what arrived after `low` is the one of `now`, which was read just before. */
static bool same_clock_since(Receiver *r, int64_t low, int64_t now)
{
    if (llabs(read_clock(CLOCK_REALTIME) - now - r->offset) > STEP_NS) /* or we were held up since `now`: look closely */
        read_offset(r);
    return low - SETTLE_NS >= r->stepped_at;
}

/* (low, at] of the bytes just read at `now`. The stamp is the arrival of the last segment in the read, if that emptied
 * the socket, the stamp is not older than a poll that found nothing (the kernel put segments in order), and the clock
 * that made it has not been set since. `filled`: the read took all that it had room for, and may have ended inside a
 * segment. */
static void bound_arrival(Receiver *r, const Polls *polls, Slot *slot, struct msghdr *message, bool filled, int64_t now,
                          Record *record)
{
    int64_t stamp = 0;
    int unread = -1;
    for (struct cmsghdr *c = CMSG_FIRSTHDR(message); c != NULL; c = CMSG_NXTHDR(message, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_TIMESTAMPNS) {
            struct timespec time;
            memcpy(&time, CMSG_DATA(c), sizeof time);
            stamp = nanoseconds(&time);
        } else if (c->cmsg_level == IPPROTO_TCP && c->cmsg_type == TCP_INQ_NUMBER) {
            memcpy(&unread, CMSG_DATA(c), sizeof unread);
        }
    }
    bool late = now - polls->waiting_since >= r->late_ns;
    bool fresh = slot->undrained_low == 0;
    bool drained = !filled || unread == 0;
    int64_t low = fresh ? later(polls->unready_at, slot->last_at) : slot->undrained_low;
    int64_t at = now;
    record->clock = stamp ? CLOCK_OF_POLL : CLOCK_OF_USER;
    if (stamp && drained && same_clock_since(r, low, now)) {
        at = earlier(stamp - r->offset, now);
        if (fresh && at < polls->unready_at - SETTLE_NS)
            at = later(low, earlier(now, polls->polled_at));
        else
            record->clock = CLOCK_OF_KERNEL;
    }
    at = later(at, slot->last_at); /* never backwards, though two clocks may differ by a little */
    slot->undrained_low = drained ? 0 : low;
    slot->last_at = at;
    record->at = at;
    bool certain = drained && fresh && !late && record->clock != CLOCK_OF_POLL;
    record->low = certain ? at : earlier(low, at);
}

/* Read a slot once, straight into the ring, which has room. */
static void receive(Receiver *r, const Polls *polls, Slot *slot)
{
    Ring *ring = &r->ring;
    union {
        char bytes[128];
        struct cmsghdr align;
    } control;
    struct iovec bytes = {ring_room(ring), ring->read_size};
    struct msghdr message = {
        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = control.bytes, .msg_controllen = sizeof control.bytes};
    ssize_t size = recvmsg(slot->fd, &message, MSG_DONTWAIT);
    if (size < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    int error = size < 0 ? errno : 0;
    int64_t now = monotonic();
    Record *record = ring_next(ring);
    record->id = slot->id;
    record->size = size < 0 ? -error : (int32_t)size;
    if (size > 0) {
        bound_arrival(r, polls, slot, &message, (size_t)size == ring->read_size, now, record);
    } else {
        record->at = record->low = now;
        record->clock = CLOCK_OF_USER;
        epoll_ctl(r->epoll, EPOLL_CTL_DEL, slot->fd, NULL);
        slot->fd = -1;
    }
    ring_publish(ring, record);
}

/* The thread */

/* What the poll that began at `since` and just returned says about arrivals; `complete`: it left none out. `idle`: it
 * waited, because nothing was there at `since`. */
static void note_poll(Receiver *r, int64_t since, bool idle, bool complete)
{
    int64_t now = monotonic();
    Polls polls = {.polled_at = now, .unready_at = r->next_unready_at};
    polls.waiting_since = polls.unready_at;
    if (idle) {
        /* The first arrival made this thread ready to run; it may have had to wait for a processor. */
        int64_t delay = now - since < r->late_ns ? now - since : earlier(take_run_delay(r), now - since);
        polls.unready_at = since;
        polls.waiting_since = now - delay;
        since = later(since, polls.waiting_since - SETTLE_NS);
    }
    if (complete)
        r->next_unready_at = since;
    pthread_mutex_lock(&r->lock);
    r->polls = polls;
    read_offset(r);
    pthread_mutex_unlock(&r->lock);
}

/* The ring is full: leave the bytes with the kernel until Python has drained. False: stop. */
static bool await_room(Receiver *r)
{
    int64_t since = monotonic();
    atomic_store(&r->full_since, since);
    atomic_fetch_add(&r->full_count, 1);
    wake_python(r);
    for (;;) {
        atomic_exchange(&r->starved, true);
        pthread_mutex_lock(&r->lock);
        bool room = ring_has_room(&r->ring);
        r->polls.polled_at = monotonic();
        read_offset(r);
        pthread_mutex_unlock(&r->lock);
        if (room || atomic_load(&r->stopping))
            break;
        struct pollfd bell = {r->control, POLLIN, 0};
        poll(&bell, 1, -1);
        silence_bell(r->control);
    }
    atomic_exchange(&r->starved, false);
    atomic_store(&r->full_since, 0);
    atomic_fetch_add(&r->full_ns, monotonic() - since);
    return !atomic_load(&r->stopping);
}

static bool serve(Receiver *r, uint64_t id)
{
    if (id == CONTROL) {
        silence_bell(r->control);
        return !atomic_load(&r->stopping);
    }
    for (;;) {
        pthread_mutex_lock(&r->lock);
        bool room = ring_has_room(&r->ring);
        /* Removed since the poll? Then the descriptor may be another connection's already. */
        Slot *slot = slots_find(&r->slots, id);
        if (room && slot != NULL && slot->fd >= 0)
            receive(r, &r->polls, slot);
        pthread_mutex_unlock(&r->lock);
        if (room || slot == NULL)
            return true;
        if (!await_room(r))
            return false;
    }
}

/* Where chunks come thick and fast, let some gather: a wake-up for each would cost more than reading it, and the
 * kernel's stamps lose nothing by it. */
static void rest_if_busy(Receiver *r, int count)
{
    int64_t now = monotonic();
    r->counted += count;
    if (now - r->counted_since >= MILLISECOND) {
        r->busy = r->counted >= BUSY_READS;
        r->counted = 0;
        r->counted_since = now;
    }
    if (r->busy)
        nanosleep(&REST, NULL);
}

static void *run(void *argument)
{
    Receiver *r = argument;
    struct epoll_event events[MAX_EVENTS];
    r->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
    take_run_delay(r);
    for (bool on = true; on;) {
        /* Look first and wait only if nothing was there: then nothing that comes out of the wait can be older. */
        int64_t since = monotonic();
        int count = epoll_wait(r->epoll, events, MAX_EVENTS, 0);
        bool idle = count == 0;
        if (idle)
            count = epoll_wait(r->epoll, events, MAX_EVENTS, -1);
        if (count < 0 && errno != EINTR)
            break;
        note_poll(r, since, idle, count >= 0 && count < MAX_EVENTS);
        for (int i = 0; i < count && on; i++)
            on = serve(r, events[i].data.u64);
        if (ring_is_filled(&r->ring))
            wake_python(r);
        rest_if_busy(r, count);
    }
    return NULL;
}

/* Life and death */

static void release(Receiver *r)
{
    int descriptors[] = {r->epoll, r->wake, r->control, r->schedstat};
    for (size_t i = 0; i < sizeof descriptors / sizeof *descriptors; i++)
        if (descriptors[i] >= 0)
            close(descriptors[i]);
    ring_free(&r->ring);
    free(r->slots.slots);
    free(r);
}

static int start_thread(Receiver *r)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before); /* Python's signals are for Python's threads */
    int error = pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

Receiver *receiver_start(size_t records, size_t bytes, int64_t late_ns)
{
    Receiver *r = aligned_alloc(CACHE_LINE, (sizeof *r + CACHE_LINE - 1) / CACHE_LINE * CACHE_LINE);
    if (r == NULL)
        return NULL;
    memset(r, 0, sizeof *r);
    r->pid = getpid();
    r->late_ns = late_ns;
    r->next_unready_at = monotonic();
    r->offset = clock_offset();
    r->asleep = true;
    r->schedstat = -1; /* the thread opens its own */
    r->epoll = epoll_create1(EPOLL_CLOEXEC);
    r->wake = make_bell();
    r->control = make_bell();
    struct epoll_event event = {EPOLLIN, {.u64 = CONTROL}};
    int error = 0;
    if (!ring_allocate(&r->ring, records, bytes))
        error = ENOMEM;
    else if (r->epoll < 0 || r->wake < 0 || r->control < 0 ||
             epoll_ctl(r->epoll, EPOLL_CTL_ADD, r->control, &event) < 0)
        error = errno;
    if (!error) {
        pthread_mutex_init(&r->lock, NULL);
        error = start_thread(r);
    }
    if (error) {
        release(r);
        errno = error;
        return NULL;
    }
    return r;
}

bool receiver_is_ours(const Receiver *r)
{
    return r->pid == getpid();
}

void receiver_stop(Receiver *r)
{
    if (receiver_is_ours(r)) {
        atomic_store(&r->stopping, true);
        ring_bell(r->control);
        pthread_join(r->thread, NULL);
        pthread_mutex_destroy(&r->lock);
    }
    release(r);
}

/* What Python calls */

int receiver_add(Receiver *r, int fd, uint64_t *id)
{
    int error = 0;
    pthread_mutex_lock(&r->lock);
    Slot *slot = slots_take(&r->slots, fd, monotonic());
    if (slot == NULL) {
        error = ENOMEM;
    } else {
        *id = slot->id;
        struct epoll_event event = {EPOLLIN, {.u64 = slot->id}};
        if (epoll_ctl(r->epoll, EPOLL_CTL_ADD, fd, &event) < 0) {
            error = errno;
            slots_give(&r->slots, slot);
        }
    }
    pthread_mutex_unlock(&r->lock);
    return error;
}

void receiver_remove(Receiver *r, uint64_t id)
{
    pthread_mutex_lock(&r->lock);
    Slot *slot = slots_find(&r->slots, id);
    if (slot != NULL) {
        if (slot->fd >= 0)
            epoll_ctl(r->epoll, EPOLL_CTL_DEL, slot->fd, NULL);
        slots_give(&r->slots, slot);
    }
    pthread_mutex_unlock(&r->lock);
}

void receiver_read(Receiver *r, uint64_t id)
{
    pthread_mutex_lock(&r->lock);
    Slot *slot = slots_find(&r->slots, id);
    if (slot != NULL && slot->fd >= 0 && ring_has_room(&r->ring)) {
        /* Our own look at it, between two polls of the thread's. */
        Polls polls = r->polls;
        polls.waiting_since = polls.unready_at;
        polls.polled_at = monotonic();
        receive(r, &polls, slot);
    }
    pthread_mutex_unlock(&r->lock);
}

int receiver_fileno(const Receiver *r)
{
    return r->wake;
}

void receiver_ring_bell(Receiver *r)
{
    ring_bell(r->wake);
}

Ring *receiver_ring(Receiver *r)
{
    return &r->ring;
}

void receiver_drained(Receiver *r)
{
    /* The bell stays rung until the ring is empty, so a half-free ring is sure to come. */
    if (ring_is_half_free(&r->ring) && atomic_exchange(&r->starved, false))
        ring_bell(r->control);
    if (ring_is_filled(&r->ring))
        return;
    silence_bell(r->wake);
    atomic_exchange(&r->asleep, true);
    if (ring_is_filled(&r->ring))
        wake_python(r);
}

void receiver_full(Receiver *r, uint64_t *count, int64_t *ns)
{
    int64_t since = atomic_load(&r->full_since);
    *count = atomic_load(&r->full_count);
    *ns = atomic_load(&r->full_ns) + (since ? monotonic() - since : 0);
}
