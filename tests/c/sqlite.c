/*
 * A host with an SQLite of its own beside the static library: neither may get the other's functions.
 * tests/c/run.sh builds it twice: with the real libsqlite3.a, and with OWN_SQLITE, a host that merely uses the name.
 */
#include "check.h"

#ifdef OWN_SQLITE
static int opened;
int sqlite3_open(const char *path, void **database);
int sqlite3_open(const char *path, void **database)
{
    opened++;
    *database = NULL;
    return *path == ':' ? 42 : 43;
}
#else
#include <sqlite3.h>
#endif

int main(void)
{
    evergrant_error *error = NULL;
    evergrant_client *client = NULL;
    const char *config =
        "{\"token_endpoint\":\"http://127.0.0.1:1/token\",\"client_id\":\"c\",\"store\":\"sqlite:" DATABASE "\"}";
    CHECK_STATUS(evergrant_client_open(config, &client, &error), EVERGRANT_STATUS_OK, error);

    {
#ifdef OWN_SQLITE
        void *database;
        CHECK(sqlite3_open(":memory:", &database) == 42);
        CHECK(opened == 1);
#else
        sqlite3 *database;
        CHECK(strcmp(sqlite3_libversion(), SQLITE_VERSION) == 0);
        CHECK(sqlite3_open(":memory:", &database) == SQLITE_OK);
        CHECK(sqlite3_exec(database, "create table t (a); insert into t values (1)", NULL, NULL, NULL) == SQLITE_OK);
        CHECK(sqlite3_close(database) == SQLITE_OK);
#endif
    }
    if (client != NULL)
        evergrant_client_close(client, 0);
    evergrant_client_free(client);
    return done();
}
