/*
 * The test server, as tests/with-server.sh has started it: EVERGRANT_TEST_SITE and EVERGRANT_TEST_SERVER.
 */
#ifndef SERVER_H
#define SERVER_H

#include "../tests/c/http.h"
#include "bench.h"

static inline const char *server(const char *variable)
{
    const char *url = getenv(variable);
    if (!url)
        die(variable, "is not set: run benches/run.sh");
    return url;
}

static inline const char *control(const char *path, const char *body)
{
    static char answer[65536];
    if (http(server("EVERGRANT_TEST_SERVER"), path, NULL, body, answer, sizeof answer) != 200)
        die(path, "the test server refuses it");
    return answer;
}

/* A token answer, as after a sign-in. */
static inline const char *sign_in(void)
{
    return control("/sign_in", "{\"client_id\":\"client\"}");
}

static inline long token_requests(void)
{
    const char *count = strstr(control("/stats", NULL), "\"token_requests\":");
    return count ? atol(count + strlen("\"token_requests\":")) : -1;
}

static inline const char *token_endpoint(void)
{
    static char url[256];
    snprintf(url, sizeof url, "%s/token", server("EVERGRANT_TEST_SITE"));
    return url;
}

static inline evergrant_client *open_at_server(const char *store)
{
    char config[2048];
    snprintf(config, sizeof config,
             "{\"token_endpoint\":\"%s\",\"client_id\":\"client\",\"client_secret\":\"secret\",\"store\":\"%s\"}",
             token_endpoint(), store);
    return open_client(config);
}

#endif
