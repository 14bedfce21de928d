package io.qnbd.protocol;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.List;
import org.junit.jupiter.api.Test;

final class ExportInfoTest {
  private static final BlockSizes SIZES = new BlockSizes(1, 4096, 1 << 20);

  private static ExportInfo withFlags(int flags) {
    return new ExportInfo("disk", "", 4096, flags, SIZES);
  }

  private static ExportInfo withContexts(String... contexts) {
    return new ExportInfo("disk", "", 4096, 0, SIZES, List.of(contexts));
  }

  @Test
  void flagsOfTheConnectionAreNotTheExports() {
    for (int flag : new int[] {TransmissionFlags.SEND_DF, TransmissionFlags.BLOCK_STATUS_PAYLOAD}) {
      assertThrows(IllegalArgumentException.class, () -> withFlags(flag));
    }
  }

  @Test
  void fastZeroNeedsWriteZeroes() {
    int zeroes = TransmissionFlags.SEND_WRITE_ZEROES;
    int fast = TransmissionFlags.SEND_FAST_ZERO;
    assertThrows(IllegalArgumentException.class, () -> withFlags(fast));
    assertTrue(withFlags(fast | zeroes).has(fast | zeroes));
    assertFalse(withFlags(zeroes).has(fast | zeroes), "all of them");
    assertEquals(TransmissionFlags.HAS_FLAGS, withFlags(0).transmissionFlags());
  }

  @Test
  void contextsHaveANamespaceAndAreListedOnce() {
    for (String bad : List.of("", "base", ":allocation", "base:\0", "x:" + "y".repeat(4095))) {
      assertThrows(IllegalArgumentException.class, () -> withContexts(bad), bad);
    }
    assertThrows(IllegalArgumentException.class, () -> withContexts("a:b", "a:c", "a:b"));
    assertEquals(List.of("a:b", "a:"), withContexts("a:b", "a:").metaContexts());
  }

  @Test
  void negotiatedContextsNeedChunksAndIds() {
    List<SelectedContext> contexts = List.of(new SelectedContext(1, "base:allocation"));
    ExportInfo export = withContexts("base:allocation");
    assertThrows(
        IllegalArgumentException.class, () -> new Negotiated(export, ReplyMode.SIMPLE, contexts));
    assertEquals(contexts, new Negotiated(export, ReplyMode.STRUCTURED, contexts).contexts());
    assertThrows(IllegalArgumentException.class, () -> new SelectedContext(0, "base:allocation"));
  }

  @Test
  void extentsAreNeverEmpty() {
    assertThrows(IllegalArgumentException.class, () -> new Extent(0, 0));
    assertThrows(IllegalArgumentException.class, () -> new Extent(-1, 0));
    assertThrows(IllegalArgumentException.class, () -> new ContextExtents(1, List.of()));
    assertThrows(
        IllegalArgumentException.class,
        () -> new Reply.Extents(new Request.BlockStatus(0, 1, 0, 1), List.of()));
  }
}
