/*
 * One process of benches/stores.sh: renews a session of its own, or reads its token out of the store, as often as it can
 * in a given time, and prints how often.
 *
 * Arguments: store, number of this process, "renew" or "token", seconds. After a line "ready" it reads the moment at which
 * all begin (CLOCK_MONOTONIC, seconds).
 */
#include "server.h"

/* recheck_s: memory would answer token() otherwise. */
static evergrant_client *open_store(const char *store)
{
    char config[2048];
    snprintf(config, sizeof config,
             "{\"token_endpoint\":\"%s\",\"client_id\":\"client\",\"client_secret\":\"secret\",\"store\":\"%s\","
             "\"encryption_key\":\"YmVuY2htYXJrcyBiZW5jaG1hcmtzIGJlbmNobWFya3M=\",\"recheck_s\":0,"
             "\"max_wait_ms\":60000}",
             token_endpoint(), store);
    return open_client(config);
}

int main(int count, char **arguments)
{
    char session[32];
    struct timespec moment;
    double begin;
    long done = 0;
    evergrant_client *client;
    int renews;
    if (count != 5)
        die(arguments[0], "STORE NUMBER renew|token SECONDS");
    renews = strcmp(arguments[3], "renew") == 0;
    snprintf(session, sizeof session, "session-%s", arguments[2]);
    client = open_store(arguments[1]);
    OK(evergrant_session_save(client, session, sign_in(), &error));
    OK(evergrant_session_renew(client, session, NULL, NULL, NULL, &error));
    puts("ready");
    fflush(stdout);
    if (scanf("%lf", &begin) != 1)
        die("standard input", "has no moment to begin at");
    moment.tv_sec = (time_t)begin;
    moment.tv_nsec = (long)((begin - (double)moment.tv_sec) * 1e9);
    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &moment, NULL);
    for (; wall_ns() < (begin + atof(arguments[4])) * 1e9; done++)
        if (renews)
            OK(evergrant_session_renew(client, session, NULL, NULL, NULL, &error));
        else
            OK(evergrant_session_token(client, session, NULL, NULL, &error));
    close_client(client);
    printf("%ld\n", done);
    return 0;
}
