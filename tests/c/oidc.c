/*
 * Sessions of a real authorization server, kept renewed: run by tests/oidc/run.sh, described in tests/oidc/README.md.
 * Each kind of client saves a genuine token, renews it again and again, restarts, outlives an access token, signs out.
 */

#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "http.h"
#include <stdlib.h>

enum { RENEWALS = 20, MAX_PARTIES = 8, CLOSE_WAIT_MS = 5000 };

static const char SESSION[] = "alice";

typedef struct party {
    char *config;
    char *signed_in; /* the token answer of the sign-in */
    char *token; /* the last one that the library gave */
    evergrant_client *client;
} party;

static evergrant_error *error;
static char *issuer;
static char *userinfo_endpoint;

/* Every step stands on the one before, so the first failure ends the test. */
#define NEED(condition) need(CHECK(condition))

/* The same for a call that leaves its error in `error`, which must be read after the call, hence the two statements. */
#define NEED_OK(call)                                                                                                  \
    do {                                                                                                               \
        evergrant_status status_ = (call);                                                                             \
        need(CHECK_STATUS(status_, EVERGRANT_STATUS_OK, error));                                                       \
    } while (0)

static void need(int passed)
{
    if (!passed)
        exit(done());
}

static char *member(const char *json, const char *name)
{
    char *value = NULL;
    NEED_OK(evergrant_json_member(json, name, &value, &error));
    return value;
}

static long number(const char *json, const char *name)
{
    char *text = member(json, name);
    long value = atol(text);
    evergrant_string_free(text);
    return value;
}

static int same_member(const char *json, const char *other, const char *name)
{
    char *a = member(json, name), *b = member(other, name);
    int same = strcmp(a, b) == 0;
    evergrant_string_free(a);
    evergrant_string_free(b);
    return same;
}

static char *read_file(const char *path)
{
    static char text[65536];
    FILE *file = fopen(path, "r");
    size_t length;
    NEED(file != NULL);
    length = fread(text, 1, sizeof text - 1, file);
    NEED(feof(file) && fclose(file) == 0);
    text[length] = '\0';
    return text;
}

static void write_file(const char *path, const char *text)
{
    FILE *file = fopen(path, "w");
    NEED(file != NULL);
    NEED(fputs(text, file) >= 0 && fclose(file) == 0);
}

/* The next object of a JSON array of objects, or NULL; moves *array behind it. */
static char *next_object(const char **array)
{
    const char *start = strchr(*array, '{');
    int depth = 0, quoted = 0;
    for (const char *at = start; at && *at; at++) {
        if (quoted) {
            if (*at == '\\' && at[1])
                at++;
            else if (*at == '"')
                quoted = 0;
        } else if (*at == '"') {
            quoted = 1;
        } else if (*at == '{') {
            depth++;
        } else if (*at == '}' && --depth == 0) {
            *array = at + 1;
            return strndup(start, (size_t)(*array - start));
        }
    }
    return NULL;
}

static int userinfo(const char *token)
{
    char body[4096];
    char *access_token = member(token, "access_token");
    int status = http(userinfo_endpoint, "", access_token, NULL, body, sizeof body);
    evergrant_string_free(access_token);
    return status;
}

static long provider_saw(const char *counter)
{
    char body[4096];
    NEED(http(issuer, "/_stats", NULL, NULL, body, sizeof body) == 200);
    return number(body, counter);
}

/*
 * Ids and secrets of the harness hold neither '"' nor '\', so they go into JSON as they are. Each party's store is a
 * new file beside the harness's own, which removes both. Renewals happen only when asked for or due.
 */
static void configure(party *p, const char *provider, const char *registration, const char *store, int n)
{
    char text[4096], server[1024], credentials[2048] = "";
    char *token_endpoint = member(provider, "token_endpoint");
    char *revocation_endpoint = member(provider, "revocation_endpoint");
    char *auth = member(registration, "client_auth"), *id = member(registration, "client_id");

    snprintf(server, sizeof server, "\"token_endpoint\":\"%s\",\"revocation_endpoint\":\"%s\"", token_endpoint,
             revocation_endpoint);
    if (strcmp(auth, "private_key_jwt") == 0) {
        char *key = member(registration, "private_key"), *key_id = member(registration, "key_id");
        char *algorithm = member(registration, "assertion_algorithm");
        char path[512];
        NEED(snprintf(path, sizeof path, "%s.%d.pem", store, n) < (int)sizeof path);
        write_file(path, key);
        snprintf(server, sizeof server, "\"issuer\":\"%s\"", issuer);
        snprintf(credentials, sizeof credentials,
                 "\"private_key_file\":\"%s\",\"key_id\":\"%s\",\"assertion_algorithm\":\"%s\",", path, key_id,
                 algorithm);
        evergrant_string_free(key);
        evergrant_string_free(key_id);
        evergrant_string_free(algorithm);
    } else if (strcmp(auth, "none") != 0) {
        char *client_secret = member(registration, "client_secret");
        snprintf(credentials, sizeof credentials, "\"client_secret\":\"%s\",", client_secret);
        evergrant_string_free(client_secret);
    }
    NEED(snprintf(text, sizeof text,
                  "{%s,\"client_auth\":\"%s\",\"client_id\":\"%s\",%s\"store\":\"sqlite:%s.%d.db\","
                  "\"early_renewal\":\"off\"}",
                  server, auth, id, credentials, store, n) < (int)sizeof text);
    printf("%s\n", id);

    p->config = strdup(text);
    p->signed_in = member(registration, "token");
    evergrant_string_free(token_endpoint);
    evergrant_string_free(revocation_endpoint);
    evergrant_string_free(auth);
    evergrant_string_free(id);
}

static void open_client(party *p)
{
    NEED_OK(evergrant_client_open(p->config, &p->client, &error));
}

static void close_client(party *p)
{
    NEED(evergrant_client_close(p->client, CLOSE_WAIT_MS) == EVERGRANT_STATUS_OK);
    evergrant_client_free(p->client);
    p->client = NULL;
}

/* As every program does at its start. */
static void save(party *p)
{
    NEED_OK(evergrant_session_save(p->client, SESSION, p->signed_in, &error));
}

static char *token(party *p)
{
    char *token = NULL;
    NEED_OK(evergrant_session_token(p->client, SESSION, NULL, &token, &error));
    return token;
}

/* The provider accepts `fresh`, which is the next generation of p->token and takes its place. */
static void advance(party *p, char *fresh)
{
    NEED(number(fresh, "generation") == number(p->token, "generation") + 1);
    NEED(!same_member(fresh, p->token, "access_token"));
    NEED(userinfo(fresh) == 200);
    evergrant_string_free(p->token);
    p->token = fresh;
}

static void renew_often(party *p)
{
    open_client(p);
    save(p);
    p->token = token(p);
    NEED(number(p->token, "generation") == 1);
    NEED(same_member(p->token, p->signed_in, "access_token"));

    for (int i = 0; i < RENEWALS; i++) {
        char *fresh = NULL;
        NEED_OK(evergrant_session_renew(p->client, SESSION, NULL, NULL, &fresh, &error));
        advance(p, fresh);
    }
    NEED(number(p->token, "generation") == RENEWALS + 1);
}

/* A new start finds the session, and saving the long spent refresh token of the sign-in again changes nothing. */
static void restart(party *p)
{
    long before = provider_saw("refresh_ok");
    char *again;
    close_client(p);
    open_client(p);
    save(p);
    again = token(p);
    NEED(same_member(again, p->token, "access_token") && same_member(again, p->token, "generation"));
    NEED(provider_saw("refresh_ok") == before);
    evergrant_string_free(again);
}

/* p->token has died; asking for a token is enough to have a new one. */
static void outlive(party *p)
{
    NEED(userinfo(p->token) == 401);
    advance(p, token(p));
}

static void sign_out(party *p)
{
    char *description = NULL;
    char *state;
    long revoked = provider_saw("grant_revoked");

    NEED_OK(evergrant_session_sign_out(p->client, SESSION, &error));
    NEED(provider_saw("grant_revoked") == revoked + 1);
    NEED(userinfo(p->token) == 401);

    NEED_OK(evergrant_session_describe(p->client, SESSION, &description, &error));
    state = member(description, "state");
    NEED(strcmp(state, "signed_out") == 0);
    NEED(evergrant_session_token(p->client, SESSION, NULL, NULL, NULL) == EVERGRANT_STATUS_SIGN_IN_REQUIRED);
    evergrant_string_free(state);
    evergrant_string_free(description);
}

static void free_party(party *p)
{
    close_client(p);
    evergrant_string_free(p->token);
    evergrant_string_free(p->signed_in);
    free(p->config);
}

int main(void)
{
    party parties[MAX_PARTIES];
    const char *path = getenv("EVERGRANT_OIDC"), *rest;
    char *provider, *registrations, *registration;
    int count = 0;

    memset(parties, 0, sizeof parties);
    NEED(path != NULL);
    provider = read_file(path);
    issuer = member(provider, "issuer");
    userinfo_endpoint = member(provider, "userinfo_endpoint");
    rest = registrations = member(provider, "clients");

    while ((registration = next_object(&rest)) != NULL) {
        NEED(count < MAX_PARTIES);
        configure(&parties[count], provider, registration, path, count);
        renew_often(&parties[count]);
        restart(&parties[count]);
        free(registration);
        count++;
    }
    NEED(count == 6);

    sleep((unsigned)number(parties[0].signed_in, "expires_in") + 1);
    for (int i = 0; i < count; i++) {
        outlive(&parties[i]);
        sign_out(&parties[i]);
        free_party(&parties[i]);
    }

    evergrant_string_free(registrations);
    evergrant_string_free(userinfo_endpoint);
    evergrant_string_free(issuer);
    CHECK(alone());
    return done();
}
