/*
 * A session's whole life through the C interface, against the test server as a Salesforce site (EVERGRANT_TEST_SERVER:
 * its control URL, EVERGRANT_TEST_SITE: its URL). Run plain, with sanitizers and under valgrind: every path that gives
 * out or takes back memory is walked here.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "http.h"
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

static char site[256];
static const char *control;
static evergrant_error *error;

/* The call fails with this status, and the error's JSON contains this text. */
#define FAILS(call, expected, text)                                                                                    \
    do {                                                                                                               \
        evergrant_status status_ = (call);                                                                             \
        CHECK(status_ == (expected));                                                                                  \
        CHECK(evergrant_error_status(error) == (expected));                                                            \
        CHECK_ROW(strstr(evergrant_error_json(error), (text)) != NULL, evergrant_error_json(error));                   \
        evergrant_error_free(error);                                                                                   \
        error = NULL;                                                                                                  \
    } while (0)

static char *member(const char *json, const char *name)
{
    char *value = NULL;
    OK(evergrant_json_member(json, name, &value, &error));
    return value;
}

static int has(const char *json, const char *text)
{
    return CHECK_ROW(json && strstr(json, text) != NULL, json ? json : "NULL");
}

static long token_requests(void)
{
    char stats[8192];
    char *text;
    long count;
    CHECK(http(control, "/stats", NULL, NULL, stats, sizeof stats) == 200);
    text = member(stats, "token_requests");
    count = atol(text);
    evergrant_string_free(text);
    return count;
}

static char *first_token(void)
{
    static char answer[16384];
    CHECK(http(control, "/sign_in", NULL, "{}", answer, sizeof answer) == 200);
    return answer;
}

static int resource(const char *access_token)
{
    char body[16384];
    return http(site, "/services/data/v64.0/limits", access_token, NULL, body, sizeof body);
}

static void bare_flow(void)
{
    char request[32768], *answer = NULL, *old, *fresh;
    char *token = first_token();
    old = member(token, "refresh_token");
    snprintf(request, sizeof request,
             "{\"site_url\":\"%s//\",\"client_id\":\"client\",\"client_secret\":\"secret\",\"refresh_token\":\"%s\"}", site,
             old);
    OK(evergrant_refresh(request, &answer, &error));
    fresh = member(answer, "refresh_token");
    CHECK(strcmp(old, fresh) != 0);
    has(answer, "\"instance_url\"");
    evergrant_string_free(answer);
    evergrant_string_free(old);
    evergrant_string_free(fresh);
    FAILS(evergrant_refresh(request, NULL, &error), EVERGRANT_STATUS_SIGN_IN_REQUIRED, "expired_or_revoked");
}

static void whole_life(const char *store)
{
    char config[2048], *token = NULL, *access = NULL, *again = NULL, *json = NULL, *text;
    evergrant_client *client = NULL;
    const uint32_t *stamp = NULL;
    uint32_t before;
    int64_t fresh_until_ms = 0;
    long requests;

    snprintf(config, sizeof config,
             "{\"site_url\":\"%s\",\"client_id\":\"client\",\"client_secret\":\"secret\",\"store\":\"%s\"}", site, store);
    OK(evergrant_client_open(config, &client, &error));
    FAILS(evergrant_session_token(client, "alice", NULL, &token, &error), EVERGRANT_STATUS_SIGN_IN_REQUIRED,
          "no_session");
    CHECK(token == NULL);

    OK(evergrant_session_save(client, "alice", first_token(), &error));
    requests = token_requests();
    OK(evergrant_session_stamp(client, "alice", &stamp, &error));
    OK(evergrant_session_token(client, "alice", NULL, &token, &error));
    has(token, "\"generation\":1");
    has(token, "\"expiry\":\"unknown\"");
    CHECK(strstr(token, "\"refresh_token\":") == NULL);
    CHECK(token_requests() == requests);
    evergrant_string_free(token);

    OK(evergrant_session_access_token(client, "alice", "{\"min_valid_s\":1,\"max_wait_ms\":5000}", &access, &error));
    CHECK(resource(access) == 200);
    CHECK(evergrant_session_peek(client, "alice", &again, &fresh_until_ms) == EVERGRANT_STATUS_OK);
    CHECK(strcmp(access, again) == 0);
    CHECK(fresh_until_ms / 1000 >= (int64_t)time(NULL));
    evergrant_string_free(again);
    CHECK(evergrant_session_peek(client, "nobody", &again, NULL) == EVERGRANT_STATUS_STALE);

    before = *stamp;
    OK(evergrant_session_renew(client, "alice", access, NULL, &token, &error));
    CHECK(*stamp != before);
    has(token, "\"generation\":2");
    CHECK(token_requests() == requests + 1);
    evergrant_string_free(token);
    /* Somebody has renewed since: nothing is sent. */
    OK(evergrant_session_renew(client, "alice", access, NULL, &token, &error));
    CHECK(token_requests() == requests + 1);
    text = member(token, "access_token");
    CHECK(resource(text) == 200);
    CHECK(strcmp(text, access) != 0);
    evergrant_string_free(text);
    evergrant_string_free(token);
    evergrant_string_free(access);

    OK(evergrant_session_describe(client, "alice", &json, &error));
    has(json, "\"state\":\"active\"");
    evergrant_string_free(json);
    OK(evergrant_session_list(client, NULL, 10, &json, &error));
    has(json, "\"session\":\"alice\"");
    evergrant_string_free(json);
    OK(evergrant_client_stats(client, &json, &error));
    has(json, "\"done\":1");
    evergrant_string_free(json);
    OK(evergrant_client_events(client, 0, 0, &json, &error));
    has(json, "\"kind\":\"renewed\"");
    evergrant_string_free(json);

    OK(evergrant_session_introspect(client, "alice", &json, &error));
    has(json, "\"active\":true");
    evergrant_string_free(json);
    OK(evergrant_session_sign_out(client, "alice", &error));
    OK(evergrant_session_describe(client, "alice", &json, &error));
    has(json, "\"state\":\"signed_out\"");
    has(json, "\"to_revoke\":0");
    evergrant_string_free(json);
    FAILS(evergrant_session_token(client, "alice", NULL, &token, &error), EVERGRANT_STATUS_SIGN_IN_REQUIRED,
          "signed_out");
    OK(evergrant_session_forget(client, "alice", &error));
    FAILS(evergrant_session_describe(client, "alice", &json, &error), EVERGRANT_STATUS_SIGN_IN_REQUIRED, "no_session");

    CHECK(evergrant_client_close(client, 1000) == EVERGRANT_STATUS_OK);
    FAILS(evergrant_session_token(client, "alice", NULL, &token, &error), EVERGRANT_STATUS_CLOSED, "closed");
    CHECK(evergrant_session_peek(client, "alice", &again, NULL) == EVERGRANT_STATUS_CLOSED);
    evergrant_client_free(client);
}

int main(void)
{
    char directory[] = "/tmp/evergrant-session-XXXXXX", store[512], command[600];
    const char *url = getenv("EVERGRANT_TEST_SITE");
    control = getenv("EVERGRANT_TEST_SERVER");
    if (!CHECK(url && control) || !CHECK(mkdtemp(directory) != NULL))
        return done();
    snprintf(site, sizeof site, "%s/customers", url);
    bare_flow();
    whole_life("memory:");
    snprintf(store, sizeof store, "sqlite:%s/sessions.db", directory);
    whole_life(store);
    snprintf(command, sizeof command, "rm -r %s", directory);
    CHECK(system(command) == 0);
    CHECK(alone());
    return done();
}
