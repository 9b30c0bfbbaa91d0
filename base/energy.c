/*
 * This file reads RAPL's meters: see energy.h. A zone is a folder: intel-rapl:0 is a package, whose
 * name is "package-0"; intel-rapl:0:1 lies within it, and one called "dram" is counted beside it.
 * Others (core, uncore) are parts of the package, psys is more than it, and both are left out.
 * AMD's processors have the same names. Of a zone with max_energy_range_uj 1000, 990 and then 20
 * are 30.
 */
#include "base/energy.h"

#include "base/alloc.h"
#include "base/io.h"
#include "base/str.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { ZONES_MAX = 64, PATH_MAX_BYTES = 512 };

typedef struct zone {
    int fd; /* of energy_uj */
    bool dram;
    uint64_t range, last; /* range: the largest value before 0 comes again; last <= range */
} zone;

struct cp_energy {
    zone zone[ZONES_MAX];
    int n;
    cp_energy_sums sums;
};

/* The text of a small file, without its line feed. False: it cannot be read. */
static bool read_text(const char *root, const char *folder, const char *name, char out[64])
{
    char path[PATH_MAX_BYTES];
    cp_snprintf(path, sizeof(path), "%s/%s/%s", root, folder, name);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : cp_io_read(fd, out, 63);
    cp_io_close(fd);
    out[n > 0 ? n : 0] = '\0';
    out[strcspn(out, "\n")] = '\0';
    return n > 0;
}

static bool read_number(int fd, uint64_t *out)
{
    char text[32], *end;
    ssize_t n = cp_io_pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0)
        return false;
    text[n] = '\0';
    *out = strtoull(text, &end, 10);
    return end != text;
}

static void add_zone(cp_energy *e, const char *root, const char *folder)
{
    char name[64], range[64], path[PATH_MAX_BYTES];
    if (e->n == ZONES_MAX || !read_text(root, folder, "name", name) ||
        !read_text(root, folder, "max_energy_range_uj", range))
        return;
    bool dram = strcmp(name, "dram") == 0;
    if (!dram && strncmp(name, "package-", 8) != 0)
        return;
    zone z = {.dram = dram, .range = strtoull(range, NULL, 10)};
    cp_snprintf(path, sizeof(path), "%s/%s/energy_uj", root, folder);
    z.fd = open(path, O_RDONLY | O_CLOEXEC);
    if (z.fd >= 0 && read_number(z.fd, &z.last) && z.last <= z.range)
        e->zone[e->n++] = z;
    else
        cp_io_close(z.fd);
}

cp_energy *cp_energy_open(const char *root)
{
    if (!root)
        root = getenv("CAPSTAN_POWERCAP");
    if (!root || !*root)
        root = "/sys/class/powercap";
    DIR *d = opendir(root);
    if (!d)
        return NULL;
    cp_energy *e = cp_xcalloc(1, sizeof(*e));
    for (const struct dirent *at; (at = readdir(d));)
        if (strncmp(at->d_name, "intel-rapl:", 11) == 0)
            add_zone(e, root, at->d_name);
    closedir(d);
    bool any = false;
    for (int i = 0; i < e->n; i++)
        any = any || !e->zone[i].dram;
    if (any)
        return e;
    cp_energy_close(e);
    return NULL;
}

void cp_energy_read(cp_energy *e, cp_energy_sums *out)
{
    for (int i = 0; i < e->n; i++) {
        zone *z = &e->zone[i];
        uint64_t now;
        if (!read_number(z->fd, &now) || now > z->range)
            continue; /* what it took meanwhile is in its next reading */
        uint64_t took = now >= z->last ? now - z->last : now + z->range - z->last;
        *(z->dram ? &e->sums.dram_uj : &e->sums.package_uj) += took;
        z->last = now;
    }
    *out = e->sums;
}

void cp_energy_close(cp_energy *e)
{
    if (!e)
        return;
    for (int i = 0; i < e->n; i++)
        cp_io_close(e->zone[i].fd);
    free(e);
}
