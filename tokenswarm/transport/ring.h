/* A bounded queue of reads: records, and the bytes that belong to them, each read in one piece.
 *
 * Any number of producers that exclude each other by a lock of their own, and one consumer that takes none: `head`
 * publishes records to it, `tail` and `tail_position` give their room back. Positions count bytes since the beginning
 * and never wrap; their place in the buffer is the position modulo its size.
 */
#ifndef TOKENSWARM_RING_H
#define TOKENSWARM_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { CACHE_LINE = 64, MOST_BYTES_A_READ = 65536, LEAST_BYTES_A_READ = 64 };

typedef struct {
    uint64_t id;
    int64_t at, low; /* CLOCK_MONOTONIC nanoseconds: the bytes arrived in (low, at] */
    uint64_t position;
    int32_t size; /* bytes; 0: end of stream; negative: the error's number */
    int clock; /* where `at` comes from: the values of timing.Clock */
} Record;

typedef struct {
    Record *records;
    char *bytes;
    uint64_t record_count, byte_count; /* powers of two */
    size_t read_size;                  /* what a read may bring; a quarter of the buffer at most */
    uint64_t position;                 /* the producers': where the next read goes */
    _Alignas(CACHE_LINE) _Atomic uint64_t head; /* records published so far */
    _Alignas(CACHE_LINE) _Atomic uint64_t tail; /* records consumed so far */
    _Atomic uint64_t tail_position;
} Ring;

/* Sizes are rounded up to powers of two. False: no memory. */
static inline bool ring_allocate(Ring *ring, size_t records, size_t bytes)
{
    ring->record_count = 1;
    while (ring->record_count < records)
        ring->record_count *= 2;
    ring->byte_count = 4 * LEAST_BYTES_A_READ;
    while (ring->byte_count < bytes)
        ring->byte_count *= 2;
    ring->read_size = ring->byte_count / 4 < MOST_BYTES_A_READ ? ring->byte_count / 4 : MOST_BYTES_A_READ;
    ring->records = malloc(ring->record_count * sizeof *ring->records);
    ring->bytes = malloc(ring->byte_count);
    return ring->records != NULL && ring->bytes != NULL;
}

static inline void ring_free(Ring *ring)
{
    free(ring->records);
    free(ring->bytes);
}

/* Producer: whether one more read fits, wherever it must begin to lie in one piece. */
static inline bool ring_has_room(Ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    if (head - atomic_load_explicit(&ring->tail, memory_order_acquire) >= ring->record_count)
        return false;
    uint64_t left = ring->byte_count - (ring->position & (ring->byte_count - 1));
    uint64_t begin = ring->position + (left < ring->read_size ? left : 0);
    if (begin + ring->read_size - atomic_load_explicit(&ring->tail_position, memory_order_acquire) > ring->byte_count)
        return false;
    ring->position = begin;
    return true;
}

/* Producer, when there is room: where the next read goes. */
static inline char *ring_room(Ring *ring)
{
    return ring->bytes + (ring->position & (ring->byte_count - 1));
}

/* Producer, when there is room: the record to fill in, then to publish. */
static inline Record *ring_next(Ring *ring)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    Record *record = &ring->records[head & (ring->record_count - 1)];
    record->position = ring->position;
    return record;
}

static inline uint64_t ring_end(const Record *record)
{
    return record->position + (record->size > 0 ? (uint64_t)record->size : 0);
}

static inline void ring_publish(Ring *ring, const Record *record)
{
    uint64_t head = atomic_load_explicit(&ring->head, memory_order_relaxed);
    ring->position = ring_end(record);
    atomic_store_explicit(&ring->head, head + 1, memory_order_release);
}

/* Anybody: whether there is something to consume. */
static inline bool ring_is_filled(Ring *ring)
{
    return atomic_load_explicit(&ring->head, memory_order_acquire) !=
           atomic_load_explicit(&ring->tail, memory_order_acquire);
}

/* Consumer: the record that lies `index` behind the oldest, NULL if there are not so many. */
static inline const Record *ring_peek(Ring *ring, uint64_t index)
{
    uint64_t place = atomic_load_explicit(&ring->tail, memory_order_relaxed) + index;
    if (place == atomic_load_explicit(&ring->head, memory_order_acquire))
        return NULL;
    return &ring->records[place & (ring->record_count - 1)];
}

/* Consumer: the bytes of a record. */
static inline const char *ring_bytes(const Ring *ring, const Record *record)
{
    return ring->bytes + (record->position & (ring->byte_count - 1));
}

/* Consumer: the oldest `count` records, at least one, are done with. */
static inline void ring_consume(Ring *ring, uint64_t count)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed) + count;
    uint64_t position = ring_end(&ring->records[(tail - 1) & (ring->record_count - 1)]);
    atomic_store_explicit(&ring->tail_position, position, memory_order_release);
    atomic_store_explicit(&ring->tail, tail, memory_order_release);
}

/* Consumer: at least half of records and bytes are free. */
static inline bool ring_is_half_free(Ring *ring)
{
    uint64_t tail = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    uint64_t used = atomic_load_explicit(&ring->head, memory_order_acquire) - tail;
    if (used == 0)
        return true;
    const Record *newest = &ring->records[(tail + used - 1) & (ring->record_count - 1)];
    uint64_t bytes = ring_end(newest) - atomic_load_explicit(&ring->tail_position, memory_order_relaxed);
    return used <= ring->record_count / 2 && bytes <= ring->byte_count / 2;
}
#endif
