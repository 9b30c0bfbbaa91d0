/*
 * Replay main for fuzz targets: feeds every file named on the command line, or inside a folder
 * named there, to LLVMFuzzerTestOneInput once. Each input also runs cut short (every prefix up to
 * 64 bytes, then 16 cuts), because truncation is the commonest hostile input. A missing folder is
 * an empty corpus. Prints the count.
 */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { CUT_ALL = 64, CUTS = 16, MAX_BYTES = 64 << 20 };

/* A heap copy of exactly n bytes, so that a sanitizer sees a read past the end. */
static void feed(const uint8_t *data, size_t n)
{
    uint8_t *copy = calloc(1, n ? n : 1);
    if (!copy)
        abort();
    memcpy(copy, data, n);
    LLVMFuzzerTestOneInput(copy, n);
    free(copy);
}

static long feed_file(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f) {
        perror(path);
        exit(1);
    }
    uint8_t *data = malloc(MAX_BYTES);
    if (!data)
        abort();
    size_t n = fread(data, 1, MAX_BYTES, f);
    fclose(f);
    long runs = 0;
    for (size_t i = 0; i < n && i < CUT_ALL; i++, runs++)
        feed(data, i);
    for (size_t i = 1; n > CUT_ALL && i < CUTS; i++, runs++)
        feed(data, n * i / CUTS);
    feed(data, n);
    free(data);
    return runs + 1;
}

int main(int argc, char **argv)
{
    long files = 0, runs = 0;
    feed((const uint8_t *)"", 0);
    for (int i = 1; i < argc; i++) {
        struct stat st;
        if (stat(argv[i], &st) != 0)
            continue;
        if (!S_ISDIR(st.st_mode)) {
            runs += feed_file(argv[i]);
            files++;
            continue;
        }
        DIR *d = opendir(argv[i]);
        if (!d)
            continue;
        for (struct dirent *e; (e = readdir(d));) {
            char path[4096];
            int len = snprintf(path, sizeof(path), "%s/%s", argv[i], e->d_name);
            if (e->d_name[0] == '.' || len < 0 || (size_t)len >= sizeof(path))
                continue;
            runs += feed_file(path);
            files++;
        }
        closedir(d);
    }
    printf("%ld files, %ld runs\n", files, runs);
    return 0;
}
