/*
 * Sign-in in each of its ways through the C interface, against the test server as a Salesforce site
 * (EVERGRANT_TEST_SITE: its URL). tests/browser.py stands for the browser. To be run from the root of the source tree.
 */
#define _POSIX_C_SOURCE 200809L

#include "check.h"
#include "http.h"
#include <stdint.h>
#include <stdlib.h>

#define BROWSER "python3 tests/browser.py"

static char site[256];
static evergrant_client *client;
static evergrant_error *error;

static char *member(const char *json, const char *name)
{
    char *value = NULL;
    OK(evergrant_json_member(json, name, &value, &error));
    return value;
}

/* Where the browser ends that opens the sign-in's URL. */
static char *visit(const char *sign_in)
{
    static char command[4096], end[4096];
    char *url = member(sign_in, "authorization_url");
    FILE *browser;
    snprintf(command, sizeof command, BROWSER " '%s'", url);
    browser = popen(command, "r");
    CHECK(browser != NULL && fgets(end, sizeof end, browser) != NULL);
    CHECK(browser != NULL && pclose(browser) == 0);
    end[strcspn(end, "\n")] = '\0';
    evergrant_string_free(url);
    return end;
}

/* A token of a session that has just begun, and that renews. */
static void begins(const char *session, char *token)
{
    char body[16384], *access = member(token, "access_token"), *renewed = NULL;
    CHECK_ROW(strstr(token, "\"generation\":1") != NULL, token);
    CHECK_ROW(strstr(token, "\"refresh_token\":") == NULL, token);
    CHECK(http(site, "/services/data/v64.0/limits", access, NULL, body, sizeof body) == 200);
    OK(evergrant_session_renew(client, session, access, NULL, &renewed, &error));
    CHECK(strstr(renewed, "\"generation\":2") != NULL);
    evergrant_string_free(renewed);
    evergrant_string_free(access);
    evergrant_string_free(token);
}

static void by_redirect(void)
{
    char request[512], *sign_in = NULL, *token = NULL, *end;
    snprintf(request, sizeof request,
             "{\"redirect_uri\":\"%s/services/oauth2/echo\",\"extra\":{\"prompt\":\"login\"}}", site);
    OK(evergrant_sign_in_start(client, request, &sign_in, &error));
    end = visit(sign_in);
    OK(evergrant_sign_in_finish(client, "redirect", sign_in, end, &token, &error));
    begins("redirect", token);
    token = NULL;
    CHECK(evergrant_sign_in_finish(client, "redirect", sign_in, end, &token, &error) ==
          EVERGRANT_STATUS_SIGN_IN_REQUIRED);
    CHECK_ROW(strstr(evergrant_error_json(error), "\"code_refused\"") != NULL, evergrant_error_json(error));
    evergrant_error_free(error);
    CHECK_STATUS(evergrant_sign_in_finish(client, "redirect", sign_in, site, &token, &error),
                 EVERGRANT_STATUS_INVALID_ARGUMENT, error);
    CHECK_STATUS(evergrant_sign_in_finish(client, "redirect", sign_in, NULL, &token, &error),
                 EVERGRANT_STATUS_INVALID_ARGUMENT, error);
    CHECK(token == NULL);
    evergrant_string_free(sign_in);
}

static void by_listening(void)
{
    char command[4096], *sign_in = NULL, *token = NULL, *url;
    OK(evergrant_sign_in_start(client, "{\"listen\":true}", &sign_in, &error));
    url = member(sign_in, "authorization_url");
    snprintf(command, sizeof command, BROWSER " '%s' >/dev/null &", url);
    CHECK(system(command) == 0);
    OK(evergrant_sign_in_finish(client, "listening", sign_in, NULL, &token, &error));
    begins("listening", token);
    evergrant_string_free(url);
    evergrant_string_free(sign_in);
}

static void by_browser(void)
{
    char *token = NULL;
    CHECK(setenv("BROWSER", "/nowhere/browser:" BROWSER, 1) == 0);
    OK(evergrant_sign_in_with_browser(client, "browser", "{\"scope\":\"api refresh_token\"}", &token, &error));
    begins("browser", token);
    token = NULL;
    CHECK(setenv("BROWSER", "true", 1) == 0);
    CHECK_STATUS(evergrant_sign_in_with_browser(client, "browser", "{\"max_wait_ms\":50}", &token, &error),
                 EVERGRANT_STATUS_TIMED_OUT, error);
    CHECK(setenv("BROWSER", "false", 1) == 0);
    CHECK_STATUS(evergrant_sign_in_with_browser(client, "browser", "{}", &token, &error),
                 EVERGRANT_STATUS_INVALID_ARGUMENT, error);
    CHECK(setenv("BROWSER", "/nowhere/browser", 1) == 0);
    CHECK(evergrant_sign_in_with_browser(client, "browser", "{}", &token, &error) == EVERGRANT_STATUS_INVALID_ARGUMENT);
    CHECK_ROW(strstr(evergrant_error_message(error), "BROWSER") != NULL, evergrant_error_message(error));
    evergrant_error_free(error);
    CHECK(token == NULL);
}

static void by_password(void)
{
    static const char *const passwords[] = {"password", "wrong"};
    char request[1024], *token = NULL;
    int i;
    for (i = 0; i < 2; i++) {
        evergrant_status expected = i == 0 ? EVERGRANT_STATUS_OK : EVERGRANT_STATUS_SIGN_IN_REQUIRED;
        snprintf(request, sizeof request,
                 "{\"username\":\"user@example.com\",\"password\":\"%s\",\"redirect_uri\":\"%s/services/oauth2/echo\"}",
                 passwords[i], site);
        CHECK_STATUS(evergrant_sign_in_with_password(client, "password", request, &token, &error), expected, error);
        if (i == 0 && token)
            begins("password", token);
        token = NULL;
    }
}

int main(void)
{
    char config[1024];
    const char *url = getenv("EVERGRANT_TEST_SITE");
    if (!CHECK(url != NULL))
        return done();
    snprintf(site, sizeof site, "%s/customers", url);
    snprintf(config, sizeof config,
             "{\"site_url\":\"%s\",\"client_id\":\"client\",\"client_secret\":\"secret\",\"store\":\"memory:\","
             "\"scope\":\"api refresh_token\"}", site);
    OK(evergrant_client_open(config, &client, &error));
    by_redirect();
    by_listening();
    by_browser();
    by_password();
    CHECK(evergrant_client_close(client, 5000) == EVERGRANT_STATUS_OK);
    evergrant_client_free(client);
    CHECK(alone());
    return done();
}
