/*
 * The main job of evergrant, step by step: `make demo`.
 *
 *   demo TEST_SERVER PYTHON NODE                  against the test server, which plays a Salesforce site
 *   EVERGRANT_CONFIG=my-org.json demo             against your own org
 *
 * Every line is checked before it is printed, by the server's own counters wherever it speaks of requests; the first
 * check that fails ends the demo with an error. renew.c, beside this directory, is the short example to start from.
 */
#define _XOPEN_SOURCE 700

#include "demo.h"

#include <fcntl.h>
#include <ftw.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENT_ID "demo-app"
#define CLIENT_SECRET "demo-secret"
#define USER "user@example.com"
#define PASSWORD "correct horse"
#define SESSION "alice"
#define LATENCY_MS 100
#define PROCESSES 8
#define PEEKS 1000000
#define MOST_SECONDS 60

extern char **environ;

static const char *program;    /* this program */
static char *python, *node;    /* those that run the other languages' demo programs */
static char directory[512];    /* the temporary one */
static char config[600];       /* {"config_file": "..."} for evergrant_client_open() */
static char short_config[600]; /* the same, but its tokens end after a second */
static evergrant_client *client;
static int checks, step;

/* ---- checks */

void fail(const char *format, ...)
{
    fflush(stdout);
    va_list arguments;
    va_start(arguments, format);
    fprintf(stderr, step ? "demo: FAILED in step %d: " : "demo: ", step);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
    exit(1);
}

void need(int is_true, const char *what)
{
    if (!is_true)
        fail("it is not true that %s", what);
}

void check(int is_true, const char *what)
{
    checks++;
    need(is_true, what);
}

void check_count(long found, long expected, const char *what)
{
    checks++;
    if (found != expected)
        fail("%s: %ld, not %ld", what, found, expected);
}

void check_ok(evergrant_status status, evergrant_error *const *error, const char *what)
{
    checks++;
    if (status != EVERGRANT_STATUS_OK)
        fail("%s: %s: %s", what, evergrant_status_name((int32_t)status), evergrant_error_message(*error));
}

char *member(const char *json, const char *name)
{
    char *value = NULL;
    evergrant_error *error = NULL;
    if (evergrant_json_member(json, name, &value, &error) != EVERGRANT_STATUS_OK)
        fail("%s", evergrant_error_message(error));
    return value;
}

static void check_member(const char *json, const char *name, const char *expected)
{
    char *value = member(json, name);
    checks++;
    if (strcmp(value, expected) != 0)
        fail("%s is %s, not %s", name, value, expected);
    evergrant_string_free(value);
}

long occurrences(const char *text, const char *part)
{
    long count = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        count++;
    return count;
}

/* ---- the server's counters */

struct counters {
    long requests, token_requests, rotations, grace_replays;
};

static struct counters counters(void)
{
    check_count(site_counter("reuses"), 0, "refresh tokens that were used again, as the server counts them");
    struct counters now = {site_counter("requests"), site_counter("token_requests"), site_counter("rotations"),
                           site_counter("grace_replays")};
    return now;
}

/* Fails unless the server has seen exactly this since then. */
static void check_seen(struct counters since, long requests, long token_requests, long rotations, long grace_replays)
{
    struct counters now = counters();
    check_count(now.requests - since.requests, requests, "requests");
    check_count(now.token_requests - since.token_requests, token_requests, "token requests");
    check_count(now.rotations - since.rotations, rotations, "rotations");
    check_count(now.grace_replays - since.grace_replays, grace_replays, "replays inside the grace window");
}

/* How often the most presented refresh token was presented. */
static long most_presentations(void)
{
    const char *name = "\"presentations\":";
    char *tokens = site_look("tokens");
    long most = 0;
    for (const char *at = strstr(tokens, name); at; at = strstr(at + 1, name)) {
        long presentations = strtol(at + strlen(name), NULL, 10);
        most = presentations > most ? presentations : most;
    }
    free(tokens);
    return most;
}

/* ---- small things */

double now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static double cpu_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
}

static void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static void tell(const char *title, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%2d  %-21s ", step, title);
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
}

static void tell_more(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    printf("%-25s ", "");
    vprintf(format, arguments);
    putchar('\n');
    va_end(arguments);
    fflush(stdout);
}

static evergrant_client *open_client(const char *with)
{
    evergrant_client *opened = NULL;
    evergrant_error *error = NULL;
    check_ok(evergrant_client_open(with, &opened, &error), &error, "evergrant_client_open");
    return opened;
}

static void close_client(evergrant_client *opened)
{
    check(evergrant_client_close(opened, 5000) == EVERGRANT_STATUS_OK, "the client can be closed");
    evergrant_client_free(opened);
}

static char *access_token(const evergrant_client *from)
{
    char *token = NULL;
    evergrant_error *error = NULL;
    check_ok(evergrant_session_access_token(from, SESSION, NULL, &token, &error), &error, "evergrant_session_access_token");
    return token;
}

static char *renew(const evergrant_client *with, const char *rejected)
{
    char *token = NULL;
    evergrant_error *error = NULL;
    check_ok(evergrant_session_renew(with, SESSION, rejected, NULL, &token, &error), &error, "evergrant_session_renew");
    return token;
}

static char *describe(void)
{
    char *json = NULL;
    evergrant_error *error = NULL;
    check_ok(evergrant_session_describe(client, SESSION, &json, &error), &error, "evergrant_session_describe");
    return json;
}

static long generation(void)
{
    char *json = describe(), *value = member(json, "generation");
    long number = strtol(value, NULL, 10);
    evergrant_string_free(value);
    evergrant_string_free(json);
    return number;
}

/* ---- other processes: mostly this program again, with a task */

struct process {
    pid_t pid;
    FILE *says;
};

static struct process start_program(char *const arguments[], int input)
{
    int out[2];
    need(pipe(out) == 0, "a pipe can be made");
    fcntl(out[0], F_SETFD, FD_CLOEXEC);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    if (input < 0)
        posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    else
        posix_spawn_file_actions_adddup2(&actions, input, 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addclose(&actions, out[1]);
    struct process process;
    if (posix_spawnp(&process.pid, arguments[0], &actions, NULL, arguments, environ) != 0)
        fail("%s cannot be started", arguments[0]);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    process.says = fdopen(out[0], "r");
    need(process.says != NULL, "its output can be read");
    return process;
}

static struct process start(const char *task, const char *with, int input)
{
    char *arguments[] = {(char *)program, "--task", (char *)task, (char *)with, NULL};
    return start_program(arguments, input);
}

/* What it says next: one line, without its end. */
static void hear(struct process process, char *line, int room)
{
    need(fgets(line, room, process.says) != NULL, "the other process says something");
    line[strcspn(line, "\n")] = '\0';
}

static void end(struct process process)
{
    int status = 0;
    fclose(process.says);
    check(waitpid(process.pid, &status, 0) == process.pid && status == 0, "the other process ends well");
}

/*
 * The other processes. "token": says an access token. "wait": the same, as soon as its input is closed, after a line
 * that says what it is; so do the demo programs of the other languages. "renew": renews.
 */
static int other_process(const char *task, const char *with)
{
    evergrant_client *mine = open_client(with);
    evergrant_error *error = NULL;
    evergrant_status status;
    char *token = NULL;
    if (strcmp(task, "wait") == 0) {
        puts("C");
        fflush(stdout);
        while (getchar() != EOF)
            continue;
    }
    if (strcmp(task, "renew") == 0)
        status = evergrant_session_renew(mine, SESSION, NULL, NULL, &token, &error);
    else
        status = evergrant_session_access_token(mine, SESSION, NULL, &token, &error);
    printf("%s %s\n", evergrant_status_name((int32_t)status), token ? token : evergrant_error_message(error));
    fflush(stdout);
    evergrant_string_free(token);
    evergrant_error_free(error);
    close_client(mine);
    return 0;
}

/* ---- the steps */

static void first_token(void)
{
    char *signed_in = site_sign_in(CLIENT_ID, CLIENT_SECRET, USER, PASSWORD);
    char *refresh_token = member(signed_in, "refresh_token"), grant[1024];
    snprintf(grant, sizeof grant, "{\"refresh_token\": \"%s\"}", refresh_token);
    struct counters before = counters();

    evergrant_error *error = NULL;
    char *token = NULL;
    client = open_client(config);
    double begin = now_ms();
    check_ok(evergrant_session_save(client, SESSION, grant, &error), &error, "evergrant_session_save");
    check_ok(evergrant_session_token(client, SESSION, NULL, &token, &error), &error, "evergrant_session_token");
    double took = now_ms() - begin;

    check_seen(before, 1, 1, 1, 0);
    char *log = site_look("log?endpoint=token");
    check_count(occurrences(log, "\"auth\":\"basic_raw\""), 1, "requests with the client's credentials by HTTP Basic");
    char *instance_url = member(signed_in, "instance_url");
    check_member(token, "instance_url", instance_url);
    check_member(token, "generation", "2");
    check(strstr(token, refresh_token) == NULL, "the application's token has no refresh token");
    tell("first token", "from the refresh token in %.0f ms, of which the site takes %d", took, LATENCY_MS);
    tell_more("instance_url %s; the site saw 1 request, by HTTP Basic", instance_url);

    evergrant_string_free(instance_url);
    free(log);
    evergrant_string_free(token);
    evergrant_string_free(refresh_token);
    free(signed_in);
}

static void from_memory(void)
{
    struct counters before = counters();
    char *expected = access_token(client);
    long wrong = 0;
    double begin = cpu_ms();
    for (long i = 0; i < PEEKS; i++) {
        char *token = NULL;
        if (evergrant_session_peek(client, SESSION, &token, NULL) != EVERGRANT_STATUS_OK || strcmp(token, expected) != 0)
            wrong++;
        evergrant_string_free(token);
    }
    double took = cpu_ms() - begin;
    check_count(wrong, 0, "wrong answers from memory");
    check_seen(before, 0, 0, 0, 0);
    tell("from memory", "%.0f ns of CPU a call, to get, compare and free: evergrant_session_peek", took * 1e6 / PEEKS);
    tell_more("1,000,000 calls, the same token each time; the site saw 0 requests");
    evergrant_string_free(expected);
}

static void rotation(void)
{
    struct counters before = counters();
    char *old = access_token(client), *token = renew(client, NULL), *renewed = member(token, "access_token");
    check_seen(before, 1, 1, 1, 0);
    check(strcmp(old, renewed) != 0, "the access token is a new one");
    check_member(token, "generation", "3");
    check_count(most_presentations(), 1, "presentations of any refresh token");
    char *tokens = site_look("tokens"), *settings = site_look("settings");
    check_member(settings, "rotation", "strict");
    free(settings);
    check_count(occurrences(tokens, "\"standing\":\"used\""), 2, "refresh tokens that are spent");
    check_count(occurrences(tokens, "\"standing\":\"current\""), 1, "refresh tokens that are good");
    tell("renewal, rotation", "refresh token 3 of this session is kept, 1 and 2 are spent: a second use of one");
    tell_more("would revoke all; the site saw 1 request, and each spent refresh token once");
    free(tokens);
    evergrant_string_free(renewed);
    evergrant_string_free(token);
    evergrant_string_free(old);
}

struct ending {
    char *access_token;
    time_t at_s;
};

/* Renews, with an access token that ends after a second. */
static struct ending renew_briefly(void)
{
    evergrant_client *brief = open_client(short_config);
    char *token = renew(brief, NULL), *expires_at_s = member(token, "expires_at_s");
    struct ending ending = {member(token, "access_token"), (time_t)strtoll(expires_at_s, NULL, 10)};
    evergrant_string_free(expires_at_s);
    evergrant_string_free(token);
    close_client(brief);
    return ending;
}

/*
 * Has these processes, which have said what they are and wait for the end of their input, ask for a token as soon as
 * that of the session has ended: the site must see one request. How long they take, in milliseconds.
 */
static double ask_at_expiry(const struct process *processes, int count, struct ending old, int go[2])
{
    char first[512], line[512];
    check(old.at_s <= time(NULL) + 1, "the token ends within a second");
    while (time(NULL) <= old.at_s)
        sleep_ms(10);
    check(evergrant_session_peek(client, SESSION, NULL, NULL) == EVERGRANT_STATUS_STALE, "the token has expired");

    struct counters before = counters();
    double begin = now_ms();
    close(go[0]);
    close(go[1]);
    for (int i = 0; i < count; i++) {
        hear(processes[i], line, sizeof line);
        check(strncmp(line, "OK ", 3) == 0, "each process has a token");
        if (i == 0)
            strcpy(first, line);
        check(strcmp(line, first) == 0, "all processes have the same token");
    }
    double took = now_ms() - begin;
    for (int i = 0; i < count; i++)
        end(processes[i]);
    check(strcmp(first + 3, old.access_token) != 0, "the access token is a new one");
    check_seen(before, 1, 1, 1, 0);
    check_count(most_presentations(), 1, "presentations of any refresh token");
    evergrant_string_free(old.access_token);
    return took;
}

/* The two ends of a pipe that this program's processes do not inherit. */
static void make_go(int go[2])
{
    need(pipe(go) == 0, "a pipe can be made");
    fcntl(go[0], F_SETFD, FD_CLOEXEC);
    fcntl(go[1], F_SETFD, FD_CLOEXEC);
}

static void many_processes(void)
{
    int go[2];
    char line[512];
    struct process processes[PROCESSES];
    struct ending old = renew_briefly();
    make_go(go);
    for (int i = 0; i < PROCESSES; i++)
        processes[i] = start("wait", config, go[0]);
    for (int i = 0; i < PROCESSES; i++)
        hear(processes[i], line, sizeof line);
    double took = ask_at_expiry(processes, PROCESSES, old, go);
    tell("8 processes at expiry", "all have the same new token after %.0f ms, of which the site takes %d", took, LATENCY_MS);
    tell_more("the site saw 1 request");
}

static void three_languages(void)
{
    int go[2];
    char says[3][64], file[560];
    snprintf(file, sizeof file, "%s/client.json", directory);
    char *in_python[] = {python, "bindings/python/examples/demo.py", file, SESSION, NULL};
    char *in_node[] = {node, "build/demo/node/demo.mjs", file, SESSION, NULL};
    struct ending old = renew_briefly();
    make_go(go);
    struct process processes[3] = {start("wait", config, go[0]), start_program(in_python, go[0]),
                                   start_program(in_node, go[0])};
    for (int i = 0; i < 3; i++)
        hear(processes[i], says[i], sizeof says[i]);
    double took = ask_at_expiry(processes, 3, old, go);
    tell("3 languages at expiry", "%s, %s and %s have the same new token after %.0f ms,", says[0], says[1], says[2],
         took);
    tell_more("of which the site takes %d. One session, one store: the site saw 1 request", LATENCY_MS);
}

static void killed(void)
{
    /* What a strict site forgets, nobody can bring back: this step is about one with a grace window. */
    const int latency_ms = 500;
    char settings[256], line[4096];
    snprintf(settings, sizeof settings,
             "{\"rotation\": {\"grace\": {\"kind\": \"same_pair\", \"window_ms\": 60000}}, \"latency_ms\": %d}", latency_ms);
    free(site_order("settings", settings));
    long old_generation = generation();
    struct counters before = counters();

    struct process victim = start("renew", config, -1);
    for (int i = 0; i < 2500 && site_counter("in_flight") == 0; i++)
        sleep_ms(2);
    check_count(site_counter("in_flight"), 1, "requests under way");
    int status = 0;
    check(kill(victim.pid, SIGKILL) == 0 && waitpid(victim.pid, &status, 0) == victim.pid, "the process is killed");
    check(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL, "it was killed while it was renewing");
    check(fgetc(victim.says) == EOF, "it has not got a token");
    fclose(victim.says);
    while (site_counter("in_flight") != 0)
        sleep_ms(2);
    check_seen(before, 1, 1, 1, 0);
    check_count(generation(), old_generation, "the generation in the store, after the kill");

    double begin = now_ms();
    struct process next = start("renew", config, -1);
    hear(next, line, sizeof line);
    double took = now_ms() - begin;
    check(strncmp(line, "OK {", 4) == 0, "the next process has a token");
    end(next);
    check_seen(before, 2, 2, 1, 1);
    check_count(generation(), old_generation + 1, "the generation in the store, at the end");
    char *token = access_token(client);
    check_member(line + 3, "access_token", token);
    struct reply reply = site_resource(token);
    check_count(reply.status, 200, "HTTP status of the protected resource");
    reply_free(&reply);
    evergrant_string_free(token);
    snprintf(settings, sizeof settings, "{\"rotation\": \"strict\", \"latency_ms\": %d}", LATENCY_MS);
    free(site_order("settings", settings));
    tell("kill -9 in a renewal", "the site had rotated, the reply was lost; the next process replays and has the");
    tell_more("token %.0f ms after its start, of which the site takes %d. The site saw 2 requests;", took, latency_ms);
    tell_more("for this step it has a grace window of 60 s (a strict one has forgotten the reply)");
}

static void restart(void)
{
    char *expected = access_token(client), line[512];
    close_client(client);
    struct counters before = counters();
    double begin = now_ms();
    struct process next = start("token", config, -1);
    hear(next, line, sizeof line);
    double took = now_ms() - begin;
    end(next);
    check(strncmp(line, "OK ", 3) == 0 && strcmp(line + 3, expected) == 0, "the next process has the same token");
    check_seen(before, 0, 0, 0, 0);
    tell("after a restart", "a new process has the same token %.1f ms after its start", took);
    tell_more("the site saw 0 requests");
    evergrant_string_free(expected);
    client = open_client(config);
}

static void healed(void)
{
    struct counters before = counters();
    char *old = access_token(client);
    struct reply reply = site_resource(old);
    check_count(reply.status, 200, "HTTP status of the protected resource");
    check_count(evergrant_is_rejection(reply.status, reply.body), 0, "evergrant_is_rejection of it");
    reply_free(&reply);
    free(site_order("expire", "{\"user\": \"" USER "\"}"));

    reply = site_resource(old);
    check_count(reply.status, 401, "HTTP status of the protected resource, for an ended token");
    check(strstr(reply.body, "INVALID_SESSION_ID") != NULL, "the site says INVALID_SESSION_ID");
    check_count(evergrant_is_rejection(reply.status, reply.body), 1, "evergrant_is_rejection of it");
    reply_free(&reply);
    char *token = renew(client, old), *renewed = member(token, "access_token");
    reply = site_resource(renewed);
    check_count(reply.status, 200, "HTTP status of the protected resource, repeated");
    reply_free(&reply);
    check_seen(before, 4, 1, 1, 0);

    before = counters();
    char *late = renew(client, old); /* somebody else who had the old token, a little later */
    check_member(late, "access_token", renewed);
    check_seen(before, 0, 0, 0, 0);
    tell("a 401 healed", "INVALID_SESSION_ID, evergrant_is_rejection() = 1, renewed, repeated: 200");
    tell_more("the site saw 1 token request; a second report of that token costs none");
    evergrant_string_free(late);
    evergrant_string_free(renewed);
    evergrant_string_free(token);
    evergrant_string_free(old);
}

static void refused(void)
{
    char *old = access_token(client), line[512];
    char *revoked = site_order("revoke", "{\"family\": 0}");
    check_member(revoked, "revoked", "true");
    free(revoked);
    struct reply reply = site_resource(old);
    check_count(reply.status, 401, "HTTP status of the protected resource, for a revoked token");
    reply_free(&reply);

    evergrant_error *error = NULL;
    struct counters before = counters();
    check_count(evergrant_session_renew(client, SESSION, old, NULL, NULL, &error), EVERGRANT_STATUS_SIGN_IN_REQUIRED,
                "the status of the first call");
    check_member(evergrant_error_json(error), "reason", "used_elsewhere_or_revoked");
    evergrant_error_free(error);
    check_seen(before, 1, 1, 0, 0);

    before = counters();
    check_count(evergrant_session_token(client, SESSION, NULL, NULL, &error), EVERGRANT_STATUS_SIGN_IN_REQUIRED,
                "the status of the second call");
    check_member(evergrant_error_json(error), "reason", "used_elsewhere_or_revoked");
    evergrant_error_free(error);
    struct process next = start("token", config, -1);
    hear(next, line, sizeof line);
    end(next);
    check(strncmp(line, "SIGN_IN_REQUIRED ", 17) == 0, "the next process is refused as well");
    check_seen(before, 0, 0, 0, 0);
    tell("a revoked session", "SIGN_IN_REQUIRED, reason used_elsewhere_or_revoked");
    tell_more("the site saw 1 request for the first call, 0 for a second and for another process");
    evergrant_string_free(old);
}

static void write_config(const char *name, const char *further, char *out, size_t room)
{
    char path[560];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    FILE *file = fopen(path, "w");
    need(file != NULL, "a configuration can be written");
    fprintf(file,
            "{\"site_url\": \"%s\", \"client_id\": \"" CLIENT_ID "\", \"client_secret\": \"" CLIENT_SECRET "\","
            " \"store\": \"sqlite:sessions.db\"%s}\n",
            site_url(), further);
    need(fclose(file) == 0, "a configuration can be written");
    snprintf(out, room, "{\"config_file\": \"%s\"}", path);
}

static int tour(const char *server)
{
    static void (*const steps[])(void) = {first_token, from_memory, rotation, many_processes, three_languages,
                                          killed,      restart,     healed,   refused};
    double begin = now_ms();
    signal(SIGTTOU, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    site_start(server, CLIENT_ID, CLIENT_SECRET, USER, PASSWORD, LATENCY_MS);
    write_config("client.json", "", config, sizeof config);
    write_config("short.json", ", \"session_lifetime_s\": 1, \"early_renewal\": \"off\"", short_config, sizeof short_config);
    printf("evergrant %s. %s plays a Salesforce site: strict rotation,\n", evergrant_version(), site_url());
    printf("%d ms for a token request. A user has signed in there once (code and credentials flow).\n\n", LATENCY_MS);
    fflush(stdout);
    for (step = 1; step <= (int)(sizeof steps / sizeof *steps); step++)
        steps[step - 1]();
    step = 0;
    close_client(client);
    struct counters all = counters();
    site_stop();
    printf("\nAll 9 are true, by %d checks in %.1f s. The site saw %ld token requests, the sign-in's included.\n", checks,
           (now_ms() - begin) / 1e3, all.token_requests);
    return 0;
}

/* ---- the first process: it runs the tour in another one, and cleans up whatever happens to that */

static int remove_one(const char *path, const struct stat *status, int type, struct FTW *place)
{
    (void)status, (void)type, (void)place;
    return remove(path);
}

static int supervise(const char *server)
{
    const int signals[] = {SIGINT, SIGTERM, SIGHUP, SIGALRM, SIGCHLD};
    const char *parent = getenv("TMPDIR");
    snprintf(directory, sizeof directory, "%s/evergrant-demo-XXXXXX", parent && *parent ? parent : "/tmp");
    sigset_t waited, before;
    sigemptyset(&waited);
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
        sigaddset(&waited, signals[i]);
    sigprocmask(SIG_BLOCK, &waited, &before);
    if (!mkdtemp(directory))
        fail("no temporary directory can be made in %s", parent && *parent ? parent : "/tmp");

    pid_t worker = fork();
    if (worker == 0) {
        setpgid(0, 0);
        sigprocmask(SIG_SETMASK, &before, NULL);
        exit(tour(server));
    }
    int status = 0, got = 0;
    pid_t ended = 0;
    if (worker > 0) {
        setpgid(worker, worker);
        alarm(MOST_SECONDS);
        while (ended != worker && sigwait(&waited, &got) == 0 && got == SIGCHLD)
            ended = waitpid(worker, &status, WNOHANG);
        kill(-worker, SIGKILL); /* with all that it has started */
        if (ended != worker)
            waitpid(worker, &status, 0);
    }
    int removed = nftw(directory, remove_one, 16, FTW_DEPTH | FTW_PHYS) == 0;
    if (ended != worker) {
        fprintf(stderr, got == SIGALRM ? "demo: it took more than %d s\n" : "demo: interrupted\n", MOST_SECONDS);
        return worker > 0 && got != SIGALRM ? 128 + got : 1;
    }
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0 || !removed) {
        fprintf(stderr, "demo: not all is well%s%s\n", removed ? "" : "; remove ", removed ? "" : directory);
        return 1;
    }
    printf("All is well. What was kept in %s is removed, and the server is stopped.\n", directory);
    return 0;
}

int main(int argc, char **argv)
{
    const char *config_file = getenv("EVERGRANT_CONFIG");
    program = argv[0];
    if (argc == 4 && strcmp(argv[1], "--task") == 0)
        return other_process(argv[2], argv[3]);
    if (config_file && *config_file)
        return own_org(config_file);
    if (argc == 4) {
        python = argv[2];
        node = argv[3];
        return supervise(argv[1]);
    }
    fprintf(stderr, "usage: demo TEST_SERVER PYTHON NODE\n       EVERGRANT_CONFIG=FILE demo\n");
    return 2;
}
