/* A libnvidia-ml.so.1 for tests: enough of NVML's ABI for what the gateway asks.
 *
 * FAKE_NVML picks the machine:
 *   two    two GPUs, the second without ECC; the first has told of two Xid errors
 *   lost   as two, but the second GPU is lost after its first reading
 *   hang   one GPU whose second reading never returns
 *   none   a driver without GPUs
 * Built with -DWITHOUT_ENERGY it lacks a symbol, as an old driver does.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct { int index, readings; } *Device;
typedef struct { unsigned long long total, free, used; } Memory;
typedef struct { unsigned gpu, memory; } Utilization;
typedef struct { Device device; unsigned long long type, data; unsigned gpu_instance, compute_instance; } Event;

enum { SUCCESS = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, TIMEOUT = 10, GPU_IS_LOST = 15 };

static struct { int index, readings; } devices[] = {{0, 0}, {1, 0}};
static int xids_told;

static int is(const char *profile) {
    const char *chosen = getenv("FAKE_NVML");
    return strcmp(chosen ? chosen : "two", profile) == 0;
}

static int lost(Device device) { return is("lost") && device->index == 1 && device->readings > 1; }

#define ALIVE(device) if (lost(device)) return GPU_IS_LOST

int nvmlInitWithFlags(unsigned flags) { return SUCCESS; }
int nvmlShutdown(void) { return SUCCESS; }
const char *nvmlErrorString(int error) { return error == GPU_IS_LOST ? "GPU is lost" : "error"; }

int nvmlSystemGetDriverVersion(char *version, unsigned length) {
    snprintf(version, length, "580.65.06");
    return SUCCESS;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = is("none") ? 0 : is("hang") ? 1 : 2;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Device *device) {
    if (index > 1) return INVALID_ARGUMENT;
    *device = (Device)&devices[index];
    return SUCCESS;
}

int nvmlDeviceGetName(Device device, char *name, unsigned length) {
    snprintf(name, length, "Fake %d", device->index);
    return SUCCESS;
}

int nvmlDeviceGetUUID(Device device, char *uuid, unsigned length) {
    snprintf(uuid, length, "GPU-%08d-0000-0000-0000-000000000000", device->index);
    return SUCCESS;
}

/* The first thing that is asked at each reading. */
int nvmlDeviceGetMemoryInfo(Device device, Memory *memory) {
    device->readings++;
    if (is("hang") && device->readings > 1) for (;;) pause();
    ALIVE(device);
    memory->total = 24ull << 30;
    memory->used = (6ull + device->index) << 30;
    memory->free = memory->total - memory->used;
    return SUCCESS;
}

int nvmlDeviceGetUtilizationRates(Device device, Utilization *utilization) {
    ALIVE(device);
    utilization->gpu = 87;
    utilization->memory = 41;
    return SUCCESS;
}

int nvmlDeviceGetPowerUsage(Device device, unsigned *milliwatts) {
    ALIVE(device);
    *milliwatts = 213500;
    return SUCCESS;
}

int nvmlDeviceGetEnforcedPowerLimit(Device device, unsigned *milliwatts) {
    ALIVE(device);
    *milliwatts = 350000;
    return SUCCESS;
}

#ifndef WITHOUT_ENERGY
int nvmlDeviceGetTotalEnergyConsumption(Device device, unsigned long long *millijoules) {
    ALIVE(device);
    *millijoules = 1234567ull + 213500ull * device->readings;
    return SUCCESS;
}
#endif

int nvmlDeviceGetTemperature(Device device, int sensor, unsigned *degrees) {
    ALIVE(device);
    *degrees = 67;
    return SUCCESS;
}

int nvmlDeviceGetClockInfo(Device device, int clock, unsigned *megahertz) {
    ALIVE(device);
    *megahertz = clock == 1 ? 1755 : 9501;
    return SUCCESS;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device device, unsigned long long *reasons) {
    ALIVE(device);
    *reasons = device->index ? 0x0 : 0x4; /* the first at its power cap */
    return SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(Device device, int kind, int counter, unsigned long long *count) {
    ALIVE(device);
    if (device->index) return NOT_SUPPORTED;
    *count = kind == 0 ? 5 : 0;
    return SUCCESS;
}

int nvmlEventSetCreate(void **set) {
    *set = &xids_told;
    return SUCCESS;
}

int nvmlDeviceRegisterEvents(Device device, unsigned long long types, void *set) { return SUCCESS; }

int nvmlEventSetWait_v2(void *set, Event *event, unsigned milliseconds) {
    if (xids_told == 2) return TIMEOUT;
    memset(event, 0, sizeof *event);
    event->data = xids_told++ ? 79 : 31;
    return SUCCESS;
}
