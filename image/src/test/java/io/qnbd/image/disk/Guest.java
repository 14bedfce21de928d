package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.CheckReport;
import io.qnbd.image.DiskImage;
import io.qnbd.image.check.Checker;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import io.qnbd.image.oracle.SnapshotMaker;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.util.List;

/** An image file with what its guest and its snapshots must hold. */
final class Guest {
  final Engine engine;
  final MemoryStorage file;
  final GuestModel model;
  final SnapshotBook snapshots = new SnapshotBook();

  Guest(ImageShape shape, SeededRandom random) throws IOException {
    engine = new Engine(shape, random);
    byte[] contents = new byte[shape.diskBytes()];
    Pattern.scatter(random, contents);
    file = shape.make(contents);
    model = new GuestModel(engine.oracle(file).disk(engine.base()));
  }

  private Guest(Guest other, Engine engine) {
    this.engine = engine;
    this.file = other.file;
    this.model = other.model;
  }

  /** The same, opened in another way. */
  Guest with(Engine value) {
    return new Guest(this, value);
  }

  /**
   * An image that was in use for a while: the shape's snapshots were taken on the way. One that is
   * nearly full stays so.
   */
  static Guest withPast(ImageShape shape, SeededRandom random) throws IOException {
    Guest guest = new Guest(shape, random);
    for (int session = 0; session <= shape.snapshots(); session++) {
      try (DiskImage image = guest.engine.open(guest.file)) {
        Workload.Mix mix = shape.mix(random, shape.diskBytes() / 8);
        new Workload(random, image, guest.model, mix).run(random.between(1, 25));
      }
      if (session < shape.snapshots()) {
        guest.takeSnapshot();
      }
    }
    guest.check();
    return guest;
  }

  void takeSnapshot() throws IOException {
    String name = "snapshot " + snapshots.names().size();
    SnapshotMaker.take(file, name);
    snapshots.add(name, model.latest(0, model.bytes()));
  }

  /** The closed image is clean, and an independent reader finds in it what must be there. */
  void check() throws IOException {
    RawQcow2 image = engine.oracle(file);
    RawQcow2.Findings findings = image.check();
    assertEquals(List.of(), findings.corruptions());
    assertEquals(0, findings.leaks(), "leaks");
    CheckReport report = Checker.check(file);
    assertTrue(report.clean(), () -> "the engine's own check: " + report.findings());
    GuestModel.assertSame(model.latest(0, model.bytes()), image.disk(engine.base()), "disk");
    MemoryStorage raw = engine.rawImage();
    if (raw != null) {
      assertEquals(model.bytes(), raw.length(), "bytes of the raw data file");
      GuestModel.assertSame(
          model.latest(0, model.bytes()), raw.bytes(0, model.bytes()), "raw data file");
    }
    checkSnapshots(image);
  }

  /** Every snapshot holds what the disk held when it was taken. */
  void checkSnapshots(RawQcow2 image) {
    snapshots.state().check(image, engine.base());
  }
}
