/*
 * A process from its start to its end, for one token that the store still has: no network. Arguments: the directory of
 * the programs, a directory on a real disk.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { STARTS = 25 };

extern char **environ;

static double start(const char *program, const char *argument)
{
    char *arguments[] = {(char *)program, (char *)argument, NULL};
    double each[STARTS];
    int i;
    for (i = 0; i < STARTS; i++) {
        pid_t process;
        int status;
        double begin = wall_ns();
        if (posix_spawn(&process, program, NULL, NULL, arguments, environ) != 0 ||
            waitpid(process, &status, 0) != process || status != 0)
            die(program, "has failed");
        each[i] = wall_ns() - begin;
    }
    return median(each, STARTS);
}

int main(int count, char **arguments)
{
    static const char token[] = "{\"access_token\":\"00Dxx0000001gPL!AQcAQH0dMHZfz972Szmpkb58urFRkgeBGsxL\",\"refresh_"
                                "token\":\"5Aep861KIwKdekr90KlxVVUI47zdR6dOfs\",\"expires_in\":86400,\"token_type\":"
                                "\"Bearer\",\"instance_url\":\"https://example.my.salesforce.com\"}";
    char ours[512], curl[512], empty[512], config[1024], path[512];
    rounds us, them, nothing;
    evergrant_client *client;
    FILE *file;
    int i;
    if (count != 3)
        die(arguments[0], "PROGRAMS DIRECTORY");
    snprintf(ours, sizeof ours, "%s/start-evergrant", arguments[1]);
    snprintf(curl, sizeof curl, "%s/start-curl", arguments[1]);
    snprintf(empty, sizeof empty, "%s/start-empty", arguments[1]);
    snprintf(config, sizeof config,
             "{\"token_endpoint\":\"http://127.0.0.1:1/token\",\"client_id\":\"c\",\"store\":\"sqlite:%s/start.db\"}",
             arguments[2]);
    client = open_client(config);
    OK(evergrant_session_save(client, "bench", token, &error));
    close_client(client);
    snprintf(path, sizeof path, "%s/start.json", arguments[2]);
    file = fopen(path, "w");
    if (!file || fputs(token, file) < 0 || fclose(file) != 0)
        die(path, "cannot be written");
    for (i = 0; i < ROUNDS; i++) {
        us[i] = start(ours, config);
        them[i] = start(curl, path);
        nothing[i] = start(empty, NULL);
    }
    row("process start to token and exit; peer: libcurl + JSON file", us, them, MS, "<= 3 ms");
    row("  peer: an empty program", us, nothing, MS, "");
    return 0;
}
