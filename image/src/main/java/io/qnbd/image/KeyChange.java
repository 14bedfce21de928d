package io.qnbd.image;

import org.jspecify.annotations.Nullable;

/**
 * A change of the passphrases that open an encrypted image: LUKS keeps the disk's key in eight
 * slots, each with a passphrase of its own. The disk is not encrypted anew.
 */
public sealed interface KeyChange {
  /** The slots are numbered from 0. */
  int SLOTS = 8;

  int ITER_MILLIS_MAX = 10_000;

  /**
   * One more passphrase.
   *
   * @param slot a slot that is free; null for the first one
   * @param iterMillis about how long it shall take to try it on this machine, 1 to {@link
   *     #ITER_MILLIS_MAX}
   */
  record Add(Passphrase passphrase, @Nullable Integer slot, int iterMillis) implements KeyChange {
    public Add {
      requireSlot(slot);
      if (iterMillis < 1 || iterMillis > ITER_MILLIS_MAX) {
        throw new IllegalArgumentException(
            "a passphrase that takes %d ms to try was asked for, expected 1 to %d"
                .formatted(iterMillis, ITER_MILLIS_MAX));
      }
    }
  }

  /**
   * One less. What opens the image for the change must open it afterwards too.
   *
   * @param passphrase which one: all slots that it opens; null to go by the slot
   * @param slot the slot; null to go by the passphrase
   * @param force whether the image may be one that nobody can open any more, or only with
   *     passphrases that were not tried
   */
  record Remove(@Nullable Passphrase passphrase, @Nullable Integer slot, boolean force)
      implements KeyChange {
    public Remove {
      requireSlot(slot);
      if ((passphrase == null) == (slot == null)) {
        throw new IllegalArgumentException("either a passphrase or a slot says what is removed");
      }
    }
  }

  private static void requireSlot(@Nullable Integer slot) {
    if (slot != null && (slot < 0 || slot >= SLOTS)) {
      throw new IllegalArgumentException(
          "the key slot is " + slot + ", expected 0 to " + (SLOTS - 1));
    }
  }
}
