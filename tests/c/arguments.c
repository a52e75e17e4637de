/*
 * Every function with every argument that it must refuse: INVALID_ARGUMENT, a message that names the argument, the same
 * in the JSON, and outputs left as they were.
 */
#include "check.h"
#include <stdlib.h>

enum { TOO_LONG = (1 << 20) + 1 };

static char too_long[TOO_LONG + 1];
static char long_name[257];
static char marker_text[] = "as it was";

static evergrant_queue *queue;

/* One call: `c` is a client or NULL, `a` is the argument under test. Outputs are all wanted. */
typedef struct outputs {
    char *text;
    evergrant_client *client;
    const uint32_t *stamp;
    evergrant_error *error;
} outputs;

typedef evergrant_status call_with(const evergrant_client *c, const char *a, outputs *out);

#define CALL(name, expression)                                                                                         \
    static evergrant_status name(const evergrant_client *c, const char *a, outputs *out)                               \
    {                                                                                                                  \
        (void)c, (void)a;                                                                                              \
        return expression;                                                                                             \
    }

CALL(json_member_json, evergrant_json_member(a, "name", &out->text, &out->error))
CALL(json_member_name, evergrant_json_member("{}", a, &out->text, &out->error))
CALL(refresh_request, evergrant_refresh(a, &out->text, &out->error))
CALL(open_config, evergrant_client_open(a, &out->client, &out->error))
CALL(stats, evergrant_client_stats(c, &out->text, &out->error))
CALL(events, evergrant_client_events(c, 0, 0, &out->text, &out->error))
CALL(save_session, evergrant_session_save(c, a, "{\"refresh_token\":\"r\"}", &out->error))
CALL(save_token, evergrant_session_save(c, "s", a, &out->error))
CALL(token_session, evergrant_session_token(c, a, NULL, &out->text, &out->error))
CALL(token_options, evergrant_session_token(c, "s", a, &out->text, &out->error))
CALL(access_token_session, evergrant_session_access_token(c, a, NULL, &out->text, &out->error))
CALL(access_token_options, evergrant_session_access_token(c, "s", a, &out->text, &out->error))
CALL(renew_session, evergrant_session_renew(c, a, NULL, NULL, &out->text, &out->error))
CALL(renew_rejected, evergrant_session_renew(c, "s", a, NULL, &out->text, &out->error))
CALL(renew_options, evergrant_session_renew(c, "s", NULL, a, &out->text, &out->error))
CALL(stamp_session, evergrant_session_stamp(c, a, &out->stamp, &out->error))
CALL(describe_session, evergrant_session_describe(c, a, &out->text, &out->error))
CALL(list_after, evergrant_session_list(c, a, 10, &out->text, &out->error))
CALL(introspect_session, evergrant_session_introspect(c, a, &out->text, &out->error))
CALL(sign_out_session, evergrant_session_sign_out(c, a, &out->error))
CALL(forget_session, evergrant_session_forget(c, a, &out->error))
CALL(move_session, evergrant_session_move(c, a, "{}", &out->error))
CALL(move_to, evergrant_session_move(c, "s", a, &out->error))
CALL(allows_session, evergrant_session_allows(c, a, "https://a.example", NULL, NULL, &out->error))
CALL(allows_url, evergrant_session_allows(c, "s", a, NULL, NULL, &out->error))
CALL(allows_first_url, evergrant_session_allows(c, "s", "https://a.example", a, NULL, &out->error))
CALL(submit_call, evergrant_queue_submit(queue, c, 1, a, &out->error))
CALL(start_request, evergrant_sign_in_start(c, a, &out->text, &out->error))
CALL(finish_session, evergrant_sign_in_finish(c, a, "{}", "https://localhost/", &out->text, &out->error))
CALL(finish_sign_in, evergrant_sign_in_finish(c, "s", a, "https://localhost/", &out->text, &out->error))
CALL(finish_redirect, evergrant_sign_in_finish(c, "s", "{}", a, &out->text, &out->error))
CALL(browser_session, evergrant_sign_in_with_browser(c, a, "{}", &out->text, &out->error))
CALL(browser_request, evergrant_sign_in_with_browser(c, "s", a, &out->text, &out->error))
CALL(password_session, evergrant_sign_in_with_password(c, a, "{}", &out->text, &out->error))
CALL(password_request, evergrant_sign_in_with_password(c, "s", a, &out->text, &out->error))

/* What an argument is: which inputs are wrong for it. */
enum kind {
    NONE,     /* no argument but the client */
    TEXT,     /* required */
    MAYBE,    /* NULL is allowed */
    JSON,     /* required, a JSON object */
    OPTIONS,  /* NULL is allowed, a JSON object */
    SESSION   /* required, 1 to 255 bytes, no control characters */
};

static const struct row {
    const char *function;
    call_with *call;
    int takes_client;
    const char *argument;
    enum kind kind;
} rows[] = {
    {"json_member", json_member_json, 0, "json", JSON},
    {"json_member", json_member_name, 0, "name", TEXT},
    {"refresh", refresh_request, 0, "request_json", JSON},
    {"client_open", open_config, 0, "config_json", JSON},
    {"client_stats", stats, 1, NULL, NONE},
    {"client_events", events, 1, NULL, NONE},
    {"session_save", save_session, 1, "session", SESSION},
    {"session_save", save_token, 1, "token_json", JSON},
    {"session_token", token_session, 1, "session", SESSION},
    {"session_token", token_options, 1, "options_json", OPTIONS},
    {"session_access_token", access_token_session, 1, "session", SESSION},
    {"session_access_token", access_token_options, 1, "options_json", OPTIONS},
    {"session_renew", renew_session, 1, "session", SESSION},
    {"session_renew", renew_rejected, 1, "rejected_access_token", MAYBE},
    {"session_renew", renew_options, 1, "options_json", OPTIONS},
    {"session_stamp", stamp_session, 1, "session", SESSION},
    {"session_describe", describe_session, 1, "session", SESSION},
    {"session_list", list_after, 1, "after", MAYBE},
    {"session_introspect", introspect_session, 1, "session", SESSION},
    {"session_sign_out", sign_out_session, 1, "session", SESSION},
    {"session_forget", forget_session, 1, "session", SESSION},
    {"session_move", move_session, 1, "session", SESSION},
    {"session_move", move_to, 1, "to_json", JSON},
    {"session_allows", allows_session, 1, "session", SESSION},
    {"session_allows", allows_url, 1, "url", TEXT},
    {"session_allows", allows_first_url, 1, "first_url", MAYBE},
    {"queue_submit", submit_call, 0, "call_json", JSON},
    {"sign_in_start", start_request, 1, "request_json", JSON},
    {"sign_in_finish", finish_session, 1, "session", SESSION},
    {"sign_in_finish", finish_sign_in, 1, "sign_in_json", JSON},
    {"sign_in_finish", finish_redirect, 1, "redirect_url", TEXT},
    {"sign_in_with_browser", browser_session, 1, "session", SESSION},
    {"sign_in_with_browser", browser_request, 1, "request_json", JSON},
    {"sign_in_with_password", password_session, 1, "session", SESSION},
    {"sign_in_with_password", password_request, 1, "request_json", JSON},
};

static void refuses(const struct row *row, const evergrant_client *client, const char *input, const char *argument,
                    const char *what)
{
    static const uint32_t marker_stamp = 7;
    /* Never followed, only compared. */
    evergrant_client *const marker_client = (evergrant_client *)(void *)marker_text;
    outputs out = {marker_text, marker_client, &marker_stamp, NULL};
    char where[128];
    evergrant_status status = row->call(client, input, &out);

    snprintf(where, sizeof where, "%s: %s %s", row->function, argument, what);
    CHECK_ROW(status == EVERGRANT_STATUS_INVALID_ARGUMENT, where);
    CHECK_ROW(evergrant_error_status(out.error) == status, where);
    if (!CHECK_ROW(strstr(evergrant_error_message(out.error), argument) != NULL, where))
        fprintf(stderr, "    %s\n", evergrant_error_message(out.error));
    CHECK_ROW(strstr(evergrant_error_json(out.error), "{\"status\":\"INVALID_ARGUMENT\"") != NULL, where);
    CHECK_ROW(out.text == marker_text && out.client == marker_client && out.stamp == &marker_stamp, where);
    evergrant_error_free(out.error);
}

static void row_by_row(const evergrant_client *client)
{
    size_t i;
    for (i = 0; i < sizeof rows / sizeof *rows; i++) {
        const struct row *row = &rows[i];
        const char *argument = row->argument;
        if (row->takes_client)
            refuses(row, NULL, "s", "client", "is NULL");
        if (row->kind == NONE || (row->takes_client && client == NULL))
            continue;
        refuses(row, client, "ab\xff", argument, "is not UTF-8");
        refuses(row, client, "\xed\xa0\x80", argument, "is a surrogate");
        refuses(row, client, too_long, argument, "is too long");
        if (row->kind != MAYBE && row->kind != OPTIONS)
            refuses(row, client, NULL, argument, "is NULL");
        if (row->kind == JSON || row->kind == OPTIONS) {
            refuses(row, client, "", argument, "is empty");
            refuses(row, client, "{", argument, "is cut short");
            refuses(row, client, "[]", argument, "is not an object");
            refuses(row, client, "{} {}", argument, "is two");
        }
        if (row->kind == SESSION) {
            refuses(row, client, "", argument, "is empty");
            refuses(row, client, "a\nb", argument, "has a control character");
            refuses(row, client, long_name, argument, "is longer than 255 bytes");
        }
    }
}

/* The functions without error_out. */
static void without_reason(const evergrant_client *client)
{
    char *text = marker_text;
    int64_t fresh_until_ms = 7;
    CHECK(evergrant_client_close(NULL, 0) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    CHECK(evergrant_session_peek(NULL, "s", &text, &fresh_until_ms) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    if (client != NULL) {
        CHECK(evergrant_session_peek(client, NULL, &text, &fresh_until_ms) == EVERGRANT_STATUS_INVALID_ARGUMENT);
        CHECK(evergrant_session_peek(client, "\xff", &text, &fresh_until_ms) == EVERGRANT_STATUS_INVALID_ARGUMENT);
        CHECK(evergrant_session_peek(client, "nobody", &text, &fresh_until_ms) == EVERGRANT_STATUS_STALE);
    }
    CHECK(text == marker_text && fresh_until_ms == 7);
}

static void queues(const evergrant_client *client)
{
    static const char call[] = "{\"call\":\"client_stats\"}";
    evergrant_queue *opened = NULL;
    evergrant_error *error = NULL;
    char *text = marker_text;

    CHECK_STATUS(evergrant_queue_submit(NULL, client, 1, call, &error), EVERGRANT_STATUS_INVALID_ARGUMENT, error);
    CHECK_STATUS(evergrant_queue_submit(queue, NULL, 1, call, &error), EVERGRANT_STATUS_INVALID_ARGUMENT, error);
    CHECK_STATUS(evergrant_queue_take(NULL, 0, &text, &error), EVERGRANT_STATUS_INVALID_ARGUMENT, error);
    CHECK(text == marker_text);
    CHECK_STATUS(evergrant_queue_take(queue, 0, NULL, &error), EVERGRANT_STATUS_OK, error);
    CHECK_STATUS(evergrant_queue_open(&opened, NULL, &error), EVERGRANT_STATUS_OK, error);
    evergrant_queue_free(opened);
    CHECK_STATUS(evergrant_queue_open(NULL, NULL, &error), EVERGRANT_STATUS_OK, error);
    evergrant_queue_free(NULL);
}

/* Outputs that are not wanted. */
static void nothing_wanted(void)
{
    CHECK(evergrant_json_member("[]", "a", NULL, NULL) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    CHECK(evergrant_client_open("[]", NULL, NULL) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    CHECK(evergrant_client_stats(NULL, NULL, NULL) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    CHECK(evergrant_session_save(NULL, NULL, NULL, NULL) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    CHECK(evergrant_session_peek(NULL, NULL, NULL, NULL) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    CHECK(evergrant_session_stamp(NULL, NULL, NULL, NULL) == EVERGRANT_STATUS_INVALID_ARGUMENT);
}

static void members(void)
{
    static const char json[] = "{\"text\":\"h\\u00e9\",\"number\":1.50,\"list\":[1, 2],\"none\":null,\"nul\":\"a\\u0000b\"}";
    static const char *const expected[][2] = {
        {"text", "h\xc3\xa9"}, {"number", "1.50"}, {"list", "[1, 2]"}, {"none", "null"}};
    /* Success stores NULL even over rubbish. */
    evergrant_error *error = (evergrant_error *)(void *)marker_text;
    char *value = NULL;
    size_t i;

    for (i = 0; i < sizeof expected / sizeof *expected; i++) {
        evergrant_status status = evergrant_json_member(json, expected[i][0], &value, &error);
        if (!CHECK_ROW(status == EVERGRANT_STATUS_OK && error == NULL, expected[i][0]))
            return;
        CHECK_ROW(strcmp(value, expected[i][1]) == 0, expected[i][0]);
        /* Callers may cut a string short; freeing it still wipes and frees all of it. */
        value[0] = '\0';
        evergrant_string_free(value);
    }
    CHECK(evergrant_json_member(json, "text", NULL, NULL) == EVERGRANT_STATUS_OK);
    CHECK_STATUS(evergrant_json_member(json, "absent", &value, &error), EVERGRANT_STATUS_INVALID_ARGUMENT, error);
    CHECK_STATUS(evergrant_json_member(json, "nul", &value, &error), EVERGRANT_STATUS_INVALID_ARGUMENT, error);
}

int main(void)
{
    static const char config[] = "{\"token_endpoint\":\"http://127.0.0.1:1/token\",\"client_id\":\"c\",\"store\":\"memory:\"}";
    evergrant_client *client = NULL;
    evergrant_error *error = NULL;

    memset(too_long, 'a', TOO_LONG);
    memset(long_name, 'a', sizeof long_name - 1);

    CHECK_STATUS(evergrant_client_open(config, &client, &error), EVERGRANT_STATUS_OK, error);
    CHECK_STATUS(evergrant_queue_open(&queue, NULL, &error), EVERGRANT_STATUS_OK, error);
    row_by_row(client);
    without_reason(client);
    queues(client);
    nothing_wanted();
    members();
    if (client != NULL) {
        CHECK(evergrant_client_close(client, 0) == EVERGRANT_STATUS_OK);
        CHECK(evergrant_client_close(client, 0) == EVERGRANT_STATUS_OK);
        evergrant_client_free(client);
    }
    evergrant_queue_free(queue);
    return done();
}
