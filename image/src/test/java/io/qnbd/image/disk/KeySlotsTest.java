package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.AmendOptions;
import io.qnbd.image.DiskImages;
import io.qnbd.image.KeyChange;
import io.qnbd.image.OpenOptions;
import io.qnbd.image.Passphrase;
import io.qnbd.image.ProgressListener;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.check.Checker;
import io.qnbd.image.crypt.LuksHeader;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.CrashStorage;
import io.qnbd.image.io.MemoryStorage;
import io.qnbd.image.io.Operation;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import io.qnbd.image.oracle.ImageMaker;
import io.qnbd.image.random.SeededRandom;
import io.qnbd.image.random.Seeds;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import org.jspecify.annotations.Nullable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Passphrases that come and go, with power cuts in the midst of it. */
final class KeySlotsTest {
  private static final Passphrase FIRST = ImageMaker.PASSPHRASE;
  private static final Passphrase SECOND = passphrase("second");
  private static final Passphrase THIRD = passphrase("third");
  private static final int CUTS_PER_RUN = 25;

  private static Passphrase passphrase(String text) {
    return Passphrase.of(text.getBytes(StandardCharsets.UTF_8));
  }

  private static MemoryStorage encrypted() throws IOException {
    MemoryStorage file = ImageShape.of(3, 4096, 16, 64 << 10).make(new byte[0]);
    ImageMaker.encryptWithAllSlots(file);
    return file;
  }

  private static KeyChange add(Passphrase passphrase, int slot) {
    return new KeyChange.Add(passphrase, slot, 1);
  }

  private static KeyChange remove(Passphrase passphrase) {
    return new KeyChange.Remove(passphrase, null, false);
  }

  private static boolean opens(MemoryStorage file, Passphrase passphrase) throws IOException {
    Header header = ImageFile.of(file).readHeader();
    try {
      return Encryption.open(file, header, passphrase) != null;
    } catch (LuksHeader.WrongPassphraseException _) {
      return false;
    }
  }

  private static void change(Storage file, @Nullable Passphrase opening, KeyChange change)
      throws IOException {
    try (KeySlots slots = KeySlots.check(file, opening, change)) {
      slots.write(file);
    }
  }

  /** The image as it may be found after a cut amid the change, and at last as it is after it. */
  private static List<MemoryStorage> changed(
      MemoryStorage file, Passphrase opening, KeyChange change, SeededRandom random)
      throws IOException {
    CrashStorage storage = new CrashStorage(file);
    List<MemoryStorage> found = new ArrayList<>();
    storage.watch((_, cuttable) -> {
      while (found.size() < CUTS_PER_RUN && random.chance(70)) {
        found.add(cuttable.cut(random));
      }
    });
    change(storage, opening, change);
    storage.watch(null);
    found.add(storage.cut(random)); // all of it is durable
    return found;
  }

  @Test
  void aPowerCutLeavesAPassphraseThatOpensTheImage() {
    Seeds.run(
        "KeySlotsTest",
        Seeds.count("qnbd.keySlots", 4),
        seed -> {
          SeededRandom random = new SeededRandom(seed);
          int slot = random.pick(List.of(1, 3, 6, 7)); // 6 lies in two sectors
          List<MemoryStorage> added =
              changed(encrypted(), FIRST, add(SECOND, slot), random.split());
          for (MemoryStorage cut : added) {
            assertTrue(opens(cut, FIRST), "the old one");
            assertTrue(Checker.check(cut).clean());
            boolean there = opens(cut, SECOND);
            if (random.chance(15)) {
              change(cut, FIRST, new KeyChange.Add(THIRD, null, 1));
              assertTrue(opens(cut, FIRST) && opens(cut, THIRD));
              assertEquals(there, opens(cut, SECOND));
            }
          }
          MemoryStorage both = added.getLast();
          assertTrue(opens(both, SECOND), "the new one");
          List<MemoryStorage> removed = changed(both.copy(), SECOND, remove(FIRST), random.split());
          for (MemoryStorage cut : removed) {
            assertTrue(opens(cut, SECOND), "the one that stays");
            assertTrue(Checker.check(cut).clean());
            // What a cut has left half removed goes by its number.
            if (!opens(cut, FIRST) && slots(cut).contains(0)) {
              change(cut, SECOND, new KeyChange.Remove(null, 0, false));
            }
          }
          assertFalse(opens(removed.getLast(), FIRST));
        });
  }

  private static List<Integer> slots(MemoryStorage file) throws IOException {
    LuksHeader luks = Encryption.area(file, ImageFile.of(file).readHeader()).luks();
    List<Integer> used = new ArrayList<>();
    for (int slot = 0; slot < KeyChange.SLOTS; slot++) {
      if (luks.uses(slot)) {
        used.add(slot);
      }
    }
    return used;
  }

  @Test
  void whatIsRemovedIsErased() throws IOException {
    MemoryStorage file = encrypted();
    Encryption.Area area = Encryption.area(file, ImageFile.of(file).readHeader());
    int bytes = area.luks().materialBytes();
    byte[] material = file.bytes(area.at() + area.luks().materialAt(0), bytes);
    change(file, FIRST, add(SECOND, 4));
    change(file, SECOND, remove(FIRST));
    byte[] left = file.bytes(area.at() + area.luks().materialAt(0), bytes);
    int same = 0;
    for (int i = 0; i < bytes; i++) {
      same += material[i] == left[i] ? 1 : 0;
    }
    assertTrue(same < bytes / 64, same + " of " + bytes + " bytes");
    assertEquals(List.of(4), slots(file));
    byte[] entry = file.bytes(area.at() + LuksHeader.slotAt(0) + 4, 36);
    assertTrue(Arrays.equals(new byte[36], entry), "iterations and salt");
  }

  private static void refuses(
      String word, MemoryStorage file, Passphrase opening, KeyChange change) {
    byte[] before = file.bytes(0, (int) file.length());
    IOException e = assertThrows(IOException.class, () -> change(file, opening, change));
    assertTrue(String.valueOf(e.getMessage()).contains(word), e::toString);
    assertTrue(Arrays.equals(before, file.bytes(0, before.length)), "something was written");
  }

  @Test
  void refusesWhatWouldLockTheImage() throws IOException {
    MemoryStorage file = encrypted();
    refuses("say --force", file, FIRST, remove(FIRST));
    refuses("say --force", file, FIRST, new KeyChange.Remove(null, 0, false));
    refuses("fits none", file, SECOND, add(THIRD, 1));
    refuses("to be removed fits none", file, FIRST, remove(SECOND));
    refuses("it ends with a newline", file, FIRST, remove(passphrase("first\n")));
    refuses("slot 0 is in use", file, FIRST, add(SECOND, 0));
    refuses("slot 5 is free", file, FIRST, new KeyChange.Remove(null, 5, false));
    change(file, FIRST, add(SECOND, 1));
    refuses("one that stays", file, FIRST, remove(FIRST));
    change(file, FIRST, new KeyChange.Remove(FIRST, null, true));
    change(file, SECOND, add(SECOND, 2));
    for (int slot : new int[] {0, 3, 4, 5, 6, 7}) {
      change(file, SECOND, add(THIRD, slot)); // each is measured anew, some 0.2 s
    }
    refuses("all 8 key slots", file, SECOND, new KeyChange.Add(FIRST, null, 1));
    change(file, THIRD, remove(SECOND)); // both of them
    assertEquals(List.of(0, 3, 4, 5, 6, 7), slots(file));
    change(file, THIRD, new KeyChange.Remove(THIRD, null, true));
    assertEquals(List.of(), slots(file));
    MemoryStorage plain = ImageShape.of(3, 4096, 16, 64 << 10).make(new byte[0]);
    assertThrows(UnsupportedImageException.class, () -> change(plain, null, add(SECOND, 1)));
  }

  /** The key of a slot must not be written over another's. */
  @Test
  void refusesSlotsThatOverlap() throws IOException {
    MemoryStorage file = encrypted();
    Encryption.Area area = Encryption.area(file, ImageFile.of(file).readHeader());
    byte[] where = file.bytes(area.at() + LuksHeader.slotAt(0) + 40, 4);
    file.write(area.at() + LuksHeader.slotAt(2) + 40, ByteBuffer.wrap(where));
    refuses("overlaps", file, FIRST, add(SECOND, 2));
    change(file, FIRST, add(SECOND, 3));
    change(file, FIRST, new KeyChange.Add(THIRD, null, 1));
    change(file, FIRST, new KeyChange.Add(THIRD, null, 1));
    assertEquals(List.of(0, 1, 3, 4), slots(file), "the one that can't be used is passed over");
  }

  /** A slot may ask for seconds. */
  @Test
  void triesASlotOnceWithAPassphrase() throws IOException {
    MemoryStorage file = encrypted();
    change(file, FIRST, add(SECOND, 1));
    change(file, FIRST, add(SECOND, 2));
    change(file, FIRST, add(FIRST, 3));
    long overhead = reads(file, FIRST, new KeyChange.Remove(null, 1, false)) - 1;
    assertEquals(1 + 4, reads(file, FIRST, remove(SECOND)) - overhead, "one that stays opened it");
    assertEquals(
        1 + 3,
        reads(file, FIRST, new KeyChange.Remove(null, 0, false)) - overhead,
        "the first one opened it, then the last");
  }

  private static long reads(MemoryStorage file, Passphrase opening, KeyChange change)
      throws IOException {
    long before = file.count(Operation.READ);
    KeySlots.check(file, opening, change).close();
    return file.count(Operation.READ) - before;
  }

  @Test
  void refusesAHeaderThatIsNotTheOneItChecked() throws IOException {
    MemoryStorage file = encrypted();
    try (KeySlots slots = KeySlots.check(file, FIRST, add(SECOND, 1))) {
      change(file, FIRST, add(THIRD, 1));
      IOException e = assertThrows(IOException.class, () -> slots.write(file));
      assertTrue(String.valueOf(e.getMessage()).contains("meanwhile"), e::toString);
    }
    assertTrue(opens(file, THIRD));
  }

  @Test
  void nothingIsAmendedWhenTheSlotsCantBe(@TempDir Path directory) throws IOException {
    Path path = directory.resolve("disk.qcow2");
    encrypted().writeTo(path);
    byte[] before = Files.readAllBytes(path);
    for (KeyChange change :
        List.of(add(SECOND, 0), remove(SECOND), new KeyChange.Remove(null, 5, false))) {
      assertThrows(IOException.class, () -> amend(path, FIRST, change));
      assertThrows(IOException.class, () -> amend(path, SECOND, change));
      assertArrayEquals(before, Files.readAllBytes(path));
    }
    amend(path, FIRST, add(SECOND, 1));
    MemoryStorage file = MemoryStorage.of(path);
    assertTrue(opens(file, SECOND));
    assertEquals(64, ImageFile.of(file).readHeader().geometry().refcountBits());
  }

  private static void amend(Path path, Passphrase opening, KeyChange change) throws IOException {
    DiskImages.amend(
        path,
        OpenOptions.DEFAULT.withPassphrase(opening),
        new AmendOptions(null, null, 64, change),
        ProgressListener.NONE);
  }
}
