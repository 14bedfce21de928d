package io.qnbd.image.disk;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.image.disk.ClusterCache.Stream;
import io.qnbd.image.random.SeededRandom;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;

final class ClusterCacheTest {
  private static final int CLUSTER = 512;

  private final AtomicInteger loads = new AtomicInteger();

  private ClusterCache.Loader filledWith(int value) {
    return cluster -> {
      loads.incrementAndGet();
      while (cluster.hasRemaining()) {
        cluster.put((byte) value);
      }
    };
  }

  private int read(ClusterCache cache, int number) throws IOException {
    ByteBuffer target = ByteBuffer.allocate(4);
    assertTrue(cache.read(new Stream(number, 9), 100, target, filledWith(number)));
    assertEquals(0, target.remaining());
    return target.get(3);
  }

  @Test
  void loadsOnceForManyReadersAtATime() throws Exception {
    ClusterCache cache = new ClusterCache(CLUSTER, 8 * CLUSTER);
    try (ExecutorService threads = Executors.newFixedThreadPool(4)) {
      List<Callable<Integer>> readers = new ArrayList<>();
      for (int i = 0; i < 64; i++) {
        readers.add(() -> read(cache, 5));
      }
      for (Future<Integer> reader : threads.invokeAll(readers)) {
        assertEquals(5, reader.get());
      }
    }
    assertEquals(1, loads.get());
    cache.close();
  }

  @Test
  void keepsTheMostRecentWithinItsBound() throws IOException {
    ClusterCache cache = new ClusterCache(CLUSTER, 3 * CLUSTER);
    for (int number : new int[] {1, 2, 3, 1, 4, 1, 3, 4}) {
      assertEquals(number, read(cache, number));
    }
    assertEquals(4, loads.get());
    assertEquals(2, read(cache, 2)); // in place of 1
    assertEquals(3, read(cache, 3));
    assertEquals(5, loads.get());
    assertFalse(cache.readKnown(new Stream(1, 9), 0, ByteBuffer.allocate(1)));
    assertFalse(cache.readKnown(new Stream(3, 10), 0, ByteBuffer.allocate(1)));
    assertTrue(cache.readKnown(new Stream(3, 9), 0, ByteBuffer.allocate(1)));
    cache.close();
  }

  @Test
  void whatIsForgottenIsLoadedAgain() throws IOException {
    ClusterCache cache = new ClusterCache(CLUSTER, 2 * CLUSTER);
    read(cache, 1);
    cache.forget(1, 9);
    cache.forget(1, 9);
    cache.forget(77, 9);
    ByteBuffer target = ByteBuffer.allocate(1);
    assertTrue(cache.read(new Stream(1, 9), 0, target, filledWith(2)));
    assertEquals(2, target.get(0));
    cache.close();
  }

  @Test
  void aFailureIsEachReadersOwnAndNothingIsKept() throws IOException {
    ClusterCache cache = new ClusterCache(CLUSTER, CLUSTER);
    Stream stream = new Stream(1, 9);
    for (int i = 0; i < 2; i++) {
      assertThrows(
          IOException.class,
          () ->
              cache.read(
                  stream,
                  0,
                  ByteBuffer.allocate(1),
                  _ -> {
                    throw new IOException("damaged");
                  }));
    }
    assertFalse(cache.readKnown(stream, 0, ByteBuffer.allocate(1)));
    assertEquals(1, read(cache, 1));
    cache.close();
  }

  @Test
  void hasNoPlaceWhileAllAreBeingReadFrom() throws IOException {
    ClusterCache cache = new ClusterCache(CLUSTER, CLUSTER);
    boolean[] second = {true};
    cache.read(
        new Stream(1, 9),
        0,
        ByteBuffer.allocate(1),
        _ -> second[0] = cache.read(new Stream(2, 9), 0, ByteBuffer.allocate(1), filledWith(2)));
    assertFalse(second[0]);
    assertEquals(2, read(cache, 2));
    cache.close();
  }

  /** Readers of a few streams, and somebody who changes what is at their places. */
  @Test
  void neverGivesWhatAnotherStreamHad() throws Exception {
    ClusterCache cache = new ClusterCache(CLUSTER, 4 * CLUSTER);
    try (ExecutorService threads = Executors.newFixedThreadPool(4)) {
      List<Callable<Integer>> readers = new ArrayList<>();
      for (int i = 0; i < 4; i++) {
        SeededRandom random = new SeededRandom(i);
        readers.add(() -> {
          for (int step = 0; step < 5000; step++) {
            int number = 1 + random.below(9);
            assertEquals(number, read(cache, number));
            if (random.chance(10)) {
              cache.forget(1 + random.below(9), 9);
            }
          }
          return 0;
        });
      }
      for (Future<Integer> reader : threads.invokeAll(readers)) {
        reader.get();
      }
    }
    cache.close();
  }
}
