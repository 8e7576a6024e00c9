/* The sockets that are being read, found by ids that never mean two of them, however often descriptors are reused. */
#ifndef TOKENSWARM_SLOTS_H
#define TOKENSWARM_SLOTS_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

enum { SLOT_BITS = 24 }; /* of an id; the others are a serial number, at least 1 */

typedef struct {
    uint64_t id; /* 0: free */
    int fd;      /* -1: has ended and is read no more */
    uint32_t next_free;
    int64_t last_at;       /* when what was read last arrived; nothing read later arrived before */
    int64_t undrained_low; /* lower bound of what the last read left behind; 0: it left nothing */
} Slot;

typedef struct {
    Slot *slots;
    uint32_t count, first_free; /* no free one: first_free equals count */
    uint64_t serial;
} Slots;

/* NULL once it has been given back. */
static inline Slot *slots_find(const Slots *table, uint64_t id)
{
    uint64_t index = id & ((1u << SLOT_BITS) - 1);
    if (id == 0 || index >= table->count || table->slots[index].id != id)
        return NULL;
    return &table->slots[index];
}

/* NULL: no memory. Moves the others. */
static inline Slot *slots_take(Slots *table, int fd, int64_t now)
{
    if (table->first_free == table->count) {
        uint32_t count = table->count ? table->count * 2 : 64;
        Slot *slots = count > 1u << SLOT_BITS ? NULL : realloc(table->slots, count * sizeof *slots);
        if (slots == NULL)
            return NULL;
        for (uint32_t i = table->count; i < count; i++)
            slots[i] = (Slot){.next_free = i + 1};
        table->slots = slots;
        table->count = count;
    }
    uint32_t index = table->first_free;
    Slot *slot = &table->slots[index];
    table->first_free = slot->next_free;
    *slot = (Slot){.id = ++table->serial << SLOT_BITS | index, .fd = fd, .last_at = now};
    return slot;
}

static inline void slots_give(Slots *table, Slot *slot)
{
    *slot = (Slot){.next_free = table->first_free};
    table->first_free = (uint32_t)(slot - table->slots);
}
#endif
