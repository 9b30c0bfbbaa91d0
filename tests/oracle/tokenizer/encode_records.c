/*
 * The oracle's driver: encode_records MODEL FLAGS < records. FLAGS holds 's' (add special tokens)
 * and 'p' (parse them), or
 * "-". A record is a 32-bit little-endian length and that many bytes of text; each gives one line
 * of ids on stdout. The time of opening and of encoding (the processor's) goes to stderr.
 */
#include "base/clock.h"
#include "loader/loader.h"
#include "tokenizer/tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_RECORD (256u << 20)

static int64_t processor_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static int encode(const cp_tokenizer *t, const char *flags)
{
    uint8_t head[4];
    cp_buf text = {0};
    cp_ids ids = {0};
    cp_err err = {0};
    int64_t ns = 0;
    size_t bytes = 0;
    int rc = 0;
    while (rc == 0 && fread(head, 1, 4, stdin) == 4) {
        uint32_t n =
            head[0] | (uint32_t)head[1] << 8 | (uint32_t)head[2] << 16 | (uint32_t)head[3] << 24;
        cp_buf_clear(&text);
        ids.n = 0;
        if (n > MAX_RECORD || !cp_buf_reserve(&text, n + 1) || fread(text.p, 1, n, stdin) != n) {
            fprintf(stderr, "bad record\n");
            rc = 1;
            break;
        }
        int64_t start = processor_ns();
        if (cp_tokenizer_encode(t, text.p, n, strchr(flags, 's') != NULL,
                                strchr(flags, 'p') != NULL, NULL, 0, &ids, &err)) {
            fprintf(stderr, "%s\n", err.msg);
            rc = 1;
        }
        ns += processor_ns() - start;
        bytes += n;
        for (size_t i = 0; i < ids.n; i++)
            printf("%d ", ids.id[i]);
        printf("\n");
    }
    fprintf(stderr, "%zu bytes in %.6f s\n", bytes, (double)ns / 1e9);
    cp_buf_fini(&text);
    cp_ids_fini(&ids);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fprintf(stderr, "usage: encode_records MODEL FLAGS < records\n");
        return 2;
    }
    cp_loaded *m = NULL;
    cp_tokenizer *t = NULL;
    cp_err err = {0};
    int rc = 1;
    if (cp_loader_open(&m, argv[1], NULL, &err) == CP_OK) {
        int64_t start = cp_now_ns();
        if (cp_tokenizer_open(&t, cp_loaded_meta(m), &err) == CP_OK) {
            fprintf(stderr, "%d tokens opened in %.3f s\n", cp_tokenizer_size(t),
                    (double)(cp_now_ns() - start) / 1e9);
            rc = encode(t, argv[2]);
        }
    }
    if (rc)
        fprintf(stderr, "%s: %s\n", argv[1], err.msg);
    cp_tokenizer_close(t);
    if (m)
        cp_loaded_close(m);
    return rc;
}
