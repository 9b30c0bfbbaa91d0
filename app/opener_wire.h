/*
 * opener_wire: the messages between a server and its opener (app/opener.h).
 *
 * A message is one packet of a Unix socket: a struct as it lies in memory, since both sides are one
 * program, and descriptors. A question is answered by any number of words about progress, packets
 * of descriptors where there are more than go with one, and CP_SAY_DONE.
 */
#ifndef CP_APP_OPENER_WIRE_H
#define CP_APP_OPENER_WIRE_H

#include "base/code.h"
#include "base/options.h"
#include "kernels/panel_file.h"
#include "loader/found.h"

#include <sys/types.h>

enum {
    CP_WIRE_FDS = 64, /* descriptors with a message; the kernel takes 253 */
    CP_WIRE_FILE_BYTES = CP_CONFIG_BYTES,
    CP_WIRE_WORD_BYTES = 128
};

typedef enum cp_ask_what {
    CP_ASK_FILE,         /* number: cp_opener_file */
    CP_ASK_AUDIT,        /* for appending */
    CP_ASK_TEMPLATE,     /* path */
    CP_ASK_MODEL,        /* path: the reference; name, word: variant and platform, "": none */
    CP_ASK_PANEL_OPEN,   /* path: the folder; name, bytes */
    CP_ASK_PANEL_CREATE, /* the same */
    CP_ASK_PANEL_PLACE,  /* number: replace */
    CP_ASK_PANEL_CLOSE,
    CP_ASK_PANEL_SWEEP, /* path: the folder */
    CP_ASK_COUNT
} cp_ask_what;

typedef struct cp_ask {
    uint32_t what, number;
    uint64_t bytes;
    char path[CP_DIR_MAX], name[CP_PANEL_NAME], word[CP_WIRE_WORD_BYTES];
} cp_ask;

typedef enum cp_say_what { CP_SAY_PROGRESS, CP_SAY_FILES, CP_SAY_DONE } cp_say_what;

typedef struct cp_say {
    uint32_t what;
    int32_t code, number; /* cp_code; what the function returned beside it */
    uint64_t done, total;
    char text[sizeof(((cp_err *)0)->msg)]; /* the error's message, or the phase */
} cp_say;

/* One packet. False: the other side is gone. */
bool cp_wire_send(int socket, const void *message, size_t n, const int *fds, size_t n_fds);
/* One packet of n bytes; descriptors close on exec. *n_fds: room, then how many came (CP_WIRE_FDS
 * at most). False: the other side is gone, or sent something else, whose descriptors are closed. */
bool cp_wire_receive(int socket, void *message, size_t n, int *fds, size_t *n_fds);

/* The child's life: answers what comes through `socket`, the first packet of which brings a second
 * one for models. A cp_child_fn; arg: the options. */
int cp_opener_live(int socket, void *arg);

#endif
