package io.qnbd.image.disk;

import io.qnbd.image.oracle.GuestModel;
import io.qnbd.image.oracle.RawQcow2;
import java.util.ArrayList;
import java.util.List;
import org.jspecify.annotations.Nullable;

/**
 * The snapshots that an image must have, and the one change of them that may be under way: what is
 * found after a power cut is the list before it or the list after it, whole.
 *
 * <p>Thread-safe by its own monitor.
 */
final class SnapshotBook {
  /** A snapshot and what it holds. */
  record Kept(String name, GuestModel.Allowed contents) {}

  /** What may be found at one moment: one of these lists; never changes. */
  record State(List<List<Kept>> alternatives) {
    /** Fails unless the image's snapshots are one of the lists; returns the one. */
    State check(RawQcow2 image, byte @Nullable [] base) {
      List<String> names = image.snapshotNames();
      for (List<Kept> kept : alternatives) {
        if (kept.stream().map(Kept::name).toList().equals(names)) {
          for (int index = 0; index < kept.size(); index++) {
            checkContents(kept.get(index), image.snapshotDisk(index, base));
          }
          return new State(List.of(kept));
        }
      }
      List<List<String>> expected =
          alternatives.stream().map(list -> list.stream().map(Kept::name).toList()).toList();
      throw new AssertionError("snapshots " + names + ", expected one of " + expected);
    }

    private static void checkContents(Kept kept, byte[] disk) {
      @Nullable String violation = kept.contents().violation(disk);
      if (violation != null) {
        throw new AssertionError("snapshot " + kept.name() + ": " + violation);
      }
    }
  }

  /** A snapshot of a disk that other threads may be writing to while it is taken. */
  @SuppressWarnings("ArrayRecordComponent") // handed over once, not compared
  private record Creation(String name, GuestModel model, long[] mark) {}

  private List<Kept> kept = List.of();
  private @Nullable List<Kept> changed;
  private @Nullable Creation creation;

  synchronized List<String> names() {
    return kept.stream().map(Kept::name).toList();
  }

  synchronized State state() {
    if (creation != null) {
      GuestModel.Allowed now = creation.model().allowedSince(creation.mark());
      return new State(List.of(kept, with(new Kept(creation.name(), now))));
    }
    return new State(changed == null ? List.of(kept) : List.of(kept, changed));
  }

  private List<Kept> with(Kept added) {
    List<Kept> more = new ArrayList<>(kept);
    more.add(added);
    return List.copyOf(more);
  }

  /** A snapshot that is there. */
  synchronized void add(String name, byte[] contents) {
    kept = with(new Kept(name, new GuestModel(contents).allowed()));
  }

  /** A snapshot of what the model describes is about to be taken. */
  synchronized void beginCreate(String name, GuestModel model) {
    creation = new Creation(name, model, model.mark());
  }

  /** It was taken and, as was found out, holds this. */
  synchronized void endCreate(byte[] contents) {
    Creation ended = creation;
    if (ended == null) {
      throw new AssertionError("no snapshot is being taken");
    }
    GuestModel.Allowed allowed = ended.model().allowedSince(ended.mark());
    State.checkContents(new Kept(ended.name(), allowed), contents);
    creation = null;
    add(ended.name(), contents);
  }

  synchronized void beginDelete(String name) {
    changed = kept.stream().filter(snapshot -> !snapshot.name().equals(name)).toList();
  }

  synchronized void beginRename(String from, String to) {
    changed =
        kept.stream()
            .map(old -> old.name().equals(from) ? new Kept(to, old.contents()) : old)
            .toList();
  }

  /** The change that was begun is durable. */
  synchronized void endChange() {
    List<Kept> ended = changed;
    if (ended == null) {
      throw new AssertionError("no change is under way");
    }
    kept = ended;
    changed = null;
  }

  /** What a snapshot holds. */
  synchronized GuestModel.Allowed contents(String name) {
    for (Kept snapshot : kept) {
      if (snapshot.name().equals(name)) {
        return snapshot.contents();
      }
    }
    throw new AssertionError("no snapshot " + name);
  }
}
