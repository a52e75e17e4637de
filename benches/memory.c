/*
 * A token that memory has: evergrant_session_peek() and evergrant_string_free(), and a caller that keeps the token and
 * reads the stamp and a clock. The peer, in the same process: a mutex around a copy of one session's token.
 *
 * A figure for several threads is core time: wall time x busy cores / calls.
 */
#include "bench.h"
#include <pthread.h>
#include <unistd.h>

enum { TOKEN = 112, MOST = 1000, THREADS = 4, CALLS = 200000 };

static evergrant_client *client, *own[THREADS];
static char names[MOST][32];
static int sessions;
static pthread_barrier_t line;
static volatile uintptr_t sink;

static struct {
    pthread_mutex_t lock;
    char token[TOKEN + 1];
} peer = {PTHREAD_MUTEX_INITIALIZER, ""};

static void by_peek(int start)
{
    unsigned at = (unsigned)start;
    int i;
    for (i = 0; i < CALLS; i++) {
        char *token = NULL;
        at = at * 1103515245u + 12345u;
        if (evergrant_session_peek(client, names[(at >> 16) % (unsigned)sessions], &token, NULL) != EVERGRANT_STATUS_OK)
            die("evergrant_session_peek", "memory has no answer");
        sink = (uintptr_t)token;
        evergrant_string_free(token);
    }
}

/* One session for each thread, in a client of its own. */
static void by_own(int number)
{
    int i;
    for (i = 0; i < CALLS; i++) {
        char *token = NULL;
        if (evergrant_session_peek(own[number], names[0], &token, NULL) != EVERGRANT_STATUS_OK)
            die("evergrant_session_peek", "memory has no answer");
        sink = (uintptr_t)token;
        evergrant_string_free(token);
    }
}

static void by_mutex(int start)
{
    int i;
    (void)start;
    for (i = 0; i < CALLS; i++) {
        char *token;
        pthread_mutex_lock(&peer.lock);
        token = malloc(sizeof peer.token);
        memcpy(token, peer.token, sizeof peer.token);
        pthread_mutex_unlock(&peer.lock);
        sink = (uintptr_t)token;
        free(token);
    }
}

static struct {
    const uint32_t *stamp;
    uint32_t seen;
    char *token;
    int64_t fresh_until_ms;
} kept;

static void keep(void)
{
    evergrant_string_free(kept.token);
    OK(evergrant_session_stamp(client, names[0], &kept.stamp, &error));
    kept.seen = __atomic_load_n(kept.stamp, __ATOMIC_ACQUIRE);
    if (evergrant_session_peek(client, names[0], &kept.token, &kept.fresh_until_ms) != EVERGRANT_STATUS_OK)
        die("evergrant_session_peek", "memory has no answer");
}

static void by_stamp(clockid_t clock)
{
    int i;
    for (i = 0; i < CALLS; i++) {
        struct timespec now;
        clock_gettime(clock, &now);
        if (__atomic_load_n(kept.stamp, __ATOMIC_ACQUIRE) != kept.seen ||
            (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000 >= kept.fresh_until_ms)
            die("the stamp", "has changed, or the token is not fresh");
        sink = (uintptr_t)kept.token;
    }
}

static void by_stamp_coarse(int start)
{
    (void)start;
    by_stamp(CLOCK_REALTIME_COARSE);
}

static void by_stamp_precise(int start)
{
    (void)start;
    by_stamp(CLOCK_REALTIME);
}

struct thread {
    pthread_t id;
    int number;
    void (*work)(int);
};

static void *thread(void *user)
{
    struct thread *me = user;
    me->work(me->number); /* Warm: thread-local state, malloc's arena. */
    pthread_barrier_wait(&line);
    me->work(me->number);
    return NULL;
}

/* Nanoseconds of core time for one call. */
static double measure(void (*work)(int), int count)
{
    struct thread threads[THREADS];
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    double begin;
    int i;
    if (count == 1) {
        begin = wall_ns();
        work(1);
        return (wall_ns() - begin) / CALLS;
    }
    pthread_barrier_init(&line, NULL, (unsigned)count + 1);
    for (i = 0; i < count; i++) {
        threads[i] = (struct thread){.number = i, .work = work};
        pthread_create(&threads[i].id, NULL, thread, &threads[i]);
    }
    pthread_barrier_wait(&line);
    begin = wall_ns();
    for (i = 0; i < count; i++)
        pthread_join(threads[i].id, NULL);
    pthread_barrier_destroy(&line);
    return (wall_ns() - begin) * (double)(cores < count ? cores : count) / ((double)count * CALLS);
}

static void compare(const char *what, void (*work)(int), void (*peers)(int), int threads, const char *target)
{
    rounds ours, theirs;
    int i;
    for (i = 0; i < ROUNDS; i++) {
        int s;
        for (s = 0; s < sessions; s++)
            OK(evergrant_session_access_token(client, names[s], NULL, NULL, &error));
        keep();
        ours[i] = measure(work, threads);
        theirs[i] = measure(peers, threads);
    }
    row(what, ours, theirs, NS, target);
}

int main(void)
{
    const char *config = "{\"token_endpoint\":\"http://127.0.0.1:1/token\",\"client_id\":\"c\",\"store\":\"memory:\"}";
    char token[TOKEN + 1], json[512];
    int i;
    memset(token, 'a', TOKEN);
    token[TOKEN] = '\0';
    strcpy(peer.token, token);
    client = open_client(config);
    for (i = 0; i < MOST; i++) {
        snprintf(names[i], sizeof names[i], "user-%d@example.com", i);
        snprintf(json, sizeof json, "{\"access_token\":\"%s\",\"refresh_token\":\"r%d\",\"expires_in\":7200}", token, i);
        OK(evergrant_session_save(client, names[i], json, &error));
    }
    for (i = 0; i < THREADS; i++) {
        own[i] = open_client(config);
        OK(evergrant_session_save(own[i], names[0], json, &error));
    }
    sessions = 1;
    compare("peek + free, 1 session, 1 thread", by_peek, by_mutex, 1, "<= 80 ns");
    compare("peek + free, 1 session, 4 threads", by_peek, by_mutex, THREADS, "no worse");
    compare("  peer: each thread has a client of its own", by_peek, by_own, THREADS, "no worse");
    compare("stamp + coarse clock, 1 thread", by_stamp_coarse, by_mutex, 1, "<= 20 ns");
    compare("stamp + precise clock, 1 thread", by_stamp_precise, by_mutex, 1, "");
    compare("stamp + coarse clock, 4 threads", by_stamp_coarse, by_mutex, THREADS, "");
    sessions = MOST;
    compare("peek + free, 1,000 sessions, 1 thread", by_peek, by_mutex, 1, "<= 80 ns");
    compare("peek + free, 1,000 sessions, 4 threads", by_peek, by_mutex, THREADS, "no worse");
    evergrant_string_free(kept.token);
    close_client(client);
    for (i = 0; i < THREADS; i++)
        close_client(own[i]);
    return 0;
}
