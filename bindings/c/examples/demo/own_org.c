/*
 * Renews a session of the user's own org, by a configuration file with or without these members of the demo's own:
 *
 *   "refresh_token"   the first time, unless it is in the environment variable EVERGRANT_REFRESH_TOKEN
 *   "session"         the session's name; "demo" without it
 */
#define _XOPEN_SOURCE 700

#include "demo.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifndef PATH_MAX
#define PATH_MAX 4096
#endif

#define MOST (1 << 20)

/* ---- the configuration file */

static char *read_file(const char *name)
{
    FILE *file = fopen(name, "rb");
    if (!file)
        fail("%s: %s", name, strerror(errno));
    char *text = malloc(MOST + 1);
    need(text != NULL, "there is memory");
    size_t length = fread(text, 1, MOST, file);
    if (ferror(file) || length == MOST || memchr(text, '\0', length))
        fail("%s cannot be read as text, or is too long", name);
    fclose(file);
    text[length] = '\0';
    return text;
}

static void wipe(char *text)
{
    for (volatile char *at = text; text && *at; at++)
        *at = '\0';
}

static char *skip_space(char *at)
{
    return at + strspn(at, " \t\r\n");
}

static char *skip_string(char *at)
{
    for (at++; *at && *at != '"'; at++) {
        if (*at == '\\' && at[1])
            at++;
    }
    return *at ? at + 1 : at;
}

static char *skip_value(char *at)
{
    int depth = 0;
    while (*at) {
        if (*at == '"') {
            at = skip_string(at);
        } else if (*at == '{' || *at == '[') {
            depth++;
            at++;
        } else if (depth == 0 && strchr(",}] \t\r\n", *at)) {
            return at;
        } else {
            depth -= *at == '}' || *at == ']';
            at++;
            if (depth == 0 && (at[-1] == '}' || at[-1] == ']'))
                return at;
            continue;
        }
        if (depth == 0)
            return at;
    }
    return at;
}

/* Cuts a top-level member out of a JSON object. Text that is no JSON object is left for the library to refuse. */
static void cut_member(char *json, const char *name)
{
    size_t length = strlen(name);
    char *at = skip_space(json), *before = NULL; /* the comma before this member */
    if (*at != '{')
        return;
    at = skip_space(at + 1);
    while (*at == '"') {
        char *start = at, *key_end = skip_string(at);
        int found = (size_t)(key_end - at) == length + 2 && strncmp(at + 1, name, length) == 0;
        at = skip_space(key_end);
        if (*at != ':')
            return;
        at = skip_space(skip_value(skip_space(at + 1)));
        if (!found) {
            before = at;
        } else if (*at == ',') {
            memmove(start, at + 1, strlen(at + 1) + 1);
            at = start;
            goto next;
        } else {
            memmove(before ? before : start, at, strlen(at) + 1);
            return;
        }
        if (*at != ',')
            return;
        at++;
    next:
        at = skip_space(at);
    }
}

/* A member, if there is one that is not null. Free with evergrant_string_free(). */
static char *optional(const char *json, const char *name)
{
    char *value = NULL;
    evergrant_json_member(json, name, &value, NULL);
    if (value && strcmp(value, "null") == 0) {
        evergrant_string_free(value);
        value = NULL;
    }
    return value;
}

/* {"refresh_token": "..."} */
static char *grant_of(const char *refresh_token)
{
    char *json = malloc(strlen(refresh_token) * 6 + 32), *at = json;
    need(json != NULL, "there is memory");
    at += sprintf(at, "{\"refresh_token\": \"");
    for (; *refresh_token; refresh_token++) {
        unsigned char byte = (unsigned char)*refresh_token;
        at += sprintf(at, byte < 0x20 || byte == '"' || byte == '\\' ? "\\u%04x" : "%c", byte);
    }
    strcpy(at, "\"}");
    return json;
}

/* ---- where the session will live */

/* The real path of a file that need not be there yet. */
static void real_path(const char *path, char out[PATH_MAX])
{
    char rest[PATH_MAX], found[PATH_MAX];
    snprintf(rest, sizeof rest, "%s", path);
    for (size_t cut = strlen(rest);;) {
        if (realpath(cut ? rest : *path == '/' ? "/" : ".", found)) {
            snprintf(out, PATH_MAX, "%.*s%s%s", PATH_MAX / 2, strcmp(found, "/") == 0 ? "" : found,
                     path[cut] && path[cut] != '/' ? "/" : "", path + cut);
            return;
        }
        while (cut && rest[cut - 1] != '/')
            cut--;
        while (cut && rest[cut - 1] == '/')
            cut--;
        rest[cut] = '\0';
    }
}

static int is_in(const char *path, const char *directory)
{
    size_t length = strlen(directory);
    return length > 1 && strncmp(path, directory, length) == 0 && (path[length] == '/' || path[length] == '\0');
}

static int is_temporary(const char *path)
{
    const char *directories[] = {getenv("TMPDIR"), "/tmp", "/var/tmp", "/dev/shm", "/run", "/var/run"};
    for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
        char real[PATH_MAX];
        if (directories[i] && *directories[i]) {
            real_path(directories[i], real);
            if (is_in(path, directories[i]) || is_in(path, real))
                return 1;
        }
    }
    return 0;
}

/* Says where the store is; ends the demo if what is kept there would not last. */
static void lasting_store(const char *store, char out[PATH_MAX + 32])
{
    const char *why = "it would spend the refresh token and lose its successor. Nothing was sent";
    char path[PATH_MAX];
    if (store && strcmp(store, "memory:") == 0)
        fail("\"store\": \"memory:\" does not last: %s", why);
    if (store && strncmp(store, "sqlite:", 7) != 0) {
        snprintf(out, PATH_MAX + 32, "the database that \"store\" names"); /* its URL may contain a password */
        return;
    }
    if (store) {
        const char *named = store + 7;
        real_path(strncmp(named, "///", 3) == 0 ? named + 2 : named, path);
        snprintf(out, PATH_MAX + 32, "%s", path);
    } else {
        const char *state = getenv("XDG_STATE_HOME"), *home = getenv("HOME");
        char directory[PATH_MAX];
#ifdef __APPLE__
        snprintf(directory, sizeof directory, "%s/Library/Application Support/evergrant", home ? home : "");
        (void)state;
#else
        if (state && *state == '/')
            snprintf(directory, sizeof directory, "%s/evergrant", state);
        else
            snprintf(directory, sizeof directory, "%s/.local/state/evergrant", home ? home : "");
#endif
        real_path(directory, path);
        snprintf(out, PATH_MAX + 32, "%s (the default store)", path);
    }
    if (is_temporary(path))
        fail("the store %s is in a temporary directory: %s", path, why);
}

/* ---- the session */

static long exchanges(const evergrant_client *client)
{
    char *stats = NULL;
    evergrant_error *error = NULL;
    check_ok(evergrant_client_stats(client, &stats, &error), &error, "counters");
    char *by_outcome = member(stats, "exchanges");
    long sum = 0;
    for (const char *at = strchr(by_outcome, ':'); at; at = strchr(at + 1, ':'))
        sum += strtol(at + 1, NULL, 10);
    evergrant_string_free(by_outcome);
    evergrant_string_free(stats);
    return sum;
}

static void show(const char *token, long requests, double took_ms)
{
    char *access_token = member(token, "access_token"), *type = member(token, "token_type");
    char *instance_url = optional(token, "instance_url"), *expires_at_s = member(token, "expires_at_s");
    char *expiry = member(token, "expiry"), *generation = member(token, "generation");
    char until[128] = "not known: set \"session_lifetime_s\" to your org's session time-out, less some minutes";
    time_t at = (time_t)strtoll(expires_at_s, NULL, 10);
    struct tm utc;
    if (strcmp(expires_at_s, "null") != 0 && gmtime_r(&at, &utc))
        strftime(until, sizeof until, "%Y-%m-%d %H:%M:%S UTC", &utc);

    if (requests)
        printf("  renewed        %ld token request%s, %.0f ms\n", requests, requests == 1 ? "" : "s", took_ms);
    else
        printf("  from the store nothing was sent; %.1f ms\n", took_ms);
    printf("  token          %.4s... (%zu characters), %s\n", access_token, strlen(access_token), type);
    printf("  instance_url   %s\n", instance_url ? instance_url : "(none)");
    printf("  expires        %s%s%s%s\n", until, strcmp(expiry, "unknown") ? " (" : "",
           strcmp(expiry, "unknown") ? expiry : "", strcmp(expiry, "unknown") ? ")" : "");
    printf("  generation     %s\n", generation);

    evergrant_string_free(generation);
    evergrant_string_free(expiry);
    evergrant_string_free(expires_at_s);
    evergrant_string_free(instance_url);
    evergrant_string_free(type);
    evergrant_string_free(access_token);
}

int own_org(const char *config_file)
{
    char *config = read_file(config_file), directory[PATH_MAX], store_path[PATH_MAX + 32];
    char *name = optional(config, "session"), *store = optional(config, "store");
    char *indirect = optional(config, "config_file"), *refresh_token = optional(config, "refresh_token");
    const char *session = name ? name : "demo", *from_environment = getenv("EVERGRANT_REFRESH_TOKEN");
    if (indirect)
        fail("%s: put the configuration itself there, not \"config_file\"", config_file);
    cut_member(config, "session");
    cut_member(config, "refresh_token");

    /* As with "config_file", relative paths are relative to the file. */
    snprintf(directory, sizeof directory, "%s", config_file);
    char *slash = strrchr(directory, '/');
    if (slash) {
        slash[1] = '\0';
        if (chdir(directory) != 0)
            fail("%s: %s", directory, strerror(errno));
    }
    lasting_store(store, store_path);

    evergrant_client *client = NULL;
    evergrant_error *error = NULL;
    check_ok(evergrant_client_open(config, &client, &error), &error, config_file);
    printf("evergrant %s, with %s: session \"%s\"\n", evergrant_version(), config_file, session);

    const char *given = from_environment && *from_environment ? from_environment : refresh_token;
    if (given) {
        char *grant = grant_of(given);
        check_ok(evergrant_session_save(client, session, grant, &error), &error, "the refresh token");
        wipe(grant);
        free(grant);
    }
    char *described = NULL;
    if (!given && evergrant_session_describe(client, session, &described, NULL) != EVERGRANT_STATUS_OK)
        fail("the store has no session \"%s\": add \"refresh_token\" to %s, or set EVERGRANT_REFRESH_TOKEN", session,
             config_file);
    evergrant_string_free(described);

    char *token = NULL;
    double begin = now_ms();
    check_ok(evergrant_session_token(client, session, NULL, &token, &error), &error, "a token");
    show(token, exchanges(client), now_ms() - begin);

    const char *again = getenv("EVERGRANT_DEMO_RENEW");
    if (again && strcmp(again, "1") == 0) {
        long before = exchanges(client);
        char *renewed = NULL;
        begin = now_ms();
        check_ok(evergrant_session_renew(client, session, NULL, NULL, &renewed, &error), &error, "the second renewal");
        printf("once more, because of EVERGRANT_DEMO_RENEW=1\n");
        show(renewed, exchanges(client) - before, now_ms() - begin);
        evergrant_string_free(renewed);
    }
    printf("The session lives in %s.\n", store_path);
    if (given)
        printf("Its current refresh token is there, sealed. The one that you gave has been used: where the server rotates,\n"
               "it is spent and harmless; where it does not, it is still a secret. Saving it again changes nothing.\n");

    evergrant_string_free(token);
    evergrant_client_close(client, 5000);
    evergrant_client_free(client);
    evergrant_string_free(refresh_token);
    evergrant_string_free(store);
    evergrant_string_free(name);
    wipe(config);
    free(config);
    return 0;
}
