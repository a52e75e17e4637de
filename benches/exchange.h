/*
 * The peer of a renewal: what one writes by hand with libcurl. One easy handle, so the connection is kept alive; the
 * answer's two tokens are found by their names. Nothing is stored.
 */
#ifndef EXCHANGE_H
#define EXCHANGE_H

#include "bench.h"
#include <curl/curl.h>

struct exchange {
    CURL *curl;
    char refresh_token[512], access_token[512];
    char answer[8192];
    size_t length;
};

static inline size_t exchange_answer(char *data, size_t size, size_t count, void *user)
{
    struct exchange *exchange = user;
    if (size * count >= sizeof exchange->answer - exchange->length)
        return 0;
    memcpy(exchange->answer + exchange->length, data, size * count);
    exchange->length += size * count;
    return size * count;
}

/* A string member without escapes. */
static inline void exchange_member(const char *json, const char *name, char *value, size_t size)
{
    char quoted[64];
    const char *from, *to;
    snprintf(quoted, sizeof quoted, "\"%s\":\"", name);
    from = strstr(json, quoted);
    to = from ? strchr(from += strlen(quoted), '"') : NULL;
    if (!to || (size_t)(to - from) >= size)
        die("no such member in the answer", name);
    memcpy(value, from, (size_t)(to - from));
    value[to - from] = '\0';
}

static inline void exchange_open(struct exchange *exchange, const char *token_endpoint, const char *first_answer)
{
    memset(exchange, 0, sizeof *exchange);
    exchange_member(first_answer, "refresh_token", exchange->refresh_token, sizeof exchange->refresh_token);
    exchange->curl = curl_easy_init();
    curl_easy_setopt(exchange->curl, CURLOPT_URL, token_endpoint);
    curl_easy_setopt(exchange->curl, CURLOPT_USERPWD, "client:secret");
    curl_easy_setopt(exchange->curl, CURLOPT_HTTPAUTH, CURLAUTH_BASIC);
    curl_easy_setopt(exchange->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(exchange->curl, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(exchange->curl, CURLOPT_TIMEOUT_MS, 60000L);
    curl_easy_setopt(exchange->curl, CURLOPT_WRITEFUNCTION, exchange_answer);
    curl_easy_setopt(exchange->curl, CURLOPT_WRITEDATA, exchange);
}

static inline void exchange_run(struct exchange *exchange)
{
    char form[2048];
    long status = 0;
    char *escaped = curl_easy_escape(exchange->curl, exchange->refresh_token, 0);
    CURLcode code;
    snprintf(form, sizeof form, "grant_type=refresh_token&refresh_token=%s", escaped);
    curl_free(escaped);
    curl_easy_setopt(exchange->curl, CURLOPT_POSTFIELDS, form);
    exchange->length = 0;
    code = curl_easy_perform(exchange->curl);
    if (code != CURLE_OK)
        die("libcurl", curl_easy_strerror(code));
    exchange->answer[exchange->length] = '\0';
    curl_easy_getinfo(exchange->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200)
        die("the server refuses libcurl", exchange->answer);
    exchange_member(exchange->answer, "access_token", exchange->access_token, sizeof exchange->access_token);
    exchange_member(exchange->answer, "refresh_token", exchange->refresh_token, sizeof exchange->refresh_token);
}

#endif
