package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

/** The server ends while clients are busy. */
final class ShutdownIT {
  private static final Duration LOAD = Duration.ofSeconds(2);
  private static final int CHUNK_BYTES = 20_000;
  private static final int CHUNKS = 3_000;

  @ParameterizedTest
  @ValueSource(strings = {"TERM", "INT"})
  void stopsWithinTenSecondsUnderLoadAndLeavesTheImageClean(String signal) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "256M");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString());
          Shell.Running fio = load(qnbd)) {
        Shell.pause(LOAD);
        assertTrue(fio.process().isAlive(), fio::toString);
        qnbd.stop(signal);
      }
      assertTrue(Images.bytesOnHost(image) > 1 << 20, "fio wrote nothing");
    }
  }

  @Test
  void idleServerWithClientsStopsToo() throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "16M");
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString());
          NbdClient client = NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_STRUCTURED)) {
        NbdClient.await(client.write(0, ByteBuffer.wrap(new byte[] {1}), 0));
        qnbd.stop();
      }
      assertEquals(1, images.contents(image)[0]);
    }
  }

  private static Shell.Running load(QnbdProcess qnbd) {
    return Shell.start(
        "fio",
        "--name=load",
        "--ioengine=nbd",
        "--uri=" + qnbd.uri(),
        "--rw=randwrite",
        "--bsrange=4k-64k",
        "--iodepth=16",
        "--numjobs=2",
        "--fsync=64",
        "--size=256M",
        "--time_based",
        "--runtime=60");
  }

  @ParameterizedTest
  @ValueSource(strings = {"compat=1.1", "cluster_size=4096", "preallocation=metadata"})
  void killedServerLosesNothingThatWasFlushed(String option) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path image = images.qcow2("disk.qcow2", "64M", option);
      images.leaveUnchecked(image);
      int flushed = 0;
      for (int round = 1; round <= 3; round++) {
        try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
          verify(qnbd, flushed);
          flushed = writeUntilKilled(qnbd, flushed, flushed + CHUNKS / 3 - 70);
        }
        Images.mustLeakAtMost(image);
      }
      try (QnbdProcess qnbd = QnbdProcess.serve(image.toString())) {
        verify(qnbd, flushed);
        qnbd.stop();
      }
      Images.mustLeakAtMost(image);
    }
  }

  /**
   * Writes chunk after chunk, with a flush after every 64th, and kills the server once {@code
   * enough} chunks are flushed and more are on their way.
   *
   * @return how many chunks are flushed
   */
  private static int writeUntilKilled(QnbdProcess qnbd, int first, int enough) throws IOException {
    try (NbdClient client = NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_SIMPLE)) {
      int flushed = first;
      while (flushed < enough) {
        List<CompletableFuture<Void>> writes = new ArrayList<>();
        for (int chunk = flushed; chunk < flushed + 64; chunk++) {
          writes.add(client.write(place(chunk), ByteBuffer.wrap(bytes(chunk)), 0));
        }
        for (CompletableFuture<Void> write : writes) {
          NbdClient.await(write);
        }
        NbdClient.await(client.flush());
        flushed += 64;
      }
      for (int chunk = flushed; chunk < flushed + 64; chunk++) {
        var _ = client.write(place(chunk), ByteBuffer.wrap(bytes(chunk)), 0);
      }
      var _ = client.flush();
      qnbd.kill();
      client.abort();
      return flushed;
    }
  }

  private static void verify(QnbdProcess qnbd, int chunks) throws IOException {
    try (NbdClient client = NbdClient.connect(qnbd.uri(), NbdClient.Style.GO_STRUCTURED)) {
      byte[] found = new byte[CHUNK_BYTES];
      for (int chunk = 0; chunk < chunks; chunk++) {
        NbdClient.await(client.read(place(chunk), ByteBuffer.wrap(found)));
        if (!Arrays.equals(bytes(chunk), found)) {
          throw new AssertionError("chunk " + chunk + " of " + chunks + " flushed ones differs");
        }
      }
    }
  }

  /** Scatters the chunks over the disk: 1663 has no factor in common with their number. */
  private static long place(int chunk) {
    return (long) (chunk * 1663 % CHUNKS) * CHUNK_BYTES;
  }

  private static byte[] bytes(int chunk) {
    byte[] bytes = new byte[CHUNK_BYTES];
    new Random(chunk).nextBytes(bytes);
    return bytes;
  }
}
