/* The least program: one token out of the store. */
#include "bench.h"

int main(int count, char **arguments)
{
    char *token = NULL;
    evergrant_client *client = open_client(count > 1 ? arguments[1] : NULL);
    OK(evergrant_session_access_token(client, "bench", NULL, &token, &error));
    evergrant_string_free(token);
    close_client(client);
    return 0;
}
