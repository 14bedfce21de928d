package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.AmendOptions;
import io.qnbd.image.CorruptImageException;
import io.qnbd.image.DiskImage;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.check.Amending;
import io.qnbd.image.check.Checker;
import io.qnbd.image.disk.ImageShape.Backing;
import io.qnbd.image.disk.ImageShape.Place;
import io.qnbd.image.disk.ImageShape.Preparation;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Images whose format changes at rest, with power cuts in the midst of it. */
final class AmendingTest {
  private static final int KIB = 1 << 10;
  private static final int CUTS_DEFAULT = 600;
  private static final int CUTS_PER_RUN = 30;
  private static final int STEPS = 4;

  /** Of the header: where the refcount table is, and the autoclear feature bits. */
  private static final int REFCOUNT_TABLE_AT = 48;

  private static final int AUTOCLEAR_AT = 88;

  static Stream<ImageShape> shapes() {
    ImageShape usual = ImageShape.of(3, 4096, 16, 256 * KIB + 1536);
    return Stream.of(
        ImageShape.of(3, 1024, 16, 128 * KIB),
        ImageShape.of(2, 4096, 16, 256 * KIB).withSnapshots(1),
        usual.withLazyRefcounts(),
        usual.with(Backing.RAW_LONGER).withBatches(3, 1),
        usual.with(Backing.QCOW2).withSnapshots(1),
        usual.with(Preparation.COMPRESSED),
        ImageShape.of(3, 65536, 64, 1024 * KIB).with(Preparation.PREALLOCATED));
  }

  @ParameterizedTest
  @MethodSource("shapes")
  void theDiskStaysTheSameAtEveryCut(ImageShape shape) {
    int share = Seeds.count("qnbd.amendCuts", CUTS_DEFAULT) / (int) shapes().count();
    AtomicLong cuts = new AtomicLong();
    Seeds.run(
        "AmendingTest " + shape,
        share / CUTS_PER_RUN + 1,
        seed -> cuts.addAndGet(cutOften(shape, seed)));
    assertTrue(cuts.get() > 0, "no power cut in any run");
  }

  /** Returns how often the power was cut; a run that amends little may have none. */
  private static long cutOften(ImageShape shape, long seed) throws IOException {
    SeededRandom random = new SeededRandom(seed);
    Guest guest = Guest.withPast(shape, random);
    GuestModel model = new GuestModel(guest.model.latest(0, shape.diskBytes()));
    Cuts cuts = new Cuts(guest, model, random.split());
    MemoryStorage file = guest.file;
    for (int step = 0; step < STEPS; step++) {
      AmendOptions amend = amendment(random);
      boolean older = Integer.valueOf(2).equals(amend.version());
      try {
        file = amend(guest, file, amend, cuts);
        requireAmended(file, amend);
      } catch (UnsupportedImageException e) {
        assertTrue(older && shape.snapshots() > 0, e::getMessage); // the snapshot has zeroes
      }
    }
    cuts.verifyAll();
    RawQcow2 left = new RawQcow2(file);
    assertTrue(left.check().clean(), left.check()::toString);
    GuestModel.assertSame(
        model.latest(0, model.bytes()), left.disk(guest.engine.base()), "the disk");
    guest.checkSnapshots(left);
    return cuts.count();
  }

  private static AmendOptions amendment(SeededRandom random) {
    return random.chance(40)
        ? new AmendOptions(2, null, 16)
        : new AmendOptions(3, random.chance(50), random.pick(List.of(8, 16, 32, 64)));
  }

  /** As {@link ImageFiles#amend} does it; returns what the file holds afterwards. */
  private static MemoryStorage amend(Guest guest, MemoryStorage file, AmendOptions amend, Cuts cuts)
      throws IOException {
    MemoryStorage current = file;
    if (Amending.check(file, amend)) {
      CrashStorage storage = watched(current, cuts);
      try (DiskImage image = guest.engine.open(storage)) {
        ((Qcow2Image) image).expandZeroes(ProgressListener.NONE);
      }
      current = storage.contents();
    }
    CrashStorage storage = watched(current, cuts);
    Amending.amend(storage, amend, ProgressListener.NONE);
    storage.watch(null);
    return storage.contents();
  }

  private static CrashStorage watched(MemoryStorage file, Cuts cuts) {
    CrashStorage storage = new CrashStorage(file);
    storage.watch(cuts.anywhere(20, CUTS_PER_RUN));
    return storage;
  }

  private static void requireAmended(MemoryStorage file, AmendOptions amend) throws IOException {
    Header header = ImageFile.of(file).readHeader();
    assertEquals(amend.version(), header.version());
    assertEquals(amend.refcountBits(), header.geometry().refcountBits());
    assertEquals(Boolean.TRUE.equals(amend.lazyRefcounts()), header.lazyRefcounts());
  }

  @Test
  void refusesWhatTheOldVersionDoesNotHave() throws IOException {
    AmendOptions older = new AmendOptions(2, null, null);
    refuses(ImageShape.of(3, 16384, 16, 256 * KIB).withExtendedL2(), older, "extended L2 entries");
    refuses(ImageShape.of(3, 4096, 16, 256 * KIB).with(Place.LUKS), older, "LUKS encryption");
    refuses(ImageShape.of(3, 4096, 16, 256 * KIB).with(Place.DATA_FILE), older, "external data");
    refuses(ImageShape.of(3, 4096, 64, 256 * KIB), older, "refcount_bits=16");
    refuses(
        ImageShape.of(2, 4096, 16, 256 * KIB),
        new AmendOptions(null, true, null),
        "lazy reference counts");
    refuses(
        ImageShape.of(2, 4096, 16, 256 * KIB), new AmendOptions(null, null, 8), "refcount_bits");
  }

  @Test
  void widerCountsOfAnImageWithLeaksLeaveItInOrder() throws IOException {
    MemoryStorage file =
        ImageShape.of(3, 4096, 16, 256 * KIB).with(Preparation.PREALLOCATED).make(new byte[0]);
    RawQcow2 image = new RawQcow2(file);
    long entry = longAt(file, image.l2EntryOffset(0));
    long cluster = image.hostOffset(0) / image.clusterBytes();
    // As a snapshot leaves it that was deleted, and the decrement was lost.
    file.write(image.l2EntryOffset(0), ByteBuffer.allocate(8).putLong(0, entry & Long.MAX_VALUE));
    long block = longAt(file, longAt(file, REFCOUNT_TABLE_AT));
    file.write(block + 2 * cluster, ByteBuffer.allocate(2).putShort(0, (short) 2));
    assertEquals(0, Checker.check(file).corruptions());
    assertTrue(Checker.check(file).leaks() > 0);
    Amending.amend(file, new AmendOptions(null, null, 64), ProgressListener.NONE);
    RawQcow2 left = new RawQcow2(file);
    assertTrue(left.check().clean(), left.check()::toString);
    assertEquals(0, Checker.check(file).leaks());
  }

  @Test
  void forgetsWhatOnlyOtherSoftwareKnowsToBeUpToDate() throws IOException {
    MemoryStorage file = ImageShape.of(3, 4096, 16, 256 * KIB).make(new byte[0]);
    file.write(AUTOCLEAR_AT, ByteBuffer.allocate(8).putLong(0, 1L << 40));
    Amending.amend(file, new AmendOptions(null, null, 64), ProgressListener.NONE);
    assertEquals(0, longAt(file, AUTOCLEAR_AT));
  }

  @Test
  void refusesBeforeItWritesAnything() throws IOException {
    ImageShape shape = ImageShape.of(3, 4096, 16, 256 * KIB);
    MemoryStorage damaged = shape.with(Preparation.PREALLOCATED).make(new byte[0]);
    long block = longAt(damaged, longAt(damaged, REFCOUNT_TABLE_AT));
    RawQcow2 image = new RawQcow2(damaged);
    damaged.write(block + 2 * (image.hostOffset(0) / image.clusterBytes()), ByteBuffer.allocate(2));
    AmendOptions older = new AmendOptions(2, null, null);
    assertThrows(CorruptImageException.class, () -> Amending.check(damaged, older));

    // Compressed clusters share host clusters, which then have more references than one bit counts.
    byte[] contents = new byte[256 * KIB];
    Arrays.fill(contents, (byte) 7);
    MemoryStorage shared =
        ImageShape.of(2, 4096, 16, 256 * KIB).with(Preparation.COMPRESSED).make(contents);
    byte[] before = shared.bytes(0, (int) shared.length());
    AmendOptions narrow = new AmendOptions(3, null, 1);
    assertThrows(
        CorruptImageException.class, () -> Amending.amend(shared, narrow, ProgressListener.NONE));
    assertArrayEquals(before, shared.bytes(0, (int) shared.length()));
  }

  private static long longAt(MemoryStorage file, long at) {
    return ByteBuffer.wrap(file.bytes(at, Long.BYTES)).getLong();
  }

  private static void refuses(ImageShape shape, AmendOptions amend, String word)
      throws IOException {
    MemoryStorage file = shape.make(new byte[0]);
    UnsupportedImageException refusal =
        assertThrows(UnsupportedImageException.class, () -> Amending.check(file, amend));
    String message = String.valueOf(refusal.getMessage());
    assertTrue(message.contains(word), message);
  }
}
