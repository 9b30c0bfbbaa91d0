/*
 * energy: the joules that the machine's processors and their memory have taken, by RAPL (Running
 * Average Power Limit), as Linux gives it under /sys/class/powercap.
 *
 * A cp_energy keeps the meters' files open, so that they can be read when the process may open
 * nothing any more. The kernel lets root alone read them by default; who runs the server decides.
 * They measure the whole machine, not this process. One thread at a time reads.
 */
#ifndef CP_BASE_ENERGY_H
#define CP_BASE_ENERGY_H

#include <stdbool.h>
#include <stdint.h>

typedef struct cp_energy cp_energy;

/* Microjoules since cp_energy_open. */
typedef struct cp_energy_sums {
    uint64_t package_uj; /* all processor packages */
    uint64_t dram_uj;    /* their memory, where it has meters; 0: none */
} cp_energy_sums;

/* root NULL: $CAPSTAN_POWERCAP, else /sys/class/powercap. NULL: no package has a meter that can be
 * read. */
cp_energy *cp_energy_open(const char *root);
/* A meter wraps around after some minutes of full load: it has to be read more often than that. */
void cp_energy_read(cp_energy *e, cp_energy_sums *out);
void cp_energy_close(cp_energy *e); /* NULL is fine */

#endif
