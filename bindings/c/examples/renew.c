/*
 * Prints where to send a session's requests, with a token that is valid now.
 *
 *   cc renew.c $(pkg-config --cflags --libs evergrant) -o renew
 *   ./renew client.json alice "$REFRESH_TOKEN"     # the refresh token only until it is known
 */
#include <evergrant.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: renew CONFIG_FILE SESSION [REFRESH_TOKEN]\n");
        return 2;
    }
    char config[4200], grant[4200];
    snprintf(config, sizeof config, "{\"config_file\": \"%s\"}", argv[1]);
    snprintf(grant, sizeof grant, "{\"refresh_token\": \"%s\"}", argc > 3 ? argv[3] : "");

    evergrant_client *client = NULL;
    evergrant_error *error = NULL;
    char *token = NULL, *access_token = NULL, *instance_url = NULL;

    evergrant_status status = evergrant_client_open(config, &client, &error);
    if (!status && argc > 3)
        status = evergrant_session_save(client, argv[2], grant, &error); /* does nothing if it is known */
    if (!status)
        status = evergrant_session_token(client, argv[2], NULL, &token, &error);
    if (!status)
        status = evergrant_json_member(token, "access_token", &access_token, &error);
    if (!status)
        status = evergrant_json_member(token, "instance_url", &instance_url, &error);

    if (!status)
        printf("%s with a token of %zu bytes\n", instance_url, strlen(access_token));
    else
        fprintf(stderr, "renew: %s\n", evergrant_error_message(error));

    evergrant_string_free(instance_url);
    evergrant_string_free(access_token);
    evergrant_string_free(token);
    evergrant_error_free(error);
    if (client)
        evergrant_client_close(client, 5000);
    evergrant_client_free(client);
    return status != EVERGRANT_STATUS_OK;
}
