/*
 * A renewal beside the bare exchange over libcurl; client and server on one core. Arguments: a directory on a real disk,
 * and one in memory (tmpfs).
 * The store in memory shows the library's own work. The sealed SQLite store adds two durable writes, the claim and the
 * answer; its peer is the exchange and two raw writes of the same size, each with fdatasync: a page and its head in
 * SQLite's log. What the kernel needs for these differs from disk to disk, so that the CPU time is also taken in memory.
 */
#include "exchange.h"
#include "server.h"
#include <fcntl.h>
#include <unistd.h>

enum { BLOCK = 250, BLOCK_ON_DISK = 60, FRAME = 24 + 4096 };

struct figures {
    rounds wall, cpu;
};

/* The median of a block's wall times and the mean of its CPU time. */
static void measure(struct figures *figures, int i, int block, void (*one)(void *), void *user)
{
    static double each[BLOCK];
    double cpu = cpu_ns();
    int n;
    for (n = 0; n < block; n++) {
        double begin = wall_ns();
        one(user);
        each[n] = wall_ns() - begin;
    }
    figures->cpu[i] = (cpu_ns() - cpu) / block;
    figures->wall[i] = median(each, block);
}

static void renew(void *user)
{
    OK(evergrant_session_renew(user, "bench", NULL, NULL, NULL, &error));
}

static void exchange(void *user)
{
    exchange_run(user);
}

static void write_through(void *user)
{
    static const char frame[FRAME];
    int file = *(int *)user;
    if (write(file, frame, sizeof frame) != sizeof frame || fdatasync(file) != 0)
        die("write", "the disk refuses it");
}

static void in_memory(struct exchange *bare)
{
    struct figures ours, peer;
    evergrant_client *client = open_at_server("memory:");
    int i;
    OK(evergrant_session_save(client, "bench", sign_in(), &error));
    for (i = 0; i < ROUNDS; i++) {
        measure(&ours, i, BLOCK, renew, client);
        measure(&peer, i, BLOCK, exchange, bare);
    }
    close_client(client);
    row("renewal, memory store: CPU", ours.cpu, peer.cpu, US, "<= 2 x");
    row("renewal, memory store: wall", ours.wall, peer.wall, US, "");
}

static void on_tmpfs(struct exchange *bare, const char *directory)
{
    struct figures ours, peer;
    char store[600];
    evergrant_client *client;
    int i;
    snprintf(store, sizeof store, "sqlite:%s/renewal.db", directory);
    client = open_at_server(store);
    OK(evergrant_session_save(client, "bench", sign_in(), &error));
    for (i = 0; i < ROUNDS; i++) {
        measure(&ours, i, BLOCK, renew, client);
        measure(&peer, i, BLOCK, exchange, bare);
    }
    close_client(client);
    row("renewal, sealed sqlite store in tmpfs: CPU", ours.cpu, peer.cpu, US, "<= 200 us");
}

static void on_disk(struct exchange *bare, const char *directory)
{
    struct figures ours, peer, raw, least;
    rounds over;
    char path[512], store[600];
    evergrant_client *client;
    int file, i;
    snprintf(path, sizeof path, "%s/raw", directory);
    file = open(path, O_CREAT | O_WRONLY | O_TRUNC, 0600);
    /* Written over, like a log that has grown once. */
    for (i = 0; i < BLOCK_ON_DISK; i++)
        write_through(&file);
    snprintf(store, sizeof store, "sqlite:%s/renewal.db", directory);
    client = open_at_server(store);
    OK(evergrant_session_save(client, "bench", sign_in(), &error));
    for (i = 0; i < BLOCK_ON_DISK; i++)
        renew(client);
    for (i = 0; i < ROUNDS; i++) {
        measure(&ours, i, BLOCK_ON_DISK, renew, client);
        measure(&peer, i, BLOCK_ON_DISK, exchange, bare);
        lseek(file, 0, SEEK_SET);
        measure(&raw, i, BLOCK_ON_DISK, write_through, &file);
        over[i] = ours.wall[i] - peer.wall[i];
        least.wall[i] = peer.wall[i] + 2 * raw.wall[i];
        least.cpu[i] = peer.cpu[i] + 2 * raw.cpu[i];
    }
    close_client(client);
    close(file);
    row("renewal, sealed sqlite store: wall; peer: + 2 raw writes", ours.wall, least.wall, US, "");
    row("  less the exchange; peer: one raw write + fdatasync", over, raw.wall, US, "<= 1 ms if fsync is 0.3 ms");
    row("renewal, sealed sqlite store: CPU; peer: + 2 raw writes", ours.cpu, least.cpu, US, "");
}

int main(int count, char **arguments)
{
    struct exchange bare;
    if (count != 3)
        die(arguments[0], "DISK TMPFS");
    curl_global_init(CURL_GLOBAL_DEFAULT);
    exchange_open(&bare, token_endpoint(), sign_in());
    exchange_run(&bare);
    in_memory(&bare);
    on_disk(&bare, arguments[1]);
    on_tmpfs(&bare, arguments[2]);
    curl_easy_cleanup(bare.curl);
    curl_global_cleanup();
    return 0;
}
