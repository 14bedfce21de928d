package io.qnbd.image.disk;

import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;

/**
 * Damages images: knows where their metadata is and what its fields look like, and now and then
 * does not care. Not thread-safe.
 */
final class Mutator {
  private static final long COPIED = 1L << 63;

  private final SeededRandom random;
  private final Specimen specimen;
  private final MemoryStorage file;
  private final int weights;
  private final List<String> done = new ArrayList<>();

  Mutator(SeededRandom random, Specimen specimen) {
    this.random = random;
    this.specimen = specimen;
    this.file = specimen.file().copy();
    this.weights = specimen.places().stream().mapToInt(Specimen.Place::weight).sum();
  }

  MemoryStorage mutant() throws IOException {
    int count = random.chance(60) ? 1 : random.between(2, 4);
    for (int i = 0; i < count; i++) {
      mutate();
    }
    return file;
  }

  /** What was done, for a person who looks for the reason of a failure. */
  @Override
  public String toString() {
    return specimen + ": " + done;
  }

  private void mutate() throws IOException {
    int kind = random.below(100);
    if (kind < 70) {
      setField(place());
    } else if (kind < 80) {
      flip(place());
    } else if (kind < 85) {
      copy(place(), place());
    } else if (kind < 88) {
      zero(place());
    } else if (kind < 91) {
      resize();
    } else {
      blind();
    }
  }

  private Specimen.Place place() {
    int left = random.below(weights);
    for (Specimen.Place place : specimen.places()) {
      left -= place.weight();
      if (left < 0) {
        return place;
      }
    }
    throw new AssertionError("weights");
  }

  private void setField(Specimen.Place place) throws IOException {
    int unit = place.unit() == 4 ? random.pick(List.of(1, 2, 4, 8)) : place.unit();
    int fields = Math.max(1, place.bytes() / unit);
    // Most of a table's entries are not used: the first ones are more often.
    int index = (int) random.skewed(0, fields - 1L);
    long at = place.at() + (long) unit * index;
    long old = number(at, unit);
    long value = value(old, unit);
    done.add(String.format("%s[%d] of %d: 0x%x -> 0x%x", place.name(), index, unit, old, value));
    put(at, value, unit);
  }

  private long value(long old, int unit) {
    return switch (random.below(unit < 8 ? 9 : 16)) {
      case 0 -> 0;
      case 1 -> -1;
      case 2 -> 1;
      case 3 -> old + 1;
      case 4 -> old - 1;
      case 5 -> random.skewed(0, Integer.MAX_VALUE);
      case 6 -> random.nextLong();
      case 7 -> old ^ (1L << random.below(8 * unit));
      case 8 -> 1L << random.below(8 * unit);
      case 9, 10 -> place().at();
      case 11, 12 -> place().at() | COPIED;
      case 13 -> COPIED;
      case 14 -> otherEntry();
      default -> old ^ COPIED;
    };
  }

  /** What another table has somewhere. */
  private long otherEntry() {
    Specimen.Place place = place();
    return number(place.at() + 8L * random.skewed(0, Math.max(0, place.bytes() / 8 - 1)), 8);
  }

  private void flip(Specimen.Place place) throws IOException {
    long at = place.at() + random.below(place.bytes());
    int bit = random.below(8);
    done.add(String.format("%s: bit %d at 0x%x", place.name(), bit, at));
    put(at, number(at, 1) ^ (1L << bit), 1);
  }

  private void copy(Specimen.Place from, Specimen.Place to) throws IOException {
    int bytes = Math.min(Math.min(from.bytes(), to.bytes()), 8 * random.between(1, 16));
    done.add(String.format("%d bytes of %s to %s", bytes, from.name(), to.name()));
    byte[] piece = file.bytes(from.at(), bytes);
    file.write(to.at(), ByteBuffer.wrap(piece));
  }

  private void zero(Specimen.Place place) throws IOException {
    int bytes = Math.min(place.bytes(), 512);
    done.add(String.format("%s: %d zeroes", place.name(), bytes));
    file.write(place.at(), ByteBuffer.allocate(bytes));
  }

  private void resize() {
    long bytes =
        random.chance(70)
            ? random.below(file.length())
            : file.length() + random.skewed(1, 1L << 30);
    done.add("length " + bytes);
    file.setLength(bytes);
  }

  private void blind() throws IOException {
    long at = random.below(Math.max(1, file.length()));
    done.add(String.format("blind at 0x%x", at));
    file.write(at, ByteBuffer.wrap(random.bytes(random.between(1, 16))));
  }

  private long number(long at, int unit) {
    long value = 0;
    if (at >= 0 && at + unit <= file.length()) {
      for (byte each : file.bytes(at, unit)) {
        value = (value << 8) | (each & 0xff);
      }
    }
    return value;
  }

  private void put(long at, long value, int unit) throws IOException {
    byte[] bytes = new byte[unit];
    for (int i = 0; i < unit; i++) {
      bytes[i] = (byte) (value >>> (8 * (unit - 1 - i)));
    }
    file.write(at, ByteBuffer.wrap(bytes));
  }
}
