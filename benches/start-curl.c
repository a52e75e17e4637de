/* Its peer: a token out of a JSON file, in a program that is ready to renew it with libcurl. */
#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

int main(int count, char **arguments)
{
    char json[8192];
    size_t length;
    FILE *file = fopen(count > 1 ? arguments[1] : "", "r");
    if (!file || curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK)
        return 1;
    length = fread(json, 1, sizeof json - 1, file);
    json[length] = '\0';
    fclose(file);
    curl_global_cleanup();
    return strstr(json, "\"access_token\":\"") == NULL;
}
