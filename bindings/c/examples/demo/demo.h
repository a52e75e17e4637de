/* What the parts of the demo share. */
#ifndef DEMO_H
#define DEMO_H

#include <evergrant.h>

/* ---- demo.c */

/* Ends the demo with a message, as a failure. */
void fail(const char *format, ...);

/* Fails unless it is true; `what` says what should be true. */
void check(int is_true, const char *what);

/* The same for what the demo itself needs: not counted as a check. */
void need(int is_true, const char *what);

/* Fails unless both numbers are the same. */
void check_count(long found, long expected, const char *what);

/* Fails, with the error's message, unless the call was successful. (A pointer: the call that is another argument sets it.) */
void check_ok(evergrant_status status, evergrant_error *const *error, const char *what);

/* One member of a JSON object as text; fails if it has no such member. Free with evergrant_string_free(). */
char *member(const char *json, const char *name);

/* How often a text occurs in another. */
long occurrences(const char *text, const char *part);

/* A clock that never goes back, in milliseconds. */
double now_ms(void);

/* ---- site.c: the test server, which plays a Salesforce site */

struct reply {
    int status;
    char *location; /* of a redirect, or NULL */
    char *body;
};

/* Starts the server; it ends with this process, however that ends. */
void site_start(const char *program, const char *client_id, const char *client_secret, const char *user,
                const char *password, int latency_ms);
void site_stop(void);

/* The site's URL, as `site_url` in a configuration; path prefix included. */
const char *site_url(void);

/* Signs the user in without a browser, in two requests. The token endpoint's answer: free with free(). */
char *site_sign_in(const char *client_id, const char *client_secret, const char *user, const char *password);

/* GET of a protected resource. Free with reply_free(). */
struct reply site_resource(const char *access_token);
void reply_free(struct reply *reply);

/* One of the server's own counters. */
long site_counter(const char *name);

/* Looks at the server from the inside: "log", "tokens", ... Free with free(). */
char *site_look(const char *what);

/* Changes it from the inside: "settings", "expire", "revoke", ... Free with free(). */
char *site_order(const char *what, const char *json);

/* ---- own_org.c */

/* Renews a session of the user's own org. Returns the exit status. */
int own_org(const char *config_file);

#endif
