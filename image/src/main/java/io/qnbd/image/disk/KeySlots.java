package io.qnbd.image.disk;

import io.qnbd.image.CorruptImageException;
import io.qnbd.image.KeyChange;
import io.qnbd.image.Passphrase;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.crypt.LuksHeader;
import io.qnbd.image.crypt.LuksMaker;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.security.SecureRandom;
import java.util.Arrays;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.jspecify.annotations.Nullable;

/**
 * Changes the passphrases that open an encrypted image, in its LUKS header.
 *
 * <pre>
 *   add     key material, iterations and salt of a free slot     durable before
 *           the slot's state says that it is in use
 *   remove  key material overwritten with noise                  durable before
 *           the slot's state says that it is free                durable before
 *           iterations and salt are zeroes
 * </pre>
 *
 * <p>A state is four bytes in one sector. So a power cut leaves a slot that is free, one that opens
 * with its passphrase, or, amid a removal, one that is in use and opens with none; such a one is
 * removed by its number. That is also why it does not count for much that a slot is in use: before
 * one goes, another must have been opened.
 *
 * <p>At rest, and only in an image without a fault: see {@link io.qnbd.image.check.Amending}.
 *
 * <p>Owner: one call, which closes it: then the key is wiped.
 */
final class KeySlots implements AutoCloseable {
  private final Encryption.Area area;
  private final LuksHeader luks;
  private final KeyChange change;

  /** What opens the image, until this is closed. */
  private final LuksHeader.Unlocked unlocked;

  /** The slot that is to come, or those that are to go. */
  private final Set<Integer> slots;

  private KeySlots(Encryption.Area area, Passphrase opening, KeyChange change) throws IOException {
    this.area = area;
    this.luks = area.luks();
    this.change = change;
    try {
      this.unlocked = find(opening, Set.of());
    } catch (LuksHeader.WrongPassphraseException e) {
      throw Encryption.wrong(e, opening);
    }
    boolean done = false;
    try {
      this.slots =
          switch (change) {
            case KeyChange.Add add -> Set.of(freeSlot(add.slot()));
            case KeyChange.Remove remove -> going(opening, remove);
          };
      done = true;
    } finally {
      if (!done) {
        close();
      }
    }
  }

  /**
   * Throws unless the change can be made; reads only.
   *
   * @param opening a passphrase that opens the image
   */
  static KeySlots check(Storage file, @Nullable Passphrase opening, KeyChange change)
      throws IOException {
    Header header = ImageFile.of(file).readHeader();
    requireLuks(file, header);
    Passphrase passphrase = Encryption.require(file, header, opening);
    return new KeySlots(Encryption.area(file, header), passphrase, change);
  }

  private static void requireLuks(Storage file, Header header) throws UnsupportedImageException {
    if (header.cryptMethod() != Header.CRYPT_LUKS) {
      throw new UnsupportedImageException(
          "%s: has no key slots: it is not encrypted with LUKS (its encryption: %s)"
              .formatted(file.name(), header.encryptionName()));
    }
  }

  /** Makes the change, in the file that was checked; durable when this returns. */
  void write(Storage file) throws IOException {
    Encryption.Area now = Encryption.area(file, ImageFile.of(file).readHeader());
    if (now.at() != area.at() || !now.luks().same(luks)) {
      throw new IOException(file.name() + ": its key slots were changed meanwhile: try again");
    }
    for (int slot : slots) {
      switch (change) {
        case KeyChange.Add add -> add(file, slot, add);
        case KeyChange.Remove _ -> erase(file, slot);
      }
    }
  }

  /** A removal makes several searches; each has the time that opening the image has. */
  private LuksHeader.Unlocked find(Passphrase passphrase, Set<Integer> except) throws IOException {
    byte[] bytes = passphrase.bytes();
    try {
      return luks.find(bytes, area::read, Encryption.deadline(name()), except);
    } finally {
      Arrays.fill(bytes, (byte) 0);
    }
  }

  private String name() {
    return area.file().name();
  }

  private int freeSlot(@Nullable Integer wanted) throws IOException {
    if (wanted != null) {
      if (luks.uses(wanted)) {
        throw new IOException(
            "%s: key slot %d is in use: remove it first, or leave the number out"
                .formatted(name(), wanted));
      }
      long _ = luks.materialAt(wanted);
      return wanted;
    }
    CorruptImageException refused = null;
    for (int slot = 0; slot < KeyChange.SLOTS; slot++) {
      if (!luks.uses(slot)) {
        try {
          long _ = luks.materialAt(slot);
          return slot;
        } catch (CorruptImageException e) {
          refused = refused == null ? e : refused;
        }
      }
    }
    if (refused != null) {
      throw refused;
    }
    throw new IOException(
        "%s: all %d key slots are in use: remove one first".formatted(name(), KeyChange.SLOTS));
  }

  private void add(Storage file, int slot, KeyChange.Add add) throws IOException {
    long materialAt = area.at() + luks.materialAt(slot);
    byte[] passphrase = add.passphrase().bytes();
    LuksMaker.NewSlot made;
    try {
      made = luks.newSlot(passphrase, unlocked.key(), add.iterMillis());
    } finally {
      Arrays.fill(passphrase, (byte) 0);
    }
    long slotAt = area.at() + LuksHeader.slotAt(slot);
    file.write(materialAt, made.material());
    file.write(slotAt + LuksMaker.NewSlot.FIELDS_AT, made.fields());
    file.sync();
    file.write(slotAt, LuksHeader.state(true));
    file.sync();
  }

  private Set<Integer> going(Passphrase opening, KeyChange.Remove remove) throws IOException {
    Integer slot = remove.slot();
    Passphrase passphrase = remove.passphrase();
    Set<Integer> going = new TreeSet<>();
    if (passphrase != null) {
      going.addAll(openedBy(passphrase));
    } else if (slot == null) {
      throw new AssertionError("a removal says what goes");
    } else if (luks.uses(slot)) {
      going.add(slot);
    } else {
      throw new IOException("%s: key slot %d is free".formatted(name(), slot));
    }
    if (!remove.force()) {
      requireOpenAfterwards(opening, going);
    }
    for (int each : going) {
      long _ = luks.materialAt(each); // refused before the first is erased
    }
    return going;
  }

  /** All slots that a passphrase fits; each is tried once. */
  private Set<Integer> openedBy(Passphrase passphrase) throws IOException {
    Set<Integer> opened = new TreeSet<>();
    Set<Integer> tried = new TreeSet<>();
    try {
      while (true) {
        LuksHeader.Unlocked found = find(passphrase, tried);
        Arrays.fill(found.key(), (byte) 0);
        opened.add(found.slot());
        tried.addAll(upTo(found.slot()));
      }
    } catch (LuksHeader.WrongPassphraseException e) {
      if (opened.isEmpty()) {
        throw Encryption.wrong(
            e,
            name() + ": the passphrase to be removed fits none of the image's key slots",
            passphrase);
      }
      return opened;
    }
  }

  /** Slots are tried in their order, so when one is found those before it were not it. */
  private static Set<Integer> upTo(int slot) {
    return IntStream.rangeClosed(0, slot).boxed().collect(Collectors.toSet());
  }

  private void requireOpenAfterwards(Passphrase opening, Set<Integer> going) throws IOException {
    if (!going.contains(unlocked.slot())) {
      return;
    }
    Set<Integer> except = new TreeSet<>(going);
    except.addAll(upTo(unlocked.slot()));
    try {
      Arrays.fill(find(opening, except).key(), (byte) 0);
    } catch (LuksHeader.WrongPassphraseException e) {
      throw new IOException(
          "%s: the passphrase that opens it would not do so any more: open it with one that stays,"
                  .formatted(name())
              + " or say --force; without any passphrase its data is lost",
          e);
    }
  }

  private void erase(Storage file, int slot) throws IOException {
    long slotAt = area.at() + LuksHeader.slotAt(slot);
    byte[] noise = new byte[luks.materialBytes()];
    new SecureRandom().nextBytes(noise);
    file.write(area.at() + luks.materialAt(slot), ByteBuffer.wrap(noise));
    file.sync();
    file.write(slotAt, LuksHeader.state(false));
    file.sync();
    file.write(
        slotAt + LuksMaker.NewSlot.FIELDS_AT, ByteBuffer.allocate(LuksMaker.NewSlot.FIELDS_BYTES));
    file.sync();
  }

  @Override
  public void close() {
    Arrays.fill(unlocked.key(), (byte) 0);
  }
}
