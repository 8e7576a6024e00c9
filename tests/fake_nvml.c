/* Stands in for libnvidia-ml.so.1: the functions that the exporter asks, with NVML's own signatures and error codes.
 *
 * FAKE_NVML names a script, which is read again whenever it changes. A line is one of
 *
 *     cards 0 1 5                     physical numbers of the cards that are listed, in this order
 *     init 9                          what nvmlInit returns
 *     epoch 2                         changed while it runs: the driver restarted, all is uninitialized until nvmlInit
 *     CARD NAME VALUE                 what CARD (a physical number, or * for all) answers; see `defaults` for the names
 *     CARD NAME square LOW HIGH T     LOW and HIGH in turn, each for half of T seconds of CLOCK_MONOTONIC
 *     CARD NAME error CODE            the call fails; NAME * is every call with this card's handle
 *     CARD NAME hang SECONDS          the call takes this long
 *     CARD mig N                      split into N MIG instances
 *     CARD zeroes 1                   answers 0 to what NVML calls unsupported on a split card
 *     CARD process PID BYTES          computes; may be repeated
 *
 * and what comes later wins. A card's energy is the integral of its power. FAKE_NVML_LOG names a file that gets a line
 * for every call with a handle: its name and the card.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "fake_nvml_script.h"

/* What a call about `name` returns, and the value if it is OK. */
static Return ask(Device *device, const char *name, double *value)
{
    double ignored;
    reread();
    if (!initialized)
        return UNINITIALIZED;
    if (!device)
        return INVALID;
    note(name, device->card);
    const Rule *all = find(device->card, "*"), *rule = find(device->card, name);
    if (all && strcmp(all->how, "error") == 0)
        return (int)all->value[0];
    if (rule && strcmp(rule->how, "hang") == 0) {
        struct timespec time = {(time_t)rule->value[0], (long)((rule->value[0] - (double)(time_t)rule->value[0]) * 1e9)};
        nanosleep(&time, NULL);
    }
    if (rule && strcmp(rule->how, "error") == 0)
        return (int)rule->value[0];
    *value = worth(device->card, name, now(), &ignored);
    return OK;
}

static int is_split(Device *device)
{
    return device->instance < 0 && find(device->card, "mig") && find(device->card, "mig")->value[0] > 0;
}

/* Questions that neither MIG instances nor, if `parent` is 0, split cards answer. */
static Return ask_whole(Device *device, const char *name, double *value, int parent)
{
    Return result = ask(device, name, value);
    if (result == OK && !parent && is_split(device) && find(device->card, "zeroes"))
        return *value = 0, OK;
    if (result == OK && (device->instance >= 0 || (!parent && is_split(device))))
        return UNSUPPORTED;
    return result;
}

static Return ask_number(Device *device, const char *name, unsigned *number, int parent)
{
    double value;
    Return result = ask_whole(device, name, &value, parent);
    if (result == OK)
        *number = (unsigned)value;
    return result;
}

Return nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    reread();
    if (script.init)
        return script.init;
    spend();
    initialized = 1;
    return OK;
}

Return nvmlInit_v2(void) { return nvmlInitWithFlags(0); }

Return nvmlShutdown(void)
{
    int was = initialized;
    initialized = 0;
    return was ? OK : UNINITIALIZED;
}

const char *nvmlErrorString(Return code)
{
    (void)code;
    return "an error of the stand-in";
}

Return nvmlSystemGetDriverVersion(char *text, unsigned size) { return snprintf(text, size, "570.00.01") < 0; }
Return nvmlSystemGetNVMLVersion(char *text, unsigned size) { return snprintf(text, size, "12.570.00.01") < 0; }
Return nvmlSystemGetCudaDriverVersion(int *version) { return *version = 12080, OK; }

Return nvmlDeviceGetCount_v2(unsigned *count)
{
    reread();
    *count = (unsigned)script.count;
    return initialized ? OK : UNINITIALIZED;
}

Return nvmlDeviceGetHandleByIndex_v2(unsigned index, Device **device)
{
    reread();
    if (!initialized)
        return UNINITIALIZED;
    if (index >= (unsigned)script.count)
        return INVALID;
    int card = script.listed[index];
    const Rule *all = find(card, "*");
    if (all && strcmp(all->how, "error") == 0)
        return (int)all->value[0];
    devices[card][0] = (Device){card, -1};
    *device = &devices[card][0];
    return OK;
}

Return nvmlDeviceGetUUID(Device *device, char *text, unsigned size)
{
    double value;
    Return result = ask(device, "uuid", &value);
    if (result == OK && device->instance < 0)
        snprintf(text, size, "GPU-00000000-0000-0000-0000-%012d", device->card);
    else if (result == OK)
        snprintf(text, size, "MIG-00000000-0000-0000-%04d-%012d", device->instance, device->card);
    return result;
}

Return nvmlDeviceGetName(Device *device, char *text, unsigned size)
{
    double value;
    Return result = ask(device, "name", &value);
    if (result == OK)
        snprintf(text, size, device->instance < 0 ? "Stand-in H100" : "Stand-in H100 MIG 1g.10gb");
    return result;
}

typedef struct {
    char legacy[16];
    unsigned domain, bus, device, id, subsystem;
    char bus_id[32];
} Pci;

Return nvmlDeviceGetPciInfo_v3(Device *device, Pci *pci)
{
    double value;
    Return result = ask_whole(device, "pci", &value, 1);
    if (result == OK)
        snprintf(pci->bus_id, sizeof pci->bus_id, "00000000:%02X:00.0", device->card + 1);
    return result;
}

Return nvmlDeviceGetMinorNumber(Device *device, unsigned *number)
{
    Return result = ask_number(device, "minor", number, 1);
    if (result == OK)
        *number = (unsigned)device->card;
    return result;
}

Return nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor)
{
    unsigned both = 0;
    Return result = ask_number(device, "capability", &both, 1);
    *major = (int)both / 10, *minor = (int)both % 10;
    return result;
}

Return nvmlDeviceGetMigMode(Device *device, unsigned *current, unsigned *pending)
{
    Return result = ask_number(device, "mig_mode", current, 1);
    if (result == OK)
        *current = *pending = (unsigned)is_split(device);
    return result;
}

Return nvmlDeviceGetMaxMigDeviceCount(Device *device, unsigned *count)
{
    (void)device;
    return *count = INSTANCES, OK;
}

Return nvmlDeviceGetMigDeviceHandleByIndex(Device *device, unsigned index, Device **instance)
{
    /* The first place is a hole, as they are left by instances that were destroyed. */
    if (!is_split(device) || index == 0 || index > (unsigned)find(device->card, "mig")->value[0])
        return NOT_FOUND;
    devices[device->card][index] = (Device){device->card, (int)index};
    *instance = &devices[device->card][index];
    return OK;
}

Return nvmlDeviceGetUtilizationRates(Device *device, unsigned *rates)
{
    Return result = ask_number(device, "utilization", &rates[0], 0);
    return result == OK ? ask_number(device, "memory_utilization", &rates[1], 0) : result;
}

Return nvmlDeviceGetPowerUsage(Device *device, unsigned *mw) { return ask_number(device, "power", mw, 1); }
Return nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *mw)
{
    return ask_number(device, "power_limit", mw, 1);
}

Return nvmlDeviceGetTotalEnergyConsumption(Device *device, U64 *mj)
{
    double value;
    Return result = ask_whole(device, "energy", &value, 1);
    spend();
    if (result == OK)
        *mj = (U64)spent[device->card].millijoules;
    return result;
}

Return nvmlDeviceGetClockInfo(Device *device, unsigned clock, unsigned *mhz)
{
    static const char *names[] = {"graphics_clock", "sm_clock", "memory_clock", "video_clock"};
    return clock < 4 ? ask_number(device, names[clock], mhz, 1) : INVALID;
}

static Return reasons(Device *device, U64 *bits)
{
    unsigned number = 0;
    Return result = ask_number(device, "reasons", &number, 1);
    *bits = number;
    return result;
}

Return nvmlDeviceGetCurrentClocksEventReasons(Device *device, U64 *bits) { return reasons(device, bits); }
Return nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, U64 *bits) { return reasons(device, bits); }

typedef struct {
    U64 total, free, used;
} Memory;
typedef struct {
    unsigned version;
    U64 total, reserved, free, used;
} Memory2;

Return nvmlDeviceGetMemoryInfo_v2(Device *device, Memory2 *memory)
{
    double total = 0, used = 0, reserved = 0, value;
    Return result = ask(device, "memory_v2", &value);
    if (result != OK || (result = ask(device, "memory_total", &total)) != OK)
        return result;
    ask(device, "memory_used", &used);
    ask(device, "memory_reserved", &reserved);
    *memory = (Memory2){memory->version, (U64)total, (U64)reserved, (U64)(total - used - reserved), (U64)used};
    return OK;
}

Return nvmlDeviceGetMemoryInfo(Device *device, Memory *memory)
{
    double total = 0, used = 0;
    Return result = ask(device, "memory_total", &total);
    if (result != OK)
        return result;
    ask(device, "memory_used", &used);
    *memory = (Memory){(U64)total, (U64)(total - used), (U64)used};
    return OK;
}

Return nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius)
{
    return sensor == 0 ? ask_number(device, "temperature", celsius, 1) : INVALID;
}

Return nvmlDeviceGetPerformanceState(Device *device, unsigned *state)
{
    return ask_number(device, "performance_state", state, 1);
}

Return nvmlDeviceGetEncoderUtilization(Device *device, unsigned *percent, unsigned *period)
{
    return *period = 167000, ask_number(device, "encoder", percent, 0);
}

Return nvmlDeviceGetDecoderUtilization(Device *device, unsigned *percent, unsigned *period)
{
    return *period = 167000, ask_number(device, "decoder", percent, 0);
}

Return nvmlDeviceGetTotalEccErrors(Device *device, int type, int counter, U64 *count)
{
    unsigned number = 0;
    (void)counter;
    Return result = ask_number(device, type == 0 ? "ecc_corrected" : "ecc_uncorrected", &number, 1);
    *count = number;
    return result;
}

Return nvmlDeviceGetRemappedRows(Device *device, unsigned *corrected, unsigned *uncorrected, unsigned *pending,
                                 unsigned *failed)
{
    Return result = ask_number(device, "remapped_corrected", corrected, 1);
    if (result == OK)
        ask_number(device, "remapped_uncorrected", uncorrected, 1), ask_number(device, "remap_pending", pending, 1),
            ask_number(device, "remap_failed", failed, 1);
    return result;
}

Return nvmlDeviceGetCurrPcieLinkGeneration(Device *device, unsigned *generation)
{
    return ask_number(device, "pcie_generation", generation, 1);
}
Return nvmlDeviceGetMaxPcieLinkGeneration(Device *device, unsigned *generation)
{
    return ask_number(device, "pcie_generation", generation, 1);
}
Return nvmlDeviceGetCurrPcieLinkWidth(Device *device, unsigned *lanes)
{
    return ask_number(device, "pcie_width", lanes, 1);
}
Return nvmlDeviceGetMaxPcieLinkWidth(Device *device, unsigned *lanes)
{
    return ask_number(device, "pcie_width", lanes, 1);
}
Return nvmlDeviceGetPcieReplayCounter(Device *device, unsigned *count)
{
    return ask_number(device, "pcie_replays", count, 1);
}

Return nvmlDeviceGetNvLinkState(Device *device, unsigned link, unsigned *active)
{
    unsigned links = 0;
    Return result = ask_number(device, "nvlinks", &links, 1);
    *active = 1;
    return result == OK && link >= links ? INVALID : result;
}

typedef struct {
    uint32_t field, scope;
    int64_t stamp, latency;
    unsigned type;
    Return result;
    union {
        double d;
        unsigned u;
        U64 ull;
    } value;
} FieldValue;

Return nvmlDeviceGetFieldValues(Device *device, int count, FieldValue *fields)
{
    reread();
    if (!initialized)
        return UNINITIALIZED;
    for (int i = 0; i < count; i++) {
        double value = 0;
        unsigned field = fields[i].field;
        const char *name = field == 82    ? "memory_temperature"
                           : field == 138 ? "nvlink_tx"
                           : field == 139 ? "nvlink_rx"
                           : field == 186 ? "power_instant"
                                          : NULL;
        fields[i].result = name ? ask_whole(device, name, &value, 1) : UNSUPPORTED;
        int wide = field == 138 || field == 139;
        fields[i].type = wide ? 3 : 1;
        if (wide)
            fields[i].value.ull = (U64)value;
        else
            fields[i].value.u = (unsigned)value;
    }
    return OK;
}

typedef struct {
    unsigned pid;
    U64 memory;
    unsigned gpu_instance, compute_instance;
} Process;

Return nvmlDeviceGetComputeRunningProcesses_v3(Device *device, unsigned *count, Process *list)
{
    double value;
    unsigned room = *count, found = 0;
    Return result = ask(device, "processes", &value);
    if (result != OK)
        return result;
    for (int i = 0; i < script.rules; i++) {
        const Rule *rule = &script.rule[i];
        if ((rule->card != device->card && rule->card != -1) || strcmp(rule->name, "process") != 0)
            continue;
        if (found < room && list)
            list[found] = (Process){(unsigned)rule->value[0], (U64)rule->value[1], -1U, -1U};
        found++;
    }
    *count = found;
    return found > room ? TOO_SMALL : OK;
}

Return nvmlDeviceGetGraphicsRunningProcesses_v3(Device *device, unsigned *count, Process *list)
{
    (void)list;
    *count = 0;
    return device->instance >= 0 ? UNSUPPORTED : OK;
}

typedef struct {
    double at;
} GpmSample;
typedef struct {
    unsigned version, supported;
} GpmSupport;
typedef struct {
    unsigned id;
    Return result;
    double value;
    const char *names[3];
} GpmMetric;
typedef struct {
    unsigned version, count;
    GpmSample *before, *after;
    GpmMetric metrics[];
} GpmRequest;

Return nvmlGpmQueryDeviceSupport(Device *device, GpmSupport *support)
{
    return ask_number(device, "gpm", &support->supported, 1);
}
Return nvmlGpmSampleAlloc(GpmSample **sample) { return *sample = calloc(1, sizeof **sample), OK; }
Return nvmlGpmSampleFree(GpmSample *sample) { return free(sample), OK; }

static Device *gpm_device; /* a real sample holds its counters; here it only has to know whose they would be */

Return nvmlGpmSampleGet(Device *device, GpmSample *sample)
{
    double value;
    gpm_device = device;
    sample->at = now();
    return ask_whole(device, "gpm", &value, 1);
}

Return nvmlGpmMetricsGet(GpmRequest *request)
{
    if (request->version != 1 || request->before->at <= 0 || request->after->at <= request->before->at)
        return INVALID;
    for (unsigned i = 0; i < request->count; i++) {
        char name[12];
        snprintf(name, sizeof name, "gpm_%u", request->metrics[i].id);
        request->metrics[i].result = ask(gpm_device, name, &request->metrics[i].value);
    }
    return OK;
}
