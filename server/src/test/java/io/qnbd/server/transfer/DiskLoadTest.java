package io.qnbd.server.transfer;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.DiskImage;
import io.qnbd.image.DiskImages;
import io.qnbd.image.ImageFormat;
import io.qnbd.image.OpenOptions;
import java.io.IOException;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Proxy;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

final class DiskLoadTest {
  private static final int DISK_BYTES = 64 << 10;
  private static final int STEP = 4096;
  private static final int OFFSET = 100;
  private static final int BYTES = 1000;
  private static final byte PATTERN = 0x5a;

  @TempDir private Path directory;

  private static DiskLoad.Plan plan(long count, int depth, boolean random, boolean write) {
    return new DiskLoad.Plan(
        count, Long.MAX_VALUE, depth, BYTES, OFFSET, STEP, random, write, PATTERN, 3);
  }

  private Path disk() throws IOException {
    return Files.write(directory.resolve("disk.raw"), new byte[DISK_BYTES]);
  }

  private static DiskImage open(Path disk) throws IOException {
    return DiskImages.open(disk, OpenOptions.DEFAULT.withFormat(ImageFormat.RAW));
  }

  private DiskLoad.Result write(long count, int depth, boolean random) throws IOException {
    try (DiskImage image = open(disk())) {
      return new DiskLoad(image, plan(count, depth, random, true)).run();
    }
  }

  /** The places that were written to, each of which must hold one whole request. */
  private List<Integer> places() throws IOException {
    byte[] disk = Files.readAllBytes(directory.resolve("disk.raw"));
    List<Integer> places = new ArrayList<>();
    for (int i = 0; i < DISK_BYTES; i++) {
      int inStep = Math.floorMod(i - OFFSET, STEP);
      if (inStep == 0 && disk[i] != 0) {
        places.add((i - OFFSET) / STEP);
      }
      boolean within = i >= OFFSET && inStep < BYTES;
      byte expected = within && places.contains((i - OFFSET) / STEP) ? PATTERN : 0;
      assertEquals(expected, disk[i], "at " + i);
    }
    return places;
  }

  @Test
  void requestsAreWhereThePlanSays() throws IOException {
    assertEquals(5, write(5, 1, false).requests());
    assertEquals(List.of(0, 1, 2, 3, 4), places());
    assertEquals(7, write(7, 4, false).requests());
    assertEquals(List.of(0, 1, 2, 3, 4, 5, 6), places());
  }

  @Test
  void theyGoAroundAtTheEndOfTheDisk() throws IOException {
    assertEquals(50, write(50, 3, false).requests());
    assertEquals(DISK_BYTES / STEP, places().size());
  }

  @Test
  void chanceDoesNotTakeThemInTheirOrder() throws IOException {
    assertEquals(8, write(8, 1, true).requests());
    List<Integer> places = places();
    assertTrue(places.size() > 1, places.toString());
    // One in sixteen to the power of eight.
    assertTrue(!places.equals(List.of(0, 1, 2, 3, 4, 5, 6, 7)), places.toString());
  }

  @Test
  void flushesCountInAllThreads() throws IOException {
    AtomicInteger flushes = new AtomicInteger();
    try (DiskImage image = open(disk())) {
      DiskImage counting =
          (DiskImage)
              Proxy.newProxyInstance(
                  DiskImage.class.getClassLoader(),
                  new Class<?>[] {DiskImage.class},
                  (_, method, arguments) -> {
                    if (method.getName().equals("flush")) {
                      flushes.incrementAndGet();
                    }
                    try {
                      return method.invoke(image, arguments);
                    } catch (InvocationTargetException e) {
                      throw e.getCause();
                    }
                  });
      new DiskLoad(counting, plan(10, 4, false, true)).run();
    }
    assertEquals(3, flushes.get());
  }

  @Test
  void timeEndsItAsWellAsTheCount() throws IOException {
    try (DiskImage image = open(disk())) {
      DiskLoad.Plan brief = new DiskLoad.Plan(9, 1, 2, 1, 0, 1, false, false, PATTERN, 0);
      DiskLoad.Result result = new DiskLoad(image, brief).run();
      assertTrue(result.requests() <= 2, result.toString());
    }
  }

  @Test
  void aDiskTooSmallForOneRequestIsRefused() throws IOException {
    try (DiskImage image = open(disk())) {
      DiskLoad.Plan large = new DiskLoad.Plan(1, 1, 1, DISK_BYTES, 1, 1, false, false, PATTERN, 0);
      IOException e = assertThrows(IOException.class, () -> new DiskLoad(image, large));
      assertTrue(String.valueOf(e.getMessage()).contains("do not fit"), e.getMessage());
    }
  }
}
