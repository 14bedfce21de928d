package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertTrue;

import org.junit.jupiter.api.Test;

/**
 * How many power cuts a build goes through. Each test asserts that it took its share; this adds the
 * shares up.
 */
final class CutCountTest {
  private static final int CUTS_MIN = 50_000;

  @Test
  void aBuildGoesThroughFiftyThousandCuts() {
    int cuts =
        CrashTest.CUTS_DEFAULT
            + SnapshotCrashTest.CUTS_DEFAULT
            + SnapshotCrashTest.REVERT_CUTS_DEFAULT
            + ConcurrentCrashTest.SNAPSHOT_CUTS_DEFAULT
            + LeakBoundTest.CUTS_DEFAULT;
    assertTrue(cuts >= CUTS_MIN, "power cuts: " + cuts);
  }
}
