package io.qnbd.image.oracle;

import java.util.Arrays;
import java.util.HexFormat;
import org.jspecify.annotations.Nullable;

/**
 * What a guest may find on its disk, sector by sector.
 *
 * <p>For each 512-byte sector it keeps every version from the last acknowledged one on: after a
 * power cut any of them is right, and nothing else. While nothing fails, the last one is what a
 * read returns.
 *
 * <p>A change is announced before it is asked of the image ({@link #begin}), and ended when it
 * returned ({@link #end}) or when it is unknown how much of it took place ({@link #settle}). A
 * flush takes a {@link #mark} before it is asked for and reports it when it is done ({@link
 * #acknowledged}). Two changes to one sector must not overlap in time.
 *
 * <p>Thread-safe by its own monitor, inside which nothing else is called.
 */
public final class GuestModel {
  public static final int SECTOR_BYTES = 512;

  /**
   * The versions of a sector that count, oldest first; never changed once made.
   *
   * @param first number of the oldest, counting all that the sector ever had
   */
  @SuppressWarnings("ArrayRecordComponent") // never compared
  private record Versions(long first, byte[][] contents) {
    byte[] last() {
      return contents[contents.length - 1];
    }

    long lastNumber() {
      return first + contents.length - 1;
    }

    Versions with(byte[] content) {
      byte[][] more = Arrays.copyOf(contents, contents.length + 1);
      more[contents.length] = content;
      return new Versions(first, more);
    }

    Versions from(long number) {
      int drop = (int) Math.max(0, number - first);
      return drop == 0
          ? this
          : new Versions(first + drop, Arrays.copyOfRange(contents, drop, contents.length));
    }

    Versions upTo(long number) {
      return new Versions(first, Arrays.copyOf(contents, (int) (number - first) + 1));
    }
  }

  /** What may be found at one moment; never changes. */
  public static final class Allowed {
    private final Versions[] sectors;

    private Allowed(Versions[] sectors) {
      this.sectors = sectors;
    }

    /** Says which sector of the disk is none of its versions; null if all are right. */
    public @Nullable String violation(byte[] disk) {
      for (int sector = 0; sector < sectors.length; sector++) {
        boolean found = false;
        for (byte[] content : sectors[sector].contents()) {
          found |= sectorEquals(disk, sector, content);
        }
        if (!found) {
          return "sector "
              + sector
              + " is "
              + describe(disk, sector)
              + ", none of its "
              + sectors[sector].contents().length
              + " versions; the oldest is "
              + describe(sectors[sector].contents()[0], 0)
              + ", the last "
              + describe(sectors[sector].last(), 0);
        }
      }
      return null;
    }
  }

  private static final byte[] ZEROES = new byte[SECTOR_BYTES];

  private final int bytes;
  private final Versions[] sectors;
  private final long[] completed;

  /** Sectors from here on may hold anything. */
  private int described;

  /** A guest whose disk holds these bytes durably. */
  public GuestModel(byte[] disk) {
    bytes = disk.length;
    sectors = new Versions[(bytes + SECTOR_BYTES - 1) / SECTOR_BYTES];
    completed = new long[sectors.length];
    described = sectors.length;
    for (int sector = 0; sector < sectors.length; sector++) {
      sectors[sector] = new Versions(0, new byte[][] {sectorOf(disk, sector)});
    }
  }

  public int bytes() {
    return bytes;
  }

  /** From now on this describes the first {@code count} bytes only: the rest may hold anything. */
  public synchronized void describeOnly(int count) {
    described = count / SECTOR_BYTES;
  }

  /** A change that puts these bytes at {@code at} is about to be asked for. */
  public synchronized void begin(int at, byte[] data) {
    for (int sector = at / SECTOR_BYTES; sector * SECTOR_BYTES < at + data.length; sector++) {
      int start = sector * SECTOR_BYTES;
      int from = Math.max(at, start);
      int to = Math.min(at + data.length, start + SECTOR_BYTES);
      byte[] content = sectors[sector].last().clone();
      System.arraycopy(data, from - at, content, from - start, to - from);
      sectors[sector] = sectors[sector].with(Arrays.equals(content, ZEROES) ? ZEROES : content);
    }
  }

  /** A trim is about to be asked for: a hint, which leaves sectors that it covers in part. */
  public synchronized void beginTrim(int at, int count) {
    int first = (at + SECTOR_BYTES - 1) / SECTOR_BYTES;
    int end = at + count == bytes ? sectors.length : (at + count) / SECTOR_BYTES;
    for (int sector = first; sector < end; sector++) {
      sectors[sector] = sectors[sector].with(ZEROES);
    }
  }

  /** The change that was begun for this range has returned. */
  public synchronized void end(int at, int count) {
    for (int sector = at / SECTOR_BYTES; sector * SECTOR_BYTES < at + count; sector++) {
      completed[sector] = sectors[sector].lastNumber();
    }
  }

  /**
   * The change that was begun for this range is over and took place in part or not at all, and this
   * is what the sectors read as now.
   *
   * @param actual starts at the sector that holds {@code at}
   * @param failed whether the change ended with an error: then its bytes may be somewhere in the
   *     file, out of sight, and be found after a power cut until a flush decides
   * @return what is wrong with that, or null
   */
  public synchronized @Nullable String settle(int at, int count, byte[] actual, boolean failed) {
    int firstSector = at / SECTOR_BYTES;
    for (int sector = firstSector; sector * SECTOR_BYTES < at + count; sector++) {
      Versions before = sectors[sector].upTo(completed[sector]);
      if (sectorEquals(actual, sector - firstSector, before.last())) {
        sectors[sector] = failed ? sectors[sector].with(before.last()) : before;
      } else if (!sectorEquals(actual, sector - firstSector, sectors[sector].last())) {
        return "sector "
            + sector
            + " is "
            + describe(actual, sector - firstSector)
            + ", neither as before, "
            + describe(before.last(), 0)
            + ", nor as asked for, "
            + describe(sectors[sector].last(), 0);
      }
      completed[sector] = sectors[sector].lastNumber();
    }
    return null;
  }

  /** Where each sector stands now: what a flush that is asked for next has to make durable. */
  public synchronized long[] mark() {
    return completed.clone();
  }

  /** A flush asked for after this mark was taken has completed. */
  public synchronized void acknowledged(long[] mark) {
    for (int sector = 0; sector < sectors.length; sector++) {
      sectors[sector] = sectors[sector].from(mark[sector]);
    }
  }

  /** What a power cut at this moment may leave. */
  public synchronized Allowed allowed() {
    return new Allowed(Arrays.copyOf(sectors, described));
  }

  /**
   * What a copy of the disk that began after the mark was taken and has not ended may hold; nothing
   * may be acknowledged in between.
   */
  public synchronized Allowed allowedSince(long[] mark) {
    Versions[] since = new Versions[described];
    for (int sector = 0; sector < described; sector++) {
      since[sector] = sectors[sector].from(mark[sector]);
    }
    return new Allowed(since);
  }

  /** What a read of the range returns. */
  public synchronized byte[] latest(int at, int count) {
    byte[] result = new byte[count];
    for (int sector = at / SECTOR_BYTES; sector * SECTOR_BYTES < at + count; sector++) {
      int start = sector * SECTOR_BYTES;
      int from = Math.max(at, start);
      int to = Math.min(at + count, start + SECTOR_BYTES);
      System.arraycopy(sectors[sector].last(), from - start, result, from - at, to - from);
    }
    return result;
  }

  /** Fails if the disks differ, and says where; much faster than an assertion on arrays. */
  public static void assertSame(byte[] expected, byte[] actual, String what) {
    int at = Arrays.mismatch(expected, actual);
    if (at >= 0) {
      int sector = at / SECTOR_BYTES;
      throw new AssertionError(
          what
              + ": byte "
              + at
              + " differs; sector "
              + sector
              + " is "
              + describe(actual, sector)
              + ", expected "
              + describe(expected, sector));
    }
  }

  /** The first bytes of a sector, to recognise it by. */
  static String describe(byte[] disk, int sector) {
    byte[] content = sectorOf(disk, sector);
    return Arrays.equals(content, ZEROES)
        ? "zeroes"
        : HexFormat.of().formatHex(content, 0, 8) + "..";
  }

  private static byte[] sectorOf(byte[] disk, int sector) {
    int start = sector * SECTOR_BYTES;
    byte[] content = Arrays.copyOfRange(disk, start, start + SECTOR_BYTES);
    return Arrays.equals(content, ZEROES) ? ZEROES : content;
  }

  /** Compares what there is: the last sector of a disk may be short. */
  private static boolean sectorEquals(byte[] disk, int sector, byte[] content) {
    int start = sector * SECTOR_BYTES;
    int count = Math.min(SECTOR_BYTES, disk.length - start);
    return Arrays.equals(disk, start, start + count, content, 0, count);
  }
}
