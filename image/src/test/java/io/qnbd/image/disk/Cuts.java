package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.check.Checker;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.function.Supplier;
import org.jspecify.annotations.Nullable;

/**
 * Power cuts of one run: taken while it goes on, judged afterwards.
 *
 * <p>Cuts are taken inside the storage's lock, so the model's state and the file's belong together.
 */
final class Cuts {
  /**
   * A file as it may be found.
   *
   * @param disks what the disk may hold: one of these
   * @param bytesMin the least that the disk may have; the most are {@code bytesMax}
   * @param whole what a disk of {@code bytesMax} holds, if not any of these
   */
  private record Cut(
      long operation,
      MemoryStorage file,
      @Nullable MemoryStorage data,
      List<GuestModel.Allowed> disks,
      long bytesMin,
      long bytesMax,
      GuestModel.@Nullable Allowed whole,
      SnapshotBook.State snapshots) {}

  private final Guest guest;
  private final GuestModel model;
  private final SeededRandom random;
  private final Supplier<SnapshotBook.State> snapshots;
  private final List<Cut> cuts = new ArrayList<>();
  private GuestModel.@Nullable Allowed otherDisk;
  private Check otherCheck = (_, _) -> {};

  /** What the raw image held when the run began, if a cut came before it. */
  private byte @Nullable [] rawBefore;

  private long bytesMin;
  private long bytesMax;
  private GuestModel.@Nullable Allowed whole;

  /** Cuts of a run that began with {@code guest} and is described by {@code model}. */
  Cuts(Guest guest, GuestModel model, SeededRandom random) {
    this(guest, model, random, guest.snapshots::state);
  }

  private Cuts(
      Guest guest, GuestModel model, SeededRandom random, Supplier<SnapshotBook.State> snapshots) {
    this.guest = guest;
    this.model = model;
    this.random = random;
    this.snapshots = snapshots;
    this.bytesMin = model.bytes();
    this.bytesMax = model.bytes();
  }

  /** Something else that must be so after a cut. */
  @FunctionalInterface
  interface Check {
    /**
     * Throws if it is not.
     *
     * @param disk what it holds
     */
    void on(RawQcow2 found, byte[] disk);
  }

  /** What is found after a cut, taken at any time, is checked by this as well. */
  synchronized void alsoCheck(Check check) {
    otherCheck = check;
  }

  /** From now on the disk may hold this instead of what the model says; null for no longer. */
  synchronized void mayHold(GuestModel.@Nullable Allowed disk) {
    otherDisk = disk;
  }

  /**
   * From now on the disk may have one of these sizes and what the model says, which describes the
   * largest.
   */
  synchronized void mayHave(long min, long max) {
    bytesMin = min;
    bytesMax = max;
    whole = null;
  }

  /** The same, but a disk of {@code max} bytes holds all that it does now. */
  synchronized void mayShrink(long min, long max) {
    mayHave(min, max);
    whole = model.allowed();
  }

  /**
   * Takes cuts until there are {@code max}: at {@code percent} of the syncs, at a fifth as many of
   * the other operations. Before a sync the most is undecided, so a cut there may find all that an
   * earlier one could; one between two writes allows the guest less.
   */
  CrashStorage.Watcher sometimes(int percent, int max) {
    return (operation, storage) -> {
      int chance = operation == Operation.SYNC ? percent : percent / 5;
      synchronized (this) {
        while (cuts.size() < max && random.chance(chance)) {
          take(storage);
        }
      }
    };
  }

  /** Takes cuts at {@code percent} of all operations alike, until there are {@code max}. */
  CrashStorage.Watcher anywhere(int percent, int max) {
    return (_, storage) -> {
      synchronized (this) {
        while (cuts.size() < max && random.chance(percent)) {
          take(storage);
        }
      }
    };
  }

  synchronized void take(CrashStorage storage) {
    MemoryStorage file = storage.cut(random);
    MemoryStorage data = guest.engine.cutData(random);
    GuestModel.Allowed other = otherDisk;
    List<GuestModel.Allowed> disks =
        other == null ? List.of(model.allowed()) : List.of(model.allowed(), other);
    cuts.add(
        new Cut(
            storage.operations(), file, data, disks, bytesMin, bytesMax, whole, snapshots.get()));
  }

  synchronized int count() {
    return cuts.size();
  }

  synchronized void verifyAll() throws IOException {
    for (int index = 0; index < cuts.size(); index++) {
      Cut cut = cuts.get(index);
      try {
        verify(cut);
      } catch (AssertionError | IOException | RuntimeException e) {
        throw new AssertionError(
            "cut " + index + " of " + cuts.size() + ", operation " + cut.operation() + ": " + e, e);
      }
    }
  }

  private void verify(Cut cut) throws IOException {
    Engine engine = guest.engine.with(cut.data());
    RawQcow2 found = engine.oracle(cut.file());
    RawQcow2.Findings findings = check(found);
    assertEquals(List.of(), findings.corruptions(), "after the cut");
    if (random.chance(10) && found.version() >= 3 && !found.dirty()) {
      CheckReport report = Checker.check(cut.file());
      assertEquals(0, report.corruptions(), () -> "the engine's own check: " + report.findings());
    }
    byte[] disk = found.disk(guest.engine.base());
    assertTrue(
        disk.length == cut.bytesMin() || disk.length == cut.bytesMax(),
        () -> disk.length + " bytes, not " + cut.bytesMin() + " or " + cut.bytesMax());
    GuestModel.Allowed whole = cut.whole();
    List<GuestModel.Allowed> disks =
        whole != null && disk.length == cut.bytesMax() ? List.of(whole) : cut.disks();
    requireAllowed(disks, Arrays.copyOf(disk, model.bytes()));
    MemoryStorage raw = engine.rawImage();
    if (raw != null) {
      requireAllowed(disks, settled(raw.bytes(0, model.bytes()), disk));
    }
    otherCheck.on(found, disk);
    SnapshotBook.State snapshots = cut.snapshots().check(found, guest.engine.base());
    useAgain(engine, cut.file(), disk, findings.leaks(), snapshots);
  }

  /**
   * A raw image, with what nobody has written since the cut before taken from the disk: a write
   * that was not acknowledged may have reached the raw image and not the tables, and that cut has
   * allowed the one to be new and the other old.
   */
  private byte[] settled(byte[] raw, byte[] disk) {
    byte[] before = rawBefore;
    if (before == null) {
      return raw;
    }
    byte[] settled = raw.clone();
    for (int at = 0; at < raw.length; at += GuestModel.SECTOR_BYTES) {
      int end = at + GuestModel.SECTOR_BYTES;
      if (Arrays.equals(raw, at, end, before, at, end)) {
        System.arraycopy(disk, at, settled, at, GuestModel.SECTOR_BYTES);
      }
    }
    return settled;
  }

  private static void requireAllowed(List<GuestModel.Allowed> disks, byte[] disk) {
    @Nullable String violation = null;
    for (GuestModel.Allowed allowed : disks) {
      violation = allowed.violation(disk);
      if (violation == null) {
        return;
      }
    }
    throw new AssertionError(violation);
  }

  /** Version 2 has no dirty bit to say that flags may be stale. */
  private static RawQcow2.Findings check(RawQcow2 image) {
    return image.version() < 3 ? image.checkAllowingStaleFlags() : image.check();
  }

  /** Opens what was found and goes on: nothing gets worse, at times through a second cut. */
  private void useAgain(
      Engine engine,
      MemoryStorage file,
      byte[] disk,
      long leaksBefore,
      SnapshotBook.State snapshots)
      throws IOException {
    GuestModel next = new GuestModel(disk);
    boolean again = random.chance(5);
    CrashStorage storage = again ? new CrashStorage(file) : null;
    Cuts second = new Cuts(guest.with(engine), next, random.split(), () -> snapshots);
    MemoryStorage raw = engine.rawImage();
    second.rawBefore = raw == null ? null : raw.bytes(0, model.bytes());
    if (storage != null) {
      storage.watch(second.sometimes(10, 3)); // also while a dirty image is rebuilt
    }
    try (DiskImage image = engine.open(storage == null ? file : storage)) {
      Workload workload =
          new Workload(random.split(), image, next, Workload.Mix.random(random, 65536));
      workload.checkAll();
      workload.run(random.below(8));
    }
    if (storage != null) {
      storage.watch(null);
      second.verifyAll();
    }
    RawQcow2 after = engine.oracle(storage == null ? file : storage.contents());
    assertFalse(after.dirty(), "dirty when closed");
    RawQcow2.Findings findings = check(after);
    assertEquals(List.of(), findings.corruptions(), "after using it again");
    assertTrue(
        findings.leaks() <= leaksBefore,
        () -> "leaks: " + leaksBefore + " before, " + findings.leaks() + " after");
    GuestModel.assertSame(
        next.latest(0, next.bytes()), after.disk(guest.engine.base()), "disk after using it again");
    snapshots.check(after, guest.engine.base());
  }
}
