package io.qnbd.server.tls;

/**
 * Who a client is, as the TLS handshake proved it.
 *
 * @param name the subject of its certificate as RFC 2253 writes it, or its PSK identity; empty when
 *     it proved none
 * @param version the protocol: {@code TLSv1.2} or {@code TLSv1.3}
 */
public record TlsIdentity(String name, String version) {}
