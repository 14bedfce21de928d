package io.qnbd.image;

/**
 * What an image did since it was opened. References and clusters are counted one by one.
 *
 * @param batched references dropped by guests: REF-
 * @param coalesced of those, the ones that met another to the same cluster in their batch
 * @param cancelled clusters freed and handed out again without a refcount write
 * @param applied references whose decrement was applied
 * @param reserved clusters counted as used ahead of need: REF+
 * @param returned clusters given back: counted as free
 * @param reused clusters handed out that had been freed in this session
 * @param refcountWrites writes of refcount blocks and of the refcount table
 * @param tableWrites writes of L2 and L1 entries
 * @param syncs syncs of the file
 * @param commits commits
 * @param commitRequests requests that shared them
 */
public record ImageStats(
    long batched,
    long coalesced,
    long cancelled,
    long applied,
    long reserved,
    long returned,
    long reused,
    long refcountWrites,
    long tableWrites,
    long syncs,
    long commits,
    long commitRequests) {}
