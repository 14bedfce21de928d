package io.qnbd.server.net;

import io.qnbd.server.export.MemoryBudget;
import io.qnbd.server.export.ServedExports;
import io.qnbd.server.export.Workers;

/** What the connections of a server share. */
record ServerParts(
    ServedExports exports,
    ServerLimits limits,
    Workers workers,
    MemoryBudget budget,
    Clients clients,
    TlsSettings tls) {}
