package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;

import io.qnbd.image.BitmapInfo;
import io.qnbd.image.Bitmaps;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.ZeroMode;
import io.qnbd.image.disk.BitmapBook.Entry;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Objects;
import org.jspecify.annotations.Nullable;

/** A guest and its operator, who do random things to a disk and to its bitmaps. */
final class BitmapUser {
  private final SeededRandom random;
  private final DiskImage image;
  private final BitmapBook book;
  private final ImageShape shape;

  BitmapUser(SeededRandom random, DiskImage image, BitmapBook book, ImageShape shape) {
    this.random = random;
    this.image = image;
    this.book = book;
    this.shape = shape;
  }

  void changeDisk() throws IOException {
    int count = (int) random.skewed(1, Math.min(64 << 10, image.virtualBytes()));
    long at = random.below(image.virtualBytes() - count + 1);
    if (random.chance(60)) {
      at = at / 512 * 512;
      count = (int) Math.min((count + 511) / 512 * 512L, image.virtualBytes() - at);
    }
    book.beginSession();
    switch (random.below(6)) {
      case 0 -> {
        image.trim(at, count);
        recordTrim(at, count);
      }
      case 1 -> {
        image.writeZeroes(
            at, count, random.chance(50) ? ZeroMode.MAY_UNMAP : ZeroMode.KEEP_ALLOCATED);
        record(at, count);
      }
      case 2 -> writeCompressed(at / shape.clusterBytes() * shape.clusterBytes());
      default -> {
        ByteBuffer bytes = ByteBuffer.allocateDirect(count).put(random.bytes(count)).flip();
        if (random.chance(50) || !image.tryWrite(at, bytes)) {
          image.write(at, bytes);
        }
        record(at, count);
      }
    }
  }

  private void writeCompressed(long at) throws IOException {
    int count = (int) Math.min(shape.clusterBytes(), image.virtualBytes() - at);
    byte[] cluster = new byte[count];
    Arrays.fill(cluster, (byte) random.between(1, 200));
    image.writeCompressed(at, ByteBuffer.wrap(cluster));
    record(at, count);
  }

  /** Whole clusters or subclusters only; one that touches none changes nothing. */
  private void recordTrim(long at, long count) {
    long cluster = image.preferredBytes();
    long from = (at + cluster - 1) / cluster * cluster;
    long end = at + count;
    long to = end == image.virtualBytes() ? end : end / cluster * cluster;
    if (from < to) {
      record(from, to - from);
    } else {
      book.ended();
    }
  }

  private void record(long at, long count) {
    book.entries.values().stream()
        .filter(entry -> entry.enabled)
        .forEach(entry -> entry.set(at, count));
    book.sessionBegun();
  }

  void changeBitmaps() throws IOException {
    Bitmaps bitmaps = image.bitmaps();
    @Nullable String name = pick();
    switch (random.below(name == null ? 1 : 8)) {
      case 0 -> add(bitmaps);
      case 1 -> remove(bitmaps, Objects.requireNonNull(name));
      case 2 -> enable(bitmaps, Objects.requireNonNull(name));
      case 3 -> disable(bitmaps, Objects.requireNonNull(name));
      case 4 -> change(Objects.requireNonNull(name), new BitSet(), () -> bitmaps.clear(name));
      case 5 -> replace(bitmaps, Objects.requireNonNull(name));
      case 6 -> changeFormat();
      default -> merge(bitmaps, Objects.requireNonNull(name));
    }
    book.ended();
  }

  /** What no bitmap is to notice. */
  private void changeFormat() throws IOException {
    if (shape.hasDataFile()) {
      return; // can do neither
    }
    if (random.chance(50)) {
      image.compact(ProgressListener.NONE);
    } else {
      image.snapshots().create("s" + image.snapshots().list().size());
    }
  }

  /** The disk shrinks, and bitmaps with it; or grows. */
  void resize() throws IOException {
    long bytes = image.virtualBytes() - random.skewed(1, 64) * 512;
    if (bytes <= 0 || random.chance(50)) {
      grow();
      return;
    }
    List<Entry> shorter = new ArrayList<>();
    book.entries.forEach((name, entry) -> {
      int bits = (int) Math.ceilDiv(bytes, 1L << entry.granularityBits);
      BitSet left = (BitSet) entry.bits.clone();
      left.clear(bits, Math.max(bits, left.length()));
      if (bits < Math.ceilDiv(image.virtualBytes(), 1L << entry.granularityBits)) {
        book.begin(name, left, entry.enabled, true);
        shorter.add(entry);
      }
    });
    book.mayLoseAll();
    ((Qcow2Image) image).shrink(bytes);
    for (Entry entry : shorter) {
      int bits = (int) Math.ceilDiv(bytes, 1L << entry.granularityBits);
      entry.bits.clear(bits, Math.max(bits, entry.bits.length()));
      entry.changing = entry.enabled;
    }
    book.ended();
  }

  private @Nullable String pick() {
    List<String> names = List.copyOf(book.entries.keySet());
    return names.isEmpty() ? null : random.pick(names);
  }

  private Entry entry(String name) {
    return Objects.requireNonNull(book.entries.get(name));
  }

  private String newName() {
    int number = 0;
    while (book.entries.containsKey("bitmap" + number)) {
      number++;
    }
    return "bitmap" + number;
  }

  private void add(Bitmaps bitmaps) throws IOException {
    if (book.entries.size() > 6) {
      return;
    }
    String name = newName();
    int bits = random.between(9, 17);
    boolean enabled = random.chance(70);
    book.mayLoseAll();
    book.begin(name, new BitSet(), enabled, true);
    bitmaps.add(name, 1L << bits, enabled);
    added(name, bits, enabled);
  }

  private void added(String name, int bits, boolean enabled) {
    Entry entry = new Entry(bits, enabled);
    entry.changing = enabled && book.begun();
    book.entries.put(name, entry);
  }

  private void remove(Bitmaps bitmaps, String name) throws IOException {
    book.mayLoseAll();
    book.beginRemoval(name);
    bitmaps.remove(name);
    book.entries.remove(name);
  }

  private void enable(Bitmaps bitmaps, String name) throws IOException {
    Entry entry = entry(name);
    book.begin(name, entry.bits, entry.enabled, true);
    bitmaps.enable(name);
    entry.changing |= !entry.enabled;
    entry.enabled = true;
  }

  private void disable(Bitmaps bitmaps, String name) throws IOException {
    Entry entry = entry(name);
    book.begin(name, entry.bits, false, false);
    bitmaps.disable(name);
    entry.enabled = false;
    entry.changing = false;
  }

  private interface Call {
    void run() throws IOException;
  }

  /** A change of what a bitmap says. */
  private void change(String name, BitSet bits, Call call) throws IOException {
    Entry entry = entry(name);
    book.begin(name, bits, entry.enabled, true);
    call.run();
    entry.bits = bits;
    entry.changing = entry.enabled;
  }

  private void replace(Bitmaps bitmaps, String name) throws IOException {
    if (!entry(name).enabled) {
      return;
    }
    String next = newName();
    book.mayLoseAll();
    book.begin(name, entry(name).bits, false, true);
    book.begin(next, new BitSet(), true, true);
    bitmaps.replace(name, next, 4096);
    entry(name).enabled = false;
    entry(name).changing = false;
    added(next, 12, true);
  }

  private void merge(Bitmaps bitmaps, String name) throws IOException {
    String source = Objects.requireNonNull(pick());
    Entry from = entry(source);
    Entry merged = new Entry(entry(name).granularityBits, false);
    merged.bits = (BitSet) entry(name).bits.clone();
    for (int bit = from.bits.nextSetBit(0); bit >= 0; bit = from.bits.nextSetBit(bit + 1)) {
      long at = (long) bit << from.granularityBits;
      long end = Math.min(image.virtualBytes(), at + (1L << from.granularityBits));
      merged.set(at, end - at);
    }
    change(name, merged.bits, () -> bitmaps.merge(name, source));
  }

  /** The disk grows; what is added is clean. */
  private void grow() throws IOException {
    long bytes = image.virtualBytes() + random.skewed(1, 256) * 512;
    book.beginSession();
    book.entries.forEach((name, entry) -> book.begin(name, entry.bits, entry.enabled, true));
    book.mayLoseAll();
    image.resize(bytes);
    book.sessionBegun();
    book.ended();
  }

  /** What the image says while it is open. */
  void check() throws IOException {
    List<BitmapInfo> infos = image.bitmaps().list();
    assertEquals(
        book.entries.keySet(), new LinkedHashSet<>(infos.stream().map(BitmapInfo::name).toList()));
    assertEquals(infos, image.consistentBitmaps());
    for (BitmapInfo info : infos) {
      Entry entry = entry(info.name());
      assertEquals(entry.enabled, info.enabled(), info.name());
      BitSet bits = new BitSet();
      long[] at = new long[1];
      image.dirtyExtents(
          info.name(),
          0,
          image.virtualBytes(),
          (bytes, dirty) -> {
            if (dirty) {
              bits.set(
                  (int) (at[0] >> entry.granularityBits),
                  (int) ((at[0] + bytes - 1) >> entry.granularityBits) + 1);
            }
            at[0] += bytes;
            return true;
          });
      assertEquals(image.virtualBytes(), at[0]);
      assertEquals(entry.bits, bits, info.name());
    }
  }
}
