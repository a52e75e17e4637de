/* What needs neither a client nor a server. */
#include "check.h"

int main(void)
{
    CHECK(strcmp(evergrant_version(), EVERGRANT_VERSION) == 0);
    CHECK(evergrant_abi_version() == EVERGRANT_ABI_VERSION);

    CHECK(strcmp(evergrant_status_name(EVERGRANT_STATUS_OK), "OK") == 0);
    CHECK(strcmp(evergrant_status_name(EVERGRANT_STATUS_INTERNAL), "INTERNAL") == 0);
    CHECK(strcmp(evergrant_status_name(-1), "UNKNOWN") == 0);
    CHECK(strcmp(evergrant_status_name(4711), "UNKNOWN") == 0);

    /* No error, in every accessor. */
    CHECK(evergrant_error_status(NULL) == EVERGRANT_STATUS_OK);
    CHECK(strcmp(evergrant_error_message(NULL), "") == 0);
    CHECK(strcmp(evergrant_error_json(NULL), "{}") == 0);

    evergrant_error_free(NULL);
    evergrant_string_free(NULL);
    evergrant_client_free(NULL);

    CHECK(evergrant_is_rejection(200, NULL) == 0);
    CHECK(evergrant_is_rejection(200, "\xff is not UTF-8") == 0);
    return done();
}
