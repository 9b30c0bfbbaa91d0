/*
 * Cleaning the user's cache, and what releases leave in a store, for `gc`. What nobody has used
 * for 30 days goes, unless a process has it mapped. Internal to the store's functions; any number
 * of processes.
 */
#ifndef CP_LOADER_OCI_STORE_CACHE_GC_H
#define CP_LOADER_OCI_STORE_CACHE_GC_H

#include "loader/loader.h"
#include "loader/oci/store/layout.h"

/* Remove from $XDG_CACHE_HOME/capstan what nobody used for 30 days and no process has mapped:
 * records, extracted layers, packed weights. Counts into out->cached and out->bytes; dry_run only
 * counts. A cache that others can write is left alone. */
void cp_cache_gc(bool dry_run, cp_gc_result *out);

/* The same for the packed weights of a store, under its two locks: those that another release
 * packed in another layout, mostly. */
void cp_cache_gc_store(const cp_layout *l, bool dry_run, cp_gc_result *out);

#endif
