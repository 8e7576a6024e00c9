/* What the binding to Python (receivermodule.c) needs of the receive thread (receiver.c). Instants and times are
 * CLOCK_MONOTONIC nanoseconds. */
#ifndef TOKENSWARM_RECEIVER_H
#define TOKENSWARM_RECEIVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "ring.h"

typedef struct Receiver Receiver;

/* Starts the thread. `late_ns`: a thread kept busy for less before a read is not late. NULL with errno set. */
Receiver *receiver_start(size_t records, size_t bytes, int64_t late_ns);
/* Joins the thread and frees everything; in a process forked since, where there is no thread, frees only. */
void receiver_stop(Receiver *r);
/* Whether this process started it, and not one that it was forked from. */
bool receiver_is_ours(const Receiver *r);
/* From now on the thread reads this socket. 0, or the error's number. */
int receiver_add(Receiver *r, int fd, uint64_t *id);
/* From now on the thread does not touch the socket's descriptor. */
void receiver_remove(Receiver *r, uint64_t id);
/* Read one socket here and now, if there is room; what comes of it is in the ring. */
void receiver_read(Receiver *r, uint64_t id);
/* Readable while there is something in the ring. */
int receiver_fileno(const Receiver *r);
void receiver_ring_bell(Receiver *r);
/* For the one consumer. */
Ring *receiver_ring(Receiver *r);
/* After consuming: wakes the thread if it waits for room, and goes to sleep if nothing is left. */
void receiver_drained(Receiver *r);
/* How often the ring was full so far, and for how long altogether. */
void receiver_full(Receiver *r, uint64_t *count, int64_t *ns);
#endif
