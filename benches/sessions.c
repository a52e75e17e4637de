/*
 * Many sessions in one store, many clients in one process. Argument: a directory in memory (tmpfs), since a store is
 * filled here through evergrant_session_save(), one durable write for each. BENCH_FULL=1 adds a million sessions.
 */
#include "bench.h"
#include <malloc.h>
#include <unistd.h>

enum { SMALL = 1000, LARGE = 100000, FULL = 1000000, SAMPLE = 100, CLIENTS = 3000 };

static const char *directory;

static evergrant_client *open_store(int sessions, int client)
{
    char config[1024];
    snprintf(config, sizeof config,
             "{\"token_endpoint\":\"https://login.example.com/token\",\"client_id\":\"client-%d\","
             "\"client_secret\":\"a-client-secret-of-a-usual-length\",\"namespace\":\"n\",\"store\":\"sqlite:%s/%d.db\"}",
             client, directory, sessions);
    return open_client(config);
}

static void name_of(char *name, size_t size, int session)
{
    snprintf(name, size, "org-%d/user-%d@example.com", session % 97, session);
}

static void fill(int sessions)
{
    evergrant_client *client = open_store(sessions, 0);
    double begin = wall_ns();
    char name[64], json[512];
    int i;
    for (i = 0; i < sessions; i++) {
        name_of(name, sizeof name, i);
        snprintf(json, sizeof json,
                 "{\"access_token\":\"00Dxx0000001gPL!AQcAQH0dMHZfz972Szmpkb58urFRkgeBGsxL_QJWwYMfAbUeeG7c1Ej%d\","
                 "\"refresh_token\":\"5Aep861KIwKdekr90KlxVVUI47zdR6dOfs%d\",\"expires_in\":86400,\"token_type\":"
                 "\"Bearer\",\"instance_url\":\"https://example.my.salesforce.com\"}",
                 i, i);
        OK(evergrant_session_save(client, name, json, &error));
    }
    fprintf(stderr, "sessions: saved %d in %.1f s (on tmpfs)\n", sessions, (wall_ns() - begin) / 1e9);
    close_client(client);
}

struct figures {
    rounds open, token, list;
};

static void measure(struct figures *figures, int i, int sessions)
{
    double each[SAMPLE], begin;
    char name[64];
    evergrant_client *client;
    int n;
    begin = wall_ns();
    client = open_store(sessions, 0);
    figures->open[i] = wall_ns() - begin;
    for (n = 0; n < SAMPLE; n++) {
        name_of(name, sizeof name, (int)(random() % sessions));
        begin = wall_ns();
        OK(evergrant_session_token(client, name, NULL, NULL, &error));
        each[n] = wall_ns() - begin;
    }
    figures->token[i] = median(each, SAMPLE);
    for (n = 0; n < SAMPLE; n++) {
        name_of(name, sizeof name, (int)(random() % sessions));
        begin = wall_ns();
        OK(evergrant_session_list(client, name, 100, NULL, &error));
        each[n] = wall_ns() - begin;
    }
    figures->list[i] = median(each, SAMPLE);
    close_client(client);
}

static void compare(int many)
{
    struct figures large, small;
    char what[96];
    int i;
    fill(many);
    for (i = 0; i < ROUNDS; i++) {
        measure(&large, i, many);
        measure(&small, i, SMALL);
    }
    snprintf(what, sizeof what, "open a store of %d; peer: of %d", many, SMALL);
    row(what, large.open, small.open, US, "the same");
    row("  token() of any session, first time", large.token, small.token, US, "the same");
    row("  list page of 100", large.list, small.list, US, "the same");
}

static double resident(void)
{
    long pages = 0, all = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &all, &pages) != 2)
        die("/proc/self/statm", "cannot be read");
    fclose(file);
    return (double)pages * (double)sysconf(_SC_PAGESIZE);
}

static void clients(void)
{
    /* Each round's clients stay: freed memory would be used again, and not be seen. */
    static evergrant_client *all[ROUNDS][CLIENTS];
    rounds time, memory;
    int i, n;
    evergrant_client *first = open_store(SMALL, 0);
    OK(evergrant_session_list(first, NULL, 1, NULL, &error));
    malloc_trim(0);
    for (i = 0; i < ROUNDS; i++) {
        double before = resident(), begin = wall_ns();
        for (n = 0; n < CLIENTS; n++)
            all[i][n] = open_store(SMALL, 1 + i * CLIENTS + n);
        time[i] = (wall_ns() - begin) / CLIENTS;
        memory[i] = (resident() - before) / CLIENTS;
    }
    for (i = 0; i < ROUNDS; i++)
        for (n = 0; n < CLIENTS; n++)
            close_client(all[i][n]);
    close_client(first);
    row("3,000 clients of an open store: time to open one", time, NULL, US, "<= 100 us");
    row("3,000 clients of an open store: memory of one", memory, NULL, 1024, "KiB", "<= 4 KiB");
}

int main(int count, char **arguments)
{
    if (count != 2)
        die(arguments[0], "DIRECTORY");
    directory = arguments[1];
    fill(SMALL);
    clients();
    compare(LARGE);
    if (getenv("BENCH_FULL"))
        compare(FULL);
    return 0;
}
