package io.qnbd.protocol.handshake;

import io.qnbd.protocol.ExportInfo;

/**
 * What a finished handshake agreed on.
 *
 * @param structuredReplies whether reads are answered in chunks
 */
public record Negotiated(ExportInfo export, boolean structuredReplies) {}
