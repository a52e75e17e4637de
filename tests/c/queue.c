/*
 * Calls through a queue, as an event loop makes them: against the test server as a Salesforce site (EVERGRANT_TEST_SERVER:
 * its control URL, EVERGRANT_TEST_SITE: its URL).
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "http.h"
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { SESSIONS = 300, LONG_MS = 60000 };

static const char *control;
static evergrant_error *error;

static void tell_server(const char *path, const char *body)
{
    char answer[16384];
    CHECK(http(control, path, NULL, body, answer, sizeof answer) == 200);
}

static evergrant_client *open_client(const char *store)
{
    evergrant_client *client = NULL;
    char config[2048];
    snprintf(config, sizeof config,
             "{\"site_url\":\"%s\",\"client_id\":\"client\",\"client_secret\":\"secret\",\"store\":\"%s\"}",
             getenv("EVERGRANT_TEST_SITE"), store);
    OK(evergrant_client_open(config, &client, &error));
    return client;
}

static void save(const evergrant_client *client, const char *session)
{
    char answer[16384], token[4096], *refresh_token;
    CHECK(http(control, "/sign_in", NULL, "{}", answer, sizeof answer) == 200);
    OK(evergrant_json_member(answer, "refresh_token", &refresh_token, &error));
    snprintf(token, sizeof token, "{\"refresh_token\":\"%s\"}", refresh_token);
    evergrant_string_free(refresh_token);
    OK(evergrant_session_save(client, session, token, &error));
}

static int readable(int fd, int max_wait_ms)
{
    struct pollfd poller = {0, POLLIN, 0};
    poller.fd = fd;
    return poll(&poller, 1, max_wait_ms) == 1 && poller.revents == POLLIN;
}

/* How often `text` is in `json`. */
static int count(const char *json, const char *text)
{
    int n = 0;
    for (json = strstr(json, text); json; json = strstr(json + 1, text))
        n++;
    return n;
}

/* The library's threads: it names them. */
static int library_threads(void)
{
    char path[300], name[32];
    int n = 0;
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *task;
    while (tasks && (task = readdir(tasks))) {
        FILE *comm;
        snprintf(path, sizeof path, "/proc/self/task/%s/comm", task->d_name);
        comm = fopen(path, "r");
        if (comm && fgets(name, sizeof name, comm) && !strncmp(name, "evergrant", 9))
            n++;
        if (comm)
            fclose(comm);
    }
    if (tasks)
        closedir(tasks);
    return n;
}

/* One session each, all waiting for a slow server: a few threads carry all. */
static void many_waits(const evergrant_queue *queue, int fd)
{
    evergrant_client *client = open_client("memory:");
    char call[256], *answers;
    int i, finished = 0, good = 0;

    for (i = 0; i < SESSIONS; i++) {
        snprintf(call, sizeof call, "s%d", i);
        save(client, call);
    }
    tell_server("/settings", "{\"latency_ms\":50}");
    for (i = 0; i < SESSIONS; i++) {
        snprintf(call, sizeof call,
                 "{\"call\":\"session_access_token\",\"session\":\"s%d\",\"options\":{\"max_wait_ms\":%d}}", i, LONG_MS);
        OK(evergrant_queue_submit(queue, client, (uint64_t)i, call, &error));
    }
    while (finished < SESSIONS && CHECK(readable(fd, LONG_MS))) {
        /* max_exchanges, and four that carry waits. */
        CHECK(library_threads() <= 32 + 4);
        OK(evergrant_queue_take(queue, 0, &answers, &error));
        finished += count(answers, "\"tag\":");
        good += count(answers, "\"status\":\"OK\",\"value\":\"");
        evergrant_string_free(answers);
    }
    CHECK(good == SESSIONS);
    CHECK(!readable(fd, 0));
    tell_server("/settings", "{\"latency_ms\":0}");
    evergrant_client_close(client, LONG_MS);
    evergrant_client_free(client);
}

/* A client may be freed while a call of it is under way. */
static void freed_client(const evergrant_queue *queue, int fd)
{
    evergrant_client *client = open_client("memory:");
    char *answers;

    OK(evergrant_queue_submit(queue, client, 1, "{\"call\":\"client_events\",\"after\":9,\"max_wait_ms\":60000}", &error));
    CHECK(!readable(fd, 50));
    evergrant_client_free(client);
    CHECK(readable(fd, LONG_MS));
    OK(evergrant_queue_take(queue, 0, &answers, &error));
    CHECK_ROW(strstr(answers, "[{\"tag\":1,") == answers, answers);
    evergrant_string_free(answers);
}

/*
 * A queue stays with its process; a child opens one of its own. The child ends by a signal: what it has inherited and
 * must not touch is no leak.
 */
static void forked_child(const evergrant_queue *queue, const evergrant_client *client)
{
    char passed = 0;
    int result[2], made = pipe(result);
    pid_t child = fork();
    if (child == 0) {
        evergrant_queue *own = NULL;
        char *answers = NULL;
        int fd = -1;
        failures = 0;
        CHECK_STATUS(evergrant_queue_take(queue, 0, &answers, &error), EVERGRANT_STATUS_CLOSED, error);
        CHECK_STATUS(evergrant_queue_submit(queue, client, 1, "{\"call\":\"client_stats\"}", &error),
                     EVERGRANT_STATUS_CLOSED, error);
        CHECK(answers == NULL);
        OK(evergrant_queue_open(&own, &fd, &error));
        OK(evergrant_queue_submit(own, client, 5, "{\"call\":\"session_token\",\"session\":\"alice\"}", &error));
        CHECK(readable(fd, LONG_MS));
        OK(evergrant_queue_take(own, 0, &answers, &error));
        CHECK_ROW(strstr(answers, "[{\"tag\":5,\"status\":\"OK\",\"value\":{\"") == answers, answers);
        evergrant_string_free(answers);
        evergrant_queue_free(own);
        close(fd);
        passed = failures == 0;
        made = (int)write(result[1], &passed, 1);
        raise(SIGKILL);
    }
    CHECK(made == 0 && child > 0 && waitpid(child, NULL, 0) == child);
    CHECK(read(result[0], &passed, 1) == 1 && passed);
    close(result[0]);
    close(result[1]);
}

int main(void)
{
    char store[64] = "sqlite:/tmp/evergrant-queue-XXXXXX", name[96];
    evergrant_queue *queue = NULL;
    evergrant_client *client;
    char *answers;
    int fd = -1;

    control = getenv("EVERGRANT_TEST_SERVER");
    if (!CHECK(control && mkdtemp(store + 7)))
        return done();
    OK(evergrant_queue_open(&queue, &fd, &error));
    CHECK(!readable(fd, 0));
    OK(evergrant_queue_take(queue, 20, &answers, &error));
    CHECK(!strcmp(answers, "[]"));
    evergrant_string_free(answers);

    snprintf(name, sizeof name, "%s/sessions.db", store);
    client = open_client(name);
    save(client, "alice");
    OK(evergrant_queue_submit(queue, client, 1, "{\"call\":\"session_token\",\"session\":\"alice\"}", &error));
    CHECK(readable(fd, LONG_MS));
    OK(evergrant_queue_take(queue, 0, &answers, &error));
    CHECK_ROW(strstr(answers, "[{\"tag\":1,\"status\":\"OK\",\"value\":{\"") == answers, answers);
    evergrant_string_free(answers);
    CHECK(!readable(fd, 0));

    forked_child(queue, client);
    many_waits(queue, fd);
    freed_client(queue, fd);

    /* The descriptor is the program's own: it outlives the queue. */
    evergrant_queue_free(queue);
    CHECK(close(fd) == 0);
    evergrant_client_close(client, LONG_MS);
    evergrant_client_free(client);
    CHECK(alone());
    snprintf(name, sizeof name, "rm -rf '%s'", store + 7);
    CHECK(system(name) == 0);
    return done();
}
