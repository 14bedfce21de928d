package io.qnbd.server.net;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertNotNull;
import static org.junit.jupiter.api.Assertions.assertTrue;

import io.netty.buffer.ByteBuf;
import io.netty.buffer.UnpooledByteBufAllocator;
import io.qnbd.image.ZeroMode;
import io.qnbd.protocol.ReplyMode;
import io.qnbd.protocol.Request;
import io.qnbd.protocol.codec.ReplyEncoder;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.EnumSource;
import org.junit.jupiter.params.provider.ValueSource;

final class ReadReplyTest {
  private static final int DISK_BYTES = 1 << 20;
  private static final int DF = 4;
  private static final long COOKIE = 0x1122334455667788L;

  /** What the chunks of one reply said, put together again. */
  private static final class Parsed {
    final byte[] disk;
    final boolean[] told;
    int chunks;
    int holes;
    int dataChunks;
    int error;
    long errorOffset = -1;
    boolean done;

    Parsed(int bytes) {
      disk = new byte[bytes];
      told = new boolean[bytes];
    }
  }

  private static Parsed parse(ReplyMode mode, Request.Read request, ByteBuf reply) {
    Parsed parsed = new Parsed((int) request.bytes());
    while (reply.isReadable()) {
      assertFalse(parsed.done, "bytes after the last chunk");
      assertEquals(mode == ReplyMode.EXTENDED ? 0x6e8a278c : 0x668e33ef, reply.readInt());
      parsed.done = reply.readUnsignedShort() == 1;
      int type = reply.readUnsignedShort();
      assertEquals(COOKIE, reply.readLong());
      if (mode == ReplyMode.EXTENDED) {
        assertEquals(request.offset(), reply.readLong());
      }
      int bytes = mode == ReplyMode.EXTENDED ? (int) reply.readLong() : reply.readInt();
      parsed.chunks++;
      switch (type) {
        case 1 -> {
          int at = (int) (reply.readLong() - request.offset());
          reply.readBytes(parsed.disk, at, bytes - 8);
          tell(parsed, at, bytes - 8);
          parsed.dataChunks++;
        }
        case 2 -> {
          int at = (int) (reply.readLong() - request.offset());
          tell(parsed, at, reply.readInt());
          parsed.holes++;
        }
        case 0x8002 -> {
          parsed.error = reply.readInt();
          reply.skipBytes(reply.readUnsignedShort());
          parsed.errorOffset = reply.readLong();
        }
        default -> throw new AssertionError("chunk of type " + type);
      }
    }
    assertTrue(parsed.done, "no last chunk");
    return parsed;
  }

  private static void tell(Parsed parsed, int at, int bytes) {
    assertTrue(bytes > 0);
    for (int i = at; i < at + bytes; i++) {
      assertFalse(parsed.told[i], "told twice: " + i);
      parsed.told[i] = true;
    }
  }

  private static void assertAllTold(Parsed parsed) {
    for (int i = 0; i < parsed.told.length; i++) {
      assertTrue(parsed.told[i], "not told: " + i);
    }
  }

  private static Parsed read(MemoryImage image, ReplyMode mode, Request.Read request) {
    ReadReply reader =
        new ReadReply(new ReplyEncoder(mode), UnpooledByteBufAllocator.DEFAULT, request);
    ByteBuf reply = reader.read(image);
    try {
      return parse(mode, request, reply);
    } finally {
      assertTrue(reply.release());
    }
  }

  private static Request.Read request(int flags, long offset, long bytes) {
    return new Request.Read(flags, COOKIE, offset, bytes);
  }

  @ParameterizedTest
  @ValueSource(longs = {1, 2, 3, 4, 5, 6, 7, 8})
  void anyMixOfDataAndHolesComesTogetherAgain(long seed) throws Exception {
    Random random = new Random(seed);
    MemoryImage image = new MemoryImage(DISK_BYTES, false);
    byte[] disk = new byte[DISK_BYTES];
    for (int i = 0; i < 40; i++) {
      int bytes = random.nextInt(1, 20_000);
      int at = random.nextInt(DISK_BYTES - bytes);
      byte[] data = new byte[bytes];
      if (random.nextBoolean()) {
        random.nextBytes(data);
        image.write(at, ByteBuffer.wrap(data));
      } else {
        image.writeZeroes(at, bytes, ZeroMode.MAY_UNMAP);
      }
      System.arraycopy(data, 0, disk, at, bytes);
    }
    int holes = 0;
    for (int i = 0; i < 200; i++) {
      int bytes = random.nextInt(1, 1 << random.nextInt(1, 19));
      int at = random.nextInt(DISK_BYTES - bytes);
      ReplyMode mode = random.nextBoolean() ? ReplyMode.STRUCTURED : ReplyMode.EXTENDED;
      boolean whole = random.nextInt(4) == 0;
      Parsed parsed = read(image, mode, request(whole ? DF : 0, at, bytes));
      assertAllTold(parsed);
      byte[] expected = new byte[bytes];
      System.arraycopy(disk, at, expected, 0, bytes);
      assertArrayEquals(expected, parsed.disk, "seed " + seed + ", read " + i);
      if (whole) {
        assertEquals(1, parsed.chunks);
      }
      holes += parsed.holes;
    }
    assertTrue(holes > 20, "holes: " + holes);
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void anEmptyDiskIsOneHole(ReplyMode mode) {
    Parsed parsed = read(new MemoryImage(DISK_BYTES, false), mode, request(0, 0, DISK_BYTES));
    assertEquals(1, parsed.chunks);
    assertEquals(1, parsed.holes);
    assertAllTold(parsed);
  }

  @Test
  void dontFragmentGetsZeroesInFull() {
    MemoryImage image = new MemoryImage(DISK_BYTES, false);
    Parsed parsed = read(image, ReplyMode.STRUCTURED, request(DF, 0, DISK_BYTES));
    assertEquals(1, parsed.dataChunks);
    assertArrayEquals(new byte[DISK_BYTES], parsed.disk);
  }

  @ParameterizedTest
  @EnumSource(names = {"STRUCTURED", "EXTENDED"})
  void aFailureIsToldWithItsPlaceAndWhatComesBefore(ReplyMode mode) throws Exception {
    byte[] data = new byte[DISK_BYTES];
    new Random(1).nextBytes(data);
    MemoryImage image = new MemoryImage(DISK_BYTES, false);
    image.write(0, ByteBuffer.wrap(data));
    image.failReadsFrom(300_000);
    Request.Read request = request(0, 100_000, 400_000);
    ReadReply reader =
        new ReadReply(new ReplyEncoder(mode), UnpooledByteBufAllocator.DEFAULT, request);
    ByteBuf reply = reader.read(image);
    Parsed parsed = parse(mode, request, reply);
    assertTrue(reply.release());
    assertNotNull(reader.failure());
    assertEquals(5, parsed.error);
    assertTrue(parsed.errorOffset <= 300_000 && parsed.errorOffset > 300_000 - 4096);
    for (int i = 0; i < parsed.errorOffset - 100_000; i++) {
      assertTrue(parsed.told[i], "not told: " + i);
      assertEquals(data[100_000 + i], parsed.disk[i]);
    }
    assertFalse(parsed.told[(int) (parsed.errorOffset - 100_000)]);
  }

  @Test
  void aFailureAtTheStartIsAnErrorAlone() throws IOException {
    MemoryImage image = new MemoryImage(DISK_BYTES, false);
    image.failWith(new IOException("broken"));
    Parsed parsed = read(image, ReplyMode.STRUCTURED, request(0, 4096, 4096));
    assertEquals(1, parsed.chunks);
    assertEquals(4096, parsed.errorOffset);
  }
}
