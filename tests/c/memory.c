/*
 * What a process still holds of tokens, client secrets, keys and the JSON it gave, after signing out and after closing:
 * its whole memory is searched. Against the test server as a Salesforce site (EVERGRANT_TEST_SERVER: its control URL,
 * EVERGRANT_TEST_SITE: its URL), which puts a mark into every token.
 *
 * The program's own copies lie in one arena, which is left out. The marks are spelled backwards, so that the search does
 * not find itself.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "http.h"
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/wait.h>

enum { MARK = 24, ROOM = 1 << 16 };

static const char token_mark[] = "-3c9e2b7dranac-nekot-kram";
static const char secret_mark[] = "-8f41a6e0ranac-terces-kra";
/* In a member of a token that means nothing to the library, and in a parameter of every renewal. */
static const char member_mark[] = "-5d07c1b9ranac-rebmem-kra";
static const char parameter_mark[] = "-2a96f4d3ranac-retemarapk";
/* An encryption key: 32 bytes, as text and as they are. */
static const char key_text_mark[] = "=EDMtsmch1WL5V2atknch5WYj1SZmFTY3kDZyEWL5V2a";
static const char key_mark[] = "10-kram-yek-yranac-ef1a79d2a-yek";

static struct {
    char config[4096], order[1024], sign_in[ROOM], token[ROOM], call[ROOM + 256], mark[8][64], scratch[ROOM];
} arena;

static evergrant_error *error;

/* Good until eight more have been asked for. */
static const char *forwards(const char *backwards)
{
    static size_t next;
    char *mark = arena.mark[next++ % 8];
    size_t i, n = strlen(backwards);
    for (i = 0; i < n; i++)
        mark[i] = backwards[n - 1 - i];
    mark[n] = '\0';
    return mark;
}

/* One order to the server, given by a child: what its stack and buffers held goes with it. */
static void tell_server(const char *path, const char *body, char *answer)
{
    int ends[2];
    pid_t child;
    size_t got = 0;
    ssize_t n;

    if (!CHECK(pipe(ends) == 0))
        exit(done());
    child = fork();
    if (child == 0) {
        int status = http(getenv("EVERGRANT_TEST_SERVER"), path, NULL, body, arena.scratch, sizeof arena.scratch);
        size_t length = strlen(arena.scratch);
        _exit(status == 200 && write(ends[1], arena.scratch, length) == (ssize_t)length ? 0 : 1);
    }
    close(ends[1]);
    while ((n = read(ends[0], answer + got, ROOM - 1 - got)) > 0)
        got += (size_t)n;
    answer[got] = '\0';
    close(ends[0]);
    CHECK(waitpid(child, NULL, 0) == child && got > 0);
}

static int is_mark(const char *at, const char *backwards)
{
    size_t i, n = strlen(backwards);
    for (i = 0; i < MARK; i++)
        if (at[i] != backwards[n - 1 - i])
            return 0;
    return 1;
}

/* How often a mark stands in memory, outside the arena. */
static int found(const char *backwards, const char *when, int tell)
{
    static char line[512], block[1 << 16];
    int memory = open("/proc/self/mem", O_RDONLY), count = 0;
    FILE *maps = fopen("/proc/self/maps", "r");
    unsigned long from, to;
    char rights[8], name[256];

    CHECK(memory >= 0 && maps);
    while (maps && fgets(line, sizeof line, maps)) {
        *name = '\0';
        if (sscanf(line, "%lx-%lx %7s %*s %*s %*s %255[^\n]", &from, &to, rights, name) < 3 || rights[0] != 'r')
            continue;
        while (from < to) {
            size_t want = to - from < sizeof block ? to - from : sizeof block, i;
            ssize_t got = pread(memory, block, want, (off_t)from);
            if (got < MARK)
                break;
            for (i = 0; i + MARK <= (size_t)got; i++) {
                uintptr_t at = from + i;
                int own = at >= (uintptr_t)&arena && at < (uintptr_t)(&arena + 1);
                own |= at >= (uintptr_t)block && at < (uintptr_t)(block + sizeof block);
                if (!own && is_mark(block + i, backwards)) {
                    count++;
                    if (tell)
                        fprintf(stderr, "    %s: at %#lx in %s\n", when, (unsigned long)at, *name ? name : "anonymous memory");
                }
            }
            /* With what may begin at the block's end. */
            from += (size_t)got == want && from + want < to ? want - MARK : want;
        }
    }
    if (maps)
        fclose(maps);
    close(memory);
    return count;
}

/* A call through a queue. */
static void through(evergrant_queue *queue, const evergrant_client *client)
{
    char *results = NULL;
    OK(evergrant_queue_submit(queue, client, 7, arena.call, &error));
    OK(evergrant_queue_take(queue, 60000, &results, &error));
    CHECK(strstr(results, "\"status\":\"OK\"") != NULL);
    evergrant_string_free(results);
}

static void nothing_found(const char *when)
{
    CHECK(alone());
    CHECK_ROW(found(token_mark, when, 1) == 0, "token");
    CHECK_ROW(found(member_mark, when, 1) == 0, "member");
}

static void life(const char *store, int queued, int sign_out)
{
    evergrant_client *client = NULL;
    evergrant_queue *queue = NULL;
    char *text = NULL;
    const char *when = sign_out ? "after signing out" : "after closing";

    snprintf(arena.config, sizeof arena.config,
             "{\"site_url\":\"%s\",\"client_id\":\"marked\",\"client_secret\":\"%s\",\"store\":\"%s\","
             "\"encryption_key\":\"%s\",\"refresh_parameters\":{\"resource\":\"%s\"}}",
             getenv("EVERGRANT_TEST_SITE"), forwards(secret_mark), store, forwards(key_text_mark),
             forwards(parameter_mark));
    tell_server("/sign_in", "{\"client_id\":\"marked\"}", arena.sign_in);
    CHECK(snprintf(arena.token, sizeof arena.token, "{\"note\":\"%s\",%s", forwards(member_mark), arena.sign_in + 1) <
          (int)sizeof arena.token);
    OK(evergrant_client_open(arena.config, &client, &error));
    if (queued) {
        OK(evergrant_queue_open(&queue, NULL, &error));
        CHECK(snprintf(arena.call, sizeof arena.call,
                       "{\"call\":\"session_save\",\"session\":\"alice\",\"token\":%s}",
                       arena.token) < (int)sizeof arena.call);
        through(queue, client);
        snprintf(arena.call, sizeof arena.call, "{\"call\":\"session_token\",\"session\":\"alice\"}");
        through(queue, client);
    } else {
        OK(evergrant_session_save(client, "alice", arena.token, &error));
        OK(evergrant_session_token(client, "alice", NULL, &text, &error));
        evergrant_string_free(text);
    }
    /* The search finds what is there. */
    CHECK(found(token_mark, "in use", 0) > 0 && found(member_mark, "in use", 0) > 0);
    OK(evergrant_session_renew(client, "alice", NULL, NULL, &text, &error));
    CHECK(found(token_mark, "in use", 0) > 0 && found(secret_mark, "in use", 0) > 0);
    CHECK(found(parameter_mark, "in use", 0) > 0);
    evergrant_string_free(text);
    if (sign_out) {
        OK(evergrant_session_sign_out(client, "alice", &error));
        nothing_found(when);
    }
    evergrant_queue_free(queue);
    CHECK(evergrant_client_close(client, 10000) == EVERGRANT_STATUS_OK);
    evergrant_client_free(client);
    nothing_found(when);
    CHECK_ROW(found(secret_mark, when, 1) == 0, "client secret");
    CHECK_ROW(found(parameter_mark, when, 1) == 0, "parameter");
    CHECK_ROW(found(key_text_mark, when, 1) == 0, "key as text");
    CHECK_ROW(found(key_mark, when, 1) == 0, "key");
}

int main(void)
{
    char directory[] = "/tmp/evergrant-memory-XXXXXX", store[128], command[128];

    if (!CHECK(mkdtemp(directory)))
        return done();
    snprintf(arena.order, sizeof arena.order, "{\"token_prefix\":\"%s\"}", forwards(token_mark));
    tell_server("/settings", arena.order, arena.sign_in);
    snprintf(arena.order, sizeof arena.order, "{\"id\":\"marked\",\"secret\":\"%s\"}", forwards(secret_mark));
    tell_server("/clients", arena.order, arena.sign_in);
    snprintf(store, sizeof store, "sqlite:%s/sessions.db", directory);
    life("memory:", 0, 0);
    life(store, 0, 0);
    life(store, 0, 1);
    life(store, 1, 1);
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    CHECK(system(command) == 0);
    return done();
}
