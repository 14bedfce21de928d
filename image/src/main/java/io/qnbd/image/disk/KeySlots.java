package io.qnbd.image.disk;

import io.qnbd.image.KeyChange;
import io.qnbd.image.Passphrase;
import io.qnbd.image.UnsupportedImageException;
import io.qnbd.image.crypt.KeyTime;
import io.qnbd.image.crypt.LuksHeader;
import io.qnbd.image.crypt.LuksMaker;
import io.qnbd.image.format.Header;
import io.qnbd.image.io.Storage;
import io.qnbd.image.metadata.ImageFile;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.security.SecureRandom;
import java.util.Set;
import java.util.TreeSet;
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
 */
final class KeySlots {
  private final Storage file;
  private final Encryption.Area area;
  private final LuksHeader luks;
  private final KeyTime time;

  private KeySlots(Storage file, Header header) throws IOException {
    this.file = file;
    this.area = Encryption.area(file, header);
    this.luks = area.luks();
    this.time = Encryption.deadline(file.name());
  }

  /**
   * Makes the change; durable when this returns.
   *
   * @param opening a passphrase that opens the image
   */
  static void change(Storage file, @Nullable Passphrase opening, KeyChange change)
      throws IOException {
    Header header = ImageFile.of(file).readHeader();
    requireLuks(file, header);
    Passphrase passphrase = Encryption.require(file, header, opening);
    KeySlots slots = new KeySlots(file, header);
    switch (change) {
      case KeyChange.Add add -> slots.add(passphrase, add);
      case KeyChange.Remove remove -> slots.remove(passphrase, remove);
    }
  }

  /** Throws unless the image has key slots. */
  static void requireLuks(Storage file, Header header) throws UnsupportedImageException {
    if (header.cryptMethod() != Header.CRYPT_LUKS) {
      throw new UnsupportedImageException(
          "%s: has no key slots: it is not encrypted with LUKS (its encryption: %s)"
              .formatted(file.name(), header.encryptionName()));
    }
  }

  private LuksHeader.Unlocked open(Passphrase passphrase, Set<Integer> except) throws IOException {
    try {
      return luks.find(passphrase.bytes(), area::read, time, except);
    } catch (LuksHeader.WrongPassphraseException e) {
      throw Encryption.wrong(e, passphrase);
    }
  }

  private void add(Passphrase opening, KeyChange.Add add) throws IOException {
    byte[] key = open(opening, Set.of()).key();
    int slot = freeSlot(add.slot());
    long materialAt = area.at() + luks.materialAt(slot);
    LuksMaker.NewSlot made = luks.newSlot(add.passphrase().bytes(), key, add.iterMillis());
    long slotAt = area.at() + LuksHeader.slotAt(slot);
    file.write(materialAt, made.material());
    file.write(slotAt + LuksMaker.NewSlot.FIELDS_AT, made.fields());
    file.sync();
    file.write(slotAt, LuksHeader.state(true));
    file.sync();
  }

  private int freeSlot(@Nullable Integer wanted) throws IOException {
    if (wanted != null) {
      if (luks.uses(wanted)) {
        throw new IOException(
            "%s: key slot %d is in use: remove it first, or leave the number out"
                .formatted(file.name(), wanted));
      }
      return wanted;
    }
    for (int slot = 0; slot < KeyChange.SLOTS; slot++) {
      if (!luks.uses(slot)) {
        return slot;
      }
    }
    throw new IOException(
        "%s: all %d key slots are in use: remove one first"
            .formatted(file.name(), KeyChange.SLOTS));
  }

  private void remove(Passphrase opening, KeyChange.Remove remove) throws IOException {
    LuksHeader.Unlocked _ = open(opening, Set.of());
    Set<Integer> going = going(remove);
    if (!remove.force()) {
      requireOpenAfterwards(opening, going);
    }
    for (int slot : going) {
      erase(slot);
    }
  }

  private Set<Integer> going(KeyChange.Remove remove) throws IOException {
    Integer slot = remove.slot();
    Passphrase passphrase = remove.passphrase();
    if (slot != null) {
      if (!luks.uses(slot)) {
        throw new IOException("%s: key slot %d is free".formatted(file.name(), slot));
      }
      return Set.of(slot);
    }
    if (passphrase == null) {
      throw new AssertionError("a removal says what goes");
    }
    Set<Integer> going = new TreeSet<>();
    going.add(open(passphrase, going).slot());
    try {
      while (true) {
        going.add(luks.find(passphrase.bytes(), area::read, time, going).slot());
      }
    } catch (LuksHeader.WrongPassphraseException _) {
      return going;
    }
  }

  private void requireOpenAfterwards(Passphrase opening, Set<Integer> going) throws IOException {
    try {
      LuksHeader.Unlocked _ = luks.find(opening.bytes(), area::read, time, going);
    } catch (LuksHeader.WrongPassphraseException e) {
      throw new IOException(
          "%s: the passphrase that opens it would not do so any more: open it with one that stays,"
                  .formatted(file.name())
              + " or say --force; without any passphrase its data is lost",
          e);
    }
  }

  private void erase(int slot) throws IOException {
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
}
