/*
 * What every benchmark needs: clocks, rounds, and rows of the table.
 *
 * Ours and the peer run in turn in each of ROUNDS rounds; a ratio is taken within one round.
 */
#ifndef BENCH_H
#define BENCH_H

#include <evergrant.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define ROUNDS 9

/* A figure of each round. */
typedef double rounds[ROUNDS];

static inline double clock_ns(clockid_t clock)
{
    struct timespec t;
    clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static inline double wall_ns(void)
{
    return clock_ns(CLOCK_MONOTONIC);
}

/* User and system time of all threads. */
static inline double cpu_ns(void)
{
    return clock_ns(CLOCK_PROCESS_CPUTIME_ID);
}

static inline void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s\n", what, why);
    exit(1);
}

/* Ends the benchmark if a call fails: a figure of something that did not happen is none. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        evergrant_error *error = NULL;                                                                                 \
        if ((call) != EVERGRANT_STATUS_OK)                                                                             \
            die(#call, evergrant_error_message(error));                                                                \
    } while (0)

static inline evergrant_client *open_client(const char *config)
{
    evergrant_client *client = NULL;
    OK(evergrant_client_open(config, &client, &error));
    return client;
}

static inline void close_client(evergrant_client *client)
{
    evergrant_client_close(client, 1000);
    evergrant_client_free(client);
}

static inline int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static inline double median(double *figures, int count)
{
    qsort(figures, (size_t)count, sizeof *figures, ascending);
    return figures[count / 2];
}

static inline void figures(const double *of, double unit)
{
    int i;
    for (i = 0; of && i < ROUNDS; i++)
        printf(" %.6g", of[i] / unit);
}

/*
 * One row of the table, as table.awk reads it. `ours` and `peer` (may be NULL) are in nanoseconds, or in whatever
 * `unit` is 1 of.
 */
static inline void row(const char *what, const double *ours, const double *peer, double unit, const char *name,
                       const char *target)
{
    printf("%s\t%s\t%s\t", what, name, target);
    figures(ours, unit);
    putchar('\t');
    figures(peer, unit);
    putchar('\n');
    fflush(stdout);
}

#define NS 1.0, "ns"
#define US 1e3, "us"
#define MS 1e6, "ms"

#endif
