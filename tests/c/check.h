/*
 * The least that a test needs: CHECK says where it failed and goes on; main() ends with `return done();`.
 */
#ifndef CHECK_H
#define CHECK_H

#include <evergrant.h>
#include <stdio.h>
#include <string.h>

static int checks, failures;

#define CHECK(condition) check((condition) != 0, __FILE__, __LINE__, #condition, "")

/* The same with a text that says which row of a table it was. */
#define CHECK_ROW(condition, row) check((condition) != 0, __FILE__, __LINE__, #condition, (row))

/* A status as expected, or the error's message. Frees the error that the call has stored in `error`. */
#define CHECK_STATUS(status, expected, error) check_status((status), (expected), &(error), __FILE__, __LINE__)

/* A call with `&error` that must be OK: nothing else makes sense after it. Needs stdlib.h. */
#define OK(call)                                                                                                       \
    do {                                                                                                               \
        evergrant_status status_ = (call);                                                                             \
        if (!CHECK_STATUS(status_, EVERGRANT_STATUS_OK, error))                                                        \
            exit(done());                                                                                              \
    } while (0)

static int check(int passed, const char *file, int line, const char *condition, const char *row)
{
    checks++;
    if (!passed) {
        failures++;
        fprintf(stderr, "%s:%d: %s%s%s\n", file, line, condition, *row ? ": " : "", row);
    }
    return passed;
}

static inline int check_status(evergrant_status status, evergrant_status expected, evergrant_error **error,
                               const char *file, int line)
{
    char row[512];
    snprintf(row, sizeof row, "%s, not %s: %s", evergrant_status_name((int32_t)status),
             evergrant_status_name((int32_t)expected), evergrant_error_message(*error));
    evergrant_error_free(*error);
    *error = NULL;
    return check(status == expected, file, line, "status", row);
}

static int done(void)
{
    fprintf(stderr, "%d checks, %d failed\n", checks, failures);
    return failures != 0;
}

#endif
