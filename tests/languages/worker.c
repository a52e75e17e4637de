/*
 * One of the many processes of tests/languages: it asks for the token of one session again and again, uses every eighth
 * at the resource server, and says at the end what it got.
 *
 * Arguments: URL of the resource server, configuration, first token answer, number of threads. It says "ready", reads
 * the moment of its end (Unix milliseconds), and ends with one line of JSON: soak.py has its form.
 */
#define _XOPEN_SOURCE 700

#include "../c/http.h"
#include <evergrant.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>

enum { MOST = 4096, EVERY = 8, LONGEST_PAUSE_MS = 60 };

static struct {
    char token[256];
    int calls;
    int64_t asked_ms, got_ms, first_ms;
} seen[MOST];

static struct {
    char token[256];
    int status;
    int64_t got_ms, answered_ms;
} refused[MOST];

static struct {
    char *error;
    int64_t at_ms;
} *failed;

static int tokens, refusals, failures;
static long calls, uses;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static evergrant_client *client;
static const char *resource;
static int64_t until_ms;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "worker.c: %s: %s\n", what, why);
    exit(1);
}

static int64_t now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/* The token is the latest, or one of the few before it. Returns the number of the call. */
static long note(const char *token, int64_t asked_ms, int64_t got_ms)
{
    long number;
    int i;
    pthread_mutex_lock(&lock);
    for (i = tokens - 1; i >= 0 && strcmp(seen[i].token, token) != 0; i--)
        ;
    if (i < 0) {
        if (tokens == MOST || strlen(token) >= sizeof seen[0].token)
            die("token", "too many, or too long");
        i = tokens++;
        strcpy(seen[i].token, token);
        seen[i].first_ms = got_ms;
    }
    seen[i].calls++;
    if (asked_ms > seen[i].asked_ms)
        seen[i].asked_ms = asked_ms;
    if (got_ms > seen[i].got_ms)
        seen[i].got_ms = got_ms;
    if (got_ms < seen[i].first_ms)
        seen[i].first_ms = got_ms;
    number = ++calls;
    pthread_mutex_unlock(&lock);
    return number;
}

static void note_failure(const char *error, int64_t at_ms)
{
    pthread_mutex_lock(&lock);
    failed = realloc(failed, (size_t)(failures + 1) * sizeof *failed);
    if (!failed || !(failed[failures].error = malloc(strlen(error) + 1)))
        die("memory", "there is none");
    strcpy(failed[failures].error, error);
    failed[failures++].at_ms = at_ms;
    pthread_mutex_unlock(&lock);
}

static void use(const char *token, int64_t got_ms)
{
    char answer[4096];
    int status = http(resource, "", token, NULL, answer, sizeof answer);
    int64_t answered_ms = now_ms();
    pthread_mutex_lock(&lock);
    uses++;
    if (status != 200) {
        if (refusals == MOST)
            die("resource", "too many refusals");
        strcpy(refused[refusals].token, token);
        refused[refusals].status = status;
        refused[refusals].got_ms = got_ms;
        refused[refusals++].answered_ms = answered_ms;
    }
    pthread_mutex_unlock(&lock);
}

static void *work(void *user)
{
    unsigned seed = (unsigned)now_ms() ^ (unsigned)getpid() << 8 ^ *(unsigned *)user;
    int64_t asked_ms, got_ms;
    while ((asked_ms = now_ms()) < until_ms) {
        struct timespec pause = {0, rand_r(&seed) % (LONGEST_PAUSE_MS * 1000000)};
        evergrant_error *error = NULL;
        char *token = NULL;
        if (evergrant_session_access_token(client, "soak", NULL, &token, &error) != EVERGRANT_STATUS_OK)
            note_failure(evergrant_error_json(error), now_ms());
        else if (note(token, asked_ms, got_ms = now_ms()) % EVERY == 0)
            use(token, got_ms);
        evergrant_string_free(token);
        evergrant_error_free(error);
        nanosleep(&pause, NULL);
    }
    return NULL;
}

static void report(void)
{
    int i;
    printf("{\"calls\":%ld,\"uses\":%ld,\"seen\":{", calls, uses);
    for (i = 0; i < tokens; i++)
        printf("%s\"%s\":[%d,%" PRId64 ",%" PRId64 ",%" PRId64 "]", i ? "," : "", seen[i].token, seen[i].calls,
               seen[i].asked_ms, seen[i].got_ms, seen[i].first_ms);
    printf("},\"refused\":[");
    for (i = 0; i < refusals; i++)
        printf("%s[\"%s\",%" PRId64 ",%" PRId64 ",%d]", i ? "," : "", refused[i].token, refused[i].got_ms,
               refused[i].answered_ms, refused[i].status);
    printf("],\"failed\":[");
    for (i = 0; i < failures; i++)
        printf("%s[%" PRId64 ",%s]", i ? "," : "", failed[i].at_ms, failed[i].error);
    printf("]}\n");
}

int main(int count, char **arguments)
{
    pthread_t threads[16];
    unsigned numbers[16];
    evergrant_error *error = NULL;
    int i, many = count == 5 ? atoi(arguments[4]) : 0;
    if (many < 1 || many > 16)
        die("arguments", "URL CONFIGURATION TOKEN THREADS");
    resource = arguments[1];
    if (evergrant_client_open(arguments[2], &client, &error) != EVERGRANT_STATUS_OK)
        die("evergrant_client_open", evergrant_error_message(error));
    if (evergrant_session_save(client, "soak", arguments[3], &error) != EVERGRANT_STATUS_OK)
        die("evergrant_session_save", evergrant_error_message(error));
    puts("ready");
    fflush(stdout);
    if (scanf("%" SCNd64, &until_ms) != 1)
        die("standard input", "has no moment to end at");
    for (i = 0; i < many; i++) {
        numbers[i] = (unsigned)i;
        if (pthread_create(&threads[i], NULL, work, &numbers[i]) != 0)
            die("thread", "cannot be started");
    }
    for (i = 0; i < many; i++)
        pthread_join(threads[i], NULL);
    if (evergrant_client_close(client, 5000) != EVERGRANT_STATUS_OK)
        die("evergrant_client_close", "a renewal does not end");
    evergrant_client_free(client);
    report();
    return 0;
}
