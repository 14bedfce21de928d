package io.qnbd.image.metadata;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.OverlapCheck;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.LatchedStorage;
import java.io.IOException;
import java.nio.ByteBuffer;
import org.jspecify.annotations.Nullable;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Keeps an image whose metadata contradicts itself from being damaged further.
 *
 * <pre>
 *   OPENING -- opened() --> SOUND -- found() --> CORRUPT     left only by opening the file again
 *   OPENING:  what is found is suspected: the file is marked before its first change, if any
 *   SOUND:    nothing is known to be wrong, though something may be suspected
 *   CORRUPT:  the corrupt bit is set durably (version 3) and the storage is latched: every change
 *             and every sync fails, reads go on. Tables in memory that no commit has written are
 *             lost, as after a crash: nobody was told that they are durable
 * </pre>
 *
 * <p>Whoever finds an inconsistency throws what {@link #found} returns. An image that is open for
 * reading is never marked; the log says what is wrong all the same, once.
 *
 * <p>It also knows which clusters hold metadata that the open image refers to: a cluster is noted
 * before or when the first reference to it is made, and forgotten when the last one is dropped in
 * memory. So a cluster that is about to be handed out, written as data, or freed, and is noted, is
 * an inconsistency. It costs a look into a table in memory for each cluster that is allocated or
 * freed, and for each entry of a piece of an L2 table when that is first written through; a write
 * in place costs nothing.
 *
 * <p>Owner: the image's metadata lock.
 */
public final class Guard {
  private static final Logger LOG = LoggerFactory.getLogger(Guard.class);

  private final String name;
  private final @Nullable LatchedStorage file;
  private final boolean markable;
  private final OverlapCheck level;
  private final MetadataClusters clusters;
  private final int clusterBits;
  private boolean opening;
  private @Nullable String suspicion;
  private boolean found;

  private Guard(
      String name,
      @Nullable LatchedStorage file,
      boolean markable,
      OverlapCheck level,
      MetadataClusters clusters,
      int clusterBits) {
    this.name = name;
    this.file = file;
    this.markable = markable;
    this.level = level;
    this.clusters = clusters;
    this.clusterBits = clusterBits;
    this.opening = file != null;
  }

  /** For an image that is not written to, or not by guests: marks nothing, notes nothing. */
  public static Guard ofReader(String name) {
    return new Guard(name, null, false, OverlapCheck.NONE, new MetadataClusters(0), 0);
  }

  /**
   * For an image that guests write to.
   *
   * @param markable whether the format has a corrupt bit: version 3 on
   * @param singlesExpected L2 tables and refcount blocks that will be noted
   */
  public static Guard ofWriter(
      LatchedStorage file,
      boolean markable,
      OverlapCheck level,
      int clusterBits,
      int singlesExpected) {
    return new Guard(
        file.name(), file, markable, level, new MetadataClusters(singlesExpected), clusterBits);
  }

  /**
   * Marks the image corrupt and latches its storage, the first time; says so in the log. While the
   * image is being opened it does so later, before the first change.
   *
   * @param what the sentence for whoever asked for what can't be done, without the file's name
   */
  public CorruptImageException found(String what) {
    CorruptImageException exception = new CorruptImageException(name + ": " + what);
    if (opening) {
      suspect(what);
    } else if (!found) {
      found = true;
      if (file == null) {
        LOG.warn("{}: {}; run `qnbd check`", name, what);
      } else {
        LOG.error(
            "{}: {}; the image is corrupt and takes no more writes: stop serving it, save what can"
                + " be read, and run `qnbd check`",
            name,
            what);
        mark(file, what);
      }
    }
    return exception;
  }

  private void mark(LatchedStorage storage, String what) {
    try {
      if (!storage.refuse(name + " is corrupt and takes no more writes: " + what) || !markable) {
        return;
      }
      // Whatever else is set in the file stays.
      ByteBuffer features = ByteBuffer.allocate(Long.BYTES);
      storage.read(HeaderLayout.INCOMPATIBLE_AT, features);
      features.putLong(0, features.getLong(0) | FeatureBits.CORRUPT);
      storage.writeLast(HeaderLayout.INCOMPATIBLE_AT, features.clear());
    } catch (IOException e) {
      LOG.error("{}: could not be marked corrupt: {}", name, e.getMessage());
    }
  }

  /** The image is open: from now on it may be changed. */
  public void opened() {
    opening = false;
  }

  /**
   * Something is wrong that hurts nobody before the first change. Only the first such thing counts.
   */
  public void suspect(String what) {
    if (suspicion == null) {
      suspicion = what;
    }
  }

  /** Whether {@link #requireSound} would throw. Set before the image is shared; needs no lock. */
  public boolean suspicious() {
    return suspicion != null;
  }

  /** Throws if there is a suspicion, which then counts as found. */
  public void requireSound() throws CorruptImageException {
    if (suspicion != null) {
      throw found(suspicion);
    }
  }

  /** Whether references are compared with what is counted. */
  public boolean comparesCounts() {
    return level.compareTo(OverlapCheck.CACHED) >= 0;
  }

  /**
   * Whether an image that is not damaged may have a COPIED flag at a cluster that is counted more
   * than once: version 2 has no dirty bit, and a crash while a snapshot was taken leaves such.
   */
  public boolean flagsMayBeStale() {
    return comparesCounts() && !markable;
  }

  private boolean watches(MetadataUse use) {
    return level != OverlapCheck.NONE && (use.constant() || comparesCounts());
  }

  /** Notes metadata where the image says that it is; a contradiction is a suspicion. */
  public void noteFound(MetadataUse use, long first, long count) {
    if (watches(use)) {
      String overlap = add(use, first, count);
      if (overlap != null) {
        suspect(overlap);
      }
    }
  }

  /** Notes metadata that the engine has just put into clusters of its own. */
  public void note(MetadataUse use, long first, long count) throws CorruptImageException {
    if (watches(use)) {
      String overlap = add(use, first, count);
      if (overlap != null) {
        throw found(overlap);
      }
    }
  }

  private @Nullable String add(MetadataUse use, long first, long count) {
    long overlap = clusters.add(use, first, count);
    return overlap < 0 ? null : overlapText(use.toString(), overlap);
  }

  private String overlapText(String use, long cluster) {
    return String.format(
        "the %s overlaps the %s in cluster %d (0x%x)",
        use, clusters.at(cluster), cluster, cluster << clusterBits);
  }

  /** Nothing in the open image refers to that metadata any more. */
  public void forget(long first, long count) {
    clusters.remove(first, count);
  }

  /** Whether the cluster holds metadata. */
  public boolean metadataAt(long cluster) {
    return clusters.at(cluster) != null;
  }

  /** Whether the cluster holds metadata of another kind. */
  public boolean holdsOtherThan(MetadataUse use, long cluster) {
    MetadataUse held = clusters.at(cluster);
    return held != null && held != use;
  }

  /**
   * Throws if any of the clusters hold metadata.
   *
   * @param what is about to be there, for the message
   */
  public void requireFree(String what, long first, long count) throws CorruptImageException {
    long overlap = clusters.firstIn(first, count);
    if (overlap >= 0) {
      throw found(overlapText(what, overlap));
    }
  }

  /**
   * Throws if a cluster that nothing should refer to any more holds metadata. Bitmaps are theirs
   * who change them: what becomes of their clusters is not watched.
   */
  public void requireUnused(long cluster) throws CorruptImageException {
    MetadataUse use = clusters.at(cluster);
    if (use == MetadataUse.BITMAPS) {
      clusters.remove(cluster, 1);
    } else if (use != null) {
      throw found(overlapText("last of the references that were counted", cluster));
    }
  }
}
