/*
 * 64 threads want a token at the moment when it has expired; the server takes 50 ms. From the start of all until the
 * last is served. The peer: a mutex around one exchange over libcurl. Argument: a directory on a real disk.
 */
#include "exchange.h"
#include "server.h"
#include <pthread.h>
#include <unistd.h>

enum { THREADS = 64 };

static evergrant_client *client;
static struct exchange bare;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static double bare_until_ns;
static pthread_barrier_t line;
static void (*get)(void);

static void by_session(void)
{
    char *token = NULL;
    OK(evergrant_session_access_token(client, "bench", NULL, &token, &error));
    evergrant_string_free(token);
}

static void by_mutex(void)
{
    char *token;
    double begin;
    pthread_mutex_lock(&lock);
    begin = wall_ns();
    if (begin >= bare_until_ns) {
        exchange_run(&bare);
        bare_until_ns = begin + 1e9;
    }
    token = strdup(bare.access_token);
    pthread_mutex_unlock(&lock);
    free(token);
}

static void *thread(void *user)
{
    pthread_barrier_wait(&line);
    get();
    *(double *)user = wall_ns();
    return NULL;
}

/* From the first moment at which all may run until the last has its token. */
static double measure(void (*work)(void))
{
    pthread_t threads[THREADS];
    double end[THREADS], begin, last = 0;
    long before, sent;
    int i;
    usleep(1050000);
    before = token_requests();
    get = work;
    pthread_barrier_init(&line, NULL, THREADS + 1);
    for (i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, thread, &end[i]);
    usleep(20000);
    begin = wall_ns();
    pthread_barrier_wait(&line);
    for (i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        last = end[i] > last ? end[i] : last;
    }
    pthread_barrier_destroy(&line);
    sent = token_requests() - before;
    if (sent != 1)
        fprintf(stderr, "herd: %ld requests instead of 1\n", sent);
    return last - begin;
}

static void compare(const char *what, const char *store)
{
    rounds ours, peer;
    int i;
    client = open_at_server(store);
    OK(evergrant_session_save(client, "bench", sign_in(), &error));
    for (i = 0; i < ROUNDS; i++) {
        ours[i] = measure(by_session);
        peer[i] = measure(by_mutex);
    }
    close_client(client);
    row(what, ours, peer, MS, "<= 55 ms, 1 request");
}

int main(int count, char **arguments)
{
    char store[512];
    if (count != 2)
        die(arguments[0], "DIRECTORY");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    control("/settings", "{\"latency_ms\":50,\"expires_in\":1}");
    exchange_open(&bare, token_endpoint(), sign_in());
    exchange_run(&bare);
    compare("64 threads at expiry, memory store", "memory:");
    snprintf(store, sizeof store, "sqlite:%s/herd.db", arguments[1]);
    compare("64 threads at expiry, sealed sqlite store", store);
    control("/settings", "{\"latency_ms\":0,\"expires_in\":null}");
    curl_easy_cleanup(bare.curl);
    curl_global_cleanup();
    return 0;
}
