package io.qnbd.it;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.qnbd.it.client.NbdClient;
import io.qnbd.it.client.NbdException;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.concurrent.CompletableFuture;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;

/**
 * An image turns out to be damaged while it is served: the request that found it is answered with
 * EIO and the image marked corrupt; its connection, what else can be read, the other exports and
 * the server are as before.
 */
@Timeout(120)
final class RuntimeDamageIT {
  private static final int IO_ERROR = 5;
  private static final int CLUSTER = 65536;
  private static final int CLUSTERS = 16;

  /** The cluster whose entry is damaged. */
  private static final int BAD = 5;

  private static final long OFFSET_MASK = 0x00ff_ffff_ffff_fe00L;

  /** Writes a value into the L2 entry of {@link #BAD}. */
  private static void damage(Path image, long entry) throws IOException {
    try (RandomAccessFile file = new RandomAccessFile(image.toFile(), "rw")) {
      file.seek(40);
      file.seek(file.readLong());
      long l2 = file.readLong() & OFFSET_MASK;
      file.seek(l2 + 8L * BAD);
      file.writeLong(entry);
    }
  }

  private static byte[] read(NbdClient client, int cluster) throws IOException {
    byte[] bytes = new byte[CLUSTER];
    NbdClient.await(client.read((long) cluster * CLUSTER, ByteBuffer.wrap(bytes)));
    return bytes;
  }

  private static void assertRefused(CompletableFuture<Void> request, QnbdProcess server) {
    NbdException e = assertThrows(NbdException.class, () -> NbdClient.await(request));
    assertEquals(IO_ERROR, e.error(), () -> e + "\n" + server);
  }

  private static byte[] cluster(byte[] disk, int index) {
    return Arrays.copyOfRange(disk, index * CLUSTER, (index + 1) * CLUSTER);
  }

  @ParameterizedTest
  @EnumSource(NbdClient.Style.class)
  void harmsNobodyElse(NbdClient.Style style) throws IOException {
    try (Images images = Images.inTempDir()) {
      Path noise = images.rawOfNoise("noise.raw", CLUSTERS * CLUSTER, 7);
      byte[] disk = Files.readAllBytes(noise);
      Path bad = images.qcow2From("bad.qcow2", noise);
      Path good = images.qcow2From("good.qcow2", noise);
      images.leaveUnchecked(bad);
      damage(bad, 1L << 40 | 1L << 63); // far behind the end of the file
      try (QnbdProcess server = QnbdProcess.serve("bad=" + bad, "good=" + good)) {
        try (NbdClient other = NbdClient.connect(server.uri("good"), style)) {
          useBoth(other, server, disk, style);
        }
        String said = server.errors();
        assertTrue(said.contains("corrupt"), said);
        server.stop("TERM", 1); // not all that it was given could be stored
      }
      String info = Shell.check("qemu-img", "info", bad.toString());
      assertTrue(info.contains("corrupt: true"), info);
      assertFalse(Shell.check("qemu-img", "info", good.toString()).contains("corrupt: true"));
      BadInputIT.assertRefused(
          QnbdProcess.run("serve", "--listen", "127.0.0.1:0", bad.toString()), 1, "corrupt");
    }
  }

  private static void useBoth(
      NbdClient other, QnbdProcess server, byte[] disk, NbdClient.Style style) throws IOException {
    try (NbdClient client = NbdClient.connect(server.uri("bad"), style)) {
      useDamaged(client, disk, server);
    }
    try (NbdClient again = NbdClient.connect(server.uri("bad"), style)) {
      assertArrayEquals(cluster(disk, 1), read(again, 1));
      assertRefused(again.write(CLUSTER, ByteBuffer.allocate(512), 0), server);
    }
    byte[] mine = new byte[CLUSTER];
    Arrays.fill(mine, (byte) 9);
    NbdClient.await(other.write(BAD * CLUSTER, ByteBuffer.wrap(mine), 0));
    NbdClient.await(other.flush());
    assertArrayEquals(mine, read(other, BAD));
  }

  /** Requests of all kinds, before and after it is found. */
  private static void useDamaged(NbdClient client, byte[] disk, QnbdProcess server)
      throws IOException {
    NbdClient.await(client.flush());
    List<CompletableFuture<Void>> reads = new ArrayList<>();
    List<byte[]> found = new ArrayList<>();
    for (int i = 0; i < CLUSTERS; i++) {
      byte[] bytes = new byte[CLUSTER];
      found.add(bytes);
      reads.add(client.read((long) i * CLUSTER, ByteBuffer.wrap(bytes)));
    }
    for (int i = 0; i < CLUSTERS; i++) {
      if (i == BAD) {
        assertRefused(reads.get(i), server);
      } else {
        NbdClient.await(reads.get(i));
        assertArrayEquals(cluster(disk, i), found.get(i));
      }
    }
    assertRefused(client.write(0, ByteBuffer.allocate(512), 0), server);
    assertRefused(client.trim(CLUSTER, CLUSTER, 0), server);
    assertRefused(client.writeZeroes(CLUSTER, CLUSTER, 0), server);
    assertRefused(client.flush(), server);
    assertRefused(client.read(BAD * CLUSTER, ByteBuffer.allocate(CLUSTER)), server);
    assertArrayEquals(cluster(disk, 0), read(client, 0));
    assertArrayEquals(cluster(disk, CLUSTERS - 1), read(client, CLUSTERS - 1));
  }
}
