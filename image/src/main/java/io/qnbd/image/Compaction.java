package io.qnbd.image;

/**
 * What compacting an image did.
 *
 * @param oldFileBytes the length of its file before
 * @param fileBytes the length of its file after
 * @param movedClusters clusters that were moved forward
 * @param stayedClusters clusters in use that lie behind where the file could end if everything
 *     could be moved: shared with snapshots, compressed, or written meanwhile
 */
public record Compaction(
    long oldFileBytes, long fileBytes, long movedClusters, long stayedClusters) {}
