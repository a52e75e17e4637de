/*
 * A host program that does what it is told: the hands of tests/processes, which says the words on stdin, one command a
 * line, and reads what came of them on stdout, one JSON object a line.
 *
 *     TAG <tab> COMMAND <tab> ARGUMENT ...
 *     {"tag": "TAG", "pid": 42, "us": 310, "status": "OK", "answer": ...}
 *
 * An empty argument is NULL. The answer is the library's JSON, a failure's its error. Commands are at the end of this
 * file, in a table. Whatever goes wrong here, and not in the library, ends the program with status 3.
 */
#define _XOPEN_SOURCE 700

#include <dlfcn.h>
#include <errno.h>
#include <evergrant.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define WORDS 16
#define CLIENTS 4096
/* Between the commands of a forked child. */
#define NEXT "\036"

/* What came of a command: a status and JSON of our own, or NULL. */
struct result {
    evergrant_status status;
    char *answer;
};

static evergrant_client *clients[CLIENTS];
static int opened;
static evergrant_client *client;
static int stopped;
static pthread_mutex_t output = PTHREAD_MUTEX_INITIALIZER;

/* ---- small things */

static void die(const char *what)
{
    fprintf(stderr, "worker: %s: %s\n", what, strerror(errno));
    _exit(3);
}

static void *must(void *memory)
{
    if (memory == NULL)
        die("memory");
    return memory;
}

static char *format(const char *pattern, ...)
{
    va_list arguments;
    int length;
    char *text;

    va_start(arguments, pattern);
    length = vsnprintf(NULL, 0, pattern, arguments);
    va_end(arguments);
    text = must(malloc((size_t)length + 1));
    va_start(arguments, pattern);
    vsnprintf(text, (size_t)length + 1, pattern, arguments);
    va_end(arguments);
    return text;
}

static int64_t now_us(clockid_t clock)
{
    struct timespec now;
    clock_gettime(clock, &now);
    return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void sleep_until_us(int64_t until)
{
    int64_t left;
    while ((left = until - now_us(CLOCK_REALTIME)) > 0) {
        struct timespec pause;
        pause.tv_sec = left / 1000000;
        pause.tv_nsec = left % 1000000 * 1000;
        nanosleep(&pause, NULL); /* a signal may end it early */
    }
}

/* Takes over what the library gave. */
static struct result result(evergrant_status status, char *answer, evergrant_error *error)
{
    struct result result;
    result.status = status;
    result.answer = error != NULL ? format("%s", evergrant_error_json(error)) : format("%s", answer ? answer : "null");
    evergrant_string_free(answer);
    evergrant_error_free(error);
    return result;
}

/* A result of our own. */
static struct result own(char *answer)
{
    struct result result;
    result.status = EVERGRANT_STATUS_OK;
    result.answer = answer;
    return result;
}

static void say(const char *tag, struct result result, int64_t began)
{
    char *line = format("{\"tag\":\"%s\",\"pid\":%ld,\"us\":%" PRId64 ",\"status\":\"%s\",\"answer\":%s}\n", tag,
                        (long)getpid(), now_us(CLOCK_MONOTONIC) - began, evergrant_status_name((int32_t)result.status),
                        result.answer);
    size_t length = strlen(line), done = 0;

    pthread_mutex_lock(&output);
    while (done < length) {
        ssize_t written = write(STDOUT_FILENO, line + done, length - done);
        if (written > 0)
            done += (size_t)written;
        else if (errno != EINTR)
            die("write");
    }
    pthread_mutex_unlock(&output);
    free(line);
    free(result.answer);
}

/* ---- commands. words[0] is the command itself; missing words are NULL. */

static struct result run(const char *tag, char **words);

static void run_and_say(const char *tag, char **words)
{
    int64_t began = now_us(CLOCK_MONOTONIC);
    say(tag, run(tag, words), began);
}

static struct result do_open(const char *tag, char **words)
{
    evergrant_error *error = NULL;
    evergrant_client *new_client = NULL;
    evergrant_status status = evergrant_client_open(words[1], &new_client, &error);
    (void)tag;
    if (status == EVERGRANT_STATUS_OK) {
        if (opened == CLIENTS)
            die("too many clients");
        client = clients[opened++] = new_client;
    }
    return result(status, NULL, error);
}

static struct result do_use(const char *tag, char **words)
{
    (void)tag;
    client = clients[atoi(words[1])];
    return own(format("null"));
}

static struct result do_save(const char *tag, char **words)
{
    evergrant_error *error = NULL;
    evergrant_status status = evergrant_session_save(client, words[1], words[2], &error);
    (void)tag;
    return result(status, NULL, error);
}

static struct result do_token(const char *tag, char **words)
{
    evergrant_error *error = NULL;
    char *token = NULL;
    evergrant_status status = evergrant_session_token(client, words[1], words[2], &token, &error);
    (void)tag;
    return result(status, token, error);
}

static struct result do_renew(const char *tag, char **words)
{
    evergrant_error *error = NULL;
    char *token = NULL;
    evergrant_status status = evergrant_session_renew(client, words[1], words[2], words[3], &token, &error);
    (void)tag;
    return result(status, token, error);
}

static struct result do_peek(const char *tag, char **words)
{
    char *token = NULL;
    evergrant_status status = evergrant_session_peek(client, words[1], &token, NULL);
    char *answer = token != NULL ? format("\"%s\"", token) : format("null");
    struct result result;
    (void)tag;
    evergrant_string_free(token);
    result.status = status;
    result.answer = answer;
    return result;
}

static struct result do_describe(const char *tag, char **words)
{
    evergrant_error *error = NULL;
    char *json = NULL;
    evergrant_status status = evergrant_session_describe(client, words[1], &json, &error);
    (void)tag;
    return result(status, json, error);
}

static struct result do_list(const char *tag, char **words)
{
    evergrant_error *error = NULL;
    char *json = NULL;
    evergrant_status status = evergrant_session_list(client, NULL, 100, &json, &error);
    (void)tag;
    (void)words;
    return result(status, json, error);
}

static struct result do_close(const char *tag, char **words)
{
    (void)tag;
    return result(evergrant_client_close(client, (uint32_t)atoi(words[1])), NULL, NULL);
}

static struct result do_free(const char *tag, char **words)
{
    (void)tag;
    (void)words;
    evergrant_client_free(client);
    client = NULL;
    return own(format("null"));
}

/* Sleeps for so many milliseconds. */
static struct result do_sleep(const char *tag, char **words)
{
    (void)tag;
    sleep_until_us(now_us(CLOCK_REALTIME) + atoll(words[1]) * 1000);
    return own(format("null"));
}

/* Runs a command at a moment, in Unix milliseconds: a start line for many processes. */
static struct result do_at(const char *tag, char **words)
{
    sleep_until_us(atoll(words[1]) * 1000);
    return run(tag, words + 2);
}

/* Runs a command again and again, until `stop` or the first failure. */
static struct result do_repeat(const char *tag, char **words)
{
    long done = 0;
    while (!__sync_fetch_and_add(&stopped, 0)) {
        struct result result = run(tag, words + 1);
        if (result.status != EVERGRANT_STATUS_OK)
            return result;
        free(result.answer);
        done++;
    }
    return own(format("%ld", done));
}

static struct result do_stop(const char *tag, char **words)
{
    (void)tag;
    (void)words;
    __sync_lock_test_and_set(&stopped, 1);
    return own(format("null"));
}

struct team {
    pthread_barrier_t start;
    char *tag;
    char *words[WORDS];
};

static void *member(void *argument)
{
    struct team *team = argument;
    pthread_barrier_wait(&team->start);
    run_and_say(team->tag, team->words);
    return NULL;
}

/* So many threads run the same command at the same moment; each says what came of it. */
static struct result do_threads(const char *tag, char **words)
{
    unsigned number = (unsigned)atoi(words[1]), i;
    struct team *team = must(calloc(1, sizeof *team)); /* for ever: the threads end when they like */
    team->tag = format("%s.thread", tag);
    for (i = 2; i < WORDS / 2; i++)
        team->words[i - 2] = words[i] != NULL ? format("%s", words[i]) : NULL;
    if ((errno = pthread_barrier_init(&team->start, NULL, number)) != 0)
        die("barrier");
    for (i = 0; i < number; i++) {
        pthread_t thread;
        if ((errno = pthread_create(&thread, NULL, member, team)) != 0)
            die("thread");
        pthread_detach(thread);
    }
    return own(format("%u", number));
}

static struct result do_end(const char *tag, char **words)
{
    (void)tag;
    if (strcmp(words[1], "exit") == 0)
        exit(0);
    if (strcmp(words[1], "_exit") == 0)
        _exit(0);
    for (;;) /* idle */
        pause();
}

/* The words of a line; all others become NULL. */
static int split(char *line, const char *separator, char **words)
{
    int count = 0;
    memset(words, 0, WORDS * sizeof *words);
    while (line != NULL) {
        char *end = strpbrk(line, separator);
        if (count + 1 == WORDS)
            die("too many words");
        if (end != NULL)
            *end++ = '\0';
        words[count++] = *line != '\0' ? line : NULL;
        line = end;
    }
    return count;
}

/* Forks a child that runs all commands (with spaces instead of tabs), and gives its process id. */
static struct result do_fork(const char *tag, char **words)
{
    pid_t child;
    pthread_mutex_lock(&output); /* no other thread's half line gets into the child */
    child = fork();
    pthread_mutex_unlock(&output);
    if (child < 0)
        die("fork");
    if (child == 0) {
        char *commands[WORDS], *child_tag = format("%s.child", tag);
        int i, count = split(words[1], NEXT, commands);
        alarm(100); /* nobody waits for an orphan */
        for (i = 0; i < count; i++) {
            char *parts[WORDS];
            split(commands[i], " ", parts);
            run_and_say(child_tag, parts);
        }
        die("a child needs an end");
    }
    return own(format("%ld", (long)child));
}

/* Waits for a child and gives its exit status. */
static struct result do_wait(const char *tag, char **words)
{
    int status;
    (void)tag;
    while (waitpid((pid_t)atol(words[1]), &status, 0) < 0)
        if (errno != EINTR)
            die("wait");
    return own(format("%d", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status)));
}

/* Opens a client with another copy of the library. */
static struct result do_second(const char *tag, char **words)
{
    evergrant_status (*second_open)(const char *, evergrant_client **, evergrant_error **);
    const char *(*second_json)(const evergrant_error *);
    evergrant_error *error = NULL;
    evergrant_client *second = NULL;
    struct result result;
    void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
    (void)tag;
    if (library == NULL) {
        fprintf(stderr, "worker: %s\n", dlerror());
        _exit(3);
    }
    *(void **)&second_open = must(dlsym(library, "evergrant_client_open"));
    *(void **)&second_json = must(dlsym(library, "evergrant_error_json"));
    if (second_open == evergrant_client_open)
        die("that is the same copy");
    result.status = second_open(words[2], &second, &error);
    result.answer = format("%s", error != NULL ? second_json(error) : "null");
    return result;
}

static int handled, foreign;

static void on_signal(int number)
{
    int saved = errno;
    char name[17] = "";
    /* The library's threads have names of their own; the host's have inherited this program's. */
    prctl(PR_GET_NAME, name);
    __sync_fetch_and_add(strncmp(name, "evergrant", 9) == 0 ? &foreign : &handled, 1);
    if (number == SIGALRM) {
        kill(getpid(), SIGINT);
        kill(getpid(), SIGCHLD);
    }
    errno = saved;
}

/* Three signals every millisecond, each with a handler, without SA_RESTART. `off` ends that; gives how many were
 * handled on threads of the host, and on others. */
static struct result do_signals(const char *tag, char **words)
{
    static const int numbers[] = {SIGALRM, SIGINT, SIGCHLD};
    int on = strcmp(words[1], "on") == 0;
    struct itimerval timer;
    struct sigaction action;
    size_t i;

    (void)tag;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    for (i = 0; on && i < sizeof numbers / sizeof *numbers; i++)
        sigaction(numbers[i], &action, NULL);
    memset(&timer, 0, sizeof timer);
    timer.it_value.tv_usec = timer.it_interval.tv_usec = on ? 1000 : 0;
    setitimer(ITIMER_REAL, &timer, NULL);
    return own(format("{\"host\":%d,\"foreign\":%d}", handled, foreign));
}

static const struct {
    const char *name;
    struct result (*function)(const char *tag, char **words);
} commands[] = {
    {"open", do_open},         /* CONFIGURATION: the client of all further commands */
    {"use", do_use},           /* NUMBER of the client, from 0 */
    {"save", do_save},         /* SESSION TOKEN */
    {"token", do_token},       /* SESSION OPTIONS */
    {"renew", do_renew},       /* SESSION REJECTED OPTIONS */
    {"peek", do_peek},         /* SESSION */
    {"describe", do_describe}, /* SESSION */
    {"list", do_list},
    {"close", do_close},       /* MILLISECONDS */
    {"free", do_free},
    {"sleep", do_sleep},       /* MILLISECONDS */
    {"at", do_at},             /* UNIX_MILLISECONDS COMMAND... */
    {"repeat", do_repeat},     /* COMMAND... */
    {"stop", do_stop},
    {"threads", do_threads},   /* NUMBER COMMAND... */
    {"fork", do_fork},         /* COMMANDS */
    {"wait", do_wait},         /* PID */
    {"end", do_end},           /* exit, _exit or idle */
    {"second", do_second},     /* LIBRARY CONFIGURATION */
    {"signals", do_signals},   /* on or off */
};

static struct result run(const char *tag, char **words)
{
    size_t i;
    for (i = 0; words[0] != NULL && i < sizeof commands / sizeof *commands; i++)
        if (strcmp(commands[i].name, words[0]) == 0)
            return commands[i].function(tag, words);
    fprintf(stderr, "worker: no command %s\n", words[0] != NULL ? words[0] : "at all");
    _exit(3);
}

/* One line of stdin without its end, or NULL. Unlike stdio, it loses nothing to a signal. */
static char *next_line(void)
{
    static char buffer[1 << 16];
    static size_t filled, taken;

    memmove(buffer, buffer + taken, filled -= taken);
    for (;;) {
        char *end = memchr(buffer, '\n', filled);
        ssize_t got;
        if (end != NULL) {
            *end = '\0';
            taken = (size_t)(end - buffer) + 1;
            return buffer;
        }
        got = read(STDIN_FILENO, buffer + filled, sizeof buffer - filled);
        if (got > 0)
            filled += (size_t)got;
        else if (got == 0 || errno != EINTR)
            return NULL;
    }
}

int main(void)
{
    char *line;
    while ((line = next_line()) != NULL) {
        char *words[WORDS];
        split(line, "\t", words);
        run_and_say(words[0], words + 1);
    }
    return 0;
}
