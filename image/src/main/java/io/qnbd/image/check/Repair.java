package io.qnbd.image.check;

import io.qnbd.image.CheckReport;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.RepairReport;
import io.qnbd.image.RepairScope;
import io.qnbd.image.format.FeatureBits;
import io.qnbd.image.format.Header;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Repairs a qcow2 image at rest.
 *
 * <pre>
 *   1. check    what is wrong, reading only; nothing is written to an image in order
 *   2. tables   in rounds, while one finds something to do: see {@link TableRepair}
 *   3. counts   and COPIED flags, once the tables are sound: see {@link Rebuild}
 *   4. check    what is left; the corrupt bit is cleared when no corruption is
 * </pre>
 *
 * <p>A power cut anywhere leaves an image that is no worse than it was: no cluster that could be
 * read reads otherwise, and no count is lower below its references than it was. A second repair
 * goes on from there.
 *
 * <p>Owner: one call. Nothing else may have the image open.
 */
public final class Repair {
  /** Bounds a round's memory; a badly damaged image takes more than one. */
  static final int FIXES_PER_ROUND = 1 << 16;

  /** Each round mends what it finds, so only an image of many fixes comes near this. */
  private static final int ROUNDS_MAX = 1000;

  private final Storage file;
  private final ProgressListener progress;
  private final List<String> repairs = new ArrayList<>();

  private Repair(Storage file, ProgressListener progress) {
    this.file = file;
    this.progress = progress;
  }

  /**
   * Repairs what the scope says; everything is durable when this returns.
   *
   * @throws io.qnbd.image.CorruptImageException when header or snapshot table can't be read at all,
   *     or when a cluster has more references than the image's refcounts can count
   * @throws io.qnbd.image.UnsupportedImageException when the image has features that are unknown
   */
  public static RepairReport repair(Storage file, RepairScope scope, ProgressListener progress)
      throws IOException {
    return new Repair(file, progress).run(scope);
  }

  private RepairReport run(RepairScope scope) throws IOException {
    CheckReport before = Checker.check(file, progress);
    Header header = ImageFile.of(file).readHeader();
    if (before.clean() && !header.dirty() && !header.corrupt()) {
      return new RepairReport(before, repairs, before);
    }
    if (scope == RepairScope.ALL) {
      repairTables();
    }
    ReferenceWalk walk = new ReferenceWalk(file, ReferenceWalk.pagesMax());
    walk.count(progress);
    if (walk.findings().firstDamage() == null) {
      // Counts of a dirty image are of no use until all of them are rebuilt.
      Rebuild.repair(file, scope == RepairScope.ALL || header.dirty(), progress);
    } else if (scope == RepairScope.LEAKS && before.leaks() > 0) {
      note(
          "leaks are left: the tables are damaged, so nobody can tell which clusters they need;"
              + " repair all");
    }
    CheckReport after = Checker.check(file, progress);
    if (after.corruptions() == 0) {
      clearCorrupt();
      after = Checker.check(file, progress);
    }
    return new RepairReport(before, repairs, after);
  }

  private void repairTables() throws IOException {
    for (int round = 0; round < ROUNDS_MAX; round++) {
      Fixes fixes = new Fixes(FIXES_PER_ROUND);
      ReferenceWalk walk = new ReferenceWalk(file, ReferenceWalk.pagesMax(), fixes);
      walk.count(progress);
      if (!new TableRepair(file, walk, fixes, this::note, progress).run()) {
        return;
      }
    }
  }

  private void note(String sentence) {
    if (repairs.size() < CheckReport.FINDINGS_MAX) {
      repairs.add(sentence);
    }
  }

  private void clearCorrupt() throws IOException {
    Header header = ImageFile.of(file).readHeader();
    if (header.corrupt()) {
      long features = header.incompatibleFeatures() & ~FeatureBits.CORRUPT;
      file.write(
          HeaderLayout.INCOMPATIBLE_AT, ByteBuffer.allocate(Long.BYTES).putLong(features).flip());
      file.sync();
    }
  }
}
