package io.qnbd.server.remote;

import io.qnbd.protocol.TransmissionFlags;

/**
 * What a server says of an export, checked.
 *
 * @param bytes its size
 * @param flags see {@link TransmissionFlags}
 * @param blockBytesMin what offsets and lengths must be multiples of: a power of two up to 64 KiB
 * @param payloadBytesMax the most bytes of one read or write
 * @param structured whether replies come in chunks
 * @param context the id under which block statuses come, or -1 if they can't be asked for
 */
record RemoteExport(
    long bytes,
    int flags,
    int blockBytesMin,
    int payloadBytesMax,
    boolean structured,
    long context) {

  boolean has(int flag) {
    return (flags & flag) != 0;
  }

  boolean readOnly() {
    return has(TransmissionFlags.READ_ONLY);
  }
}
