/*
 * Clocks that tests/processes can step: preloaded into a worker, it adds to the wall clock and to the clock that goes on
 * in suspend what stands in the file EVERGRANT_TEST_CLOCKS, two 64-bit numbers of milliseconds. All processes with one
 * file have the same clocks, as on one machine.
 */
#define _GNU_SOURCE

#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { WALL, BOOT };

static const int64_t *ahead;

__attribute__((constructor)) static void start(void)
{
    int file = open(getenv("EVERGRANT_TEST_CLOCKS"), O_RDONLY | O_CLOEXEC);
    void *memory = mmap(NULL, 2 * sizeof *ahead, PROT_READ, MAP_SHARED, file, 0);
    if (memory == MAP_FAILED) {
        perror("clocks");
        _exit(3);
    }
    ahead = memory;
    close(file);
}

int clock_gettime(clockid_t clock, struct timespec *now)
{
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    int which = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE ? WALL : clock == CLOCK_BOOTTIME ? BOOT : -1;
    if (!failed && which >= 0 && ahead != NULL) {
        int64_t ms = __atomic_load_n(&ahead[which], __ATOMIC_SEQ_CST) + now->tv_nsec / 1000000;
        /* The rest of the division is never negative. */
        int64_t seconds = ms / 1000 - (ms % 1000 < 0);
        now->tv_sec += seconds;
        now->tv_nsec = (ms - seconds * 1000) * 1000000 + now->tv_nsec % 1000000;
    }
    return failed;
}

/* Node's. */
int gettimeofday(struct timeval *now, void *zone)
{
    struct timespec exact;
    (void)zone;
    if (clock_gettime(CLOCK_REALTIME, &exact) != 0)
        return -1;
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return 0;
}
