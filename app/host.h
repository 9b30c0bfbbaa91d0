/*
 * host: loads and unloads models when a client of the server asks for it.
 *
 * It stands behind the server's table of functions (cp_server_host), gives each order a thread, and
 * says of what goes wrong whether client, model or machine is to blame. A value of the command's,
 * which ends the orders before the models.
 */
#ifndef CP_APP_HOST_H
#define CP_APP_HOST_H

#include "app/models.h"
#include "app/orders.h"
#include "server/host.h"

typedef struct cp_app_host {
    cp_app_models *models;
    cp_orders *orders;
} cp_app_host;

/* h must outlive the server. */
cp_server_host cp_app_host_table(cp_app_host *h);

#endif
