/*
 * What programs need that speak with a server: one request, and a look at the library's threads.
 */
#ifndef TEST_HTTP_H
#define TEST_HTTP_H

#include <arpa/inet.h>
#include <dirent.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/*
 * GET, or POST if there is a body, of a http://127.0.0.1 URL. `bearer` may be NULL. Returns the HTTP status and leaves
 * the answer's body in `answer`; -1 if there is none.
 */
static inline int http(const char *url, const char *path, const char *bearer, const char *body, char *answer, size_t size)
{
    char text[65536];
    struct sockaddr_in to;
    unsigned short port;
    int base, length, status = -1, fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t got = 0;
    ssize_t n = -1;
    const char *end;

    if (fd < 0 || sscanf(url, "http://127.0.0.1:%hu%n", &port, &base) != 1)
        return -1;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    length = snprintf(text, sizeof text,
                      "%s %s%s HTTP/1.0\r\nHost: 127.0.0.1:%hu\r\nConnection: close\r\n%s%s%sContent-Type: application/json\r\n"
                      "Content-Length: %lu\r\n\r\n%s",
                      body ? "POST" : "GET", url + base, path, port, bearer ? "Authorization: Bearer " : "",
                      bearer ? bearer : "", bearer ? "\r\n" : "", body ? (unsigned long)strlen(body) : 0,
                      body ? body : "");
    if (length > 0 && (size_t)length < sizeof text && connect(fd, (struct sockaddr *)&to, sizeof to) == 0 &&
        write(fd, text, (size_t)length) == length)
        while ((n = read(fd, text + got, sizeof text - 1 - got)) > 0)
            got += (size_t)n;
    close(fd);
    text[got] = '\0';
    end = strstr(text, "\r\n\r\n");
    if (n != 0 || !end || sscanf(text, "HTTP/1.%*d %d", &status) != 1)
        return -1;
    return snprintf(answer, size, "%s", end + 4) < (int)size ? status : -1;
}

/* Whether the library's threads are gone: they end when they have had nothing to do for two seconds. */
static inline int alone(void)
{
    struct timespec pause = {0, 50 * 1000 * 1000};
    for (int tries = 0; tries < 600; tries++) {
        DIR *tasks = opendir("/proc/self/task");
        int count = 0;
        struct dirent *task;
        while (tasks && (task = readdir(tasks)) != NULL)
            count += task->d_name[0] != '.';
        if (tasks)
            closedir(tasks);
        if (count <= 1)
            return 1;
        nanosleep(&pause, NULL);
    }
    return 0;
}

#endif
