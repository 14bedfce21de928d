package io.qnbd.server.net;

import java.time.Instant;
import org.jspecify.annotations.Nullable;

/**
 * A connection, for the operator.
 *
 * @param id unique in the server's life, counted from 1
 * @param peer the client's address, or the listener's where unix sockets give it none
 * @param export the export's name, or null while the client is still in its handshake
 * @param identity the subject of its certificate or its PSK identity, or null when it has shown
 *     none
 * @param tls whether the connection is encrypted
 * @param since when it was accepted
 */
public record ClientInfo(
    long id,
    String peer,
    @Nullable String export,
    @Nullable String identity,
    boolean tls,
    Instant since) {}
