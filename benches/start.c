/*
 * Two commands in turn, each as a whole process from its start to its end.
 *
 * Arguments: STARTS WHAT TARGET [--over TARGET] OURS ... -- PEER ...
 * A figure is the median of STARTS starts. --over adds a row of what ours takes longer than the peer.
 */
#define _GNU_SOURCE
#include "bench.h"
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST = 100 };

extern char **environ;

static double start(char **command, int starts)
{
    double each[MOST];
    int i;
    for (i = 0; i < starts; i++) {
        pid_t process;
        int status;
        double begin = wall_ns();
        if (posix_spawnp(&process, command[0], NULL, NULL, command, environ) != 0 ||
            waitpid(process, &status, 0) != process || status != 0)
            die(command[0], "has failed");
        each[i] = wall_ns() - begin;
    }
    return median(each, starts);
}

int main(int count, char **arguments)
{
    const char *over = NULL;
    char **ours = arguments + 4, **peer;
    rounds us, them, more;
    int i, starts = count > 1 ? atoi(arguments[1]) : 0;
    if (count > 6 && strcmp(arguments[4], "--over") == 0) {
        over = arguments[5];
        ours += 2;
    }
    for (peer = ours; *peer && strcmp(*peer, "--") != 0; peer++)
        ;
    if (starts < 1 || starts > MOST || !*peer || peer == ours || !peer[1])
        die(arguments[0], "STARTS WHAT TARGET [--over TARGET] OURS ... -- PEER ...");
    *peer++ = NULL;
    for (i = 0; i < ROUNDS; i++) {
        us[i] = start(ours, starts);
        them[i] = start(peer, starts);
        more[i] = us[i] - them[i];
    }
    row(arguments[2], us, them, MS, arguments[3]);
    if (over)
        row("  more than that peer", more, NULL, MS, over);
    return 0;
}
