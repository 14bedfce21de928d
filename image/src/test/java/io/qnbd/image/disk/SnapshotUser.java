package io.qnbd.image.disk;

import io.qnbd.image.DiskImage;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.util.List;
import java.util.concurrent.locks.Lock;

/** Somebody who takes, renames and removes snapshots of an open image. Not thread-safe. */
final class SnapshotUser {
  private static final int SNAPSHOTS_MAX = 3;

  private final Guest guest;
  private final GuestModel model;
  private final DiskImage image;
  private final CrashStorage storage;
  private final SeededRandom random;
  private final Lock acknowledging;
  private int named;

  /**
   * @param acknowledging held while a snapshot is taken: nothing is acknowledged in the model then
   */
  SnapshotUser(
      Guest guest,
      GuestModel model,
      DiskImage image,
      CrashStorage storage,
      SeededRandom random,
      Lock acknowledging) {
    this.guest = guest;
    this.model = model;
    this.image = image;
    this.storage = storage;
    this.random = random;
    this.acknowledging = acknowledging;
  }

  void step() throws IOException {
    List<String> names = guest.snapshots.names();
    if (names.isEmpty() || (names.size() < SNAPSHOTS_MAX && random.chance(40))) {
      create();
    } else if (random.chance(65)) {
      delete(random.pick(names));
    } else {
      rename(random.pick(names));
    }
  }

  /** What the new snapshot holds is read by other code than the engine's. */
  private void create() throws IOException {
    String name = newName();
    acknowledging.lock();
    try {
      guest.snapshots.beginCreate(name, model);
      image.snapshots().create(name);
      RawQcow2 file = new RawQcow2(storage.contents());
      guest.snapshots.endCreate(file.snapshotDisk(file.snapshotCount() - 1, guest.engine.base()));
    } finally {
      acknowledging.unlock();
    }
  }

  private void delete(String name) throws IOException {
    guest.snapshots.beginDelete(name);
    image.snapshots().delete(name);
    guest.snapshots.endChange();
  }

  private void rename(String name) throws IOException {
    String newName = newName();
    guest.snapshots.beginRename(name, newName);
    image.snapshots().rename(name, newName);
    guest.snapshots.endChange();
  }

  private String newName() {
    named++;
    return "live " + named + "x".repeat(random.below(40));
  }
}
