/* The test server, which plays a Salesforce site: started, signed in to, and asked for its counters. */
#define _POSIX_C_SOURCE 200809L

#include "demo.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define PREFIX "/customers"

extern char **environ;

static pid_t server;
static int lifeline = -1; /* the server's standard input: it stops when this is closed */
static char url[64], base[96];
static int port, control_port;

static int port_of(const char *text)
{
    const char *colon = strrchr(text, ':');
    return colon ? atoi(colon + 1) : 0;
}

void site_start(const char *program, const char *client_id, const char *client_secret, const char *user,
                const char *password, int latency_ms)
{
    char client[128], options[512], ready[512];
    snprintf(client, sizeof client, "%s:%s", client_id, client_secret);
    snprintf(options, sizeof options, "{\"prefixes\": [\"" PREFIX "\"], \"latency_ms\": %d, \"users\": {\"%s\": \"%s\"}}",
             latency_ms, user, password);
    char *arguments[] = {"evergrant-test-server", "--mode", "salesforce", "--rotation", "strict", "--client", client,
                         "--options", options, "--exit-with-stdin", NULL};

    int in[2], out[2];
    need(pipe(in) == 0 && pipe(out) == 0, "two pipes can be made");
    fcntl(in[1], F_SETFD, FD_CLOEXEC);
    fcntl(out[0], F_SETFD, FD_CLOEXEC);
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, in[0], 0);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addclose(&actions, in[0]);
    posix_spawn_file_actions_addclose(&actions, out[1]);
    need(posix_spawn(&server, program, &actions, NULL, arguments, environ) == 0, "the test server can be started");
    posix_spawn_file_actions_destroy(&actions);
    close(in[0]);
    close(out[1]);
    lifeline = in[1];

    FILE *answer = fdopen(out[0], "r");
    need(answer && fgets(ready, sizeof ready, answer), "the test server says that it is ready");
    fclose(answer);
    char *front = member(ready, "url"), *control = member(ready, "control_url");
    snprintf(url, sizeof url, "%s", front);
    snprintf(base, sizeof base, "%s" PREFIX, front);
    port = port_of(front);
    control_port = port_of(control);
    evergrant_string_free(front);
    evergrant_string_free(control);
}

void site_stop(void)
{
    close(lifeline);
    int status = 0;
    need(waitpid(server, &status, 0) == server && status == 0, "the test server ends when it should");
}

const char *site_url(void)
{
    return base;
}

/* One request on a connection of its own. `headers` are whole lines, each ended by CR LF. */
static struct reply call(int to_port, const char *method, const char *path, const char *headers, const char *body)
{
    struct sockaddr_in address;
    memset(&address, 0, sizeof address);
    address.sin_family = AF_INET;
    address.sin_port = htons((unsigned short)to_port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    need(connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof address) == 0,
          "the test server takes a connection");

    size_t room = strlen(path) + strlen(headers) + strlen(body) + 256;
    char *request = malloc(room);
    need(request != NULL, "there is memory");
    int length = snprintf(request, room,
                          "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s",
                          method, path, to_port, strlen(body), headers, body);
    for (int sent = 0; sent < length;) {
        ssize_t written = write(connection, request + sent, (size_t)(length - sent));
        need(written > 0, "the test server takes a request");
        sent += (int)written;
    }
    free(request);

    char *text = NULL;
    size_t size = 0, have = 0;
    for (;;) {
        if (size - have < 4096) {
            size = size * 2 + 8192;
            text = realloc(text, size);
            need(text != NULL, "there is memory");
        }
        ssize_t got = read(connection, text + have, size - have - 1);
        need(got >= 0, "the test server answers");
        if (got == 0)
            break;
        have += (size_t)got;
    }
    text[have] = '\0';
    close(connection);

    struct reply reply = {0, NULL, NULL};
    char *end = strstr(text, "\r\n\r\n");
    need(end && sscanf(text, "HTTP/1.1 %d", &reply.status) == 1, "the test server answers in HTTP");
    reply.body = strdup(end + 4);
    end[2] = '\0';
    for (char *line = strstr(text, "\r\n"); line; line = strstr(line + 2, "\r\n")) {
        if (strncasecmp(line + 2, "location: ", 10) == 0)
            reply.location = strndup(line + 12, strcspn(line + 12, "\r\n"));
    }
    free(text);
    return reply;
}

void reply_free(struct reply *reply)
{
    free(reply->location);
    free(reply->body);
}

static void percent_encode(const char *text, char *out, size_t room)
{
    for (; *text && room > 4; text++) {
        const char *plain = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~";
        int length = snprintf(out, room, strchr(plain, *text) ? "%c" : "%%%02X", (unsigned char)*text);
        out += length;
        room -= (size_t)length;
    }
    *out = '\0';
}

char *site_sign_in(const char *client_id, const char *client_secret, const char *user, const char *password)
{
    /* Authorization Code and Credentials flow. A real program makes a new verifier for each sign-in; these two belong
     * together in RFC 7636, appendix B. */
    const char *verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const char *challenge = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    const char *form = "Content-Type: application/x-www-form-urlencoded\r\n";
    char echo[128], redirect_uri[256], name[256], word[256], body[1024];
    snprintf(echo, sizeof echo, "%s/services/oauth2/echo", base);
    percent_encode(echo, redirect_uri, sizeof redirect_uri);
    percent_encode(user, name, sizeof name);
    percent_encode(password, word, sizeof word);

    char headers[128];
    snprintf(headers, sizeof headers, "%sAuth-Request-Type: Named-User\r\n", form);
    snprintf(body, sizeof body,
             "response_type=code_credentials&client_id=%s&redirect_uri=%s&scope=api%%20refresh_token&username=%s"
             "&password=%s&code_challenge=%s&code_challenge_method=S256",
             client_id, redirect_uri, name, word, challenge);
    struct reply authorized = call(port, "POST", PREFIX "/services/oauth2/authorize", headers, body);
    check_count(authorized.status, 302, "HTTP status of the authorize request");
    const char *code = authorized.location ? strstr(authorized.location, "?code=") : NULL;
    check(code != NULL, "the authorize request gives a code");
    code += strlen("?code=");

    snprintf(body, sizeof body,
             "grant_type=authorization_code&code=%.*s&client_id=%s&client_secret=%s&redirect_uri=%s&code_verifier=%s",
             (int)strcspn(code, "&"), code, client_id, client_secret, redirect_uri, verifier);
    reply_free(&authorized);
    struct reply exchanged = call(port, "POST", PREFIX "/services/oauth2/token", form, body);
    check_count(exchanged.status, 200, "HTTP status of the code exchange");
    return exchanged.body; /* a 200 has no location */
}

struct reply site_resource(const char *access_token)
{
    char header[512];
    snprintf(header, sizeof header, "Authorization: Bearer %s\r\n", access_token);
    return call(port, "GET", PREFIX "/services/data/v64.0/limits", header, "");
}

static char *control(const char *method, const char *what, const char *json)
{
    char path[256];
    snprintf(path, sizeof path, "/control/%s", what);
    struct reply reply = call(control_port, method, path, "Content-Type: application/json\r\n", json);
    if (reply.status != 200)
        fail("the test server refuses %s %s: %s", method, path, reply.body);
    free(reply.location);
    return reply.body;
}

char *site_look(const char *what)
{
    return control("GET", what, "");
}

char *site_order(const char *what, const char *json)
{
    return control("POST", what, json);
}

long site_counter(const char *name)
{
    char *stats = site_look("stats");
    char *value = member(stats, name);
    long number = strtol(value, NULL, 10);
    evergrant_string_free(value);
    free(stats);
    return number;
}
