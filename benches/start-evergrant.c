/* The least program: one token out of the store. Arguments: a configuration; a token answer to save first, if any. */
#include "bench.h"

int main(int count, char **arguments)
{
    char *token = NULL;
    evergrant_client *client = open_client(count > 1 ? arguments[1] : NULL);
    if (count > 2)
        OK(evergrant_session_save(client, "bench", arguments[2], &error));
    OK(evergrant_session_access_token(client, "bench", NULL, &token, &error));
    evergrant_string_free(token);
    close_client(client);
    return 0;
}
