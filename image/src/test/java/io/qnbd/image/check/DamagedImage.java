package io.qnbd.image.check;

import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.BackingPolicy;
import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.disk.Qcow2Image;
import io.qnbd.image.format.HeaderLayout;
import io.qnbd.image.format.L1Entry;
import io.qnbd.image.format.L2Entry;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;
import org.jspecify.annotations.Nullable;

/** What could be read of an image that is damaged, and which of its counts were too low. */
final class DamagedImage {
  private static final OpenOptions OPTIONS =
      OpenOptions.DEFAULT
          .withFormat(ImageFormat.QCOW2)
          .withReadOnly(true)
          .withBackingPolicy(BackingPolicy.NONE);

  private final int clusterBytes;
  private final List<byte @Nullable []> disk;
  private final Set<String> tooLow;
  private final long damages;

  private DamagedImage(
      int clusterBytes, List<byte @Nullable []> disk, Set<String> tooLow, long damages) {
    this.clusterBytes = clusterBytes;
    this.disk = disk;
    this.tooLow = tooLow;
    this.damages = damages;
  }

  static DamagedImage of(MemoryStorage file) throws IOException {
    RebuildImage raw = RebuildImage.unread(file);
    CheckReport report = Checker.check(file.copy());
    return new DamagedImage(
        raw.clusterBytes(), read(file, raw.clusterBytes()), tooLow(report), damages(report));
  }

  /** Cluster by cluster; null for one that can't be read. */
  private static List<byte @Nullable []> read(MemoryStorage file, int clusterBytes)
      throws IOException {
    List<byte @Nullable []> clusters = new ArrayList<>();
    try (DiskImage image =
        Qcow2Image.open(
            file.copy(),
            OPTIONS,
            (name, _) -> {
              throw new AssertionError("no backing file was named, but " + name);
            })) {
      for (long at = 0; at < image.virtualBytes(); at += clusterBytes) {
        byte[] cluster = new byte[(int) Math.min(clusterBytes, image.virtualBytes() - at)];
        try {
          image.read(at, ByteBuffer.wrap(cluster));
          clusters.add(cluster);
        } catch (IOException _) {
          clusters.add(null);
        }
      }
    }
    return clusters;
  }

  private static Set<String> tooLow(CheckReport report) {
    Set<String> found = new HashSet<>();
    for (String finding : report.findings()) {
      if (finding.contains("the refcount is")) {
        found.add(finding.substring(0, finding.indexOf(':')));
      }
    }
    return found;
  }

  private static long damages(CheckReport report) {
    return report.findings().stream()
        .filter(text -> !text.contains("COPIED") && !text.contains("the refcount is"))
        .filter(text -> !text.contains("dirty bit") && !text.contains("sole owner"))
        .count();
  }

  void requireNoWorse(MemoryStorage file) throws IOException {
    requireSameWhereReadable(file);
    CheckReport report = Checker.check(file.copy());
    Set<String> now = tooLow(report);
    long leaks = report.leaks();
    if (leaks == 0) {
      assertTrue(tooLow.containsAll(now), () -> "counts too low now: " + now);
    } else {
      assertTrue(
          report.findings().stream()
              .filter(text -> text.contains("the refcount is"))
              .filter(text -> !leak(text))
              .allMatch(text -> tooLow.contains(text.substring(0, text.indexOf(':')))),
          () -> "counts too low now: " + report.findings());
    }
    assertTrue(damages(report) <= damages, () -> "more damage: " + report.findings());
  }

  /** Whether the sentence tells of a count that is too high. */
  private static boolean leak(String text) {
    String[] words = text.replace(",", "").split(" ", -1);
    long stored = 0;
    for (int i = 1; i < words.length; i++) {
      if (words[i - 1].equals("is")) {
        stored = Long.parseUnsignedLong(words[i]);
      }
    }
    return Long.compareUnsigned(stored, Long.parseLong(words[words.length - 1])) > 0;
  }

  void requireSameWhereReadable(MemoryStorage file) throws IOException {
    List<byte @Nullable []> now = read(file, clusterBytes);
    for (int cluster = 0; cluster < disk.size(); cluster++) {
      byte[] expected = disk.get(cluster);
      byte[] found = now.get(cluster);
      if (expected != null) {
        assertTrue(found != null, "cluster " + cluster + " can't be read any more");
        GuestModel.assertSame(expected, found, "guest cluster " + cluster);
      }
    }
  }

  // ---- making damage

  /** Damage of every kind that a repair mends, on top of that which a rebuild mends. */
  static void damage(RebuildImage image, SeededRandom random) {
    if (random.chance(50)) {
      image.damage(random);
    }
    for (int times = random.between(1, 6); times > 0; times--) {
      damageOnce(image, random);
    }
  }

  private static void damageOnce(RebuildImage image, SeededRandom random) {
    ByteBuffer bytes = image.bytes();
    List<Integer> l1 =
        image.activeL1Entries().stream()
            .filter(at -> image.l2At(at) < bytes.capacity() - image.clusterBytes())
            .toList();
    if (l1.isEmpty()) {
      return;
    }
    int l1At = random.pick(l1);
    int l2At = image.l2At(l1At) + random.below(image.clusterBytes() / 8) * 8;
    long behind = (long) (bytes.capacity() / image.clusterBytes() + 5) * image.clusterBytes();
    switch (random.below(10)) {
      case 0 -> bytes.putLong(l2At, L2Entry.data(behind));
      case 1 -> bytes.putLong(l2At, bytes.getLong(l2At) | 1L << random.between(1, 8));
      case 2 -> bytes.putLong(l2At, bytes.getLong(l2At) | 1L << random.between(56, 61));
      case 3 -> {
        if (image.clusterBytes() > 512) {
          bytes.putLong(l2At, L2Entry.data(image.clusterBytes() * 3L + 512));
        }
      }
      case 4 -> bytes.putLong(l2At, L2Entry.COMPRESSED | behind);
      case 5 -> {
        if (random.chance(30)) {
          bytes.putLong(l1At, L1Entry.of(behind));
        }
      }
      case 6 -> {
        int entry = random.below(image.refcountTableEntries());
        bytes.putLong(image.tableEntryAt(entry), random.chance(50) ? behind : 0x155);
      }
      case 7 -> bytes.putLong(l2At, L2Entry.data(bytes.getLong(HeaderLayout.L1_OFFSET_AT)));
      case 8 -> bytes.putLong(l2At, L2Entry.data(image.tableEntryAt(0)));
      default -> {
        if (bytes.getInt(HeaderLayout.VERSION_AT) > 2) {
          bytes.putLong(HeaderLayout.INCOMPATIBLE_AT, 2);
        }
      }
    }
  }
}
